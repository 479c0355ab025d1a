package weixin

import (
	"context"
	"net/url"
	"strings"
)

const (
	maxCode = 256 // a bound: WeChat documents no length (docs/wechat.md#code-shape)
	maxID   = 128 // of appid, AppSecret, openid, unionid and session_key: generous

	opExchange = "exchanging code"

	// mockCode is the code of the developer tools without an appid
	// (docs/wechat.md#mock-code).
	mockCode = "the code is a mock one"
)

// Code2Session exchanges a wx.login code for the user's identity
// (docs/wechat.md#code2session-request). Any error is an [*Error].
//
// WeChat accepts a code once, so the code is sent a second time only if the
// first request did not leave this process, after errcode -1, or with the other
// AppSecret after 40125. Malformed arguments make no call. The caller's deadline
// counts as WeChat's failure, the caller's cancellation does not.
func (c *Client) Code2Session(ctx context.Context, app Credentials, code string) (Session, error) {
	e := checkCode(opExchange, code, "wx.login")
	if e == nil {
		e = checkSecret(opExchange, app)
	}
	if e != nil {
		return Session{}, e
	}
	if app.Platform != nil {
		return c.componentSession(ctx, app, code)
	}
	return withSecret(ctx, c, app, func(ctx context.Context, secret string) (Session, error) {
		return do(ctx, c, c.login, call{
			name: "code2session",
			app:  app.ID,
			op:   opExchange,
			path: "sns/jscode2session",
			query: url.Values{
				"appid":      {app.ID},
				"secret":     {secret},
				"js_code":    {code},
				"grant_type": {"authorization_code"},
			},
			odd: isOdd(code),
		}, decodeSession)
	})
}

// isOdd reports whether a code holds other characters than WeChat's codes do. A
// filter on the way may answer it with a page, which must not stop the logins of
// others.
func isOdd(code string) bool {
	return strings.ContainsFunc(code, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' ||
			r == '-' || r == '_')
	})
}

// checkCode refuses a string that is not a code, where WeChat would answer with
// a less helpful errcode.
func checkCode(op, code, source string) *Error {
	e := &Error{Op: op, Class: ClassCodeInvalid}
	switch {
	case code == mockCode:
		e.Reason = "the developer tools sent a mock code: " +
			"open the client project with the mini program's own appid"
	case !isVisible(code, maxCode):
		e.Reason = "a code has 1 to 256 visible ASCII characters: send the string that " +
			source + " returned"
	default:
		return nil
	}
	return e
}

// checkSecret refuses malformed credentials, which a typing error in the
// configuration makes (docs/wechat.md#appid-typos).
func checkSecret(op string, app Credentials) *Error {
	if e := checkAppID(op, app); e != nil || app.Platform != nil {
		return e
	}
	if app.Previous != "" {
		if e := checkConfigured(op, "previous AppSecret", app.Previous); e != nil {
			return e
		}
	}
	return checkConfigured(op, "AppSecret", app.Secret)
}

func checkAppID(op string, app Credentials) *Error { return checkConfigured(op, "appid", app.ID) }

func checkConfigured(op, name, value string) *Error {
	if isVisible(value, maxID) {
		return nil
	}
	return &Error{Op: op, Class: ClassMisconfigured, Reason: "the " + name +
		" is empty, too long, or holds a space or line break: correct the configuration"}
}

// decodeSession accepts an answer that refuses nothing and holds a usable openid
// and session_key (docs/wechat.md#judge-answers). It drops a malformed unionid,
// which is optional and would go into a header (docs/threats.md#t30).
func decodeSession(a answer) (Session, *Error) {
	var r struct {
		envelope
		OpenID     text `json:"openid"`
		SessionKey text `json:"session_key"`
		UnionID    text `json:"unionid"`
	}
	e := a.decode(&r, &r.envelope)
	if e == nil {
		e = a.requireVisible("openid", r.OpenID)
	}
	if e == nil {
		e = a.requireVisible("session_key", r.SessionKey)
	}
	if e != nil {
		return Session{}, e
	}
	s := Session{OpenID: string(r.OpenID), SessionKey: string(r.SessionKey)}
	if isVisible(string(r.UnionID), maxID) {
		s.UnionID = string(r.UnionID)
	}
	return s, nil
}

// isVisible reports whether s has 1 to limit characters, all of them visible
// ASCII.
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
