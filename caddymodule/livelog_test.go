package caddymodule

import (
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

func init() { caddy.RegisterModule(new(memoryWriter)) }

// memoryWriter is a log writer that the test can read, as the module caddy.logging.writers.memory.
type memoryWriter struct {
	Name string `json:"name,omitempty"`
}

var memory struct {
	sync.Mutex
	logs map[string]*strings.Builder
}

func (memoryWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.memory", New: func() caddy.Module { return new(memoryWriter) }}
}

func (m *memoryWriter) String() string                      { return "memory" }
func (m *memoryWriter) WriterKey() string                   { return "memory:" + m.Name }
func (m *memoryWriter) OpenWriter() (io.WriteCloser, error) { return m, nil }
func (m *memoryWriter) Close() error                        { return nil }
func (m *memoryWriter) Write(p []byte) (int, error) {
	memory.Lock()
	defer memory.Unlock()
	if memory.logs == nil {
		memory.logs = make(map[string]*strings.Builder)
	}
	if memory.logs[m.Name] == nil {
		memory.logs[m.Name] = new(strings.Builder)
	}
	return memory.logs[m.Name].Write(p)
}

// written returns what was written to a name, and empties it.
func written(name string) string {
	memory.Lock()
	defer memory.Unlock()
	b := memory.logs[name]
	delete(memory.logs, name)
	if b == nil {
		return ""
	}
	return b.String()
}

// TestLiveLogger: a logger that was made under one configuration writes where the current one says, with all its fields.
func TestLiveLogger(t *testing.T) {
	logTo := func(name, level string) {
		t.Helper()
		err := caddy.Load([]byte(`{"admin":{"disabled":true,"config":{"persist":false}},"logging":{"logs":{"default":{"writer":{"output":"memory","name":"`+name+`"},"level":"`+level+`"}}}}`), true)
		if err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	}()
	logTo("first", "INFO")
	log := liveLogger().Named("store").With(zap.String("a", "1")).With(zap.String("x", "1")).With(zap.String("y", "1"))
	one, two := log.With(zap.String("b", "2")), log.With(zap.String("b", "3")) // neither may see the other's field
	one.Info("before", zap.Int("c", 4))
	one.Debug("too quiet")
	if got := written("first"); !holds(got, `"logger":"wechat.store"`, `"msg":"before"`, `"a":"1"`, `"b":"2"`, `"c":4`) || holds(got, "too quiet") {
		t.Errorf("first log: %s", got)
	}
	logTo("second", "DEBUG")
	written("first")
	one.Info("after", zap.Int("c", 5))
	two.Debug("quiet")
	if got := written("first"); got != "" {
		t.Errorf("the log of the old configuration has %s", got)
	}
	if got := written("second"); !holds(got, `"msg":"after"`, `"a":"1"`, `"b":"2"`, `"c":5`) || !holds(got, `"msg":"quiet"`, `"a":"1"`, `"b":"3"`) {
		t.Errorf("second log: %s", got)
	}
	if err := log.Sync(); err != nil {
		t.Error(err)
	}
}

// holds reports whether one line has all the parts.
func holds(log string, parts ...string) bool {
lines:
	for line := range strings.Lines(log) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue lines
			}
		}
		return true
	}
	return false
}
