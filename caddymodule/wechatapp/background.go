package wechatapp

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

const (
	// keysPatience is how long a start waits for a store that gates share, since
	// opening it only begins to connect.
	keysPatience = 2 * time.Second

	keysPause    = 50 * time.Millisecond // between two attempts of a start
	keysRetry    = time.Second           // between two attempts while the store is away
	keysReminder = time.Hour             // between two log lines about a missing key
)

// checkKeys compares the key ring with the store before the first request. A
// gate starts although a store that gates share is away; watchKeys checks later.
func checkKeys(core *session.Core, s *session.Service) error {
	for began := time.Now(); ; time.Sleep(keysPause) {
		err := s.CheckMasterKeys(context.Background())
		if !core.Shared() || !errors.Is(err, session.ErrUnavailable) {
			return err
		}
		if time.Since(began) >= keysPatience {
			return nil
		}
	}
}

// background is the background work of an App: it warns of a master key that another gate
// signs with and this one lacks, and of a clock that jumps, and follows the assertion
// keys. The zero background does nothing.
type background struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (k *background) stop() {
	if k.cancel != nil {
		k.cancel()
	}
	k.done.Wait()
}

// run runs f until stop.
func (k *background) run(f func(context.Context)) {
	if k.cancel == nil {
		k.ctx, k.cancel = context.WithCancel(context.Background())
	}
	ctx := k.ctx
	k.done.Go(func() { f(ctx) })
}

// every calls check from time to time, until stop, and tell with an error of it, once in
// a while. It asks sooner again, and tells nothing, while the store is away: the store
// logs its outage itself.
func (k *background) every(
	pause time.Duration, check func(context.Context) error, tell func(error),
) {
	k.run(func(ctx context.Context) {
		var told time.Time
		for wait := keysRetry; ; {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			err := check(ctx)
			if errors.Is(err, session.ErrUnavailable) {
				wait = keysRetry
				continue
			}
			wait = pause
			if err != nil && time.Since(told) >= keysReminder {
				told = time.Now()
				tell(err)
			}
		}
	})
}

// watchKeys checks the key ring from time to time if gates share the store.
func (a *App) watchKeys() {
	live := a.live.Load()
	if !live.Core.Shared() {
		return
	}
	check := func(ctx context.Context) error {
		err := live.Sessions.CheckMasterKeys(ctx)
		if !errors.Is(err, session.ErrUnavailable) {
			a.keyMissing.Store(err != nil)
		}
		return err
	}
	a.background.every(session.KeysEvery, check, func(err error) {
		Logger("").Error("the key ring is incomplete: "+
			"users who logged in at another gate may be refused here", zap.Error(err))
	})
}

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
	a.background.every(clockPause, func(context.Context) error {
		wechat.tell(Logger(""), live.WeChat.Clock())
		return nil
	}, nil)
	if live.Core.HasClock() {
		return
	}
	var w clockWatch
	log, last := Logger(""), time.Now()
	w.tell(log, last.Round(0), 0)
	a.background.every(clockPause, func(context.Context) error {
		now := time.Now()
		w.tell(log, now.Round(0), now.Sub(last))
		last = now
		return nil
	}, nil)
}
