package wechatapp

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
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
	// Neither may show the field of the other.
	one, two := log.With(zap.String("b", "2")), log.With(zap.String("b", "3"))
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

func TestThreat40_Refusals_BoundedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		l := NewRefusalLog(zap.New(core))
		long := strings.Repeat("\xff", 15_000)
		for range 600 {
			l.Log(zapcore.InfoLevel, "refused", "missing", Bounded("path", long))
			l.Log(zapcore.DebugLevel, "refused", "hidden")
		}
		l.Log(zapcore.WarnLevel, "refused", "forged")
		time.Sleep(3 * time.Second)
		if n := logs.FilterMessage("refused").Len(); n != refusalsInFull+1 {
			t.Errorf("%d lines", n)
		}
		for _, e := range logs.All() {
			if path, _ := e.ContextMap()["path"].(string); len(path) > 300 {
				t.Errorf("a path of %d bytes", len(path))
			}
		}
		more := logs.FilterMessage("refused: more within a second").All()
		if len(more) != 1 || more[0].ContextMap()["count"] != int64(600-refusalsInFull) ||
			more[0].ContextMap()["kind"] != "missing" {
			t.Errorf("told %v", more)
		}
		l.Log(zapcore.InfoLevel, "refused", "missing")
		if n := logs.FilterMessage("refused").Len(); n != refusalsInFull+2 {
			t.Error("no line after a quiet second")
		}
	})
}

// TestThreat40_Flood_TenLinesASecond sends 5,000 refusals a second of three kinds for
// ten seconds: each second has ten lines at most, and the counts add up.
func TestThreat40_Flood_TenLinesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.InfoLevel)
		l := NewRefusalLog(zap.New(core))
		const seconds, rate = 10, 5000
		told, kinds := 0, []string{"malformed", "forged", "unknown"}
		count := func() (lines int) {
			for _, e := range logs.TakeAll() {
				lines++
				told++
				if n, more := e.ContextMap()["count"].(int64); more {
					told += int(n) - 1
				}
				if e.ContextMap()["path"] != "/x" {
					t.Errorf("a line without its fields: %v", e.ContextMap())
				}
			}
			return lines
		}
		for range seconds {
			for i := range rate {
				l.Log(zapcore.InfoLevel, "refused", kinds[i%len(kinds)], Bounded("path", "/x"))
				time.Sleep(time.Second / rate)
			}
			if lines := count(); lines > 10 {
				t.Errorf("%d lines in a second", lines)
			}
		}
		time.Sleep(3 * time.Second)
		count()
		if told != seconds*rate {
			t.Errorf("the lines tell of %d refusals, not of %d", told, seconds*rate)
		}
	})
}

// stuck is a log whose reader has stopped.
type stuck struct{ until chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	<-s.until
	return len(p), nil
}

func (stuck) Sync() error { return nil }

func TestThreat40_StuckLog_HoldsNoRefusalUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := stuck{make(chan struct{})}
		l := NewRefusalLog(zap.New(zapcore.NewCore(
			zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), out, zapcore.InfoLevel)))
		began := time.Now()
		for range 1000 {
			l.Log(zapcore.InfoLevel, "refused", "missing")
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("1000 refusals took %v", took)
		}
		close(out.until)
		time.Sleep(2 * time.Second)
	})
}

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
