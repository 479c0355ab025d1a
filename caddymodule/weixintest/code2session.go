package weixintest

import "time"

// exchangesPerMinute is WeChat's limit of exchanges for one user
// (docs/wechat.md#code2session-limits).
const exchangesPerMinute = 100

// code2Session is GET /sns/jscode2session (docs/wechat.md#code2session). Only
// parameters in the query count.
func (s *Simulator) code2Session(q *query) (any, int) {
	appid, secret, value := q.Get("appid"), q.Get("secret"), q.Get("js_code")
	q.call.noteCode(value)
	switch {
	case appid == "":
		return nil, 41002
	case secret == "":
		return nil, 41004
	case value == "":
		return nil, 41008
	case q.Get("grant_type") != "authorization_code":
		return nil, 40002
	}
	a := s.apps[appid]
	if a == nil {
		return nil, 40013
	}
	q.call.AppID = a.id
	if secret != a.secret {
		return nil, 40125
	}
	return s.spend(q, a, value)
}

// spend exchanges a code of a mini program.
func (s *Simulator) spend(q *query, a *app, value string) (any, int) {
	c := s.find(value, loginCode, q.now)
	if c == nil || c.app != a {
		return nil, 40029
	}
	u := c.user
	q.call.noteUser(u)
	if c.used {
		return nil, 40163
	}
	if !u.mayExchange(q.now) {
		return nil, 45011 // the code stays good for the next minute
	}
	c.used = true
	if u.opts.Blocked {
		return nil, 40226
	}
	return struct {
		SessionKey string `json:"session_key"`
		OpenID     string `json:"openid"`
		UnionID    string `json:"unionid,omitempty"`
	}{s.key(u), u.openid, u.unionID()}, 0
}

func (u *user) mayExchange(now time.Time) bool {
	if m := now.Truncate(time.Minute); !m.Equal(u.minute) {
		u.minute, u.exchanges = m, 0
	}
	u.exchanges++
	return u.exchanges <= exchangesPerMinute
}
