package e2e_test

import (
	"strings"
	"testing"
)

// TestThreat35_ErrorRoutes holds that an app behind handle_errors gets no identity
// and no token from a request that failed before the gate, and the user from one
// that the gate passed on to an app which is down.
func TestThreat35_ErrorRoutes(t *testing.T) {
	t.Parallel()
	s, down := mixed, freeAddr(t)
	s.site = "\thandle_errors {\n\t\treverse_proxy {app}\n\t}"
	a := newArena(t, s)
	rows := only(table(), 35)
	a.run(t, rows)
	for _, r := range rows {
		text := words(a.addr, a.token, required, a.good).Replace(r.Bytes)
		if !raw(t, a.addr, text).fromApp() {
			t.Errorf("%s: the error routes do not ask the app", r.Name)
		}
	}
	s.sites = siteAt(down, "\twechat_auth\n\treverse_proxy "+freeAddr(t)+
		"\n\thandle_errors {\n\t\twechat_auth\n\t\treverse_proxy "+a.app.addr+"\n\t}")
	a.mustReload(t, s)
	r := raw(t, down, request(down, "GET", "/orders", "", "X-WX-OPENID: victim", a.good.line))
	r.received(t).check(t, a.good.who)
	r = raw(t, down, request(down, "GET", "/orders", "", "X-WX-OPENID: victim"))
	r.problem(t, 401, "session_missing")
}

// TestThreat36_Reload_BypassRefused_OldServes holds that a configuration with a fault
// around its gates never serves a request: a reload is refused with the cure, and the
// one that runs goes on (P7, P9).
func TestThreat36_Reload_BypassRefused_OldServes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, mixed)
	token, alice := w.login(t, "alice"), w.who(appA, "alice")
	bypass, twice := mixed, mixed
	bypass.sites = siteAt(freeAddr(t), "\troute {\n\t\treverse_proxy "+w.app.addr+
		"\n\t\twechat_auth\n\t}")
	twice.site = "\troute {\n\t\twechat_auth\n\t}"
	for cure, s := range map[string]setup{
		"put wechat_auth first": bypass, "keep one, on the whole site": twice,
	} {
		if status, said := w.reload(t, w.caddyfile(s)); status != 400 ||
			!strings.Contains(said, cure) {
			t.Errorf("status %d: %s, want %q", status, said, cure)
		}
		w.checkAlive(t, token, alice)
		w.call(t, "GET", "/orders", "", "X-WX-OPENID: victim").problem(t, 401, "session_missing")
	}
}
