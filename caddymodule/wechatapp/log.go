package wechatapp

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/judge"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
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

// tellReady logs the one line that an operator reads after a start or a reload: what
// the gate serves, and with what. It holds no secret.
func (a *App) tellReady() {
	var sites []string
	if app, err := a.ctx.AppIfConfigured("http"); err == nil {
		sites = judge.Sites(app.(*caddyhttp.App).Servers)
	}
	fields := []zap.Field{
		zap.Strings("mini_programs", a.AppIDs()),
		zap.Strings("sites", sites), // each with the prefix of its endpoints
		zap.String("store", a.opener.Identity()),
		zap.Stringer("master_key", a.ring.Signer()),
	}
	fields = append(fields, a.masterKeyPlace()...)
	fields = append(fields, zap.String("wechat", a.API.BaseURL))
	Logger("").Info("wxgate is ready", fields...)
}

// masterKeyPlace tells where the master key is, and whether this start made it.
func (a *App) masterKeyPlace() []zap.Field {
	s, ok := a.opener.(*BoltStore)
	if !ok || a.SealKey != "" {
		return []zap.Field{zap.String("master_key_in", "seal_key")}
	}
	fields := []zap.Field{zap.String("master_key_in", keyPath(s.path))}
	if s.newKey {
		fields = append(fields,
			zap.String("master_key_new", "back it up together with the database"))
	}
	return fields
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
	metrics.countEvent(e)
	return caddy.Log().Core().Write(e, c.join(fields))
}

func (liveCore) Sync() error { return caddy.Log().Core().Sync() }

func (c liveCore) join(fields []zapcore.Field) []zapcore.Field {
	return append(c.fields[:len(c.fields):len(c.fields)], fields...)
}

// refusalsInFull is how many refusals of one kind a second begins with in full.
const refusalsInFull = 3

// RefusalLog logs refusals with a bound, since any client can cause them
// (docs/threats.md#t40): the first of a kind in full, then, as long as more come, one
// line a second with their count and the latest of them. A log whose reader has
// stopped holds up one refusal for a moment, and no other.
type RefusalLog struct {
	log   *zap.Logger
	write sync.Mutex // held while a line is written

	mu    sync.Mutex
	kinds map[string]*refusals
}

// refusals are those of one kind since its last quiet second.
type refusals struct {
	logged  int         // in full
	skipped int         // since the last line
	latest  []zap.Field // of the skipped
}

// NewRefusalLog returns a RefusalLog that writes to log.
func NewRefusalLog(log *zap.Logger) *RefusalLog {
	return &RefusalLog{log: log, kinds: make(map[string]*refusals)}
}

// Log writes a line unless its kind has reached the bound. Callers draw kinds from a
// fixed set.
func (l *RefusalLog) Log(level zapcore.Level, msg, kind string, fields ...zap.Field) {
	if !l.log.Core().Enabled(level) || !l.take(level, msg, kind, fields) {
		return
	}
	if !l.writes(func() { l.log.Log(level, msg, fields...) }) {
		l.skip(msg, kind)
	}
}

// take counts a refusal, and reports whether its line is within the bound.
func (l *RefusalLog) take(level zapcore.Level, msg, kind string, fields []zap.Field) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := msg + " " + kind
	k := l.kinds[name]
	if k == nil {
		k = new(refusals)
		l.kinds[name] = k
		time.AfterFunc(time.Second, func() { l.tell(level, msg, kind) })
	}
	if k.logged < refusalsInFull {
		k.logged++
		return true
	}
	k.skipped++
	k.latest = fields
	return false
}

// skip counts a line that could not be written.
func (l *RefusalLog) skip(msg, kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := l.kinds[msg+" "+kind]; k != nil {
		k.skipped++
	}
}

// tell ends a second of one kind, the last one if it was quiet.
func (l *RefusalLog) tell(level zapcore.Level, msg, kind string) {
	l.mu.Lock()
	k := l.kinds[msg+" "+kind]
	n, latest := k.skipped, k.latest
	if n == 0 {
		delete(l.kinds, msg+" "+kind)
	} else {
		k.logged, k.skipped, k.latest = refusalsInFull, 0, nil
		time.AfterFunc(time.Second, func() { l.tell(level, msg, kind) })
	}
	l.mu.Unlock()
	if n > 0 {
		l.writes(func() {
			l.log.Log(level, msg+": more within a second",
				append(latest, zap.String("kind", kind), zap.Int("count", n))...)
		})
	}
}

// logPatience bounds the wait of a refusal for its log line.
const logPatience = 100 * time.Millisecond

// writes runs f, and reports whether it began. It does not wait for a log that is
// stuck.
func (l *RefusalLog) writes(f func()) bool {
	if !l.write.TryLock() {
		// Another line is being written. Mostly that takes microseconds.
		for range 10 {
			time.Sleep(logPatience / 100)
			if l.write.TryLock() {
				return l.run(f)
			}
		}
		return false
	}
	return l.run(f)
}

// run runs f with l.write held, which the end of f releases.
func (l *RefusalLog) run(f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer l.write.Unlock()
		f()
	}()
	select {
	case <-done:
	case <-time.After(logPatience):
	}
	return true
}

// ProblemID returns the log field that a client's problem has in common with the
// line of its refusal.
func ProblemID(id string) zap.Field { return zap.String("problem_id", id) }

// maxLogged bounds a value of the client's in a log line, in bytes.
const maxLogged = 256

// Bounded returns a log field of text that a client has sent, cut to a length that
// any encoding of it keeps small.
func Bounded(name, value string) zap.Field {
	if len(value) > maxLogged {
		value = value[:maxLogged] + "…"
	}
	return zap.String(name, value)
}

// weChatLog tells the operator in the log how WeChat fares: a line when calls begin
// to fail and when they are well again, not a line a call.
type weChatLog struct {
	log *zap.Logger

	mu    sync.Mutex
	spent map[string]string // last day of a quota that is used up, by mini program and call
}

func newWeChatLog(log *zap.Logger) *weChatLog {
	return &weChatLog{log: log, spent: make(map[string]string)}
}

// transitions returns the function that logs the transitions of a kind of calls.
func (l *weChatLog) transitions(what string) func(weixin.Transition) {
	return func(t weixin.Transition) {
		if t.State == weixin.Well {
			l.log.Info(what+" is back", zap.Duration("after", time.Since(t.Since)),
				zap.Int("calls", t.Calls), zap.Int("failed", t.Failed))
			return
		}
		event := what + " is unavailable"
		if t.State == weixin.Partly {
			event = what + " is partly unavailable"
		}
		l.log.Error(event, zap.Error(t.LastError), zap.Int("calls", t.Calls),
			zap.Int("failed", t.Failed), zap.Int("percent", 100*t.Failed/max(t.Calls, 1)))
	}
}

// secretChanged logs a change of the AppSecret that WeChat accepts.
func (l *weChatLog) secretChanged(appID string, in weixin.SecretInUse) {
	l.log.Warn("the other AppSecret is in use now", zap.String("appid", appID),
		zap.String("in_use", string(in)))
}

// beijing is where WeChat's day ends.
var beijing = time.FixedZone("Beijing", 8*60*60)

// observe logs once a day and kind of calls that a quota of WeChat is used up.
func (l *weChatLog) observe(call weixin.Call) {
	if call.Err == nil || !call.Err.QuotaSpent() {
		return
	}
	now := time.Now().In(beijing)
	kind, today := call.AppID+" "+call.Name, now.Format(time.DateOnly)
	l.mu.Lock()
	told := l.spent[kind] == today
	l.spent[kind] = today
	l.mu.Unlock()
	if told {
		return
	}
	midnight := time.Date(now.Year(), now.Month(), now.Day()+1, 0, 0, 0, 0, beijing)
	l.log.Error("daily quota of WeChat is used up", zap.String("appid", call.AppID),
		zap.String("call", call.Name), zap.Error(call.Err),
		zap.String("until", midnight.Format("2006-01-02 15:04 Beijing time")))
}
