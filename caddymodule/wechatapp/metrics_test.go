package wechatapp

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestMetrics_Lint(t *testing.T) {
	c := newCollectors()
	c.observeWeChat(weixin.Call{Name: "code2session", Duration: time.Second})
	c.observeStore(session.StoreCall{Name: "lookup", Result: "ok"})
	c.countEvent(zapcore.Entry{Level: zapcore.WarnLevel, Message: "x"})
	caddytest.LintMetrics(t, c.register, 14)
}

// TestMetrics_LogEvents_AreCounted: each warning and error of the gate is a series, named
// by what happened.
func TestMetrics_LogEvents_AreCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	if err := metrics.register(reg); err != nil {
		t.Fatal(err)
	}
	log := Logger("metrics test").With(zap.Int("n", 1))
	log.Info("nothing to do")
	log.Warn("something odd: look at it")
	log.Error("something odd; mend it")
	log.Error("something odd")
	got := caddytest.Gathered(t, reg)
	for series, want := range map[string]float64{
		`caddy_wechat_log_events_total{event="something odd",level="warn"}`:  1,
		`caddy_wechat_log_events_total{event="something odd",level="error"}`: 2,
		`caddy_wechat_log_events_total{event="nothing to do",level="info"}`:  0,
	} {
		if got[series] != want {
			t.Errorf("%s %v, want %v", series, got[series], want)
		}
	}
}
