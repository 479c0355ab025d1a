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

// Snapshot is a session store open for reading: a backup, or the file of a gate
// that does not run. It is safe for concurrent use.
type Snapshot struct {
	reader
	report Report
	db     *bolt.DB
}

// reader is the part of a Store that a Snapshot offers.
type reader interface {
	store.Dumper
	Lookup(context.Context, store.Digest) (store.Record, error)
	User(context.Context, store.UserID) (store.User, error)
	MasterKeys(context.Context) (map[store.MasterKeyID]time.Time, error)
	Fact(ctx context.Context, name string) ([]byte, error)
}

// OpenSnapshot checks the file at path as Check does, and opens it. No gate can
// open the file meanwhile. It logs unreadable records.
func OpenSnapshot(path string, log *zap.Logger) (*Snapshot, error) {
	report, err := Check(path)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	s, o := &Store{path: path, log: log}, new(opening)
	s.open.Store(o)
	err = protect(func() (err error) {
		o.db, err = bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, ReadOnly: true})
		if err == nil {
			o.restored, err = restoredAt(o.db)
		}
		if err == nil {
			err = o.db.View(o.start)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, explain(err))
	}
	return &Snapshot{reader: s, report: report, db: o.db}, nil
}

// Report returns the result of the check.
func (s *Snapshot) Report() Report { return s.report }

// Close closes the file.
func (s *Snapshot) Close() error { return s.db.Close() }

// Dump implements store.Dumper. It is one read transaction, so bbolt uses no page
// of that state again before Dump returns.
func (s *Store) Dump(ctx context.Context, f func(store.Item) error) error {
	var failed error // of f or the caller, which says nothing about the store
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
		u, ok := t.getUserByKey(k)
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

// Load implements store.Loader, in one transaction.
func (s *Store) Load(ctx context.Context, items []store.Item) (store.Loaded, error) {
	for _, it := range items {
		if err := checkAppID(it.User.ID.AppID); err != nil {
			return store.Loaded{}, err
		}
	}
	return write(ctx, s, func(t *tables) (n store.Loaded, err error) {
		for _, it := range items {
			if err := t.load(it, &n); err != nil {
				return n, err
			}
		}
		return n, nil
	})
}

func (t *tables) load(it store.Item, n *store.Loaded) error {
	u, known := t.getUser(it.User.ID)
	before := u
	if !known {
		u = store.User{ID: it.User.ID, Epoch: randomEpoch()}
		n.Users++
	}
	u.Merge(it.User)
	epochs, err := t.ensureEpochs(u)
	if err != nil {
		return err
	}
	for i, ref := range it.User.Sessions {
		if err := t.loadSession(ref.Digest, it.Sessions[i], epochs, n); err != nil {
			return err
		}
	}
	if err := t.indexUnion(before, u); err != nil {
		return err
	}
	return t.putUser(u)
}

func (t *tables) loadSession(
	d store.Digest, ses store.Session, current store.Epochs, n *store.Loaded,
) error {
	if _, ok := t.getSession(d); ok {
		return t.touch(map[store.Digest]time.Time{d: ses.UsedUntil})
	}
	n.Sessions++
	ses.Epochs = current
	return t.addSession(d, ses)
}
