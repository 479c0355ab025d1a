package session

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Gates that share a store have key rings of their own, and for the time of a rotation their first keys differ. None knows which keys the others sign with, so none may decide that a key is
// out of use: each pushes on until when its own first key is needed, ahead of the sessions that it makes, and a key that nobody pushes any more runs out by itself.

const (
	// KeysEvery is how often RenewKeys has to be called.
	KeysEvery = time.Minute

	// keysAhead is how much longer than the sessions that it makes a gate records its first key to be needed. It writes again when half of that is gone.
	keysAhead = time.Hour

	keysTimeout = 5 * time.Second
	keysLockTTL = 2 * keysTimeout
	keysPause   = 50 * time.Millisecond
)

// keysLock is claimed by the gate that changes what is recorded of the keys.
var keysLock = sha256.Sum256([]byte("wxgate keys"))

// keys is what is recorded of the master keys.
type keys = map[store.KeyID]time.Time

// checkSharedKeys is CheckKeys where gates share the store.
func (s *Service) checkSharedKeys(ctx context.Context) (undo func(context.Context) error, err error) {
	first := store.KeyID(s.cfg.Keys.Signer())
	var before, after time.Time
	var missing error
	err = s.editKeys(ctx, func(known keys, now time.Time) {
		before = known[first]
		if missing = holds(s.cfg.Keys, known, now); missing == nil {
			s.pushKey(known, now)
		}
		after = known[first]
	})
	if err = cmp.Or(err, missing); err != nil {
		return nil, wrap("checking key ring", err)
	}
	return func(ctx context.Context) error {
		err := s.editKeys(ctx, func(known keys, _ time.Time) {
			switch {
			case !known[first].Equal(after): // another gate signs with it
			case before.IsZero():
				delete(known, first)
			default:
				known[first] = before
			}
		})
		return wrap("recording key ring", err)
	}, nil
}

// RenewKeys records that the ring's first key is still in use. A gate that shares its store has to call it every KeysEvery, soon after an error that wraps ErrUnavailable, and when its
// configuration ends. An error that wraps ErrKeyMissing means that users are refused here who are logged in: another gate has a key that this one lacks.
func (s *Service) RenewKeys(ctx context.Context) error {
	var missing error
	err := s.editKeys(ctx, func(known keys, now time.Time) {
		s.pushKey(known, now)
		missing = holds(s.cfg.Keys, known, now)
	})
	return wrap("renewing key ring", cmp.Or(err, missing))
}

// pushKey records that the ring's first key is in use, and forgets the keys that guard nothing any more.
func (s *Service) pushKey(known keys, now time.Time) {
	maps.DeleteFunc(known, func(_ store.KeyID, until time.Time) bool { return !until.After(now) })
	first, needed := store.KeyID(s.cfg.Keys.Signer()), now.Add(s.cfg.TTL)
	if known[first].Before(needed.Add(keysAhead / 2)) {
		known[first] = time.UnixMilli(needed.Add(keysAhead).UnixMilli())
	}
}

// freeSharedKeys records, when everybody was revoked, that no key guards anything but what is made from now on. A gate that still signs with another key than this one says so in time.
func (s *Service) freeSharedKeys(ctx context.Context) error {
	return s.editKeys(ctx, func(known keys, now time.Time) {
		s.pushKey(known, now)
		soon := time.UnixMilli(now.Add(2 * KeysEvery).UnixMilli())
		for id, until := range known {
			if id != store.KeyID(s.cfg.Keys.Signer()) && until.After(soon) {
				known[id] = soon
			}
		}
	})
}

// editKeys changes what is recorded of the keys while no other gate does. What is no change is not written.
func (s *Service) editKeys(ctx context.Context, edit func(known keys, now time.Time)) error {
	c := s.cfg.Core
	known, err := c.knownKeys(ctx)
	if err != nil {
		return err
	}
	last, err := s.lastExpiry(ctx, known, true)
	if err != nil {
		return err
	}
	if _, changed := s.edited(known, last, edit); !changed {
		return nil
	}
	select {
	case c.keysTurn <- struct{}{}: // the claim is this gate's, whichever of its configurations made it
		defer func() { <-c.keysTurn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: this gate is recording its keys", ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	if err := c.lockKeys(ctx); err != nil {
		return err
	}
	defer c.unclaim(ctx, keysLock)
	if known, err = c.knownKeys(ctx); err != nil {
		return err
	}
	next, changed := s.edited(known, last, edit)
	if !changed {
		return nil
	}
	return c.asked(writing, c.store.SetKeys(ctx, next))
}

// edited returns known as edit would have it, and whether that is anything new. A key without a time comes from a store that was not shared: it guards what was copied from there.
func (s *Service) edited(known keys, last time.Time, edit func(known keys, now time.Time)) (next keys, changed bool) {
	next, now := make(keys), time.Now()
	for id, until := range known {
		if until.IsZero() {
			until = time.UnixMilli(later(now.Add(s.cfg.TTL+keysAhead), last).UnixMilli())
		}
		next[id] = until
	}
	edit(next, now)
	return next, !maps.EqualFunc(known, next, time.Time.Equal)
}

// lockKeys waits for its turn.
func (c *Core) lockKeys(ctx context.Context) error {
	for {
		ours, err := c.claim(ctx, keysLock, keysLockTTL)
		if err != nil {
			c.unclaim(ctx, keysLock) // it may have been taken: nobody else should wait for its end
			return err
		}
		if ours {
			return nil
		}
		select {
		case <-time.After(keysPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: another gate is recording its keys", ErrUnavailable)
		}
	}
}

const claimTimeout = time.Second

func (c *Core) claim(ctx context.Context, name [32]byte, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	ours, err := c.shared.Claim(ctx, name, ttl)
	return ours, c.asked(writing, err)
}

// unclaim gives a claim up, if the store hears it; else it ends by itself.
func (c *Core) unclaim(ctx context.Context, name [32]byte) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), claimTimeout)
	defer cancel()
	_ = c.shared.Unclaim(ctx, name)
}
