package caddymodule

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// TestThreat32_MetricsSurviveReload: each configuration brings a registry of its own, and two Apps may share one.
func TestThreat32_MetricsSurviveReload(t *testing.T) {
	c := newCollectors()
	first, second := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
	for range 2 {
		if err := c.register(first); err != nil {
			t.Fatal(err)
		}
	}
	c.decided(resultGuest)
	if err := c.register(second); err != nil {
		t.Fatal(err)
	}
	c.decided(resultGuest)
	for _, reg := range []*prometheus.Registry{first, second} {
		if got := gathered(t, reg)[`caddy_wechat_decisions_total{result="guest"}`]; got != 2 {
			t.Errorf("counted %v, want 2", got)
		}
	}
}

// TestMetricsRegisterConflict: a foreign collector of the same name with other labels is an error, not a silent loss.
func TestMetricsRegisterConflict(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "caddy_wechat_logins_total", Help: "Somebody else's."}))
	if err := newCollectors().register(reg); err == nil {
		t.Error("no error")
	}
}

// gathered returns the value of every counter and the count of every histogram by name and labels.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			name := f.GetName()
			if labels != nil {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			got[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func TestMetricsLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c := newCollectors()
	if err := c.register(reg); err != nil {
		t.Fatal(err)
	}
	c.logins.WithLabelValues("ok").Inc()
	c.endpointCalls.WithLabelValues("phone", "ok").Inc()
	c.observeWeChat(weixin.Call{Name: "code2session", Duration: time.Second})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if want := reflect.TypeFor[collectors]().NumField() - 1; len(families) != want { // decisionBy is part of decisions
		t.Errorf("%d families, want %d", len(families), want)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p.Metric, p.Text)
	}
}

// weixinCalls are the names of WeChat's calls that the gate makes.
var weixinCalls = []string{
	"code2session", "stable_token", "getuserphonenumber", "checksession", "resetusersessionkey", "getpaidunionid", "getuserencryptkey", "getpluginopenpid",
}

// TestMetricsClosedLabels: nothing that a client sends becomes a label.
func TestMetricsClosedLabels(t *testing.T) {
	w := newWorld(t, &Gate{Public: []string{"/healthz"}}).start()
	const evil = "evil-label"
	for _, target := range []string{"/healthz", "/" + evil, "/wx/" + evil, "/wx/login", "/wx/session", "/wx/logout", "/wx/decrypt", "/wx/phone"} {
		for _, method := range []string{"GET", "POST", "EVIL-LABEL"} {
			r, rec := request(method, target, "wxs_"+evil)
			r.Body = readCloser(`{"code":"` + evil + `","appid":"` + evil + `"}`)
			if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
				t.Fatal(err)
			}
			r, rec = request(method, target, "")
			r.Body = readCloser(`{"code":"` + evil + method + target[1:3] + `","appid":"` + appID + `"}`)
			if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
				t.Fatal(err)
			}
		}
	}
	token := w.token(appID, "alice")
	for _, target := range []string{"/wx/decrypt", "/wx/phone"} {
		r, rec := request("POST", target, token)
		r.Body = readCloser(`{"code":"` + evil + `","encryptedData":"` + evil + `","iv":"` + evil + `"}`)
		if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewPedanticRegistry()
	if err := metrics.register(reg); err != nil {
		t.Fatal(err)
	}
	var results []string
	for r := range metrics.decisionBy {
		results = append(results, string(r))
	}
	closed := map[string][]string{
		"caddy_wechat_decisions_total": results,
		"caddy_wechat_logins_total": {
			"ok", "replayed", "invalid_request", "app_not_allowed", "code_invalid", "code_used", "user_blocked", "rate_limited", "misconfigured", "wechat_unavailable", "store_unavailable",
		},
		"caddy_wechat_endpoint_calls_total": {
			"decrypt", "phone", "ok", "invalid_request", "data_invalid", "code_invalid", "user_blocked", "rate_limited", "misconfigured", "wechat_unavailable", "store_unavailable",
		},
		"caddy_wechat_weixin_call_duration_seconds": weixinCalls,
		"caddy_wechat_weixin_calls_total": append(slices.Clone(weixinCalls),
			"ok", "code_invalid", "code_used", "user_blocked", "rate_limited", "misconfigured", "key_stale", "order_invalid", "rejected", "unavailable", "protocol", "canceled"),
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				seen++
				if !slices.Contains(closed[f.GetName()], l.GetValue()) {
					t.Errorf("%s: label %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
	}
	if seen < len(results)+4 {
		t.Errorf("only %d labels seen: this test shows little", seen)
	}
}
