package wechatapp

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

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
