package caddymodule

import (
	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// liveLogger returns a logger for what outlives a configuration: it always writes where the current configuration says, while a configuration's own logger is closed with it.
func liveLogger() *zap.Logger { return zap.New(liveCore{}).Named("wechat") }

// liveCore hands every entry to Caddy's current default logger.
type liveCore struct{ fields []zapcore.Field }

func (liveCore) Enabled(l zapcore.Level) bool { return caddy.Log().Core().Enabled(l) }

func (c liveCore) With(fields []zapcore.Field) zapcore.Core {
	return liveCore{append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

func (c liveCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c liveCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return caddy.Log().Core().Write(e, append(c.fields[:len(c.fields):len(c.fields)], fields...))
}

func (liveCore) Sync() error { return caddy.Log().Core().Sync() }
