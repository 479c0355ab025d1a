package wechatapp

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// TestWeChatLog_DailyQuota_OneErrorADay: for each mini program and call, with the time
// at which WeChat takes calls again.
func TestWeChatLog_DailyQuota_OneErrorADay(t *testing.T) {
	sim := weixintest.NewServer(weixintest.Config{Apps: map[string]string{testAppID: "secret"}})
	defer sim.Close()
	spent := func() *weixin.Error {
		c, err := weixin.New(weixin.Config{BaseURL: sim.URL})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 45009})
		_, err = c.Code2Session(t.Context(),
			weixin.Credentials{ID: testAppID, Secret: "secret"}, "code")
		e, _ := errors.AsType[*weixin.Error](err)
		return e
	}()
	synctest.Test(t, func(t *testing.T) { // at midnight UTC, 8 o'clock in Beijing
		core, logs := observer.New(zap.DebugLevel)
		l := newWeChatLog(zap.New(core))
		call := weixin.Call{Name: "code2session", AppID: testAppID, Err: spent}
		for range 3 {
			l.observe(call)
		}
		l.observe(weixin.Call{Name: "code2session", AppID: testAppID})
		got := logs.TakeAll()
		if len(got) != 1 || got[0].Level != zapcore.ErrorLevel {
			t.Fatalf("logged %+v", got)
		}
		until := got[0].ContextMap()["until"]
		tomorrow := time.Now().Add(24 * time.Hour).Format(time.DateOnly)
		if until != tomorrow+" 00:00 Beijing time" {
			t.Errorf("until %v", until)
		}
		other := call
		other.Name = "stable_token"
		l.observe(other)
		time.Sleep(17 * time.Hour) // to the next day there
		l.observe(call)
		if n := logs.Len(); n != 2 {
			t.Errorf("%d lines, want 2", n)
		}
	})
}

func TestWeChatLog_Transitions_TellRateAndCause(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	say := newWeChatLog(zap.New(core)).transitions("WeChat")
	cause := &weixin.Error{Op: "exchanging code", Host: "h", Reason: "HTTP 407 from a proxy"}
	h := weixin.Health{LastError: cause, Since: time.Now(), Calls: 20, Failed: 5}
	for _, want := range []struct {
		state weixin.State
		level zapcore.Level
		line  string
	}{
		{weixin.Partly, zapcore.ErrorLevel, "WeChat is partly unavailable"},
		{weixin.Down, zapcore.ErrorLevel, "WeChat is unavailable"},
		{weixin.Well, zapcore.InfoLevel, "WeChat is back"},
	} {
		h.State = want.state
		say(weixin.Transition{Health: h})
		e := logs.TakeAll()[0]
		fields := e.ContextMap()
		if e.Message != want.line || e.Level != want.level || fields["failed"] != int64(5) {
			t.Errorf("logged %+v", e)
		}
		if text, _ := fields["error"].(string); want.state != weixin.Well &&
			(!strings.Contains(text, "h: HTTP 407") || fields["percent"] != int64(25)) {
			t.Errorf("fields %v", fields)
		}
	}
}

const testAppID = "wx0123456789abcdef"
