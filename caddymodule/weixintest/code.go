package weixintest

import (
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
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
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return MockCode
	}
	now := s.cfg.Now()
	u := a.user(user)
	s.login(u, now)
	value := "0" + randomText(31, alphanumeric)
	return s.mint(now, &code{value: value, kind: loginCode, app: a, user: u})
}

// PhoneCode does what a getPhoneNumber button does: it returns a new code, 64
// lowercase hex characters, for a phone number. "13580006666" is a number of
// mainland China; one of another country is written "852-51230000". An appid
// that is not in Config.Apps gets MockCode.
func (s *Simulator) PhoneCode(appid, phone string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return MockCode
	}
	return s.mint(s.cfg.Now(), &code{value: randomHex(32), kind: phoneCode, app: a, phone: phone})
}

// PluginCode does what wx.pluginLogin does inside a plugin while it runs in a
// host mini program: it returns a new code, 64 lowercase hex characters, which
// the plugin's own server exchanges under the plugin's appid. A plugin that is
// not in Config.Apps gets MockCode; the host need not be there.
func (s *Simulator) PluginCode(plugin, host, user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[plugin]
	if a == nil {
		return MockCode
	}
	c := &code{value: randomHex(32), kind: pluginCode, app: a}
	c.openpid = OpenPID(plugin, host, user)
	return s.mint(s.cfg.Now(), c)
}

// mint files c and forgets the expired codes, which are then answered like
// unknown ones.
func (s *Simulator) mint(now time.Time, c *code) string {
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
