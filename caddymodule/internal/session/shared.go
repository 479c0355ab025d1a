package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// changed takes a report of a shared store. The change is durable by then, whoever made it, so a mark is all that is left to do; one's own come back here and are marked twice.
func (c *Core) changed(ch store.Change) {
	switch ch.What {
	case store.SessionChanged:
		c.cache.void(digestKey(ch.Digest))
	case store.UserChanged:
		c.cache.void(hashKey(ch.User))
	case store.ContactMade:
		c.cache.voidAll()
		c.repeatLately()
	default:
		c.cache.voidAll()
	}
}

// believes reports whether a cached entry may be believed at the time now, which was taken before. It must be asked before the marks are: what it has heard of is marked then.
func (c *Core) believes(now time.Time) bool {
	if c.shared == nil {
		return true
	}
	stale := time.Duration(c.stale.Load())
	return stale > 0 && now.Sub(c.shared.Heard()) <= stale
}

// Shared reports whether other gates may use the same store.
func (c *Core) Shared() bool { return c.shared != nil }

// spendTimeout bounds what a login waits for its turn at the bucket that all gates share: it comes before the body is read.
const spendTimeout = lookupTimeout

// Spend takes one from the bucket of a key that all gates share, and returns how long until there is one when it is empty. The answer is 0 also when no other gate shares the store, and when
// the store does not answer: logins are about to be refused for that anyhow.
func (c *Core) Spend(ctx context.Context, key string, r store.Rate) time.Duration {
	if c.shared == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, spendTimeout)
	defer cancel()
	wait, err := c.shared.Spend(ctx, key, r)
	if err != nil {
		return 0 // and no word of an outage: an empty bucket is only read, and would end what a full disk has begun
	}
	return wait
}

const (
	// claimTTL outlives every code, which lives five minutes (WECHAT.md 2.4).
	claimTTL = 6 * time.Minute

	claimTimeout = time.Second
	steadyPause  = 20 * time.Millisecond
)

// claimName is what a code is known by among gates. It does not tell the code.
func claimName(appID, code string) [32]byte {
	return sha256.Sum256([]byte("wxgate code\x00" + appID + "\x00" + code))
}

// spendCode exchanges a code, unless another gate does or did: two exchanges of one code would each find the other's and log nobody in, or twice (THREATS.md 25). The claim is kept whatever
// the outcome, except when the code has certainly not left this process.
func (s *Service) spendCode(ctx context.Context, app weixin.Credentials, code string) (weixin.Session, error) {
	c := s.cfg.Core
	if c.shared == nil {
		return s.cfg.WeChat.Code2Session(ctx, app, code)
	}
	name := claimName(app.ID, code)
	ours, err := c.claim(ctx, name, claimTTL)
	if err != nil {
		c.unclaim(ctx, name) // it may have gone through
		return weixin.Session{}, fmt.Errorf("claiming code: %w", err)
	}
	if !ours {
		return weixin.Session{}, &weixin.Error{Op: "exchanging code", Class: weixin.ClassCodeUsed, Reason: "the code was used before, here or at another gate"}
	}
	if err := c.steady(ctx); err != nil {
		c.unclaim(ctx, name)
		return weixin.Session{}, fmt.Errorf("claiming code: %w", err)
	}
	wx, err := s.cfg.WeChat.Code2Session(ctx, app, code)
	if unsent(err) {
		c.unclaim(ctx, name)
	}
	return wx, err
}

// unsent reports whether err says that no request has left for WeChat.
func unsent(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Unsent() bool
	}](err)
	return ok && e.Unsent()
}

func (c *Core) claim(ctx context.Context, name [32]byte, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	ours, err := c.shared.Claim(ctx, name, ttl)
	return ours, c.asked(writing, err)
}

// steady waits until the store is well, but not for long: the claim may have been the first that it took after an outage, and it would not take a login yet.
func (c *Core) steady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	return again(ctx, c.closing, steadyPause, func() error { return c.store.Health(ctx) })
}

// again calls f until it is no longer for want of the store that it fails, or the time is over.
func again(ctx, closing context.Context, pause time.Duration, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		case <-closing.Done():
			return err
		}
	}
}

// unclaim gives a claim up, if the store hears it; else it ends by itself. It says nothing of an outage: where nothing can be written a claim can still be looked at, and removed.
func (c *Core) unclaim(ctx context.Context, name [32]byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	_ = c.shared.Unclaim(ctx, name)
}
