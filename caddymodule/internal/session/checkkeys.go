package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// IDs returns the names of the ring's keys in hex, the one that signs and seals first. A name tells nothing of its key.
func (r *KeyRing) IDs() []string {
	ids := make([]string, len(r.keys))
	for i, k := range r.keys {
		ids[i] = k.id.String()
	}
	return ids
}

// Keys returns the master keys that sessions in the store were made under, by the names that KeyRing.IDs gives: until when such sessions may live; the zero time while that is open.
func (s *Service) Keys(ctx context.Context) (map[string]time.Time, error) {
	c := s.cfg.Core
	known, err := c.store.Keys(ctx)
	if c.asked(reading, err) != nil {
		return nil, wrap("listing keys", err)
	}
	named := make(map[string]time.Time, len(known))
	for id, until := range known {
		named[id.String()] = until
	}
	return named, nil
}

func (r *KeyRing) has(id store.KeyID) bool {
	return slices.ContainsFunc(r.keys, func(k *key) bool { return k.id == id })
}

// CheckKeys is asked at the start, before the first request. It compares the key ring with what the store knows of the master keys that its sessions were made under: without one of them
// its users would be logged out, so the error, which wraps ErrKeyMissing, names the key and the cures. It changes no user's data. When all is well it records that the ring's first key is
// in use, and for a key that this one replaces, when the last session made under it ends; undo takes that back, for a configuration that comes to nothing after all.
func (s *Service) CheckKeys(ctx context.Context) (undo func(context.Context) error, err error) {
	c := s.cfg.Core
	known, err := c.store.Keys(ctx)
	if c.asked(reading, err) != nil {
		return nil, wrap("checking key ring", err)
	}
	ring, now := s.cfg.Keys, time.Now()
	last, err := s.lastExpiry(ctx, known)
	if err != nil {
		return nil, wrap("checking key ring", err)
	}
	next := map[store.KeyID]time.Time{ring.keys[0].id: {}}
	var missing []string
	for id, until := range known {
		switch {
		case id == ring.keys[0].id:
			continue
		case until.IsZero() && ring.has(id):
			// A session may have been made with a longer life than one that is made now.
			until = later(now.Add(s.cfg.TTL), last)
		case until.IsZero():
			until = last
		}
		if !until.After(now) {
			continue // it guards nothing any more
		}
		if !ring.has(id) {
			missing = append(missing, fmt.Sprintf("%s (needed until %s)", id, until.UTC().Format(time.RFC3339)))
		}
		next[id] = until
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("checking key ring: %w: %s: put it back behind the new one in seal_key; to be rid of it at once, put it back and revoke everybody; if it is lost, move the session store away, which logs everybody out",
			ErrKeyMissing, strings.Join(missing, ", "))
	}
	if maps.EqualFunc(known, next, time.Time.Equal) {
		return func(context.Context) error { return nil }, nil
	}
	set := func(ctx context.Context, keys map[store.KeyID]time.Time) error {
		return wrap("recording key ring", c.asked(writing, c.store.SetKeys(ctx, keys)))
	}
	return func(ctx context.Context) error { return set(ctx, known) }, set(ctx, next)
}

// lastExpiry returns when the last session of all ends, if that is of interest: it may be long to find out.
func (s *Service) lastExpiry(ctx context.Context, known map[store.KeyID]time.Time) (time.Time, error) {
	first := s.cfg.Keys.keys[0].id
	for id, until := range known {
		if id != first && until.IsZero() {
			st, err := s.cfg.Core.store.Stats(ctx)
			return st.LastExpiry, s.cfg.Core.asked(reading, err)
		}
	}
	return time.Time{}, nil
}

// freeKeys records that no key but the ring's first guards anything.
func (s *Service) freeKeys(ctx context.Context) error {
	c := s.cfg.Core
	return c.asked(writing, c.store.SetKeys(ctx, map[store.KeyID]time.Time{s.cfg.Keys.keys[0].id: {}}))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
