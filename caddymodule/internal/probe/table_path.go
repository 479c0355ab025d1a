package probe

import (
	"fmt"
	"slices"
	"strings"
)

// table is every kind of attack, in the order of THREATS.md.
func (p *probe) table() []group {
	return []group{
		p.forging(), p.respelling(), p.removing(), p.trailing(), p.upgrading(), p.forwarding(),
		p.doubling(), p.misusing(), p.climbing(), p.retargeting(), p.shadowing(), p.impersonating(), p.askingOtherwise(),
	}
}

// getAt is a request for a target with the header lines given.
func getAt(target string, lines ...string) string {
	return strings.Replace(get(lines...), "{target}", target, 1)
}

// forwarding is THREATS.md 6.
func (p *probe) forwarding() group {
	g := group{threat: 6, tries: "Claims to come from a proxy that has already judged it", judged: "that changes who is calling or which path is open"}
	for _, lines := range [][]string{
		{"X-Original-URL: {open}/x", "X-Rewrite-URL: {open}/x"},
		{"X_Original_URL: {open}/x", "X-Original-URI: {open}/x"},
		{"X-Forwarded-Uri: {open}/x", "X-Forwarded-Path: {open}/x", "X-Forwarded-Method: OPTIONS"},
		{"X-Forwarded-Prefix: {open}", "X-Forwarded-Host: {host}{open}"},
		{"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "X_Forwarded_For: 127.0.0.1"},
		{"Forwarded: for=127.0.0.1;host=x;proto=https"},
		{"X-Forwarded-User: {forged}", "X-Forwarded-Email: {forged}", "Remote-User: {forged}"},
		{"X-HTTP-Method-Override: OPTIONS"},
	} {
		name, _, _ := strings.Cut(lines[0], ":")
		g.attacks = append(g.attacks, attack{name: name + " and the like", as: []role{user, guest}, bytes: get(lines...), judge: claims})
	}
	return g
}

// claims demands truth; the claims themselves may reach the app, which is warned of their names.
func claims(p *probe, t *trial) (Result, string) {
	if p.Echo == nil {
		for i, told := range t.seen.told {
			t.seen.told[i] = slices.DeleteFunc(told, func(l line) bool { return l.key == t.mark.forged() })
		}
	}
	return truth(p, t)
}

// doubling is THREATS.md 8.
func (p *probe) doubling() group {
	g := group{threat: 8, tries: "Sends two different credentials", judged: "the app is asked"}
	add := func(name, auth string) {
		g.attacks = append(g.attacks, attack{name: name, as: []role{user}, bytes: "GET {target} HTTP/1.1\r\nHost: {host}\r\n{id}" + auth + "\r\n", needs: needBearer, judge: unasked})
	}
	add("the good one first", "{auth}{changed}")
	add("the good one last", "{changed}{auth}")
	if _, value, _ := strings.Cut(p.token(), ":"); strings.Contains(value, "wxs_") {
		add("in two headers", "{auth}X-3rd-Session: wxs_other\r\n")
	}
	return g
}

// misusing is THREATS.md 9.
func (p *probe) misusing() group {
	g := group{threat: 9, tries: "Sends a credential that is not good", judged: "the app is asked, even where a guest without one may pass"}
	g.attacks = []attack{{name: "changed in one place", as: []role{user}, bytes: "GET {target} HTTP/1.1\r\nHost: {host}\r\n{id}{changed}\r\n", judge: unasked}}
	if _, value, _ := strings.Cut(p.token(), ":"); strings.Contains(value, "wxs_") {
		for _, token := range []string{"wxs_", "wxs_short", "wxs_" + strings.Repeat("0", 41)} {
			g.attacks = append(g.attacks, attack{name: "Bearer " + token, as: []role{user}, bytes: "GET {target} HTTP/1.1\r\nHost: {host}\r\n{id}Authorization: Bearer " + token + "\r\n\r\n", judge: unasked})
		}
	}
	return g
}

// climbing is THREATS.md 10: paths that begin or end as public ones, and that some server reads as another.
func (p *probe) climbing() group {
	g := group{threat: 10, tries: "Asks, without a credential, for paths that some servers read as public ones and others do not", judged: "such a path reaches the app as it is, or a path that is not public does"}
	up := strings.Count(p.Public, "/")
	climb := func(dots, slash string) string { return strings.Repeat(dots+slash, up) }
	shut := strings.TrimPrefix(p.shut, "/")
	for _, path := range []string{
		"{open}/" + climb("..", "/") + shut, "{open}/" + climb("%2e%2e", "/") + shut, "{open}/" + climb(".%2e", "/") + shut, "{open}/" + climb("%2E%2E", "%2F") + shut,
		"{open}/" + climb("..", "%2f") + shut, "{open}/" + climb("..;", "/") + shut, "{open}/" + climb("..;x", "/") + shut, "{open}/" + climb("%252e%252e", "/") + shut,
		"{open}/" + climb("..", "\\") + shut, "{open}/" + climb("..", "%5c") + shut, "{open}/%5c" + climb("..", "%5c") + shut, "{open}/" + climb("%c0%ae%c0%ae", "/") + shut,
		"{open}/%23/" + climb("..", "/") + "../" + shut, "{open}/%3f/" + climb("..", "/") + "../" + shut, "{open}/x/./" + climb("..", "/") + "../" + shut, "{open}/" + climb("..%00", "/") + shut,
	} {
		g.attacks = append(g.attacks, attack{name: p.written(path), as: []role{guest}, bytes: getAt(path + "?{query}"), needs: needPublic | needShut, judge: unopened})
	}
	// A gate may rightly let these pass once it has made them plain, so the path must be seen as the app saw it.
	back := strings.Repeat("../", strings.Count(p.shut, "/"))
	for _, path := range []string{
		"{shut}/" + back + p.openName() + "/x", "{shut}/" + strings.ReplaceAll(back, "../", "..%2f") + p.openName() + "/x", "{shut}/" + strings.ReplaceAll(back, "..", "%2e%2e") + p.openName() + "/x",
		"/{open}//x", "{open}%00/x", "{open};/../" + shut, "{open}%2f../" + shut, "/.{open}/../" + shut, "{shut};{open}/x", "{shut}%00{open}/x", "{shut}%3f{open}/x", "{shut}%23{open}/x",
	} {
		g.attacks = append(g.attacks, attack{name: p.written(path), as: []role{guest}, bytes: getAt(path + "?{query}"), needs: needPublic | needShut | needEcho, judge: unopened})
	}
	for _, path := range []string{"{open}/" + climb("..", "/") + shut, "{open}/" + climb("..;", "/") + shut, "{open}/" + climb("%252e%252e", "/") + shut} {
		g.attacks = append(g.attacks, attack{name: "HTTP/2: " + p.written(path), as: []role{guest}, frames: &stream{fields: [][2]string{{":path", path + "?{query}"}}}, needs: needPublic | needShut, judge: unopened})
	}
	return g
}

func (p *probe) openName() string { return strings.TrimPrefix(p.Public, "/") }

// written fills in the paths of a template that is shown.
func (p *probe) written(path string) string {
	return strings.NewReplacer("{open}", p.Public, "{shut}", p.shut, "{own}", p.Endpoints).Replace(path)
}

// retargeting is THREATS.md 11.
func (p *probe) retargeting() group {
	g := group{threat: 11, tries: "Asks, without a credential, for a closed path with a public one elsewhere in the request", judged: "a path that is not public reaches the app, or a tunnel opens"}
	add := func(name, bytes string) {
		g.attacks = append(g.attacks, attack{name: name, as: []role{guest}, bytes: bytes, needs: needShut, judge: unopened})
	}
	for _, target := range []string{
		"{shut}?x={open}/x&{query}", "{shut}?{open}/x&{query}", "{shut}?/..{open}/x&{query}", "http://{host}{shut}?{query}", "http://{host}{open}/..{shut}?{query}", "https://x{shut}?{query}", "http:/{open}{shut}?{query}",
	} {
		shown := strings.NewReplacer("{host}", p.url.Host, "&{query}", "", "?{query}", "").Replace(p.written(target))
		add(shown, getAt(target))
	}
	add("a public path in Host", strings.Replace(getAt("{shut}?{query}"), "Host: {host}", "Host: {host}{open}/x", 1))
	add("OPTIONS *", strings.Replace(getAt("*"), "GET", "OPTIONS", 1))
	for _, target := range []string{"{host}", "{shut}?{query}"} {
		g.attacks = append(g.attacks, attack{name: "CONNECT " + strings.NewReplacer("{host}", p.url.Host, "?{query}", "").Replace(p.written(target)), as: []role{guest}, bytes: strings.Replace(getAt(target), "GET", "CONNECT", 1), needs: needShut, judge: unconnected})
	}
	return g
}

// shadowing is THREATS.md 12.
func (p *probe) shadowing() group {
	g := group{threat: 12, tries: "Asks for the gate's own endpoints in another spelling", judged: "the app is asked"}
	own := p.Endpoints
	encoded := fmt.Sprintf("%s%%%02X", own[:len(own)-1], own[len(own)-1])
	as := p.strongest().as
	if as == public {
		as = guest
	}
	for _, path := range []string{
		own + "/login", own + "/login/", own + "/Login", strings.ToUpper(own) + "/login", own + "//login", "/" + own + "/login", own + "/%6cogin", encoded + "/login", own + "/./login", "/x/.." + own + "/login",
		own + "%2flogin", own + "\\login", own + "%5clogin", own + ";a/login", own + "/login;a=b", own + "/login%00", own + "/login%20", own + "./login", own + "/login%3fx", own + "/login/x", own + "/admin",
	} {
		g.attacks = append(g.attacks, attack{name: path, as: []role{as}, bytes: getAt(path + "?{query}"), needs: needEndpoints, judge: unasked})
	}
	return g
}

// impersonating is THREATS.md 13.
func (p *probe) impersonating() group {
	g := group{threat: 13, tries: "Passes itself off as a health check or as WeChat", judged: "that changes who is calling or which path is open"}
	for _, lines := range [][]string{
		{"User-Agent: GoogleHC/1.0"},
		{"User-Agent: ELB-HealthChecker/2.0"},
		{"User-Agent: kube-probe/1.30"},
		{"Referer: https://servicewechat.com/wx0123456789abcdef/1/page-frame.html", "User-Agent: Mozilla/5.0 MicroMessenger/8.0"},
	} {
		g.attacks = append(g.attacks, attack{name: lines[0][:min(len(lines[0]), 56)], as: everyone, bytes: get(lines...), judge: truth})
	}
	return g
}

// askingOtherwise is THREATS.md 14.
func (p *probe) askingOtherwise() group {
	g := group{threat: 14, tries: "Asks, without a credential, with other methods", judged: "the app is asked"}
	add := func(name, bytes string) {
		g.attacks = append(g.attacks, attack{name: name, as: []role{guest}, bytes: bytes, needs: needShut, judge: unasked})
	}
	for _, method := range []string{"OPTIONS", "HEAD", "POST", "PUT", "DELETE", "TRACE", "PROPFIND", "get", "Options", "WXPROBE"} {
		add(method, strings.Replace(getAt("{shut}?{query}"), "GET", method, 1))
	}
	add("OPTIONS, a preflight", strings.Replace(getAt("{shut}?{query}", "Origin: https://servicewechat.com", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"), "GET", "OPTIONS", 1))
	return g
}
