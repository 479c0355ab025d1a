// Package memstore is the store of tests: it keeps data in memory, counts its
// calls, and fails on demand. It keeps the contract of package store, which
// package storetest checks.
//
// Several gates may share data (Shared), with ways to part them.
package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Data is the content of stores. It outlives them, as a file would. Lock it to
// read or change its records.
type Data struct {
	sync.Mutex
	Records
	identity store.Identity
	watchers []func(store.Change)
	fullAt   map[string]time.Time // of the buckets of Spend
}

// Records are the rows of Data.
type Records struct {
	Global     uint64
	Apps       map[string]uint64
	Users      map[store.UserID]*store.User
	Sessions   map[store.Digest]store.Session
	MasterKeys map[store.MasterKeyID]time.Time
	Facts      map[string][]byte
}

// NewData returns empty data.
func NewData() *Data {
	return &Data{
		Records: Records{
			Global:     rand.Uint64(),
			Apps:       make(map[string]uint64),
			Users:      make(map[store.UserID]*store.User),
			Sessions:   make(map[store.Digest]store.Session),
			MasterKeys: make(map[store.MasterKeyID]time.Time),
			Facts:      make(map[string][]byte),
		},
		identity: store.NewIdentity(time.Now()),
		fullAt:   make(map[string]time.Time),
	}
}

// Save returns a copy of the records.
func (d *Data) Save() Records {
	d.Lock()
	defer d.Unlock()
	return d.clone()
}

// Restore makes the records those that Save returned, as a server does that lost
// what came later. No gate hears of it.
func (d *Data) Restore(saved Records) {
	d.Lock()
	defer d.Unlock()
	d.Records = saved.clone()
}

func (r Records) clone() Records {
	r.Apps, r.Sessions = maps.Clone(r.Apps), maps.Clone(r.Sessions)
	r.MasterKeys, r.Facts = maps.Clone(r.MasterKeys), maps.Clone(r.Facts)
	users := make(map[store.UserID]*store.User)
	for id, u := range r.Users {
		clone := *u
		users[id] = &clone
	}
	r.Users = users
	return r
}

// Watch calls f with each change before a store acknowledges it.
func (d *Data) Watch(f func(store.Change)) {
	d.Lock()
	defer d.Unlock()
	d.watchers = append(d.watchers, f)
}

func (d *Data) report(c store.Change) {
	for _, w := range d.watchers {
		w(c)
	}
}

// Store is a store.Store on Data. Set Before and After before other goroutines
// use it.
type Store struct {
	store.EndReports
	Data *Data

	// Before runs before a method does anything, After when the method is done.
	// Their errors become the outcome. They may block.
	Before, After func(ctx context.Context, method string) error

	mu                     sync.Mutex
	closed, down, readOnly bool
	calls                  map[string]int
}

var (
	_ store.Store      = (*Store)(nil)
	_ store.Identified = (*Store)(nil)

	_ store.EndReporter = (*Store)(nil)
)

// New returns a store on d.
func New(d *Data) *Store { return &Store{Data: d, calls: make(map[string]int)} }

// Count returns how often a method was called.
func (s *Store) Count(method string) int { return s.Calls()[method] }

// Calls returns how often each method was called.
func (s *Store) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// SetDown makes every call fail, or succeed again.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// SetReadOnly makes every change fail, or succeed again.
func (s *Store) SetReadOnly(readOnly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = readOnly
}

var reads = []string{"Lookup", "User", "ByUnionID", "MasterKeys", "Fact", "Stats", "Touch"}

// do runs f as the named method, with the faults that the test asks for.
func (s *Store) do(ctx context.Context, method string, f func(*Data) error) error {
	s.mu.Lock()
	s.calls[method]++
	closed, down := s.closed, s.down || s.readOnly && !slices.Contains(reads, method)
	s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return errors.Join(store.ErrUnavailable, ctx.Err())
	case closed:
		return fmt.Errorf("%w: closed", store.ErrUnavailable)
	case down:
		return fmt.Errorf("%w: switched off", store.ErrUnavailable)
	}
	if s.Before != nil {
		if err := s.Before(ctx, method); err != nil {
			return err
		}
	}
	s.Data.Lock()
	err := f(s.Data)
	s.Data.Unlock()
	if s.After != nil {
		if err := s.After(ctx, method); err != nil {
			return err
		}
	}
	return err
}

// call is do for a method with a result.
func call[T any](
	ctx context.Context, s *Store, method string, f func(*Data) (T, error),
) (res T, err error) {
	err = s.do(ctx, method, func(d *Data) (err error) {
		res, err = f(d)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return res, nil
}

// Login implements store.Store.
func (s *Store) Login(ctx context.Context, l store.Login) (store.LoginResult, error) {
	return call(ctx, s, "Login", func(d *Data) (res store.LoginResult, err error) {
		if old, ok := d.Sessions[l.Ends]; ok {
			by := atRest(l.EndsBy(old.Expires))
			d.Users[old.User].Shorten(l.Ends, by)
			s.TellEnds(d.Users[old.User].TakeEnds())
			old.Expires = by
			d.Sessions[l.Ends] = old
			d.report(store.Change{What: store.SessionChanged, Digest: l.Ends})
		}
		u, known := d.Users[l.User]
		if !known {
			u = &store.User{Epoch: rand.Uint64()}
			d.Users[l.User] = u
		}
		if _, ok := d.Apps[l.User.AppID]; !ok {
			d.Apps[l.User.AppID] = rand.Uint64()
		}
		before := *u
		u.Drop(l.Digest) // an earlier attempt made it
		ended, expired := u.Admit(l)
		s.TellEnds(u.TakeEnds())
		for _, e := range slices.Concat(ended, expired) {
			delete(d.Sessions, e)
		}
		ses := l.Session()
		ses.Epochs = store.Epochs{Global: d.Global, App: d.Apps[l.User.AppID], User: u.Epoch}
		ses.Created, ses.Expires = atRest(ses.Created), atRest(ses.Expires)
		ses.UsedUntil = atRest(ses.UsedUntil)
		d.Sessions[l.Digest] = ses
		d.MasterKeys[l.MasterKey] = l.MasterKeyNeed(d.MasterKeys[l.MasterKey])

		res.UnionID, res.Proof = u.UnionID, u.Proof
		res.UnionIDChanged = known && (u.UnionID != before.UnionID || u.Proof != before.Proof)
		res.Ended = ended
		for _, e := range res.Ended {
			d.report(store.Change{What: store.SessionChanged, Digest: e})
		}
		if res.UnionIDChanged {
			d.report(store.Change{What: store.UserChanged, User: l.User.Hash()})
		}
		return res, nil
	})
}

// atRest cuts t to the precision of times at rest.
func atRest(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()) }

// Lookup implements store.Store.
func (s *Store) Lookup(ctx context.Context, digest store.Digest) (store.Record, error) {
	return call(ctx, s, "Lookup", func(d *Data) (store.Record, error) {
		ses, ok := d.Sessions[digest]
		if !ok {
			return store.Record{}, store.ErrNotFound
		}
		u := d.Users[ses.User]
		return store.Record{
			Session: ses,
			UnionID: u.UnionID,
			Proof:   u.Proof,
			Phone:   u.Phone,
			Current: store.Epochs{Global: d.Global, App: d.Apps[ses.User.AppID], User: u.Epoch},
		}, nil
	})
}

// User implements store.Store.
func (s *Store) User(ctx context.Context, id store.UserID) (store.User, error) {
	return call(ctx, s, "User", func(d *Data) (store.User, error) {
		u, ok := d.Users[id]
		if !ok {
			return store.User{}, store.ErrNotFound
		}
		clone := *u
		clone.Sessions = slices.Clone(u.Sessions)
		return clone, nil
	})
}

// Amend implements store.Store.
func (s *Store) Amend(
	ctx context.Context, id store.UserID, a store.Amendment,
) (store.Amended, error) {
	return call(ctx, s, "Amend", func(d *Data) (res store.Amended, err error) {
		u, ok := d.Users[id]
		if !ok {
			return res, store.ErrNotFound
		}
		res = u.Amend(a)
		s.TellEnds(u.TakeEnds())
		if res.UnionIDChanged || a.Phone != nil {
			d.report(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return res, nil
	})
}

// End implements store.Store.
func (s *Store) End(ctx context.Context, digest store.Digest, why store.Reason) error {
	return s.do(ctx, "End", func(d *Data) error {
		if ses, ok := d.Sessions[digest]; ok {
			delete(d.Sessions, digest)
			d.Users[ses.User].EndSession(digest, why, time.Now())
			s.TellEnds(d.Users[ses.User].TakeEnds())
			d.report(store.Change{What: store.SessionChanged, Digest: digest})
		}
		return nil
	})
}

// RevokeUser implements store.Store.
func (s *Store) RevokeUser(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.do(ctx, "RevokeUser", func(d *Data) error {
		if u, ok := d.Users[id]; ok {
			u.Revoke(why, time.Now())
			s.TellEnds(u.TakeEnds())
			d.report(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return nil
	})
}

// RevokeApp implements store.Store.
func (s *Store) RevokeApp(ctx context.Context, appID string) error {
	return s.do(ctx, "RevokeApp", func(d *Data) error {
		if _, ok := d.Apps[appID]; ok {
			d.Apps[appID]++
			d.report(store.Change{What: store.AllChanged})
		}
		return nil
	})
}

// RevokeAll implements store.Store.
func (s *Store) RevokeAll(ctx context.Context) error {
	return s.do(ctx, "RevokeAll", func(d *Data) error {
		d.Global++
		clear(d.MasterKeys)
		d.report(store.Change{What: store.AllChanged})
		return nil
	})
}

// Forget implements store.Store.
func (s *Store) Forget(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.do(ctx, "Forget", func(d *Data) error {
		if u, ok := d.Users[id]; ok {
			s.TellEnds(u.Forgotten(why, time.Now()))
			maps.DeleteFunc(d.Sessions, func(_ store.Digest, ses store.Session) bool {
				return ses.User == id
			})
			delete(d.Users, id)
			d.report(store.Change{What: store.UserChanged, User: id.Hash()})
		}
		return nil
	})
}

// ByUnionID implements store.Store.
func (s *Store) ByUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	return call(ctx, s, "ByUnionID", func(d *Data) (ids []store.UserID, err error) {
		for id, u := range d.Users {
			if unionID != "" && u.UnionID == unionID {
				ids = append(ids, id)
			}
		}
		return ids, nil
	})
}

// MasterKeys implements store.Store.
func (s *Store) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	return call(ctx, s, "MasterKeys", func(d *Data) (map[store.MasterKeyID]time.Time, error) {
		return maps.Clone(d.Records.MasterKeys), nil
	})
}

// Fact implements store.Store.
func (s *Store) Fact(ctx context.Context, name string) ([]byte, error) {
	return call(ctx, s, "Fact", func(d *Data) ([]byte, error) { return d.Facts[name], nil })
}

// SetFact implements store.Store.
func (s *Store) SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error) {
	return call(ctx, s, "SetFact", func(d *Data) ([]byte, error) {
		if bytes.Equal(d.Facts[name], was) {
			d.Facts[name] = bytes.Clone(value)
		}
		return d.Facts[name], nil
	})
}

// Stats implements store.Store.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	return call(ctx, s, "Stats", func(d *Data) (store.Stats, error) {
		st := store.Stats{Sessions: int64(len(d.Sessions)), Users: int64(len(d.Users))}
		for _, ses := range d.Sessions {
			if ses.Expires.After(st.LastExpiry) {
				st.LastExpiry = ses.Expires
			}
		}
		return st, nil
	})
}

// Identity implements store.Identified.
func (s *Store) Identity(ctx context.Context) (store.Identity, error) {
	return call(ctx, s, "Identity", func(d *Data) (store.Identity, error) {
		return d.identity, nil
	})
}

// Touch implements store.Store. It takes effect at once.
func (s *Store) Touch(digest store.Digest, until time.Time) {
	_ = s.do(context.Background(), "Touch", func(d *Data) error {
		if ses, ok := d.Sessions[digest]; ok && until.After(ses.UsedUntil) {
			ses.UsedUntil = atRest(until)
			d.Sessions[digest] = ses
		}
		return nil
	})
}

// Health implements store.Store.
func (s *Store) Health(ctx context.Context) error {
	return s.do(ctx, "Health", func(*Data) error { return nil })
}

// Close implements store.Store. The data stays.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
