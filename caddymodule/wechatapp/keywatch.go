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

// keyWatch is the background work about keys: it warns of a master key that another
// gate signs with and this one lacks, and follows the assertion keys. The zero
// keyWatch does nothing.
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

// begin returns the context of what stop ends.
func (k *keyWatch) begin() context.Context {
	if k.cancel == nil {
		k.ctx, k.cancel = context.WithCancel(context.Background())
	}
	return k.ctx
}

// watchKeys starts the App's keyWatch if gates share the store.
func (a *App) watchKeys() {
	live := a.live.Load()
	if !live.Core.Shared() {
		return
	}
	ctx := a.keyWatch.begin()
	a.keyWatch.done.Go(func() { watchKeys(ctx, live.Sessions) })
}

func watchKeys(ctx context.Context, s *session.Service) {
	var warned time.Time
	for wait := keysRetry; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		err := s.CheckMasterKeys(ctx)
		if errors.Is(err, session.ErrUnavailable) {
			wait = keysRetry
			continue // the store logs its outage itself
		}
		wait = session.KeysEvery
		if err != nil && time.Since(warned) >= keysReminder {
			warned = time.Now()
			Logger("").Error("the key ring is incomplete: "+
				"users who logged in at another gate may be refused here", zap.Error(err))
		}
	}
}
