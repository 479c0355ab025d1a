package caddymodule

import (
	"context"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// keysAnswer is what GET /wechat/keys tells: names, never keys.
type keysAnswer struct {
	Keys []keyRow `json:"keys"` // as in the ring, newest first
}

type keyRow struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	NeededUntil time.Time `json:"needed_until,omitzero"`
}

// The states of a master key.
const (
	keySigns  = "signs"  // signs new tokens and encrypts session_keys
	keyNeeded = "needed" // sessions that were made under it live
	keySpare  = "not needed"
)

func serveKeys(live *running, w http.ResponseWriter, r *http.Request) error {
	known, err := live.store.Keys(r.Context())
	if err != nil {
		return storeRefusal(err)
	}
	var answer keysAnswer
	for i, id := range live.app.ring.IDs() {
		row := keyRow{ID: id, State: keySpare}
		until, recorded := until(known, id)
		switch {
		case i == 0:
			row.State = keySigns
		case recorded && until.IsZero():
			row.State = keyNeeded // by a configuration that came and went: nobody knows until when
		case recorded && until.After(time.Now()):
			row.State, row.NeededUntil = keyNeeded, until.UTC().Truncate(time.Second).Add(time.Second)
		}
		answer.Keys = append(answer.Keys, row)
	}
	return answerAdmin(w, answer)
}

// until finds a key by name among those that the store knows.
func until(known map[store.KeyID]time.Time, name string) (t time.Time, ok bool) {
	for id, t := range known {
		if id.String() == name {
			return t, true
		}
	}
	return time.Time{}, false
}

// A core keeps its store to itself. To ask the store what it knows of keys, an App holds it beside the core: both uses are counted in the pool, and the last one closes it.

type storeKey struct{ store string }

type pooledStore struct{ store.Store }

// Destruct closes the store.
func (s pooledStore) Destruct() error { return s.Close() }

// takeStore opens the store unless it is open.
func takeStore(h *holdings, opener StoreOpener, log *zap.Logger) (store.Store, error) {
	st, err := take(h, storeKey{opener.Identity()}, func() (pooledStore, error) {
		st, err := opener.Open(log)
		return pooledStore{st}, err
	})
	return st.Store, err
}

// sharingOpener opens a store for a core, which then has one use of several.
type sharingOpener struct{ StoreOpener }

// Open returns a use of the store.
func (o sharingOpener) Open(log *zap.Logger) (store.Store, error) {
	s := new(sharedStore)
	var err error
	if s.Store, err = takeStore(&s.held, o.StoreOpener, log); err != nil {
		return nil, err
	}
	return s, nil
}

// sharedStore is a core's use of a store.
type sharedStore struct {
	store.Store
	held holdings
}

// Close ends the use.
func (s *sharedStore) Close() error {
	s.held.release(liveLogger())
	return nil
}

// Backup implements store.Backuper for stores that do.
func (s *sharedStore) Backup(ctx context.Context, w io.Writer) (int64, error) {
	b, ok := s.Store.(store.Backuper)
	if !ok {
		return 0, session.ErrNoBackup
	}
	return b.Backup(ctx, w)
}
