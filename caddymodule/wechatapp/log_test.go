package wechatapp

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

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
