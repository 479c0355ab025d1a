package gate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func TestThreat7_HeaderNames(t *testing.T) {
	for _, name := range []string{
		"X-WX-OPENID", "x-user-id", "Remote-User", "X_User",
		"X-Wx-Custom", "User.Id",
	} {
		if err := gate.ValidateHeaderName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "a b", "a:b", "名", "a\r\n", "a/b", "a,b", // no tokens
		"Connection", "connection", "Keep-Alive", "Keep_Alive", "Proxy-Authorization", "proxy-x",
		"TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"HTTP2-Settings", "Host", "Cookie", "Set-Cookie", "Content-Length", "Content-Whatever",
		"Content_Type", "Authorization", "Sec-WebSocket-Key",
		"Forwarded", "X-Forwarded-For", "X_Forwarded_User", "X-Real-IP", "X-Wxgate",
	} {
		if name == "" {
			continue // the default
		}
		for _, h := range gate.Headers {
			wantError(t, renamed(h.Word, name), name)
		}
		if name != "Authorization" { // the Bearer form
			wantError(t, gate.Config{TokenHeader: name}, name)
		}
	}
	for _, name := range []string{"", "a b"} {
		if gate.ValidateHeaderName(name) == nil || gate.ValidateTokenHeader(name) == nil {
			t.Errorf("%q accepted", name)
		}
	}
	wantError(t, gate.Config{TokenHeader: "X-WX-Token"}, "X-WX-Token")
	wantError(t, gate.Config{TokenHeader: "x_wx_token"}, "x_wx_token")
	wantError(t, gate.Config{TokenPrefix: "wxs "}, "wxs ")
}

func TestThreat7_HeaderNamesMustDifferAfterFolding(t *testing.T) {
	wantError(t, renamed("openid", "X-User", "unionid", "x_user"), "X_user")
	wantError(t, renamed("openid", "x-wx-appid"), "X-Wx-Appid")
	wantError(t, renamed("source", "X.WX.OPENID"), "X.wx.openid")
	wantError(t, renamed("phone", "X-Wx_Unionid"), "X-Wx_unionid")
	wantError(t, renamed("openid", "X-WX-Phone"), "X-Wx-Phone")
	wantError(t, renamed("appid", "X_3rd_Session"), "X_3rd_session")
	wantError(t, gate.Config{
		Headers:     map[string]string{"appid": "X-3rd-Session"},
		TokenHeader: "X-Token",
	}, "X-3rd-Session")
	wantError(t, gate.Config{
		Headers:     map[string]string{"appid": "X-Token"},
		TokenHeader: "x_token",
	}, "X-Token")
	for _, c := range []gate.Config{
		{},
		{TokenHeader: "X_3rd_Session"},
		{TokenHeader: "authorization"},
		renamed("openid", "x-user"),
	} {
		if _, err := gate.New(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNew_Patterns(t *testing.T) {
	for _, p := range []string{
		"/", "/*", "/healthz", "/assets/*", "/assets/", "/a/b.c/*",
		"/%E4%BD%A0/*", "/a(1)", "/@me", "/a%20b", "/wxfoo/*", "/wx-static/*",
	} {
		if _, err := gate.New(gate.Config{Public: []string{p}}); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{
		"", "*", "healthz", "a/*", "/a*", "/*a", "/a/*/b", "/*/", "/**", "/a/**", "/*.png", "//",
		"//*", "/a//b", "/a/../b", "/a/.", "/..", "/./*",
		"/a?b", "/a#b", "/a;b", `/a\b`, "/你", "/%e4%bd%a0", "/%61", "/%2F", "/%25", "/a b", "/%",
		"/%zz", "/%FF", "/[a]", "/a%3Fb", "/\x00",
		"/wx", "/wx/*", "/wx/login", "/WX/x", "/wx/", "http://x/a", "/wx./*",
	} {
		wantError(t, gate.Config{Public: []string{"/ok", p}}, p)
		wantError(t, gate.Config{Optional: []string{p}}, p)
	}
	wantError(t, gate.Config{Public: []string{"/a", "/b", "/a"}}, "/a")
	wantError(t, gate.Config{Public: []string{"/a/*"}, Optional: []string{"/a/*"}}, "/a/*")
	if _, err := gate.New(gate.Config{
		Public:   []string{"/a", "/a/"},
		Optional: []string{"/a/*"},
	}); err != nil {
		t.Error(err)
	}
}

func TestNew_Endpoints(t *testing.T) {
	for _, p := range []string{"/wx", "/api/wx", "/WX_2", "/a-b/c"} {
		if _, err := gate.New(gate.Config{Endpoints: p}); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{
		"/", "wx", "/wx/", "/wx/*", "//wx", "/a/../wx", "/w%78", "/你",
		"/%E4%BD%A0", "/wx.", "/w x", "/wx?", "/wx;a", `/w\x`, "*",
	} {
		wantError(t, gate.Config{Endpoints: p}, p)
	}
	if gate.ValidateEndpoints("") == nil {
		t.Error("empty prefix accepted")
	}
}

// renamed gives headers other names, each after its word.
func renamed(wordsAndNames ...string) gate.Config {
	c := gate.Config{Headers: make(map[string]string)}
	for pair := range slices.Chunk(wordsAndNames, 2) {
		c.Headers[pair[0]] = pair[1]
	}
	return c
}

// wantError checks that New refuses c, naming the word at fault and what to do.
func wantError(t *testing.T, c gate.Config, word string) {
	t.Helper()
	_, err := gate.New(c)
	if err == nil {
		t.Errorf("%+v accepted", c)
		return
	}
	var quoted bool
	for _, q := range []string{
		`"` + word + `"`,
		strings.Trim(strings.ReplaceAll(word, `\`, `\\`), `"`),
	} {
		quoted = quoted || strings.Contains(err.Error(), q)
	}
	if !quoted && strings.ContainsFunc(word, func(c rune) bool { return c >= ' ' && c < 0x7f }) &&
		!strings.ContainsAny(word, "\r\x00") {
		t.Errorf("%q: the error does not name the word: %v", word, err)
	}
	if !strings.ContainsAny(err.Error(), ";") {
		t.Errorf("%q: the error names no cure: %v", word, err)
	}
}
