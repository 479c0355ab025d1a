package weixin

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// App is a mini program and its AppSecret. Printing, logging or marshalling it shows no secret. That holds for an App by itself, behind a
// pointer, in a slice, map or exported field; fmt calls no methods on unexported fields, so do not print a struct that has one.
type App struct {
	ID     string // appid
	Secret string // AppSecret
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
