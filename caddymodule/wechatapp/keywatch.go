package wechatapp

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
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
// gate starts although a store that gates share is away; keyWatch checks later.
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

// keyWatch is the background work of an App: it warns of a master key that another gate
// signs with and this one lacks, and of a clock that jumps, and follows the assertion
// keys. The zero keyWatch does nothing.
type keyWatch struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func (k *keyWatch) stop() {
	if k.cancel != nil {
		k.cancel()
	}
	k.done.Wait()
}

// run runs f until stop.
func (k *keyWatch) run(f func(context.Context)) {
	if k.cancel == nil {
		k.ctx, k.cancel = context.WithCancel(context.Background())
	}
	ctx := k.ctx
	k.done.Go(func() { f(ctx) })
}

// every calls check from time to time, until stop, and tell with an error of it, once in
// a while. It asks sooner again, and tells nothing, while the store is away: the store
// logs its outage itself.
func (k *keyWatch) every(
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

// watchKeys starts the App's keyWatch if gates share the store.
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
	a.keyWatch.every(session.KeysEvery, check, func(err error) {
		Logger("").Error("the key ring is incomplete: "+
			"users who logged in at another gate may be refused here", zap.Error(err))
	})
}
