package bolt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// counted compares the counts of a store with a walk over its pages, at a moment when
// no sweep comes between the two.
func counted(t *testing.T, s *Store, when string) {
	t.Helper()
	o := s.open.Load()
	eventually(t, func() bool {
		got, err := s.Stats(t.Context())
		must(t, err)
		var want census
		must(t, o.db.View(func(tx *bolt.Tx) (err error) {
			want, err = checkPages(tx, o.file)
			return err
		}))
		if again, err := s.Stats(t.Context()); err != nil || again != got {
			return false
		}
		if got.Sessions != want.rows[sess] || got.Users != want.rows[user] {
			t.Errorf("%s: counted %d sessions and %d users, there are %d and %d", when,
				got.Sessions, got.Users, want.rows[sess], want.rows[user])
		}
		used := got.Bytes - got.FreeBytes
		if page := int64(o.db.Info().PageSize); used != want.used {
			t.Errorf("%s: counted %d pages, there are %d", when, used/page, want.used/page)
		}
		return true
	})
}

// The counts are those of a walk after any changes, over starts, and after commits
// that failed.
func TestStats_AnyChanges_EqualAWalk(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) { testStats(t, path) })
}

func testStats(t *testing.T, path string) {
	s, _ := openTest(t, path)
	r := rand.New(rand.NewPCG(1, 2))
	userOf := func() store.UserID {
		return store.UserID{AppID: "wx0123456789abcdef", OpenID: fmt.Sprint("o", r.IntN(20))}
	}
	var made []store.Digest
	some := func() store.Digest {
		if len(made) == 0 {
			return store.Digest{}
		}
		return made[r.IntN(len(made))]
	}
	for i := range 400 {
		now := time.UnixMilli(time.Now().UnixMilli())
		l := store.Login{
			User: userOf(), Digest: sha256.Sum256(fmt.Append(nil, i)), Created: now,
			Expires: now.Add(time.Duration(r.IntN(3)) * time.Hour), MaxPerUser: 3, Ends: some(),
		}
		var err error
		switch r.IntN(8) {
		case 0:
			err = s.RevokeUser(t.Context(), userOf(), store.EndRevoked)
		case 1:
			err = s.Forget(t.Context(), userOf(), store.EndForgotten)
		case 2:
			err = s.End(t.Context(), some(), store.EndLogout)
		case 3:
			_, err = s.Load(t.Context(), []store.Item{{
				User: store.User{ID: l.User, Sessions: []store.SessionRef{{
					Digest: l.Digest, Created: l.Created, Expires: l.Expires,
				}}},
				Sessions: []store.Session{l.Session()},
			}})
		default:
			made = append(made, l.Digest)
			_, err = s.Login(t.Context(), l)
		}
		must(t, err)
		switch {
		case i%100 == 50:
			free := fillDisk(t, path)
			_, err := s.Login(t.Context(), l)
			if !isUnavailable(err) {
				t.Errorf("login on a full disk: %v", err)
			}
			free()
			eventually(t, func() bool { return s.Health(t.Context()) == nil })
			counted(t, s, "after a full disk")
		case i%100 == 99:
			time.Sleep(2 * time.Second) // for a sweep
			counted(t, s, "after changes")
			must(t, s.Close())
			s, _ = openTest(t, path)
			counted(t, s, "after a start")
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for range 2000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it does not come")
}

// A file with a circle of pages is copied over the open one. No page of it is
// followed: the store says that it is broken, and opening it again sets the file
// aside. A sound backup is served again, and what was ended since is back.
func TestReopen_OverwrittenFile(t *testing.T) {
	for name, tt := range map[string]struct {
		bad   bool // the copy is damaged
		write bool // a write finds out, not a read
	}{
		"sound, read": {}, "sound, write": {write: true},
		"circle, read": {bad: true}, "circle, write": {bad: true, write: true},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s, logs := openTest(t, path)
			kept := mustLogin(t, s, 1)
			backup, err := os.Create(path + ".backup")
			must(t, err)
			_, err = s.Backup(t.Context(), backup)
			must(t, err)
			must(t, backup.Close())
			if tt.bad {
				makeCircle(t, path+".backup")
			}
			later := mustLogin(t, s, 2)
			logs.TakeAll()

			overwrite(t, path+".backup", path)
			if tt.write {
				_, err = s.Login(t.Context(), testLogin(3))
			} else {
				_, err = s.Stats(t.Context())
			}
			if !isUnavailable(err) || !errors.Is(err, errOverwritten) {
				t.Errorf("got %v", err)
			}
			for range 3 {
				if _, err := s.Lookup(t.Context(), kept.Digest); !isUnavailable(err) {
					t.Errorf("read: %v", err)
				}
				if err := s.End(t.Context(), kept.Digest, store.EndLogout); !isUnavailable(err) {
					t.Errorf("write: %v", err)
				}
				if err := s.Health(t.Context()); !errors.Is(err, errBroken) {
					t.Errorf("health: %v", err)
				}
			}
			if logs.Len() != 1 {
				t.Errorf("logged %v", logs.All())
			}
			again, err := s.Reopen()
			must(t, err)
			if !again {
				t.Error("not opened again")
			}
			_, err = s.Lookup(t.Context(), kept.Digest)
			if tt.bad != errors.Is(err, store.ErrNotFound) || !tt.bad && err != nil {
				t.Errorf("a session of the copy: %v", err)
			}
			if _, err := s.Lookup(t.Context(), later.Digest); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a session after the copy: %v", err)
			}
			if (s.SetAside() != "") != tt.bad {
				t.Errorf("set aside: %q", s.SetAside())
			}
			must(t, s.Health(t.Context()))
			mustLogin(t, s, 4)
			counted(t, s, "opened again")
			if again, err := s.Reopen(); again || err != nil {
				t.Errorf("a store that works is opened again: %v, %v", again, err)
			}
			must(t, s.Close())
		})
	}
}

// A commit that panics keeps bbolt's locks for ever. The store can be opened again
// nevertheless.
func TestReopen_LocksLost(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	t.Parallel() // waits for the lost lock
	s, _ := openTest(t, newPath(t))
	l := mustLogin(t, s, 1)
	tx, err := s.open.Load().db.Begin(true) // never ends
	must(t, err)
	old := s.open.Load()
	defer func() {
		_ = tx.Rollback()
		_ = old.db.Close()
	}()
	s.settle(s.open.Load(), panicError{"in a commit"})
	again, err := s.Reopen()
	if !again || err != nil {
		t.Fatalf("%v, %v", again, err)
	}
	if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
		t.Error(err)
	}
	mustLogin(t, s, 2)
}

// overwrite copies a file over another one that keeps its inode.
func overwrite(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	must(t, err)
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = io.Copy(dst, src)
	must(t, errors.Join(err, dst.Close()))
}

// makeCircle makes the page of all buckets of a file a branch that leads to itself.
func makeCircle(t *testing.T, path string) {
	t.Helper()
	var root, page int64
	_, err := viewFile(path, func(tx *bolt.Tx, _ *os.File, _ os.FileInfo) error {
		root, page = int64(tx.Cursor().Bucket().Root()), int64(tx.DB().Info().PageSize)
		return nil
	})
	must(t, err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	b := make([]byte, page)
	_, err = f.ReadAt(b, root*page)
	must(t, err)
	b[8], b[9], b[10], b[11] = branchPage, 0, 1, 0 // flags, count
	b[16], b[17], b[18], b[19] = 16, 0, 0, 0       // position of the key
	b[20], b[21], b[22], b[23] = 4, 0, 0, 0        // size of the key
	for i := range 8 {
		b[24+i] = byte(root >> (8 * i))
	}
	_, err = f.WriteAt(b, root*page)
	must(t, errors.Join(err, f.Close()))
}
