package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const (
	missesSeries = "caddy_wechat_cache_misses_total"
	hitsSeries   = "caddy_wechat_cache_hits_total"
)

// TestThreat21_RefusalsAreCheap: what is refused by its looks costs neither the store nor WeChat anything, however much of it comes.
func TestThreat21_RefusalsAreCheap(t *testing.T) {
	t.Parallel()
	s := mixed
	s.wechat = "\t\tlogin_rate 12/h"
	w := newWorld(t, s)
	good, other := w.login(t, "ada"), w.login(t, "bob")
	dead := w.login(t, "eve")
	w.post(t, "/wx/logout", "", bearer(dead)).made(t, http.StatusNoContent)

	refusals := []struct {
		result string // as the metric has it
		bytes  []string
	}{
		{"missing", []string{
			request("x", "GET", "/admin", ""), request("x", "GET", "/admin", "", "X-WX-OPENID: victim"), request("x", "GET", "/wx/session", ""), request("x", "POST", "/wx/logout", ""),
			request("x", "GET", "/public/..%2fadmin", ""), request("x", "OPTIONS", "/admin", ""), request("x", "GET", "/admin", "", "Authorization: Basic YTpi"),
		}},
		{"malformed", []string{
			request("x", "GET", "/admin", "", bearer("wxs_")), request("x", "GET", "/optional/x", "", bearer(good[:44])), request("x", "GET", "/wx/session", "", bearer(good+"A")),
			request("x", "GET", "/admin", "", "X-3rd-Session: junk"), request("x", "GET", "/admin", "", bearer("wxs_"+strings.Repeat("A", 9000))), request("x", "POST", "/wx/logout", "", bearer("wxs_"+strings.Repeat("=", 41))),
		}},
		{"not_found", []string{request("x", "GET", "/wx/other", "", bearer(good)), request("x", "GET", "/wx//login", ""), request("x", "GET", "/WX/session", "", bearer(dead))}},
		{"ambiguous_credentials", []string{request("x", "GET", "/admin", "", bearer(good), "X-3rd-Session: "+other)}},
		{"bad_trailer", []string{request("x", "GET", "/admin", "", bearer(good), "Trailer: X-Wx-Openid")}},
	}
	var forged []string
	for i := 4; i < len(good); i++ { // the prefix would make it malformed
		flipped := byte('A')
		if good[i] == 'A' {
			flipped = 'B'
		}
		token := good[:i] + string(flipped) + good[i+1:]
		forged = append(forged, request("x", "GET", "/admin", "", bearer(token)), request("x", "GET", "/optional/x", "", bearer(token)))
	}
	for i := range 100 {
		forged = append(forged, request("x", "GET", "/wx/session", "", bearer(fmt.Sprintf("wxs_%041d", i))))
	}
	refusals = append(refusals, struct {
		result string
		bytes  []string
	}{"forged", forged})

	w.wechat.Reset()
	for _, tt := range refusals {
		t.Run(tt.result, func(t *testing.T) {
			before := w.metrics(t)
			for _, text := range tt.bytes {
				if r := raw(t, w.addr, text); r.status/100 != 4 || !r.fromGate() {
					t.Errorf("%s\nis answered with %s", text, r)
				}
			}
			w.checkUnasked(t, before)
			series := fmt.Sprintf("caddy_wechat_decisions_total{result=%q}", tt.result)
			if n := w.metrics(t)[series] - before[series]; n != float64(len(tt.bytes)) {
				t.Errorf("%v of %d are counted as %s", n, len(tt.bytes), tt.result)
			}
		})
	}
	t.Run("logins", func(t *testing.T) {
		before := w.metrics(t)
		for range 9 {
			w.post(t, "/wx/login", "{", bearer(dead)).problem(t, http.StatusBadRequest, "invalid_request")
		}
		for range 50 {
			w.tryLogin(t, "ada", bearer(good)).problem(t, http.StatusTooManyRequests, "rate_limited")
		}
		w.call(t, "GET", "/wx/login", "", bearer(good)).problem(t, http.StatusMethodNotAllowed, "invalid_request")
		w.checkUnasked(t, before)
	})
	t.Run("the store is seen when it is asked", func(t *testing.T) {
		before := w.metrics(t)
		w.checkDead(t, dead)
		if n := w.metrics(t)[missesSeries] - before[missesSeries]; n != 1 {
			t.Errorf("a revoked token counts as %v questions to the store, want 1", n)
		}
	})
	if seen := w.app.take(); len(seen) > 0 {
		t.Errorf("the app is asked %v", seen)
	}
}

// checkUnasked demands that neither cache, store nor WeChat was asked anything since the metrics were read.
func (w *world) checkUnasked(tb testing.TB, before map[string]float64) {
	tb.Helper()
	after := w.metrics(tb)
	for _, series := range []string{missesSeries, hitsSeries} {
		if _, there := before[series]; !there || after[series] != before[series] {
			tb.Errorf("%s goes from %v to %v", series, before[series], after[series])
		}
	}
	w.asked(tb, 0)
}
