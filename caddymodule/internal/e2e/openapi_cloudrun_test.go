package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

// genuine are the headers of the platform for one user, in lower case as it
// sends them (docs/wechat.md#cloud-headers).
var genuine = []string{
	"x-wx-source: wx_client", "x-wx-openid: o-ada", "x-wx-appid: " + appA, "x-wx-unionid: u-ada",
	"x-wx-env: prod-1",
}

// owns demands that the app was told exactly these lines, and nothing else
// under such names.
func (r reply) owns(tb testing.TB, lines ...string) {
	tb.Helper()
	if !r.fromApp() {
		tb.Errorf("the app was not asked: %s", r)
		return
	}
	if got, want := r.received(tb).owned(), slices.Sorted(slices.Values(lines)); !slices.Equal(got,
		want) {
		tb.Errorf("the app is told %q, want %q", got, want)
	}
}

// TestCloudrun passes on the platform's headers, and none that a client sends
// under such names.
func TestCloudrun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{auth: "\t\tcloudrun\n\t\tpublic /public/*\n\t\toptional /optional/*"})
	client := []string{
		"X-WX-SERVICE: s", "X-WX-EXCLUDE-CREDENTIALS: cloudbase-access-token", "X-WX-Region: r",
		"X-WX-CALL-ID: c", "X_WX_OPENID: victim", "X-WX-PHONE: 1", "x-wx-openid2: x",
		"X~WX~Openid: victim",
	}
	with := func(base []string, more ...string) []string { return slices.Concat(base, more) }

	w.call(t, "GET", "/x", "", with(genuine, client...)...).owns(t, genuine...)
	w.call(t, "GET", "/optional/x", "", genuine...).owns(t, genuine...)
	w.call(t, "GET", "/public/x", "", genuine...).owns(t)
	w.call(t, "GET", "/optional/x", "").owns(t)
	w.call(t, "GET", "/public/x", "", "x-wx-openid: forged").owns(t)
	// The platform leaves out headers that a client excludes, and names no user in a
	// message push (docs/wechat.md#cloud-client-headers, #cloud-push).
	w.call(t, "GET", "/x", "", genuine[:3]...).owns(t, genuine[:3]...)
	push := []string{"x-wx-source: wx_trigger", "x-wx-appid: " + appA}
	w.call(t, "POST", "/optional/push", "{}", push...).owns(t, push...)
	w.call(t, "POST", "/x", "{}", push...).problem(t, 403, "identity_missing")
	// One app that uses another's resources.
	reuse := []string{
		"x-wx-source: wx_client", "x-wx-from-openid: o-ada", "x-wx-from-appid: " + appA,
		"x-wx-from-unionid: u-ada",
	}
	w.call(t, "GET", "/x", "", reuse...).owns(t, reuse...)
	chained := []string{"x-wx-source: wx_client,scf", "x-wx-openid: o-ada", "x-wx-appid: " + appA}
	w.call(t, "GET", "/x", "", "x-wx-source: wx_client, scf", chained[1],
		chained[2]).owns(t, chained...)

	// No session is asked for, none is taken, and none is handed on.
	token := "wxs_" + strings.Repeat("a", 41)
	r := w.call(t, "GET", "/x", "", with(genuine, bearer(token), "X-3rd-Session: "+token)...)
	r.owns(t, genuine...)
	if strings.Contains(r.body, token) {
		t.Error("the app sees a token")
	}
	w.call(t, "GET", "/x", "", bearer(token)).problem(t, 403, "identity_missing")
	w.call(t, "POST", "/wx/login", `{"code":"x"}`, genuine...).problem(t, 404, "not_found")
	if n := w.wechat.Count(exchangePath); n != 0 {
		t.Errorf("%d codes were exchanged", n)
	}
}

// TestThreat1_CloudrunForgeries sends headers that the platform would not send.
// TestCloudrun_Decisions and TestPlatform_ReadsTheCaller have the full list.
func TestThreat1_CloudrunForgeries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{auth: "\t\tcloudrun\n\t\toptional /optional/*"})
	with := func(line string) []string { return append(slices.Clone(genuine), line) }
	for _, target := range []string{"/x", "/optional/x"} {
		for _, line := range []string{
			"X-WX-SOURCE: wx_client", "X-WX-LOCAL-DEBUG: 1", "X-WX-OPENID: victim",
		} {
			w.call(t, "GET", target, "", with(line)...).problem(t, 403, "identity_refused")
		}
		w.call(t, "GET", target, "", with("Trailer: X-WX-OPENID")...).
			problem(t, 400, "invalid_request")
	}
	for _, line := range []string{"Connection: close, X-WX-OPENID", "Connection: x-wx-source"} {
		w.call(t, "GET", "/x", "", with(line)...).owns(t, genuine...)
	}
	for _, alias := range []string{
		"X_WX_OPENID: victim", "X.WX.Openid: victim", "X-WX!OPENID: victim", "X-WX-openid-: victim",
	} {
		w.call(t, "GET", "/x", "", with(alias)...).owns(t, genuine...)
		w.call(t, "GET", "/optional/x", "", alias, "X~WX~SOURCE: wx_client").owns(t)
	}
	if seen := len(w.app.take()); seen != 10 {
		t.Errorf("the app saw %d requests, want 10", seen)
	}
}

// TestCloudrun_SessionModeBelievesNothing ignores the platform's headers where
// `cloudrun` is off.
func TestCloudrun_SessionModeBelievesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{auth: "\t\toptional /optional/*"})
	w.call(t, "GET", "/x", "", genuine...).problem(t, 401, "session_missing")
	w.call(t, "GET", "/optional/x", "", genuine...).owns(t)
	token := w.login(t, "ada")
	w.call(t, "GET", "/x", "",
		append(slices.Clone(genuine), bearer(token))...).received(t).check(t, w.who(appA, "ada"))
}

// TestCloudrun_NeedsNoApp runs behind the platform without an AppSecret and
// without a store.
func TestCloudrun_NeedsNoApp(t *testing.T) {
	t.Parallel()
	w := prepareWorld(t, setup{})
	text := "{\n\tadmin " + w.admin + "\n}\n" +
		siteAt(w.addr, "\twechat_auth {\n\t\tcloudrun\n\t}\n\treverse_proxy "+w.app.addr)
	w.run(t, "--adapter", "caddyfile", "--config", w.write(t, "Caddyfile", text))
	w.call(t, "GET", "/x", "", genuine...).owns(t, genuine...)
	if strings.Contains(w.out.String(), "sessions.db") {
		t.Error("a store was opened")
	}
}
