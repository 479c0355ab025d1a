package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Keys returns the master keys that sessions in the store were made under, until when such sessions may live; the zero time while that is open.
func (s *Service) Keys(ctx context.Context) (map[keyring.ID]time.Time, error) {
	known, err := s.cfg.Core.knownKeys(ctx)
	if err != nil {
		return nil, wrap("listing keys", err)
	}
	named := make(map[keyring.ID]time.Time, len(known))
	for id, until := range known {
		named[keyring.ID(id)] = until
	}
	return named, nil
}

func (c *Core) knownKeys(ctx context.Context) (map[store.KeyID]time.Time, error) {
	known, err := c.store.Keys(ctx)
	return known, c.asked(reading, err)
}

// holds returns an error wrapping ErrKeyMissing when a key that guards something now is not in the ring.
func holds(r *keyring.Ring, known map[store.KeyID]time.Time, now time.Time) error {
	var missing []string
	for id, until := range known {
		if until.After(now) && !r.Has(keyring.ID(id)) {
			missing = append(missing, fmt.Sprintf("%s (needed until %s)", id, until.UTC().Format(time.RFC3339)))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("%w: %s: put it back behind the new one in seal_key; to be rid of it at once, put it back and revoke everybody; if it is lost, move the session store away, which logs everybody out",
		ErrKeyMissing, strings.Join(missing, ", "))
}

// CheckKeys is asked at the start, before the first request. It compares the key ring with what the store knows of the master keys that its sessions were made under: without one of them
// its users would be logged out, so the error, which wraps ErrKeyMissing, names the key and the cures. It changes no user's data. When all is well it records that the ring's first key is
// in use, and for a key that this one replaces, when the last session made under it ends; undo takes that back, for a configuration that comes to nothing after all.
//
// Where gates share the store, RenewKeys has to be called from then on.
func (s *Service) CheckKeys(ctx context.Context) (undo func(context.Context) error, err error) {
	c := s.cfg.Core
	if c.shared != nil {
		return s.checkSharedKeys(ctx)
	}
	known, err := c.knownKeys(ctx)
	if err != nil {
		return nil, wrap("checking key ring", err)
	}
	ring, now := s.cfg.Keys, time.Now()
	last, err := s.lastExpiry(ctx, known, false)
	if err != nil {
		return nil, wrap("checking key ring", err)
	}
	next := map[store.KeyID]time.Time{store.KeyID(ring.Signer()): {}}
	for id, until := range known {
		switch {
		case id == store.KeyID(ring.Signer()):
			continue
		case until.IsZero() && ring.Has(keyring.ID(id)):
			// A session may have been made with a longer life than one that is made now.
			until = later(now.Add(s.cfg.TTL), last)
		case until.IsZero():
			until = last
		}
		if !until.After(now) {
			continue // it guards nothing any more
		}
		next[id] = until
	}
	if err := holds(ring, next, now); err != nil {
		return nil, wrap("checking key ring", err)
	}
	if maps.EqualFunc(known, next, time.Time.Equal) {
		return func(context.Context) error { return nil }, nil
	}
	set := func(ctx context.Context, keys map[store.KeyID]time.Time) error {
		return wrap("recording key ring", c.asked(writing, c.store.SetKeys(ctx, keys)))
	}
	return func(ctx context.Context) error { return set(ctx, known) }, set(ctx, next)
}

// lastExpiry returns when the last session of all ends, if it is not known until when a key is needed, the ring's first included or not: it may be long to find out.
func (s *Service) lastExpiry(ctx context.Context, known map[store.KeyID]time.Time, first bool) (time.Time, error) {
	for id, until := range known {
		if until.IsZero() && (first || id != store.KeyID(s.cfg.Keys.Signer())) {
			st, err := s.cfg.Core.store.Stats(ctx)
			return st.LastExpiry, s.cfg.Core.asked(reading, err)
		}
	}
	return time.Time{}, nil
}

// freeKeys records that no key but the ring's first guards anything.
func (s *Service) freeKeys(ctx context.Context) error {
	c := s.cfg.Core
	if c.shared != nil {
		return s.freeSharedKeys(ctx)
	}
	return c.asked(writing, c.store.SetKeys(ctx, map[store.KeyID]time.Time{store.KeyID(s.cfg.Keys.Signer()): {}}))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
