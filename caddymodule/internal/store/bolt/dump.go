package bolt

import (
	"context"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	_ store.Dumper = (*Store)(nil)
	_ store.Loader = (*Store)(nil)
	_ store.Dumper = (*Snapshot)(nil)
)

// Snapshot is a session store that is read and not changed: a backup, or the file of a gate that does not run. It is safe for concurrent use.
type Snapshot struct {
	s      *Store // of which only what reads is used
	report Report
}

// OpenSnapshot checks the whole file at path, as Check does and with its errors, and opens it. A gate cannot open the file meanwhile. Records that cannot be read are logged.
func OpenSnapshot(path string, log *zap.Logger) (*Snapshot, error) {
	report, err := Check(path)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	s := &Store{path: path, log: log}
	err = protect(func() (err error) {
		if s.db, err = bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, ReadOnly: true}); err == nil {
			s.restored, err = restoredAt(s.db)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, explain(err))
	}
	return &Snapshot{s, report}, nil
}

// Report returns what checking the file has found.
func (s *Snapshot) Report() Report { return s.report }

// Dump implements store.Dumper.
func (s *Snapshot) Dump(ctx context.Context, f func(store.Item) error) error { return s.s.Dump(ctx, f) }

// Lookup is that of store.Store.
func (s *Snapshot) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	return s.s.Lookup(ctx, d)
}

// User is that of store.Store.
func (s *Snapshot) User(ctx context.Context, id store.UserID) (store.User, error) {
	return s.s.User(ctx, id)
}

// MasterKeys is that of store.Store.
func (s *Snapshot) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	return s.s.MasterKeys(ctx)
}

// Close lets go of the file.
func (s *Snapshot) Close() error { return s.s.db.Close() }

// Dump implements store.Dumper. It is one read transaction: no page that is in use when it begins is used again before f has returned for the last time.
func (s *Store) Dump(ctx context.Context, f func(store.Item) error) error {
	var failed error // of f's or the caller's making, which says nothing about the store
	err := s.read(ctx, func(t *tables) error {
		failed = t.dump(ctx, time.Now(), f)
		return nil
	})
	if failed != nil {
		return failed
	}
	return err
}

func (t *tables) dump(ctx context.Context, now time.Time, f func(store.Item) error) error {
	global, ok := t.getEpoch(keyGlobal)
	find := func(d store.Digest) (store.Session, bool) {
		ses, found := t.getSession(d)
		return ses, ok && found
	}
	return t.bucket(user).ForEach(func(k, _ []byte) error {
		if err := ctx.Err(); err != nil {
			return unavailable("reading session store", context.Cause(ctx))
		}
		if len(k) != 16 {
			t.damaged("user", k)
			return nil
		}
		u, ok := t.getUserByHash([16]byte(k))
		if !ok {
			return nil
		}
		app, ok := t.getEpoch(appKey(u.ID.AppID))
		if !ok {
			u.Sessions = nil
		}
		return f(store.NewItem(u, store.Epochs{Global: global, App: app}, now, find))
	})
}

// Load implements store.Loader. All items are one transaction.
func (s *Store) Load(ctx context.Context, items []store.Item) (store.Loaded, error) {
	for _, it := range items {
		if err := checkAppID(it.User.ID.AppID); err != nil {
			return store.Loaded{}, err
		}
	}
	var n store.Loaded
	err := s.write(ctx, func(t *tables) error {
		for _, it := range items {
			if err := t.load(it, &n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Loaded{}, err // n may still be written to
	}
	return n, nil
}

func (t *tables) load(it store.Item, n *store.Loaded) error {
	u, known := t.getUser(it.User.ID)
	before := u.UnionID
	if !known {
		u = store.User{ID: it.User.ID, Epoch: randomEpoch()}
		n.Users++
	}
	u.Merge(it.User)
	epochs := store.Epochs{User: u.Epoch}
	var err error
	if epochs.Global, err = t.ensureEpoch(keyGlobal); err != nil {
		return err
	}
	if epochs.App, err = t.ensureEpoch(appKey(u.ID.AppID)); err != nil {
		return err
	}
	for i, ref := range it.User.Sessions {
		if err := t.loadSession(ref.Digest, it.Sessions[i], epochs, n); err != nil {
			return err
		}
	}
	if u.UnionID != before {
		if err := t.indexUnion(u.ID, before, u.UnionID); err != nil {
			return err
		}
	}
	return t.putUser(u)
}

func (t *tables) loadSession(d store.Digest, ses store.Session, current store.Epochs, n *store.Loaded) error {
	if _, ok := t.getSession(d); ok {
		return t.touch(map[store.Digest]time.Time{d: ses.UsedUntil})
	}
	n.Sessions++
	ses.Epochs = current
	if err := t.putSession(d, ses); err != nil {
		return err
	}
	return t.bucket(exp).Put(expKey(ses.Expires, d), nil)
}
