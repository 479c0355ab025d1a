package weixin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

const redacted = "[redacted]"

// Credentials are a mini program's appid, its AppSecret and the source of its
// access tokens. Printing, logging or marshalling them shows no secret, also
// behind a pointer and in a slice, map or exported field. fmt calls no methods on
// unexported fields, so do not print a struct that has one.
type Credentials struct {
	ID     string // appid
	Secret string // AppSecret

	// Previous, if set, is another AppSecret: the one before a reset in the WeChat
	// console, or the one that a reset will end.
	Previous string

	// TokenFile, if set, is the file in which another process keeps the access
	// token. code2Session needs none.
	TokenFile TokenFile

	// Platform, if set, is the third-party platform that the mini program has
	// authorised, and takes the place of all the others.
	Platform Platform
}

// TokenFile names a file that holds an access token, and white space at most.
// The process that renews the token rewrites the file.
type TokenFile struct {
	Path string

	// Cloud marks a token of WeChat Cloud Hosting, which calls carry as
	// cloudbase_access_token (docs/wechat.md#cloud-token).
	Cloud bool
}

// SecretInUse says which AppSecret of a mini program WeChat has accepted.
type SecretInUse string

// The AppSecrets.
const (
	CurrentSecret  SecretInUse = "current"
	PreviousSecret SecretInUse = "previous"
)

// secrets remembers which AppSecret of each mini program WeChat accepts. The zero
// value is ready: it prefers the current ones.
type secrets struct {
	tell func(appID string, in SecretInUse)

	mu       sync.Mutex
	previous map[Credentials]bool
}

// inUse returns which of the two AppSecrets to send.
func (s *secrets) inUse(app Credentials) SecretInUse {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.previous[app] {
		return PreviousSecret
	}
	return CurrentSecret
}

// use records that WeChat has accepted an AppSecret.
func (s *secrets) use(app Credentials, in SecretInUse) {
	s.mu.Lock()
	changed := s.previous[app] != (in == PreviousSecret)
	if s.previous == nil {
		s.previous = make(map[Credentials]bool)
	}
	s.previous[app] = in == PreviousSecret
	s.mu.Unlock()
	if changed && s.tell != nil {
		s.tell(app.ID, in)
	}
}

// SecretInUse returns which AppSecret of a mini program the client sends.
func (c *Client) SecretInUse(app Credentials) SecretInUse { return c.secrets.inUse(app) }

// withSecret makes a call with the AppSecret in use, and once more with the other
// one when WeChat refuses it. WeChat judges the AppSecret before the code, so a
// code is not spent then. One deadline covers both.
func withSecret[T any](
	ctx context.Context, c *Client, app Credentials,
	send func(ctx context.Context, secret string) (T, error),
) (T, error) {
	if app.Previous == "" {
		return send(ctx, app.Secret)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	other := map[SecretInUse]SecretInUse{
		CurrentSecret: PreviousSecret, PreviousSecret: CurrentSecret,
	}
	in := c.secrets.inUse(app)
	for second := false; ; second = true {
		secret := app.Secret
		if in == PreviousSecret {
			secret = app.Previous
		}
		result, err := send(ctx, secret)
		e, refused := errors.AsType[*Error](err)
		refused = refused && e.ErrCode == secretInvalid
		if second && !refused && acceptsSecret(classOf(err)) {
			c.secrets.use(app, in)
		}
		if second || !refused {
			return result, err
		}
		in = other[in]
	}
}

// acceptsSecret reports whether a call of this outcome had a good AppSecret.
func acceptsSecret(c Class) bool {
	switch c {
	case ClassOK, ClassCodeInvalid, ClassCodeUsed, ClassUserBlocked, ClassRateLimited:
		return true
	}
	return false
}

// String returns the credentials without the secret.
func (c Credentials) String() string {
	return fmt.Sprintf("Credentials{ID: %q, Secret: %s}", c.ID, redacted)
}

// Format writes String for every verb: %d and %x would print the fields.
func (c Credentials) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue returns the appid only.
func (c Credentials) LogValue() slog.Value { return slog.GroupValue(slog.String("appid", c.ID)) }

// MarshalJSON writes the appid only.
func (c Credentials) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]string{"appid": c.ID})
}

// Session is the answer of code2Session. Printing, logging or marshalling it
// shows no session_key, within the limits of [Credentials].
type Session struct {
	OpenID     string // 1 to 128 visible ASCII characters, so it may go into a header
	SessionKey string // 1 to 128 visible ASCII characters; WeChat sends base64 of 16 bytes
	UnionID    string // empty when unknown (docs/wechat.md#unionid), else shaped like OpenID
}

// String returns the session without its key.
func (s Session) String() string {
	return fmt.Sprintf("Session{OpenID: %q, SessionKey: %s, UnionID: %q}",
		s.OpenID, redacted, s.UnionID)
}

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

// unprintable hides the struct that embeds it from fmt, slog, encoding/json and
// loggers built on them, within the limits of [Credentials].
type unprintable struct{}

// String returns "[redacted]".
func (unprintable) String() string { return redacted }

// Format writes String for every verb.
func (unprintable) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns String.
func (unprintable) MarshalText() ([]byte, error) { return []byte(redacted), nil }
