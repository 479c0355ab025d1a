package wechatauth

import (
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestThreat32_MetricsSurviveReload: each configuration brings a registry of its
// own, and two may share one.
func TestThreat32_MetricsSurviveReload(t *testing.T) {
	c := newCollectors()
	first, second := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
	for _, reg := range []*prometheus.Registry{first, first, second} {
		if err := c.register(reg); err != nil {
			t.Fatal(err)
		}
		c.decided(Guest)
	}
	for _, reg := range []*prometheus.Registry{first, second} {
		got := caddytest.Gathered(t, reg)[`caddy_wechat_decisions_total{result="guest"}`]
		if got != 3 {
			t.Errorf("counted %v, want 3", got)
		}
	}
}

// TestMetrics_NameTaken_Refused: a foreign collector of the same name with other
// labels is an error, not a silent loss.
func TestMetrics_NameTaken_Refused(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{
		Name: "caddy_wechat_logins_total", Help: "A foreign counter.",
	}))
	if err := newCollectors().register(reg); err == nil {
		t.Error("no error")
	}
}

func TestMetrics_Lint(t *testing.T) {
	c := newCollectors()
	c.logins.WithLabelValues("ok").Inc()
	c.loginLimits.WithLabelValues("client").Inc()
	c.called("phone", "ok")
	caddytest.LintMetrics(t, c.register, 6)
}

// weixinCalls are the names of WeChat's calls that the gate makes.
var weixinCalls = []string{
	"code2session", "stable_token", "getuserphonenumber", "checksession", "resetusersessionkey",
	"getpaidunionid", "getuserencryptkey", "getpluginopenpid", "component_code2session",
	"api_component_token", "api_query_auth", "api_authorizer_token", "api_get_authorizer_list",
	"api_create_preauthcode", "api_start_push_ticket",
}

// TestMetricsClosedLabels: nothing that a client sends becomes a label.
func TestMetricsClosedLabels(t *testing.T) {
	w := newWorld(t, &Handler{Public: []string{"/healthz"}}).start()
	const evil = "evil-label"
	for _, target := range []string{
		"/healthz", "/" + evil, "/wx/" + evil, "/wx/login", "/wx/session", "/wx/logout",
		"/wx/decrypt", "/wx/phone",
	} {
		for _, method := range []string{"GET", "POST", "EVIL-LABEL"} {
			r, rec := caddytest.Request(method, target, "wxs_"+evil)
			r.Body = caddytest.Body(`{"code":"` + evil + `","appid":"` + evil + `"}`)
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
			r, rec = caddytest.Request(method, target, "")
			r.Body = caddytest.Body(
				`{"code":"` + evil + method + target[1:3] + `","appid":"` + caddytest.AppID + `"}`,
			)
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
		}
	}
	token := w.Token(caddytest.AppID, "alice")
	for _, target := range []string{"/wx/decrypt", "/wx/phone"} {
		r, rec := caddytest.Request("POST", target, token)
		r.Body = caddytest.Body(
			`{"code":"` + evil + `","encryptedData":"` + evil + `","iv":"` + evil + `"}`,
		)
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
	}
	reg := w.Ctx.GetMetricsRegistry()
	var decided []string
	for _, r := range results {
		decided = append(decided, string(r))
	}
	closed := map[string][]string{
		"caddy_wechat_decisions_total": decided,
		"caddy_wechat_logins_total": {
			"ok", "replayed", "invalid_request", "app_not_allowed", "code_invalid", "code_used",
			"user_blocked", "rate_limited", "misconfigured", "wechat_unavailable",
			"store_unavailable",
		},
		"caddy_wechat_endpoint_calls_total": {
			"decrypt", "phone", "jwks.json", "login", "logout", "session", "sessions", "ticket",
			"component", "push", "ok", "invalid_request", "data_invalid", "code_invalid",
			"user_blocked", "rate_limited", "misconfigured", "wechat_unavailable",
			"store_unavailable",
		},
		"caddy_wechat_login_limits_total": {
			"client", "refused_codes", "global", "in_flight", "merchant",
		},
		"caddy_wechat_pushes_total": {
			"none", "proof_of_url", "user_cancelled", "user_revoked", "user_modified", "ticket",
			"authorisation", "other", "taken", "repeated", "failed", "malformed",
			"wrong_signature", "not_decrypted", "other_receiver", "late",
		},
		"caddy_wechat_push_deliveries_total": {"delivered", "failed", "dropped"},
		"caddy_wechat_store_call_duration_seconds": {
			"login", "lookup", "ok", "unavailable", "canceled",
		},
		"caddy_wechat_weixin_call_duration_seconds": weixinCalls,
		"caddy_wechat_weixin_calls_total": append(
			slices.Clone(weixinCalls), "ok", "code_invalid", "code_used", "user_blocked",
			"rate_limited", "misconfigured", "key_stale", "order_invalid", "rejected",
			"unauthorized", "no_ticket",
			"unavailable", "protocol", "canceled", "breaker_open",
		),
		"caddy_wechat_weixin_breaker_open":                   {"logins", "others"},
		"caddy_wechat_weixin_down":                           {"logins", "others"},
		"caddy_wechat_weixin_last_success_timestamp_seconds": {"logins", "others"},
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if !strings.HasPrefix(f.GetName(), "caddy_wechat_") {
				continue
			}
			for _, l := range m.GetLabel() {
				seen++
				if !slices.Contains(closed[f.GetName()], l.GetValue()) {
					t.Errorf("%s: label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	if seen < len(decided)+4 {
		t.Errorf("only %d labels seen: this test shows little", seen)
	}
}
