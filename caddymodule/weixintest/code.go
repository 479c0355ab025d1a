package weixintest

import (
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"strings"
	"time"
)

// codeTTL is the life of a code of any kind (docs/wechat.md#login-code,
// #phone-code,
// #plugin-openpid).
const codeTTL = 5 * time.Minute

// MockCode is what wx.login yields in DevTools under an appid that WeChat does
// not know (docs/wechat.md#login-code).
const MockCode = "the code is a mock one"

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

type codeKind int

const (
	loginCode codeKind = iota
	phoneCode
	pluginCode
)

// code is a single-use code of one of three kinds, which are not
// interchangeable (docs/wechat.md#login-code).
type code struct {
	value   string
	kind    codeKind
	app     *app
	user    *user  // loginCode
	phone   string // phoneCode
	openpid string // pluginCode
	expires time.Time
	used    bool
}

// Code does what wx.login does on the phone of the named user: it returns a new
// code, 32 characters [0-9A-Za-z], good for one exchange within 5 minutes, and
// may renew the user's session_key (Config.KeyRefresh). Earlier codes stay
// good. An appid that is not in Config.Apps gets MockCode.
func (s *Simulator) Code(appid, user string) string {
	return s.mint(appid, func(a *app, now time.Time) *code {
		u := a.user(user)
		s.login(u, now)
		return &code{value: "0" + randomText(31, alphanumeric), kind: loginCode, user: u}
	})
}

// PhoneCode does what a getPhoneNumber button does: it returns a new code, 64
// lowercase hex characters, for a phone number. "13580006666" is a number of
// mainland China; one of another country is written "852-51230000". An appid
// that is not in Config.Apps gets MockCode.
func (s *Simulator) PhoneCode(appid, phone string) string {
	return s.mint(appid, func(*app, time.Time) *code {
		return &code{value: randomHex(32), kind: phoneCode, phone: phone}
	})
}

// PluginCode does what wx.pluginLogin does inside a plugin while it runs in a
// host mini program: it returns a new code, 64 lowercase hex characters, which
// the plugin's own server exchanges under the plugin's appid. A plugin that is
// not in Config.Apps gets MockCode; the host need not be there.
func (s *Simulator) PluginCode(plugin, host, user string) string {
	return s.mint(plugin, func(*app, time.Time) *code {
		openpid := OpenPID(plugin, host, user)
		return &code{value: randomHex(32), kind: pluginCode, openpid: openpid}
	})
}

// mint files a new code of a mini program and forgets the expired codes, which are then
// answered like unknown ones.
func (s *Simulator) mint(appid string, newCode func(*app, time.Time) *code) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, now := s.apps[appid], s.cfg.Now()
	if a == nil {
		return MockCode
	}
	c := newCode(a, now)
	c.app = a
	for len(s.minted) > 0 && !now.Before(s.minted[0].expires) {
		delete(s.codes, s.minted[0].value)
		s.minted = s.minted[1:]
	}
	c.expires = now.Add(codeTTL)
	s.codes[c.value] = c
	s.minted = append(s.minted, c)
	return c.value
}

// find returns a code of the right kind that has not expired, used or not.
func (s *Simulator) find(value string, kind codeKind, now time.Time) *code {
	c := s.codes[value]
	if c == nil || c.kind != kind || !now.Before(c.expires) {
		return nil
	}
	return c
}

func randomText(n int, alphabet string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[mathrand.IntN(len(alphabet))]
	}
	return string(b)
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func randomHex(n int) string { return hex.EncodeToString(randomBytes(n)) }

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

// watermark tells whom and of when data is (docs/wechat.md#decryption).
type watermark struct {
	Timestamp int64  `json:"timestamp"`
	AppID     string `json:"appid"`
}

// exchange spends the code of a JSON body {"code": ...}. Anything but a fresh
// code of the right kind and mini program earns the errcode bad.
func (s *Simulator) exchange(q *query, kind codeKind, bad int) (*code, int) {
	var in struct {
		Code string `json:"code"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	if in.Code == "" {
		return nil, 41008
	}
	q.call.noteCode(in.Code)
	c := s.find(in.Code, kind, q.now)
	if c == nil || c.app != q.app || c.used {
		return nil, bad
	}
	c.used = true
	return c, 0
}

// phoneNumber is POST /wxa/business/getuserphonenumber
// (docs/wechat.md#phone-code).
func (s *Simulator) phoneNumber(q *query) (any, int) {
	c, code := s.exchange(q, phoneCode, 40029)
	if code != 0 {
		return nil, code
	}
	type phoneInfo struct {
		PhoneNumber     string    `json:"phoneNumber"`
		PurePhoneNumber string    `json:"purePhoneNumber"`
		CountryCode     string    `json:"countryCode"`
		Watermark       watermark `json:"watermark"`
	}
	info := phoneInfo{c.phone, c.phone, "86", watermark{q.now.Unix(), q.app.id}}
	if country, pure, foreign := strings.Cut(c.phone, "-"); foreign {
		info.PhoneNumber, info.PurePhoneNumber, info.CountryCode = country+pure, pure, country
	}
	return struct {
		outcome
		PhoneInfo phoneInfo `json:"phone_info"`
	}{succeeded(), info}, 0
}

// pluginOpenPID is POST /wxa/getpluginopenpid. Codes that are wrong in any way
// are answered alike (docs/wechat.md#plugin-openpid).
func (s *Simulator) pluginOpenPID(q *query) (any, int) {
	c, code := s.exchange(q, pluginCode, 1007)
	if code != 0 {
		return nil, code
	}
	return struct {
		outcome
		OpenPID string `json:"openpid"`
	}{succeeded(), c.openpid}, 0
}
