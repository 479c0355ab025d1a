package wechatapp

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

const (
	clockPause = time.Second     // between two looks at the time of day
	clockJump  = 5 * time.Second // a change that is told
)

// clockWatch tells when the time of day of this machine jumps, or was never set. It is
// for a store without a clock of its own, whose sessions begin and end by this one.
type clockWatch struct {
	wall  time.Time // of the last look
	unset bool      // and told
}

// look returns how far the time of day has jumped in the time that really passed since
// the last look. The first look sees no jump.
func (w *clockWatch) look(wall time.Time, passed time.Duration) (jump time.Duration) {
	if !w.wall.IsZero() {
		jump = wall.Sub(w.wall) - passed
	}
	w.wall = wall
	return jump
}

func (w *clockWatch) tell(log *zap.Logger, wall time.Time, passed time.Duration) {
	if jump := w.look(wall, passed); jump.Abs() >= clockJump {
		log.Warn("clock of this machine jumped", zap.Duration("by", jump.Round(time.Second)),
			zap.Time("now", wall), zap.String("cure", "keep it by NTP; "+
				"sessions begin and end by it. A machine that slept shows this, too"))
	}
	unset := session.ClockUnset(wall)
	switch {
	case unset && !w.unset:
		log.Error("clock of this machine is not set", zap.Time("now", wall),
			zap.String("cure", "set it by NTP; sessions wait with 503 meanwhile"))
	case w.unset && !unset:
		log.Info("clock of this machine is set")
	}
	w.unset = unset
}

// The difference from WeChat's clock that begins and ends its log lines. One is known to
// about a second.
const (
	clockDiffers = 5 * time.Second
	clockAgrees  = 3 * time.Second
)

// weChatClock tells when this machine's clock begins, or ceases, to differ from WeChat's.
type weChatClock struct{ differs bool }

func (w *weChatClock) tell(log *zap.Logger, c weixin.Clock) {
	switch off := c.Ahead.Abs(); {
	case !w.differs && off > clockDiffers:
		w.differs = true
		log.Warn("clock of this machine differs from WeChat's",
			zap.Duration("wechat_ahead", c.Ahead), zap.String("cure", "set it by NTP"))
	case w.differs && off < clockAgrees:
		w.differs = false
		log.Info("clock of this machine agrees with WeChat's again")
	}
}

// watchClock compares the clock with WeChat's, and starts the App's clockWatch unless
// the store has a clock.
func (a *App) watchClock() {
	live := a.live.Load()
	var wechat weChatClock
	a.keyWatch.every(clockPause, func(context.Context) error {
		wechat.tell(Logger(""), live.WeChat.Clock())
		return nil
	}, nil)
	if live.Core.HasClock() {
		return
	}
	var w clockWatch
	log, last := Logger(""), time.Now()
	w.tell(log, last.Round(0), 0)
	a.keyWatch.every(clockPause, func(context.Context) error {
		now := time.Now()
		w.tell(log, now.Round(0), now.Sub(last))
		last = now
		return nil
	}, nil)
}
