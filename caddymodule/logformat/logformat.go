// Package logformat owns how lines get into logs: the format `wechat`, which keeps
// tokens out, and the writer `wechat_patient`, which blocks no request.
//
// It must not know requests, sites or configuration of the gate.
package logformat

import (
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/logging"
	"go.uber.org/zap/buffer"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
)

func init() { caddy.RegisterModule(new(LogFormat)) }

// LogFormat keeps tokens out of a log, wherever in a line they stand, and what a
// query should never hold: the query of the endpoints under `/wx`, and the
// parameters `code`, `js_code`, `session_key`, `access_token` and `secret`
// anywhere. It reads percent-encoded forms, too. Caddy's access log shows every
// header that a client sends but `Authorization` and `Cookie`, so a token in
// `X-3rd-Session`, or in a header of your own choice, would be in it. The line is
// otherwise that of the format it wraps.
//
//	log {
//		format wechat {
//			wrap json
//		}
//	}
type LogFormat struct {
	// The format that lays out the line. Default: `json`, or `console` where
	// Caddy writes to a terminal.
	WrappedRaw json.RawMessage `json:"wrap,omitempty" caddy:"namespace=caddy.logging.encoders inline_key=format"`

	zapcore.Encoder `json:"-"`

	ctx caddy.Context
}

// CaddyModule returns the Caddy module information.
func (LogFormat) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.logging.encoders.wechat",
		New: func() caddy.Module { return new(LogFormat) },
	}
}

// inUse counts the provisioned formats.
var inUse atomic.Int64

// InUse reports whether any log of this process has the format.
func InUse() bool { return inUse.Load() > 0 }

// Cleanup implements caddy.CleanerUpper.
func (f *LogFormat) Cleanup() error {
	inUse.Add(-1)
	return nil
}

// Provision loads the wrapped format.
func (f *LogFormat) Provision(ctx caddy.Context) error {
	inUse.Add(1) // Caddy calls Cleanup also after an error
	f.ctx = ctx
	if f.WrappedRaw == nil {
		e := new(logging.JSONEncoder)
		f.Encoder = e
		return e.Provision(ctx)
	}
	mod, err := ctx.LoadModule(f, "WrappedRaw")
	if err != nil {
		return fmt.Errorf("loading wrapped log format: %w", err)
	}
	e, ok := mod.(zapcore.Encoder)
	if !ok {
		return fmt.Errorf("loading wrapped log format: %T is not a log encoder", mod)
	}
	f.Encoder = e
	return nil
}

// ConfigureDefaultFormat does what Caddy does for logs without a format: a
// terminal gets lines to read.
func (f *LogFormat) ConfigureDefaultFormat(wo caddy.WriterOpener) error {
	if c, ok := f.Encoder.(caddy.ConfiguresFormatterDefault); ok {
		return c.ConfigureDefaultFormat(wo)
	}
	if f.ctx.Context != nil && caddy.IsWriterStandardStream(wo) &&
		term.IsTerminal(int(os.Stderr.Fd())) {
		e := new(logging.ConsoleEncoder)
		f.Encoder = e
		return e.Provision(f.ctx)
	}
	return nil
}

// UnmarshalCaddyfile reads:
//
//	format wechat {
//		wrap <another format>
//	}
func (f *LogFormat) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the format's name
	if d.NextArg() {
		return d.Err("format wechat takes a block and no value")
	}
	b := block.New(d)
	for b.Next() {
		if d.Val() != "wrap" {
			return b.Unknown("wrap")
		}
		if err := b.First(); err != nil {
			return err
		}
		if !d.NextArg() {
			return d.Err("wrap takes the name of a format: wrap json")
		}
		name := d.Val()
		mod, err := caddyfile.UnmarshalModule(d, "caddy.logging.encoders."+name)
		if err != nil {
			return err
		}
		f.WrappedRaw = caddyconfig.JSONModuleObject(mod, "format", name, nil)
	}
	return nil
}

// Clone is part of zapcore.Encoder.
func (f *LogFormat) Clone() zapcore.Encoder { return &LogFormat{Encoder: f.Encoder.Clone()} }

// EncodeEntry lays out the line, then masks the secrets in it.
func (f *LogFormat) EncodeEntry(e zapcore.Entry, fields []zapcore.Field) (*buffer.Buffer, error) {
	b, err := f.Encoder.EncodeEntry(e, fields)
	if err == nil {
		mask(b.Bytes())
	}
	return b, err
}

// Interface guards
var (
	_ caddy.Provisioner                = (*LogFormat)(nil)
	_ caddy.CleanerUpper               = (*LogFormat)(nil)
	_ caddy.ConfiguresFormatterDefault = (*LogFormat)(nil)
	_ caddyfile.Unmarshaler            = (*LogFormat)(nil)
	_ zapcore.Encoder                  = (*LogFormat)(nil)
)
