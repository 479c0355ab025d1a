package caddytest

import (
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(new(memoryWriter)) }

// memoryWriter is a log writer that a test can read, as the module
// caddy.logging.writers.memory.
type memoryWriter struct {
	Name string `json:"name,omitempty"`
}

var memory struct {
	sync.Mutex
	logs map[string]*strings.Builder
}

// CaddyModule returns the Caddy module information.
func (memoryWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.writers.memory",
		New: func() caddy.Module { return new(memoryWriter) },
	}
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

// LogTo sends Caddy's default log to a name, from a level on.
func LogTo(t testing.TB, name, level string) {
	t.Helper()
	err := caddy.Load([]byte(`{
		"admin": {"disabled": true, "config": {"persist": false}},
		"logging": {"logs": {"default": {
			"writer": {"output": "memory", "name": "`+name+`"}, "level": "`+level+`"
		}}}
	}`), true)
	if err != nil {
		t.Fatal(err)
	}
}

// LogToMemory is LogTo until the test ends.
func LogToMemory(t testing.TB, name string) {
	t.Helper()
	LogTo(t, name, "INFO")
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// Written returns the log of a name, and empties it.
func Written(name string) string {
	memory.Lock()
	defer memory.Unlock()
	b := memory.logs[name]
	delete(memory.logs, name)
	if b == nil {
		return ""
	}
	return b.String()
}

// Holds reports whether one line of a log has all the parts.
func Holds(log string, parts ...string) bool {
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
