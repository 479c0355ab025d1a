//go:build unix

package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

// victim is the user whom every forgery claims to be.
const victim = "victim"

// punctuation may stand in a header name beside letters, digits and hyphens
// (RFC 9110 5.6.2).
const punctuation = "_.!~^*+'|#$%&`"

// everyName repeats names of the openid for the other identity headers.
func everyName(names ...string) []string {
	all := slices.Clone(names)
	for _, other := range []string{"UNIONID", "APPID", "SOURCE"} {
		for _, name := range names {
			all = append(all, strings.Replace(name, "OPENID", other, 1))
		}
	}
	return all
}

// aliasesWith are the spellings with one mark in the place of hyphens.
func aliasesWith(mark string) []string {
	return []string{
		"X" + mark + "WX" + mark + "OPENID", "X" + mark + "WX-OPENID", "X-WX" + mark + "OPENID",
	}
}

// aliases are spellings that a server may take for X-WX-OPENID.
func aliases() []string {
	names := []string{
		"X-WX-OPENID", "X-Wx-Openid", "x-wx-openid", "x-WX-oPeNiD", "x_wx_openid",
		"X_WX.OPENID", "X.WX!OPENID", "x~Wx^Openid", "X|WX`OPENID",
	}
	for _, mark := range strings.Split(punctuation, "") {
		names = append(names, aliasesWith(mark)...)
	}
	return names
}

// strangers are names that come close. No server is known to take them for ours;
// the app may see them as what they are.
var strangers = []string{
	"X--WX-OPENID", "X__WX__OPENID", "X-_WX-OPENID", "X.~WX~OPENID", "-X-WX-OPENID", "_X_WX_OPENID",
	"HTTP_X_WX_OPENID", "Http-X-Wx-Openid", "HTTP-HTTP-X-WX-OPENID", "Redirect-Http-X-Wx-Openid",
	"XWX-OPENID", "X-WXOPENID",
}

// belongings begin as ours do; no client may send them whatever their end.
var belongings = []string{
	"X-WX-OPENID-", "X_WX_OPENID_", "X-WX--OPENID", "X_WX_ANYTHING", "X~Wx~Env",
}

// forging writes header lines that claim to be the victim.
func forging(names ...string) (lines []string) {
	for _, name := range names {
		lines = append(lines, name+": "+victim)
	}
	return lines
}

// mountPoint is the header by which gunicorn lets a proxy say where the app is
// mounted.
const mountPoint = "SCRIPT_NAME: /public"

// credentialOnly is a request with tokens in the lines given. The arena sends it
// as one of nobody's; here it is sent with every credential.
func credentialOnly(lines ...string) string {
	return strings.Replace(get(lines...), "{auth}", "", 1)
}

// appAttacks are the attacks in front of a real app: the table, and forgeries
// that some platform is known to believe.
func appAttacks() []attack {
	rows := only(table(), 1, 2, 3, 4, 6)
	rows = slices.DeleteFunc(rows, func(r attack) bool { return r.Bytes == "" })
	strange := rowOf("strangers", get(forging(strangers...)...), nil)
	for _, name := range strangers {
		strange.harmless = append(strange.harmless, folded(name))
	}
	var misspelt []string
	for _, mark := range strings.Split(punctuation, "") {
		misspelt = append(misspelt, "X"+mark+"3rd"+mark+"Session: {good}",
			"X-3rd"+mark+"Session: {good}")
	}
	return append(
		rows, strange,
		rowOf("all spellings", get(forging(aliases()...)...), nil),
		rowOf("belongings", get(forging(belongings...)...), nil),
		rowOf("user of another proxy", get("Remote-User: victim", "REMOTE_USER: victim",
			"X-Remote-User: victim", "Auth-User: victim", "Redirect-Remote-User: victim"), nil),
		rowOf("path of another server", get("Script-Filename: /admin", "Path-Info: /admin",
			"Request-Uri: /admin", "X-Script-Name: /public"), nil),
		rowOf("basic auth of the app's own", get("Proxy-Authorization: Basic dmljdGltOng="), nil),
		rowOf("mount point",
			strings.Replace(getAt("/public/admin"), "{auth}", mountPoint+"\r\n", 1), anything),
		rowOf("misspelt token header", get(misspelt...), nil),
		rowOf("bare token", credentialOnly("Authorization: {dead}"), oneBad),
		rowOf("dead token, twice", credentialOnly(
			"aUTHORIZATION: bEARER\t {dead} ", bearer("{dead}"), "x-3RD-session: {dead}"), oneBad),
		rowOf("folded token", credentialOnly(
			"Authorization: Bearer\r\n\t{dead}", "X-3rd-Session:\r\n {dead}"), oneBad),
	)
}

// attacks sends rows through a gate, to every kind of route.
// TestThreat1to9_Headers checks each credential; here the app counts.
func (s *stage) attacks(t *testing.T, addr string, rows []attack) {
	none, bad, good := s.creds[0], s.creds[1], s.creds[2]
	for i, r := range rows {
		if s.few && i%3 > 0 {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			routes := map[route][]credential{
				public: {good}, optional: {none}, required: {bad, good},
			}
			if s.few {
				routes = map[route][]credential{public: {good}, required: {good}}
			}
			if !r.has("{target}") {
				routes = map[route][]credential{public: {none}}
			}
			for at, creds := range routes {
				if !r.has("{auth}") {
					creds = []credential{none}
				}
				for _, c := range creds {
					s.attack(t, addr, r, at, c)
				}
			}
		})
	}
}

// attack sends one request.
func (s *stage) attack(t *testing.T, addr string, r attack, at route, c credential) {
	t.Helper()
	text := s.tokens.Replace(words(s.gated, s.token, at, c).Replace(r.Bytes))
	answer, views := s.ask(t, addr, text)
	before := t.Failed()
	if malformedText(text) {
		if len(views) > 0 {
			t.Error("the app is reached by what is no request")
		}
	} else {
		// What reached the app counts here, not how.
		method, _, _ := strings.Cut(text, " ")
		o := outcome{
			method: method, route: at, cred: c, reply: answer, app: make([]received, len(views)),
		}
		if r.want == nil {
			asUsual(t, o)
		} else {
			r.want(t, o)
		}
	}
	who := c.who
	switch {
	case at == public:
		who = nil
	case len(views) > 0 && who == nil && (at == required || c.bad()):
		t.Error("the app is reached")
	}
	for _, v := range views {
		v.check(t, who, r.harmless)
		if who == nil && v.nearAdmin() {
			t.Errorf("the app is reached at %v", v.Paths)
		}
	}
	if t.Failed() && !before {
		t.Logf("%s, %s, sent:\n%q\nanswer: %s\nthe app: %+v", at, c.name, text, answer, views)
	}
}
