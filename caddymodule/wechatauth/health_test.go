package wechatauth

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// probe sends a request as a load balancer does, with tokens that must not matter.
func probe(t *testing.T, h *Handler, method, target string) (status int, state string) {
	t.Helper()
	r, rec := caddytest.Request(method, target, caddytest.MadeUp)
	r.Header.Set("X-3rd-Session", "wxs_another")
	if err := h.ServeHTTP(rec, r, &caddytest.Next{}); err != nil {
		t.Fatal(err)
	}
	if skip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.LogSkipVar).(bool); !skip {
		t.Errorf("%s %s is in the access log", method, target)
	}
	if rec.Code == http.StatusServiceUnavailable && rec.Header().Get("Retry-After") == "" {
		t.Errorf("%s %s: no Retry-After", method, target)
	}
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

func TestHealth_States_Told(t *testing.T) {
	w := newWorld(t, &Handler{Endpoints: "/api/wx"})
	check := func(when string, want map[string]string) {
		t.Helper()
		decided, lines := w.Metric("caddy_wechat_decisions_total"), w.Logs.Len()
		for target, said := range want {
			for _, method := range []string{"GET", "HEAD"} {
				status, state := probe(t, w.gate, method, "/api/wx/"+target)
				code, name, _ := strings.Cut(said, " ")
				if strconv.Itoa(status) != code ||
					method == "GET" && state != `{"status":"`+name+`"}` {
					t.Errorf("%s: %s %s: %d %s, want %s", when, method, target, status, state, said)
				}
			}
		}
		if w.Metric("caddy_wechat_decisions_total") != decided || w.Logs.Len() != lines {
			t.Errorf("%s: probes leave traces", when)
		}
	}
	check("before the start", map[string]string{
		"livez": "200 ok", "readyz": "503 starting", "readyz?strict": "503 starting",
	})
	w.start()
	check("in service", map[string]string{
		"livez": "200 ok", "readyz": "200 ok", "readyz?strict": "200 ok",
	})
	if up := w.Metric("caddy_wechat_store_up"); up != 1 {
		t.Errorf("store_up is %v", up)
	}
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	check("without the store", map[string]string{
		"livez": "200 ok", "readyz": "200 degraded", "readyz?strict": "503 degraded",
		"readyz?strict=1&x": "503 degraded",
	})
	if up := w.Metric("caddy_wechat_store_up"); up != 0 {
		t.Errorf("store_up is %v in an outage", up)
	}
}

func TestHealth_OtherMethod_Refused(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	r, rec := caddytest.Request("POST", "/wx/readyz", "")
	if err := w.gate.ServeHTTP(rec, r, &caddytest.Next{}); err != nil {
		t.Fatal(err)
	}
	if rec.Code != http.StatusMethodNotAllowed || rec.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("%d, Allow %q", rec.Code, rec.Header().Get("Allow"))
	}
}

// TestHealth_Cloudrun_Ready: the mode has no other endpoint, no session and no store.
func TestHealth_Cloudrun_Ready(t *testing.T) {
	w := newWorld(t, &Handler{Cloudrun: true})
	for _, target := range []string{"/wx/livez", "/wx/readyz?strict"} {
		if status, state := probe(t, w.gate, "GET", target); status != 200 ||
			state != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", target, status, state)
		}
	}
}
