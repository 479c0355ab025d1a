package wechatapp

import (
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestMetrics_Lint(t *testing.T) {
	c := newCollectors()
	c.observeWeChat(weixin.Call{Name: "code2session", Duration: time.Second})
	caddytest.LintMetrics(t, c.register, 12)
}
