package wechatapp

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// Logger returns the logger `wechat`, or `wechat.<name>`, for what outlives a
// configuration. It writes where the current configuration says; Caddy closes a
// configuration's own logger with the configuration.
func Logger(name string) *zap.Logger {
	return zap.New(liveCore{}).Named("wechat").Named(name)
}

// Audit writes the one line that each operation on users or sessions leaves in the
// log `wechat.audit`, whether it succeeded or not.
func Audit(r *http.Request, what string, err error, fields ...zap.Field) {
	log := Logger("audit")
	fields = append(fields, zap.String("remote_addr", r.RemoteAddr))
	if err != nil {
		log.Error(what+": failed", append(fields, zap.Error(err))...)
		return
	}
	log.Info(what, fields...)
}

// auditUnionID writes the line of a unionid that a call other than a login brought
// to light. The unionid itself stays out of the log.
func auditUnionID(u session.User, changed bool) {
	what := "unionid bound"
	if changed {
		what = "unionid changed"
	}
	Logger("audit").Info(what, zap.String("appid", u.AppID), zap.String("openid", u.OpenID))
}

// liveCore hands each entry to Caddy's current default logger.
type liveCore struct{ fields []zapcore.Field }

func (liveCore) Enabled(l zapcore.Level) bool { return caddy.Log().Core().Enabled(l) }

func (c liveCore) With(fields []zapcore.Field) zapcore.Core { return liveCore{c.join(fields)} }

func (c liveCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c liveCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return caddy.Log().Core().Write(e, c.join(fields))
}

func (liveCore) Sync() error { return caddy.Log().Core().Sync() }

func (c liveCore) join(fields []zapcore.Field) []zapcore.Field {
	return append(c.fields[:len(c.fields):len(c.fields)], fields...)
}
