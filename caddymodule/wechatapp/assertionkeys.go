package wechatapp

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// assertionKey names, in the pool, the assertion keys of a store. They stay known over
// a reload while the store is away.
type assertionKey struct{ store string }

type pooledAssertions struct{ *assertion.Keys }

// Destruct has nothing to release.
func (pooledAssertions) Destruct() error { return nil }

// ErrNoAssertions means that no site signs.
var ErrNoAssertions = errors.New("no site of the running gate has the word assertion")

// UseAssertions makes Start load the assertion keys. Sites call it when they are
// provisioned.
func (a *App) UseAssertions() { a.assertions = true }

// openAssertions loads the assertion keys. A gate starts without them: sites that sign
// answer 503 until the store has them.
func (a *App) openAssertions(core *session.Core) (*assertion.Keys, error) {
	if !a.assertions {
		return nil, nil
	}
	keys, err := take(&a.held, assertionKey{a.opener.Identity()},
		func() (pooledAssertions, error) { return pooledAssertions{new(assertion.Keys)}, nil })
	if err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(keysPause) {
		err = keys.Load(context.Background(), a.assertionBox(core), true)
		if !errors.Is(err, session.ErrUnavailable) || time.Since(began) >= keysPatience {
			break
		}
	}
	logNoAssertions(err)
	return keys.Keys, nil
}

func logNoAssertions(err error) {
	if err != nil && !errors.Is(err, session.ErrUnavailable) { // the store logs its outage
		Logger("").Error("assertion keys not loaded", zap.Error(err))
	}
}

func (a *App) assertionBox(core *session.Core) assertion.Box {
	return assertion.Box{Facts: core, Ring: a.ring, Shared: core.Shared()}
}

// watchAssertions asks the store for the keys from time to time, until stepDown: other
// gates may have rotated them.
func (a *App) watchAssertions() {
	live := a.live.Load()
	if live.Assertions == nil {
		return
	}
	a.background.every(assertion.Every, func(ctx context.Context) error {
		return live.Assertions.Load(ctx, a.assertionBox(live.Core), false)
	}, logNoAssertions)
}

// RotateAssertion makes a new assertion key, and returns its id and when it signs. The
// error wraps ErrNoAssertions or session.ErrUnavailable, or says that a master key is
// missing.
func (l *Live) RotateAssertion(ctx context.Context) (id string, from time.Time, err error) {
	if l.Assertions == nil {
		return "", from, ErrNoAssertions
	}
	return l.Assertions.Rotate(ctx, l.App.assertionBox(l.Core))
}
