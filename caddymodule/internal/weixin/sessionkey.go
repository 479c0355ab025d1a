package weixin

import (
	"context"
	"net/url"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const (
	opCheck = "checking session_key"
	opReset = "resetting session_key"
)

// signed is the query of a call in the name of a user (WECHAT.md 4).
func signed(s Session) url.Values {
	return url.Values{
		"openid":     {s.OpenID},
		"signature":  {opendata.Signature(s.SessionKey, nil)},
		"sig_method": {"hmac_sha256"},
	}
}

// checkUser refuses what cannot be signed: under an empty key everybody could.
func checkUser(op string, s Session) *Error {
	if isVisible(s.OpenID, maxID) && isVisible(s.SessionKey, maxID) {
		return nil
	}
	return &Error{Op: op, Class: ClassKeyStale, Reason: "no usable openid and session_key of the user are known: a new wx.login brings them"}
}

// CheckSession asks WeChat whether s holds the user's present session_key (WECHAT.md 4): nil if so, an error of ClassKeyStale if not. Any
// error is an [*Error].
func (c *Client) CheckSession(ctx context.Context, app Credentials, s Session) error {
	if e := checkUser(opCheck, s); e != nil {
		return e
	}
	return c.authorized(ctx, app, call{name: "checksession", op: opCheck, path: "wxa/checksession", query: signed(s)}, decodeCheck)
}

// decodeCheck demands an errcode: without one, any JSON object of any server would do for a yes.
func decodeCheck(a answer) *Error {
	var r envelope
	if e := a.decode(&r, &r); e != nil {
		return e
	}
	if r.ErrCode == nil {
		return a.nonsense("the answer holds no errcode")
	}
	return nil
}

// ResetUserSessionKey has WeChat replace the session_key that s holds and returns s with the new one, which inherits the end of the old
// (WECHAT.md 4). The old key is dead as soon as WeChat has the call, whether or not its answer arrives; of the errors, only one with
// an errcode other than -1 says that nothing has changed. Any error is an [*Error].
func (c *Client) ResetUserSessionKey(ctx context.Context, app Credentials, s Session) (Session, error) {
	if e := checkUser(opReset, s); e != nil {
		return Session{}, e
	}
	var fresh Session
	k := call{name: "resetusersessionkey", op: opReset, path: "wxa/resetusersessionkey", query: signed(s)}
	err := c.authorized(ctx, app, k, func(a answer) (e *Error) {
		fresh, e = decodeReset(a, s)
		return e
	})
	return fresh, err
}

// decodeReset accepts a session_key for the very user who was asked for.
func decodeReset(a answer, s Session) (Session, *Error) {
	fresh, e := decodeSession(a)
	if e != nil {
		return Session{}, e
	}
	if fresh.OpenID != s.OpenID {
		return Session{}, a.nonsense("the answer holds the session_key of another user")
	}
	fresh.UnionID = s.UnionID
	return fresh, nil
}
