//go:build unix

package e2e_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// victim is what every forgery claims to be.
const victim = "victim"

// forgery is a request that tells the app who is calling. The words in braces are those of attack.
type forgery struct {
	name  string
	bytes string
	want  func(*testing.T, outcome) // nil: nothing but that the app is not fooled
	own   []string                  // harmless names, folded
	holds int                       // without {auth}: which of the stage's credentials is written into it
}

// usual is a forgery that changes nothing: the request is answered as if it were not there.
func usual(name string, lines ...string) forgery {
	return forgery{name: name, bytes: get(lines...), want: asUsual}
}

// everyName repeats lines that forge an openid for the other identity headers.
func everyName(lines ...string) []string {
	all := slices.Clone(lines)
	for _, name := range []string{"UNIONID", "APPID", "SOURCE"} {
		title := name[:1] + strings.ToLower(name[1:])
		r := strings.NewReplacer("OPENID", name, "openid", strings.ToLower(name), "Openid", title, "oPeNiD", title)
		for _, line := range lines {
			all = append(all, r.Replace(line))
		}
	}
	return all
}

// punctuation is what a header name may hold beside letters, digits and hyphens (RFC 9110 5.6.2).
const punctuation = "_.!~^*+'|#$%&`"

// aliasesWith are the spellings with one mark in the place of hyphens.
func aliasesWith(mark string) []string {
	return []string{"X" + mark + "WX" + mark + "OPENID", "X" + mark + "WX-OPENID", "X-WX" + mark + "OPENID"}
}

// aliases are spellings that a server may take for X-WX-OPENID.
func aliases() []string {
	names := []string{"X-WX-OPENID", "X-Wx-Openid", "x-wx-openid", "x-WX-oPeNiD", "x_wx_openid", "X_WX.OPENID", "X.WX!OPENID", "x~Wx^Openid", "X|WX`OPENID"}
	for _, mark := range strings.Split(punctuation, "") {
		names = append(names, aliasesWith(mark)...)
	}
	return names
}

// strangers are names that come close. No server is known to take them for ours; the app may see them as what they are.
var strangers = []string{"X--WX-OPENID", "X__WX__OPENID", "X-_WX-OPENID", "X.~WX~OPENID", "-X-WX-OPENID", "_X_WX_OPENID", "HTTP_X_WX_OPENID", "Http-X-Wx-Openid", "HTTP-HTTP-X-WX-OPENID", "Redirect-Http-X-Wx-Openid", "XWX-OPENID", "X-WXOPENID"}

// belongings begin as ours do; no client may send them whatever their end.
var belongings = []string{"X-WX-", "X-WX-OPENID-", "X_WX_OPENID_", "X-WX--OPENID", "X-WX-CLOUDBASE-ACCESS-TOKEN", "X-WX-FROM-OPENID", "X_WX_ANYTHING", "X~Wx~Env"}

// forging writes header lines that claim to be the victim.
func forging(names ...string) (lines []string) {
	for _, name := range names {
		lines = append(lines, name+": "+victim)
	}
	return everyName(lines...)
}

// duplicates are several spellings in one request.
func duplicates() []forgery {
	return []forgery{
		usual("all at once", forging(aliases()...)...),
		usual("truth first", everyName("X-WX-OPENID: truth", "X_WX_OPENID: "+victim, "X!WX!OPENID: "+victim)...),
		usual("truth last", everyName("X_WX_OPENID: "+victim, "X!WX!OPENID: "+victim, "X-WX-OPENID: truth")...),
		usual("list", everyName("X-WX-OPENID: truth, "+victim, "X~WX~OPENID: , "+victim)...),
		usual("empty and forged", everyName("X-WX-OPENID:", "X-WX-OPENID: "+victim)...),
	}
}

// nameForgeries send spellings, as many in one request as can be told apart if they arrive.
func nameForgeries() []forgery {
	rows := []forgery{usual("nothing odd", "Accept: */*")}
	for _, mark := range strings.Split(punctuation, "") {
		rows = append(rows, usual("marks "+mark, forging(aliasesWith(mark)...)...))
	}
	for _, name := range without(aliases(), punctuation) {
		rows = append(rows, usual(name, forging(name)...))
	}
	strange := usual("strangers", forging(strangers...)...)
	for _, name := range everyName(strangers...) {
		strange.own = append(strange.own, folded(name))
	}
	return slices.Concat(rows, duplicates(), []forgery{strange, usual("belongings", forging(belongings...)...)})
}

// lineForgeries break the rules of header lines. Caddy may refuse them; nothing may come of them in any case.
func lineForgeries() (rows []forgery) {
	for _, line := range []string{
		"X-WX-OPENID:victim", "X-WX-OPENID:\t victim \t", "X-WX-OPENID : victim", "X-WX-OPENID\t: victim", "X_WX_OPENID : victim", "X-WX-OPENID:\r\n victim", "X-WX-OPENID: vic\r\n\ttim", "X-WX-OPENID\r\n : victim",
		" X-WX-OPENID: victim", "X-A: b\r\n X-WX-OPENID: victim", "X-A: b\r\n\tX_WX_OPENID: victim", "X-A:\r\n X-WX-OPENID: victim", "X-A: b\rX-WX-OPENID: victim", "X-A: b\nX-WX-OPENID: victim", "X-A: b\n X-WX-OPENID: victim",
		"X WX OPENID: victim", "X\x00WX\x00OPENID: victim", "X\xa0WX\xa0OPENID: victim", "X/WX/OPENID: victim", "X:WX-OPENID: victim", "X[WX[OPENID: victim", "X\"WX\"OPENID: victim", "X(WX)OPENID: victim", "X\\WX\\OPENID: victim", "X,WX,OPENID: victim", "X;WX;OPENID: victim", "X@WX@OPENID: victim", "X=WX=OPENID: victim", "X{WX}OPENID: victim",
		"X-WX-OPENID\x00: victim", "X-WX-OPENID\x0b: victim", "X-WX-OPENID\r: victim", "\x00X-WX-OPENID: victim", "X-WX-OPENID: \x00victim", "X-WX-OPENID: \x0bvictim",
	} {
		rows = append(rows, forgery{name: line, bytes: get(append([]string{"Accept: */*"}, everyName(line)...)...)})
	}
	return rows
}

// trailerForgeries come after the body.
func trailerForgeries() (rows []forgery) {
	for _, name := range []string{"X-WX-OPENID", "X_WX_OPENID", "X~WX~OPENID", "X-WX-ANYTHING"} {
		rows = append(
			rows,
			forgery{name: "declared trailer " + name, bytes: upload(name, append(everyName(name+": "+victim), "X-Last: 1")...), want: refused(http.StatusBadRequest, "invalid_request")},
			forgery{name: "undeclared trailer " + name, bytes: upload("", append(everyName(name+": "+victim), "X-Last: 1")...), want: asUsual},
			forgery{name: "trailer behind a declared one " + name, bytes: upload("X-Checksum", append([]string{"X-Checksum: 1"}, everyName(name+": "+victim)...)...), want: asUsual},
		)
	}
	return rows
}

// mountPoint is the header by which gunicorn lets a proxy say where the app is mounted.
const mountPoint = "SCRIPT_NAME: /public"

// otherForgeries claim an identity, a path or an address by other means.
var otherForgeries = []forgery{
	usual("forwarded user", "X-Forwarded-User: victim", "Remote-User: victim", "REMOTE_USER: victim", "X-Remote-User: victim", "Auth-User: victim", "Redirect-Remote-User: victim"),
	usual("forwarded", "X-Forwarded-For: 127.0.0.1", "X-Forwarded-Host: x", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /public", "Forwarded: for=127.0.0.1;host=x", "X-Real-IP: 127.0.0.1", "X_Forwarded_For: 127.0.0.1"),
	usual("rewritten URL", "X-Original-URL: /admin", "X-Rewrite-URL: /admin", "X-Forwarded-Uri: /admin", "Script-Filename: /admin", "Path-Info: /admin", "Request-Uri: /admin", "X-Script-Name: /public"),
	usual("basic auth of the app's own", "X-A: b", "Proxy-Authorization: Basic dmljdGltOng="),
	{name: "mount point", bytes: "GET /public/admin HTTP/1.1\r\nHost: {host}\r\n" + mountPoint + "\r\n\r\n"},
}

// tokenForgeries carry a token where it must not go on to the app.
func tokenForgeries() []forgery {
	var misspelt []string
	for _, mark := range strings.Split(punctuation, "") {
		misspelt = append(misspelt, "X"+mark+"3rd"+mark+"Session: {good}", "X-3rd"+mark+"Session: {good}")
	}
	return []forgery{
		usual("misspelt token header", misspelt...),
		{name: "token in both", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: {good}\r\nAuthorization: Bearer {good}\r\n\r\n", want: asUsual, holds: 2},
		{name: "two tokens", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: {good}\r\nAuthorization: Bearer {other}\r\n\r\n", want: ambiguous},
		{name: "dead token, twice", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\naUTHORIZATION: bEARER\t {dead} \r\nAuthorization: Bearer {dead}\r\nx-3RD-session: {dead}\r\n\r\n", want: asUsual, holds: 1},
		{name: "bare token", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {dead}\r\n\r\n", want: asUsual, holds: 1},
		{name: "folded token", bytes: "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer\r\n\t{dead}\r\nX-3rd-Session:\r\n {dead}\r\n\r\n", want: asUsual, holds: 1},
	}
}

// borrowed are the rows of the table in front of the app that reads the wire; here only what the real app makes of them counts.
func borrowed() (rows []forgery) {
	for _, a := range slices.Concat(connectionAttacks, upgradeAttacks, credentialAttacks) {
		want := a.want
		if want == nil {
			want = asUsual
		}
		rows = append(rows, forgery{name: a.name, bytes: a.bytes, want: want})
	}
	return rows
}

// forgeries are all that the gate is shown.
func forgeries() []forgery {
	return slices.Concat(nameForgeries(), lineForgeries(), trailerForgeries(), otherForgeries, tokenForgeries(), borrowed())
}

// attacks sends forgeries through a gate, to every kind of route. What the gate makes of every credential there the table
// of attack_test.go tells; here it is the app that counts.
func (s *stage) attacks(t *testing.T, addr string, rows []forgery) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			none, bad, good := s.creds[0], s.creds[1], s.creds[2]
			routes := map[route][]credential{public: {good}, optional: {none}, required: {bad, good}}
			if !strings.Contains(row.bytes, "{path}") {
				routes = map[route][]credential{public: {none}}
			}
			for r, creds := range routes {
				if !strings.Contains(row.bytes, "{auth}") {
					creds = s.creds[row.holds : row.holds+1]
				}
				for _, c := range creds {
					s.attack(t, addr, row, r, c)
				}
			}
		})
	}
}

// attack sends one request.
func (s *stage) attack(t *testing.T, addr string, row forgery, r route, c credential) {
	t.Helper()
	line := ""
	if c.line != "" {
		line = c.line + "\r\n"
	}
	text := s.fill.Replace(strings.NewReplacer("{path}", pathOf[r], "{auth}", line).Replace(row.bytes))
	answer, views := s.ask(t, addr, text)
	before := t.Failed()
	if row.want != nil {
		// What reached the app counts here, not how.
		row.want(t, outcome{request: text, route: r, cred: c, reply: answer, app: make([]received, len(views))})
	}
	who := c.who
	switch {
	case r == public:
		who = nil
	case len(views) > 0 && who == nil && (r == required || c.bad()):
		t.Error("the app is reached")
	}
	for _, v := range views {
		v.check(t, who, row.own)
		if who == nil && v.nearAdmin() {
			t.Errorf("the app is reached at %v", v.Paths)
		}
	}
	if t.Failed() && !before {
		t.Logf("%s route, %s, sent:\n%q\nanswer: %s\nthe app: %+v", r, c.name, text, answer, views)
	}
}
