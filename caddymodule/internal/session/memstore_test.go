package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

// memData outlives the stores that are opened on it, as a file would.
type memData struct {
	mu       sync.Mutex
	global   uint64
	apps     map[string]uint64
	users    map[store.UserID]*store.User
	sessions map[store.Digest]store.Session
	needs    map[store.MasterKeyID]time.Time

	watchers []func(store.Change) // told of each change before it is acknowledged
	buckets  map[string]*rate.Limiter
}

// tell reports a change to whoever watches. The lock is held.
func (d *memData) tell(c store.Change) {
	for _, w := range d.watchers {
		w(c)
	}
}

func newMemData() *memData {
	return &memData{
		global: rand.Uint64(), apps: make(map[string]uint64), users: make(map[store.UserID]*store.User), sessions: make(map[store.Digest]store.Session),
		needs: make(map[store.MasterKeyID]time.Time), buckets: make(map[string]*rate.Limiter),
	}
}

// memStore is a store.Store in memory with places to break it at. The hooks must be set before the store is shared.
type memStore struct {
	data *memData

	// before is called before a method does anything, after when it is done; an error becomes the outcome. They may block.
	before, after func(ctx context.Context, op string) error

	mu       sync.Mutex
	closed   bool
	down     bool
	readOnly bool
	calls    map[string]int
}

var _ store.Store = (*memStore)(nil)

func newMemStore(d *memData) *memStore { return &memStore{data: d, calls: make(map[string]int)} }

// count returns how often a method was called.
func (s *memStore) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// setDown makes every call fail, or work again.
func (s *memStore) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// setReadOnly makes every call fail that changes something, or work again.
func (s *memStore) setReadOnly(readOnly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = readOnly
}

func reads(op string) bool {
	return slices.Contains([]string{"Lookup", "User", "ByUnionID", "MasterKeys", "Stats", "Touch"}, op)
}

func (s *memStore) do(ctx context.Context, op string, f func(*memData) error) error {
	s.mu.Lock()
	s.calls[op]++
	closed, down := s.closed, s.down || s.readOnly && !reads(op)
	s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return errors.Join(store.ErrUnavailable, ctx.Err())
	case closed:
		return fmt.Errorf("%w: closed", store.ErrUnavailable)
	case down:
		return fmt.Errorf("%w: switched off", store.ErrUnavailable)
	}
	if s.before != nil {
		if err := s.before(ctx, op); err != nil {
			return err
		}
	}
	s.data.mu.Lock()
	err := f(s.data)
	s.data.mu.Unlock()
	if s.after != nil {
		if err := s.after(ctx, op); err != nil {
			return err
		}
	}
	return err
}

func (s *memStore) Login(ctx context.Context, l store.Login) (res store.LoginResult, err error) {
	err = s.do(ctx, "Login", func(d *memData) error {
		if old, ok := d.sessions[l.Ends]; ok {
			delete(d.sessions, l.Ends)
			d.users[old.User].Drop(l.Ends)
			res.Ended = append(res.Ended, l.Ends)
		}
		u, known := d.users[l.User]
		if !known {
			u = &store.User{Epoch: rand.Uint64()}
			d.users[l.User] = u
		}
		if _, ok := d.apps[l.User.AppID]; !ok {
			d.apps[l.User.AppID] = rand.Uint64()
		}
		before := u.UnionID
		u.Drop(l.Digest) // of a try before
		ended, expired := u.Admit(l)
		for _, e := range slices.Concat(ended, expired) {
			delete(d.sessions, e)
		}
		d.sessions[l.Digest] = store.Session{
			User: l.User, Created: milli(l.Created), UsedUntil: milli(l.UsedUntil), Expires: milli(l.Expires),
			Epochs: store.Epochs{Global: d.global, App: d.apps[l.User.AppID], User: u.Epoch},
		}
		d.needs[l.MasterKey] = l.MasterKeyNeed(d.needs[l.MasterKey])
		res.UnionID, res.UnionIDChanged = u.UnionID, known && u.UnionID != before
		res.Ended = append(res.Ended, ended...)
		for _, e := range res.Ended {
			d.tell(store.Change{What: store.SessionChanged, Digest: e})
		}
		if res.UnionIDChanged {
			d.tell(store.Change{What: store.UserChanged, User: l.User.Hash()})
		}
		return nil
	})
	return res, err
}

// milli is the precision of times at rest.
func milli(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()) }

func (s *memStore) Lookup(ctx context.Context, digest store.Digest) (rec store.Record, err error) {
	err = s.do(ctx, "Lookup", func(d *memData) error {
		ses, ok := d.sessions[digest]
		if !ok {
			return store.ErrNotFound
		}
		u := d.users[ses.User]
		rec = store.Record{Session: ses, UnionID: u.UnionID, Phone: u.Phone, Current: store.Epochs{Global: d.global, App: d.apps[ses.User.AppID], User: u.Epoch}}
		return nil
	})
	return rec, err
}

func (s *memStore) User(ctx context.Context, id store.UserID) (user store.User, err error) {
	err = s.do(ctx, "User", func(d *memData) error {
		u, ok := d.users[id]
		if !ok {
			return store.ErrNotFound
		}
		user = *u
		user.Sessions = slices.Clone(u.Sessions)
		return nil
	})
	return user, err
}

func (s *memStore) Amend(ctx context.Context, id store.UserID, a store.Amendment) (res store.Amended, err error) {
	err = s.do(ctx, "Amend", func(d *memData) error {
		u, ok := d.users[id]
		if !ok {
			return store.ErrNotFound
		}
		if res = u.Amend(a); res.UnionIDChanged || a.Phone != nil {
			d.tell(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return nil
	})
	if err != nil {
		return store.Amended{}, err
	}
	return res, nil
}

func (s *memStore) End(ctx context.Context, digest store.Digest) error {
	return s.do(ctx, "End", func(d *memData) error {
		if ses, ok := d.sessions[digest]; ok {
			delete(d.sessions, digest)
			d.users[ses.User].Drop(digest)
			d.tell(store.Change{What: store.SessionChanged, Digest: digest})
		}
		return nil
	})
}

func (s *memStore) RevokeUser(ctx context.Context, id store.UserID) error {
	return s.do(ctx, "RevokeUser", func(d *memData) error {
		if u, ok := d.users[id]; ok {
			u.Epoch++
			u.Sessions = nil
			d.tell(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return nil
	})
}

func (s *memStore) Forget(ctx context.Context, id store.UserID) error {
	return s.do(ctx, "Forget", func(d *memData) error {
		if _, ok := d.users[id]; ok {
			maps.DeleteFunc(d.sessions, func(_ store.Digest, ses store.Session) bool { return ses.User == id })
			delete(d.users, id)
			d.tell(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return nil
	})
}

func (s *memStore) RevokeApp(ctx context.Context, appID string) error {
	return s.do(ctx, "RevokeApp", func(d *memData) error {
		if _, ok := d.apps[appID]; ok {
			d.apps[appID]++
			d.tell(store.Change{What: store.AllChanged})
		}
		return nil
	})
}

func (s *memStore) RevokeAll(ctx context.Context) error {
	return s.do(ctx, "RevokeAll", func(d *memData) error {
		d.global++
		clear(d.needs)
		d.tell(store.Change{What: store.AllChanged})
		return nil
	})
}

func (s *memStore) ByUnionID(ctx context.Context, unionID string) (ids []store.UserID, err error) {
	err = s.do(ctx, "ByUnionID", func(d *memData) error {
		for id, u := range d.users {
			if unionID != "" && u.UnionID == unionID {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

func (s *memStore) MasterKeys(ctx context.Context) (needs map[store.MasterKeyID]time.Time, err error) {
	err = s.do(ctx, "MasterKeys", func(d *memData) error {
		needs = maps.Clone(d.needs)
		return nil
	})
	return needs, err
}

func (s *memStore) Stats(ctx context.Context) (st store.Stats, err error) {
	err = s.do(ctx, "Stats", func(d *memData) error {
		st = store.Stats{Sessions: int64(len(d.sessions)), Users: int64(len(d.users))}
		for _, ses := range d.sessions {
			if ses.Expires.After(st.LastExpiry) {
				st.LastExpiry = ses.Expires
			}
		}
		return nil
	})
	return st, err
}

func (s *memStore) Touch(digest store.Digest, until time.Time) {
	_ = s.do(context.Background(), "Touch", func(d *memData) error {
		if ses, ok := d.sessions[digest]; ok && until.After(ses.UsedUntil) {
			ses.UsedUntil = milli(until)
			d.sessions[digest] = ses
		}
		return nil
	})
}

func (s *memStore) Health(ctx context.Context) error {
	return s.do(ctx, "Health", func(*memData) error { return nil })
}

func (s *memStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// snapshot returns how often each method was called so far.
func (s *memStore) snapshot() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// TestMemStoreContract: the store that the tests of this package stand on keeps the contract itself.
func TestMemStoreContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(*testing.T) storetest.Opener {
		d := newMemData()
		return func() (store.Store, error) { return newMemStore(d), nil }
	}})
}
