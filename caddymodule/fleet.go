package caddymodule

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

const (
	// keysPatience is how long a start waits for a store that gates share: opening it only begins to connect.
	keysPatience = 2 * time.Second

	keysPause    = 50 * time.Millisecond // between two attempts of a start
	keysRetry    = time.Second           // between two attempts while the store is away
	keysReminder = time.Hour             // between two log lines about a missing key
	keysFarewell = 2 * time.Second       // for the last time, when a configuration ends
)

// checkKeys compares the key ring with the store before the first request. A store that gates share may be away at that time, which is no reason not to start: it is done later then.
func checkKeys(core *session.Core, s *session.Service) (undo func(context.Context) error, err error) {
	for began := time.Now(); ; time.Sleep(keysPause) {
		undo, err := s.CheckKeys(context.Background())
		if !core.Shared() || !errors.Is(err, session.ErrUnavailable) {
			return undo, err
		}
		if time.Since(began) >= keysPatience {
			return func(context.Context) error { return nil }, nil
		}
	}
}

// keyWatch keeps what the store knows of an App's keys up to date. The zero keyWatch does nothing.
type keyWatch struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// stop ends it and returns when it has ended.
func (k *keyWatch) stop() {
	if k.cancel != nil {
		k.cancel()
	}
	k.done.Wait()
}

// watchKeys begins to tell the gates that share the store which key this one signs with.
func (a *App) watchKeys() {
	live := a.live.Load()
	if !live.core.Shared() {
		return
	}
	var ctx context.Context
	ctx, a.keyWatch.cancel = context.WithCancel(context.Background())
	a.keyWatch.done.Go(func() { renewKeys(ctx, live.sessions) })
}

// renewKeys sees to that until a configuration ends, and to its keys for a last time then.
func renewKeys(ctx context.Context, s *session.Service) {
	var reminded time.Time
	for wait := keysRetry; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.Background(), keysFarewell)
			defer cancel()
			_ = s.RenewKeys(ctx)
			return
		}
		err := s.RenewKeys(ctx)
		if errors.Is(err, session.ErrUnavailable) {
			wait = keysRetry
			continue // which the store's own log line tells
		}
		wait = session.KeysEvery
		if err != nil && time.Since(reminded) >= keysReminder {
			reminded = time.Now()
			liveLogger().Error("the key ring is incomplete: users who logged in at another gate may be refused here", zap.Error(err))
		}
	}
}
