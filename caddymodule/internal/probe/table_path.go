package probe

import (
	"fmt"
	"slices"
	"strings"
)

// forwarding is docs/threats.md#t6.
func (p *probe) forwarding() kind {
	k := kind{
		Attack: Attack{Threat: 6, as: []role{user, guest}, judge: claims},
		tries:  "Claims to come from a proxy that has already judged it",
		judged: "that changes who is calling or which path is open",
	}
	for _, lines := range [][]string{
		{"X-Original-URL: {open}/x", "X-Rewrite-URL: {open}/x"},
		{"X_Original_URL: {open}/x", "X-Original-URI: {open}/x"},
		{
			"X-Forwarded-Uri: {open}/x", "X-Forwarded-Path: {open}/x",
			"X-Forwarded-Method: OPTIONS",
		},
		{"X-Forwarded-Prefix: {open}", "X-Forwarded-Host: {host}{open}"},
		{"X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "X_Forwarded_For: 127.0.0.1"},
		{"Forwarded: for=127.0.0.1;host=x;proto=https"},
		{"X-Forwarded-User: {forged}", "X-Forwarded-Email: {forged}", "Remote-User: {forged}"},
		{"X-HTTP-Method-Override: OPTIONS"},
	} {
		name, _, _ := strings.Cut(lines[0], ":")
		k.add(name+" and the like", get(lines...))
	}
	return k
}

// claims demands the same identity; the claims themselves may reach the app, whose author is
// warned of their names.
func claims(p *probe, t *trial) (Result, string) {
	if p.Echo == nil {
		for i, lines := range t.seen.identity {
			t.seen.identity[i] = slices.DeleteFunc(lines,
				func(l line) bool { return l.key == t.mark.forged() })
		}
	}
	return sameIdentity(p, t)
}

// credentials is a request with the header lines given in the place of the
// credential.
func credentials(lines string) string {
	return strings.Replace(get(), "{auth}", lines, 1)
}

// ownToken reports whether the credential is a token of this project's gate.
func (p *probe) ownToken() bool {
	_, value, _ := strings.Cut(p.token(), ":")
	return strings.Contains(value, "wxs_")
}

// doubling is docs/threats.md#t8.
func (p *probe) doubling() kind {
	k := kind{
		Attack: Attack{Threat: 8, as: []role{user}, needs: needBearer, judge: unasked},
		tries:  "Sends two different credentials", judged: "the app is asked",
	}
	k.add("the good one first", credentials("{auth}{changed}"))
	k.add("the good one last", credentials("{changed}{auth}"))
	if p.ownToken() {
		k.addBoth("in two headers", credentials("{auth}X-3rd-Session: wxs_other\r\n"))
	}
	return k
}

// misusing is docs/threats.md#t9.
func (p *probe) misusing() kind {
	k := kind{
		Attack: Attack{Threat: 9, as: []role{user}, judge: unasked},
		tries:  "Sends a credential that is not good",
		judged: "the app is asked, even where a guest without one may pass",
	}
	k.add("changed in one place", credentials("{changed}"))
	if p.ownToken() {
		for _, token := range []string{"wxs_", "wxs_short", "wxs_" + strings.Repeat("0", 41)} {
			k.add("Bearer "+token, credentials("Authorization: Bearer "+token+"\r\n"))
		}
	}
	return k
}

// climbing is docs/threats.md#t10: paths that begin or end as public ones, and
// that some server reads as another.
func (p *probe) climbing() kind {
	k := kind{
		Attack: Attack{
			Threat: 10, as: []role{guest}, needs: needPublic | needShut, judge: unopened,
		},
		tries: "Asks, without a credential, for paths that some servers read as public ones " +
			"and others do not",
		judged: "such a path reaches the app as it is, or a path that is not public does",
	}
	shut := strings.TrimPrefix(p.shut, "/")
	climb := func(dots, slash string) string {
		return strings.Repeat(dots+slash, strings.Count(p.Public, "/")) + shut
	}
	for _, path := range []string{
		"/" + climb("..", "/"), "/" + climb("..;", "/"), "/" + climb("%252e%252e", "/"),
	} {
		k.addBoth(p.Public+path, ask("GET", "{open}"+path+"?{query}"))
	}
	for _, path := range []string{
		"/" + climb("%2e%2e", "/"), "/" + climb(".%2e", "/"), "/" + climb("%2E%2E", "%2F"),
		"/" + climb("..", "%2f"), "/" + climb("..;x", "/"), "/" + climb("%25%32%65%2e", "/"),
		"/" + climb("..", "\\"), "/" + climb("..", "%5c"), "/%5c" + climb("..", "%5c"),
		"/" + climb("%c0%ae%c0%ae", "/"), "/" + climb("..%00", "/"),
		"/%23/../" + climb("..", "/"), "/%3f/../" + climb("..", "/"), "/x/./../" + climb("..", "/"),
	} {
		k.add(p.Public+path, ask("GET", "{open}"+path+"?{query}"))
	}
	// A gate may rightly let these pass once it has made them plain, so the path
	// must be seen as the app saw it.
	k.needs |= needEcho
	back := strings.Repeat("../", strings.Count(p.shut, "/")) + strings.TrimPrefix(p.Public, "/")
	for _, path := range []string{
		"{shut}/" + back + "/x", "{shut}/" + strings.ReplaceAll(back, "../", "..%2f") + "/x",
		"{shut}/" + strings.ReplaceAll(back, "..", "%2e%2e") + "/x", "/.{open}/../" + shut,
		"/{open}//x", "{open}%00/x", "{open};/../" + shut, "{open}%2f../" + shut, "{open}/..",
		"{open}/x;a=b", "{shut};{open}/x", "{shut}%00{open}/x", "{shut}%3f{open}/x",
		"{shut}%23{open}/x", "{open}/x%0d%0aX-A:%20b",
	} {
		k.add(p.written(path), ask("GET", path+"?{query}"))
	}
	return k
}

// written fills in the words of a template that is shown.
func (p *probe) written(path string) string {
	host := ""
	if p.url != nil {
		host = p.url.Host
	}
	return strings.NewReplacer("{open}", p.Public, "{shut}", p.shut, "{own}", p.Endpoints,
		"{host}", host, "&{query}", "", "?{query}", "").Replace(path)
}

// retargeting is docs/threats.md#t11.
func (p *probe) retargeting() kind {
	k := kind{
		Attack: Attack{Threat: 11, as: []role{guest}, needs: needShut, judge: unopened},
		tries: "Asks, without a credential, for a closed path with a public one elsewhere " +
			"in the request",
		judged: "a path that is not public reaches the app, or a tunnel opens",
	}
	for _, target := range []string{
		"{shut}?x={open}/x&{query}", "{shut}?{open}/x&{query}", "{shut}?/..{open}/x&{query}",
		"http://{host}{shut}?{query}", "http://{host}{open}/..{shut}?{query}",
		"https://x{shut}?{query}", "http:/{open}{shut}?{query}",
	} {
		k.add(p.written(target), ask("GET", target))
	}
	k.add("a public path in Host",
		strings.Replace(ask("GET", "{shut}?{query}"), "Host: {host}", "Host: {host}{open}/x", 1))
	k.add("OPTIONS *", ask("OPTIONS", "*"))
	k.judge = unconnected
	for _, target := range []string{"{host}", "{shut}?{query}"} {
		k.add("CONNECT "+p.written(target), ask("CONNECT", target))
	}
	return k
}

// shadowing is docs/threats.md#t12.
func (p *probe) shadowing() kind {
	k := kind{
		Attack: Attack{Threat: 12, as: []role{strongest}, needs: needEndpoints, judge: unasked},
		tries:  "Asks for the gate's own endpoints in another spelling", judged: "the app is asked",
	}
	own := p.Endpoints
	encoded := fmt.Sprintf("%s%%%02X", own[:len(own)-1], own[len(own)-1])
	for _, path := range []string{
		own + "/login", own + "/login/", own + "/Login", strings.ToUpper(own) + "/login",
		own + "//login", "/" + own + "/login", own + "/%6cogin", encoded + "/login",
		own + "/./login", "/x/.." + own + "/login", own + "%2flogin", own + "\\login",
		own + "%5clogin", own + ";a/login", own + "/login;a=b", own + "/login%00",
		own + "/login%20", own + "./login", own + "/login%3fx", own + "/login/x", own + "/admin",
	} {
		k.add(path, ask("GET", path+"?{query}"))
	}
	return k
}

// impersonating is docs/threats.md#t13.
func (p *probe) impersonating() kind {
	k := kind{
		Attack: Attack{Threat: 13, as: everyone, judge: sameIdentity},
		tries:  "Passes itself off as a health check or as WeChat",
		judged: "that changes who is calling or which path is open",
	}
	for _, line := range []string{
		"User-Agent: GoogleHC/1.0", "User-Agent: ELB-HealthChecker/2.0",
		"User-Agent: kube-probe/1.30",
		"Referer: https://servicewechat.com/wx0123456789abcdef/1/page-frame.html",
	} {
		k.add(line[:min(len(line), 56)], get(line))
	}
	return k
}

// askingOtherwise is docs/threats.md#t14.
func (p *probe) askingOtherwise() kind {
	k := kind{
		Attack: Attack{Threat: 14, as: []role{guest}, needs: needShut, judge: unasked},
		tries:  "Asks, without a credential, with other methods", judged: "the app is asked",
	}
	for _, method := range []string{
		"OPTIONS", "HEAD", "POST", "PUT", "DELETE", "TRACE", "PROPFIND", "get", "Options",
		"WXPROBE",
	} {
		k.add(method, ask(method, "{shut}?{query}"))
	}
	k.add("OPTIONS, a preflight", ask("OPTIONS", "{shut}?{query}",
		"Origin: https://servicewechat.com", "Access-Control-Request-Method: GET",
		"Access-Control-Request-Headers: authorization"))
	return k
}

// failing is docs/threats.md#t35: requests that fail before any handler runs. The
// server's error routes answer them, and may ask the app.
func (p *probe) failing() kind {
	k := kind{
		Attack: Attack{Threat: 35, as: everyone, judge: anonymous},
		tries:  "Sends requests that fail before the gate sees them, for error routes to answer",
		judged: "the app is told of a user by the client, or sees the credential",
	}
	lines := append(forge(p.Identity, asIs), forge(p.Identity, respelt("_", eachHyphen))...)
	lines = append(lines, "Content-Length: 0")
	order := ask("POST", "{target}", lines...)
	k.add("an empty Host", strings.Replace(order, " {host}", "", 1))
	k.add("a bad Host", strings.Replace(order, "{host}", "..", 1))
	k.addBoth("a method of 40 letters", ask(strings.Repeat("WXPROBE-", 5), "{target}", lines...))
	return k
}
