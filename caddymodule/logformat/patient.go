package logformat

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"golang.org/x/term"
)

func init() { caddy.RegisterModule(new(PatientWriter)) }

// PatientWriter writes to standard error or standard output and blocks no request
// when the reader of the log stalls, be it a pipe, journald or a container's log
// driver: it keeps what fits into its buffer, drops the rest and says how many lines
// it dropped when the reader is back. The binary `wxgate` uses it for each log that
// goes there; in another binary name it in the log.
type PatientWriter struct {
	// `stderr` or `stdout`. Default: `stderr`.
	To string `json:"to,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (PatientWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.writers.wechat_patient",
		New: func() caddy.Module { return new(PatientWriter) },
	}
}

// Provision checks the name of the stream.
func (p *PatientWriter) Provision(caddy.Context) error {
	switch p.To {
	case "":
		p.To = "stderr"
	case "stderr", "stdout":
	default:
		return fmt.Errorf("log writer wechat_patient writes to stderr or stdout, not to %q", p.To)
	}
	return nil
}

// UnmarshalCaddyfile reads:
//
//	output wechat_patient [stderr|stdout]
func (p *PatientWriter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the writer's name
	if d.NextArg() {
		p.To = d.Val()
	}
	if d.NextArg() || d.NextBlock(0) {
		return d.Err("output wechat_patient takes stderr or stdout, and no more")
	}
	return nil
}

func (p PatientWriter) String() string { return p.To }

// WriterKey is that of Caddy's own writer of the stream: Caddy opens one writer a key,
// so that all logs of the stream share this one.
func (p PatientWriter) WriterKey() string { return "std:" + p.To[len("std"):] }

// OpenWriter starts to write.
func (p PatientWriter) OpenWriter() (io.WriteCloser, error) {
	if p.To == "stdout" {
		return newPatient(os.Stdout), nil
	}
	return newPatient(os.Stderr), nil
}

// BePatient makes a PatientWriter of each log of this process that goes to standard
// error or output, those of Caddy's defaults, too. Call it before Caddy loads a
// configuration: it is the first to open these writers, and never closes them.
func BePatient() error {
	logs := make(map[string]*caddy.CustomLog)
	streams := map[string]*os.File{"default": os.Stderr, "out": os.Stdout}
	for name, to := range map[string]string{"default": "stderr", "out": "stdout"} {
		if term.IsTerminal(int(streams[name].Fd())) {
			continue // Caddy lays lines out for people there, by its own writer
		}
		raw, err := json.Marshal(map[string]string{"output": "wechat_patient", "to": to})
		if err != nil {
			return err
		}
		logs[name] = &caddy.CustomLog{BaseLog: caddy.BaseLog{WriterRaw: raw}}
	}
	if out := logs["out"]; out != nil {
		out.Include = []string{"no.such.logger"} // opened only
	}
	_, err := caddy.ProvisionContext(&caddy.Config{Logging: &caddy.Logging{Logs: logs}})
	return err
}

const (
	// bufferedLines and bufferedBytes bound what waits for a stalled reader.
	bufferedLines = 4096
	bufferedBytes = 4 << 20

	// writePatience is how long the writer of a line waits while the reader is well:
	// then no line is lost when the process ends.
	writePatience = 200 * time.Millisecond
)

var dropped atomic.Int64

// Dropped returns how many lines of this process were lost.
func Dropped() int64 { return dropped.Load() }

// patient is an io.WriteCloser whose Write returns within writePatience, and at once
// while an earlier line waits longer.
type patient struct {
	out   io.Writer
	lines chan line
	bytes atomic.Int64 // in lines
	stuck atomic.Bool  // a line has waited for longer than writePatience
	lost  atomic.Int64 // lines dropped and not told of
}

type line struct {
	text []byte
	done chan struct{} // nil: its writer does not wait
}

func newPatient(out io.Writer) *patient {
	p := &patient{out: out, lines: make(chan line, bufferedLines)}
	go p.run()
	return p
}

// run writes the lines. It never ends: Caddy keeps these writers for good.
func (p *patient) run() {
	for l := range p.lines {
		_, _ = p.out.Write(l.text)
		p.bytes.Add(-int64(len(l.text)))
		if l.done != nil {
			close(l.done)
		}
		if len(p.lines) > 0 {
			continue
		}
		p.stuck.Store(false)
		if n := p.lost.Swap(0); n > 0 {
			_, _ = fmt.Fprintf(p.out, `{"level":"warn","ts":%.3f,"logger":"wechat.log",`+
				`"msg":"log lines dropped: the reader of the log stalled","count":%d}`+"\n",
				float64(time.Now().UnixMilli())/1000, n)
		}
	}
}

// Write implements io.Writer. It always takes the line.
func (p *patient) Write(b []byte) (int, error) {
	l := line{text: append([]byte(nil), b...)}
	stuck := p.stuck.Load()
	if !stuck {
		l.done = make(chan struct{})
	}
	if !p.enqueue(l) {
		p.lost.Add(1)
		dropped.Add(1)
		return len(b), nil
	}
	if !stuck {
		timeout := time.NewTimer(writePatience)
		defer timeout.Stop()
		select {
		case <-l.done:
		case <-timeout.C:
			p.stuck.Store(true)
		}
	}
	return len(b), nil
}

func (p *patient) enqueue(l line) bool {
	if p.bytes.Add(int64(len(l.text))) <= bufferedBytes {
		select {
		case p.lines <- l:
			return true
		default:
		}
	}
	p.bytes.Add(-int64(len(l.text)))
	return false
}

// Close does nothing: other logs may write on.
func (p *patient) Close() error { return nil }

// Interface guards
var (
	_ caddy.Provisioner     = (*PatientWriter)(nil)
	_ caddy.WriterOpener    = (*PatientWriter)(nil)
	_ caddyfile.Unmarshaler = (*PatientWriter)(nil)
)
