package weixin

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// App is a mini program, its AppSecret and where its access tokens come from. Printing, logging or marshalling it shows no secret. That holds for an App by itself, behind a
// pointer, in a slice, map or exported field; fmt calls no methods on unexported fields, so do not print a struct that has one.
type App struct {
	ID     string // appid
	Secret string // AppSecret

	// TokenFile, if set, is where somebody else keeps the access token; code2Session does not look at it.
	TokenFile TokenFile
}

// TokenFile names a file that holds an access token and nothing else but white space. Whoever renews the token rewrites the file.
type TokenFile struct {
	Path string

	// Cloud says that the token is that of WeChat Cloud Hosting, which calls carry as cloudbase_access_token (WECHAT.md 8.5).
	Cloud bool
}

// String returns the app without its secret.
func (a App) String() string { return fmt.Sprintf("App{ID: %q, Secret: %s}", a.ID, redacted) }

// GoString is String, for printers that look for it.
func (a App) GoString() string { return a.String() }

// Format writes String for every verb: %d and %x would otherwise walk through the fields.
func (a App) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, a.String()) }

// LogValue returns the appid only.
func (a App) LogValue() slog.Value { return slog.GroupValue(slog.String("appid", a.ID)) }

// MarshalJSON writes the appid only.
func (a App) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID string `json:"appid"`
	}{a.ID})
}

// Session is the answer of code2Session. Printing, logging or marshalling it shows no session_key, with the limit told at [App].
type Session struct {
	OpenID     string // 1 to 128 visible ASCII characters, so it may go into a header
	SessionKey string // 1 to 128 visible ASCII characters; WeChat makes it base64 of 16 bytes
	UnionID    string // empty when unknown (WECHAT.md 2.5), else shaped like OpenID
}

// String returns the session without its key.
func (s Session) String() string {
	return fmt.Sprintf("Session{OpenID: %q, SessionKey: %s, UnionID: %q}", s.OpenID, redacted, s.UnionID)
}

// GoString is String, for printers that look for it.
func (s Session) GoString() string { return s.String() }

// Format writes String for every verb.
func (s Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns openid and unionid only.
func (s Session) LogValue() slog.Value {
	return slog.GroupValue(slog.String("openid", s.OpenID), slog.String("unionid", s.UnionID))
}

// MarshalJSON writes openid and unionid only.
func (s Session) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		OpenID  string `json:"openid"`
		UnionID string `json:"unionid,omitempty"`
	}{s.OpenID, s.UnionID})
}

// unprintable makes whatever embeds it so: fmt, slog, encoding/json and loggers built on them show nothing of it, with the limit told at
// [App].
type unprintable struct{}

// String returns "[redacted]".
func (unprintable) String() string { return redacted }

// Format writes String for every verb.
func (unprintable) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns String.
func (unprintable) MarshalText() ([]byte, error) { return []byte(redacted), nil }
