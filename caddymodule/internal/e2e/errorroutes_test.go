package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestThreat35_ErrorRoutes holds that an app behind handle_errors gets no identity and
// no token from a request that failed before the gate, and the user from one that the
// gate passed on to an app which is down.
func TestThreat35_ErrorRoutes(t *testing.T) {
	t.Parallel()
	w := prepareWorld(t, setup{})
	fallback := "\thandle_errors {\n\t\twechat_auth\n\t\treverse_proxy " + w.app.addr + "\n\t}\n"
	w.site = strings.Replace(fallback, "wechat_auth", "", 1)
	_, port, _ := strings.Cut(freeAddr(t), ":")
	down := "127.0.0.1:" + port
	w.sites = fmt.Sprintf("http://:%s {\n\tbind 127.0.0.1\n\twechat_auth\n"+
		"\treverse_proxy %s\n%s}\n", port, freeAddr(t), fallback)
	w.start(t)
	token := w.login(t, "ada")
	w.app.take()

	usual := request(w.addr, "POST", "/orders", "hi",
		"X-WX-OPENID: victim", "X_Wx_Openid: victim", bearer(token), "X-3rd-Session: "+token)
	for name, text := range map[string]string{
		"empty host":  strings.Replace(usual, "Host: "+w.addr, "Host: ", 1),
		"bad host":    strings.Replace(usual, "Host: "+w.addr, "Host: ..", 1),
		"long method": strings.Replace(usual, "POST", strings.Repeat("POST", 9), 1),
	} {
		t.Run(name, func(t *testing.T) { raw(t, w.addr, text).received(t).check(t, nil) })
	}
	for name, line := range map[string]string{"user": bearer(token), "nobody": "Accept: */*"} {
		t.Run("app down/"+name, func(t *testing.T) {
			r := raw(t, down, request(down, "GET", "/orders", "", "X-WX-OPENID: victim", line))
			if name == "nobody" {
				r.problem(t, http.StatusUnauthorized, "session_missing")
				return
			}
			r.received(t).check(t, w.who(appA, "ada"))
		})
	}
}
