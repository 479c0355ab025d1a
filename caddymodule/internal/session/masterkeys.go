package session

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

// KeysEvery is how often a gate that shares its store calls CheckMasterKeys.
const KeysEvery = time.Minute

// MasterKeys returns until when sessions need each master key. A time in the
// past means that no session needs it.
func (s *Service) MasterKeys(ctx context.Context) (map[keyring.ID]time.Time, error) {
	c := s.cfg.Core
	recorded, err := c.store.MasterKeys(ctx)
	if c.asked(reading, err) != nil {
		return nil, wrap("listing master keys", err)
	}
	needs := make(map[keyring.ID]time.Time, len(recorded))
	for id, until := range recorded {
		needs[keyring.ID(id)] = until
	}
	return needs, nil
}

// CheckMasterKeys returns an error when the key ring lacks a master key that
// live sessions need, since their users would be logged out. It only reads. A
// gate calls it before its first request; where gates share the store, it calls
// it from time to time, since another gate may sign with another key.
//
// The error wraps ErrKeyMissing and names the keys and the cures, or wraps
// ErrUnavailable.
func (s *Service) CheckMasterKeys(ctx context.Context) error {
	needs, err := s.MasterKeys(ctx)
	if err != nil {
		return wrap("checking key ring", err)
	}
	var missing []string
	for id, until := range needs {
		if until.After(time.Now()) && !s.cfg.Keys.Has(id) {
			at := until.UTC().Format(time.RFC3339)
			missing = append(missing, fmt.Sprintf("%s (needed until %s)", id, at))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("checking key ring: %w: %s; put it back behind the new one in seal_key; "+
		"to be rid of it at once, put it back and revoke all sessions; "+
		"if it is lost, move the session store away, which logs every user out",
		ErrKeyMissing, strings.Join(missing, ", "))
}

// Fact is store.Store.Fact. The error wraps ErrUnavailable.
func (c *Core) Fact(ctx context.Context, name string) ([]byte, error) {
	if err := c.uses.begin(); err != nil {
		return nil, err
	}
	defer c.uses.done()
	value, err := c.store.Fact(ctx, name)
	return value, c.asked(reading, err)
}

// SetFact is store.Store.SetFact. The error wraps ErrUnavailable.
func (c *Core) SetFact(
	ctx context.Context, name string, was, value []byte,
) (now []byte, err error) {
	if err := c.uses.begin(); err != nil {
		return nil, err
	}
	defer c.uses.done()
	now, err = c.store.SetFact(ctx, name, was, value)
	return now, c.asked(writing, err)
}
