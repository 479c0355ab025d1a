package weixin

import (
	"context"
	"net/url"
)

const (
	maxCode = 256 // WECHAT.md 12.5: the length is not documented, so it is only bounded
	maxID   = 128 // appid, AppSecret, openid, unionid, session_key: several times what WeChat uses

	opExchange = "exchanging code"

	// mockCode is what the developer tools hand out instead of a code (WECHAT.md 1).
	mockCode = "the code is a mock one"
)

// Code2Session exchanges a wx.login code for the user's identity (WECHAT.md 2.1). Any error is an [*Error].
//
// A code is worth one exchange, so it is sent once. It is sent again, once, only if it provably was not sent before, or after errcode -1.
// A code, appid or AppSecret of impossible shape is refused without a call. A call that runs into the caller's deadline counts as
// WeChat's failure, one that the caller cancels does not.
func (c *Client) Code2Session(ctx context.Context, app Credentials, code string) (Session, error) {
	if e := checkExchange(app, code); e != nil {
		return Session{}, e
	}
	var s Session
	err := c.do(ctx, c.login, call{
		name: "code2session",
		op:   opExchange,
		path: "sns/jscode2session",
		query: url.Values{
			"appid":      {app.ID},
			"secret":     {app.Secret},
			"js_code":    {code},
			"grant_type": {"authorization_code"},
		},
	}, func(a answer) (e *Error) {
		s, e = decodeSession(a)
		return e
	})
	return s, err
}

// checkExchange catches here what WeChat would answer with 40029, 40013 or 40125 and a less helpful text (WECHAT.md 11.6, 11.7, 11.29).
func checkExchange(app Credentials, code string) *Error {
	if e := checkCode(opExchange, code, "wx.login"); e != nil {
		return e
	}
	return checkApp(opExchange, app)
}

// checkCode refuses what cannot be a code of source.
func checkCode(op, code, source string) *Error {
	e := &Error{Op: op, Class: ClassCodeInvalid}
	switch {
	case code == mockCode:
		e.Reason = "the developer tools sent a mock code: open the client project with the mini program's own appid"
	case !isVisible(code, maxCode):
		e.Reason = "a code has 1 to 256 visible ASCII characters: send the string that " + source + " returned"
	default:
		return nil
	}
	return e
}

// checkApp refuses an appid or AppSecret that cannot be one.
func checkApp(op string, app Credentials) *Error {
	if e := checkAppID(op, app); e != nil {
		return e
	}
	if !isVisible(app.Secret, maxID) {
		return &Error{Op: op, Class: ClassMisconfigured, Reason: "the AppSecret is empty, too long, or holds a space or line break: correct the configuration"}
	}
	return nil
}

func checkAppID(op string, app Credentials) *Error {
	if !isVisible(app.ID, maxID) {
		return &Error{Op: op, Class: ClassMisconfigured, Reason: "the appid is empty, too long, or holds a space or line break: correct the configuration"}
	}
	return nil
}

type sessionReply struct {
	envelope
	OpenID     text `json:"openid"`
	SessionKey text `json:"session_key"`
	UnionID    text `json:"unionid"`
}

// decodeSession accepts an answer only if it refuses nothing and holds a usable openid and session_key (WECHAT.md 12.4). A unionid of
// impossible shape counts as absent: it is optional, and it would go into a header (THREATS.md 30).
func decodeSession(a answer) (Session, *Error) {
	var r sessionReply
	if e := a.decode(&r, &r.envelope); e != nil {
		return Session{}, e
	}
	if !isVisible(string(r.OpenID), maxID) {
		return Session{}, a.nonsense("the answer holds no usable openid")
	}
	if !isVisible(string(r.SessionKey), maxID) {
		return Session{}, a.nonsense("the answer holds no usable session_key")
	}
	s := Session{OpenID: string(r.OpenID), SessionKey: string(r.SessionKey)}
	if isVisible(string(r.UnionID), maxID) {
		s.UnionID = string(r.UnionID)
	}
	return s, nil
}

// isVisible reports whether s has 1 to limit characters, all of them visible ASCII.
func isVisible(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
