package wechatapp

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestLiveLogger: a logger that was made under one configuration writes where
// the current one says, with all its fields.
func TestLiveLogger(t *testing.T) {
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()
	caddytest.LogTo(t, "first", "INFO")
	log := Logger("store").With(zap.String("a", "1")).
		With(zap.String("x", "1")).
		With(zap.String("y", "1"))
	one, two := log.With(zap.String("b", "2")), log.With(
		zap.String("b", "3"),
	) // neither may see the other's field
	one.Info("before", zap.Int("c", 4))
	one.Debug("too quiet")
	if got := caddytest.Written("first"); !caddytest.Holds(
		got, `"logger":"wechat.store"`, `"msg":"before"`, `"a":"1"`, `"b":"2"`, `"c":4`,
	) || caddytest.Holds(got, "too quiet") {
		t.Errorf("first log: %s", got)
	}
	caddytest.LogTo(t, "second", "DEBUG")
	caddytest.Written("first")
	one.Info("after", zap.Int("c", 5))
	two.Debug("quiet")
	if got := caddytest.Written("first"); got != "" {
		t.Errorf("the log of the old configuration has %s", got)
	}
	if got := caddytest.Written("second"); !caddytest.Holds(
		got, `"msg":"after"`, `"a":"1"`, `"b":"2"`, `"c":5`,
	) || !caddytest.Holds(got, `"msg":"quiet"`, `"a":"1"`, `"b":"3"`) {
		t.Errorf("second log: %s", got)
	}
	if err := log.Sync(); err != nil {
		t.Error(err)
	}
}
