package bolt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func openTest(t *testing.T, path string) (*Store, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	s, err := Open(Config{Path: path, Logger: zap.New(core)})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	if logs.FilterMessage("session store is new").Len() > 0 {
		logs.TakeAll()
	}
	return s, logs
}

func testLogin(n int) store.Login {
	now := time.UnixMilli(time.Now().UnixMilli())
	return store.Login{
		User:   store.UserID{AppID: "wx0123456789abcdef", OpenID: "oAlice"},
		Key:    store.SealedKey{Tag: [8]byte{1}, Box: []byte("box")},
		Digest: sha256.Sum256([]byte{byte(n)}), Created: now, Expires: now.Add(time.Hour),
	}
}

func mustLogin(t *testing.T, s *Store, n int) store.Login {
	t.Helper()
	l := testLogin(n)
	if _, err := s.Login(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return l
}

func isUnavailable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNotFound)
}

// fillDisk makes every write to the store's file fail with "no space left on
// device", until the returned function is called.
func fillDisk(t *testing.T, path string) (free func()) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to != path {
			continue
		}
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			t.Fatal(err)
		}
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		must(t, err)
		defer full.Close()
		kept, err := syscall.Dup(fd)
		if err == nil {
			err = syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC)
		}
		must(t, err)
		return func() {
			must(t, errors.Join(syscall.Dup3(kept, fd, syscall.O_CLOEXEC), syscall.Close(kept)))
		}
	}
	t.Fatal("the store's file is not open")
	return nil
}

// While the disk is full, writes and Health answer ErrUnavailable, and reads go
// on. The store recovers by itself, and logs one line a transition.
func TestP4_DiskFull(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, logs := openTest(t, path)
		kept := mustLogin(t, s, 1)
		for round := range 2 {
			free := fillDisk(t, path)
			seen := time.Now().Add(time.Minute).Truncate(time.Millisecond)
			s.Touch(kept.Digest, seen)
			for n := range 3 {
				if _, err := s.Login(t.Context(), testLogin(100+n)); !isUnavailable(err) {
					t.Fatalf("login on a full disk: %v", err)
				}
				if err := s.End(t.Context(), kept.Digest, store.EndLogout); !isUnavailable(err) {
					t.Fatalf("end on a full disk: %v", err)
				}
				if err := s.Health(t.Context()); !isUnavailable(err) {
					t.Fatalf("health on a full disk: %v", err)
				}
				if _, err := s.Lookup(t.Context(), kept.Digest); err != nil {
					t.Fatalf("read on a full disk: %v", err)
				}
			}
			time.Sleep(5 * time.Second)
			free()
			time.Sleep(2 * time.Second) // nobody asks the store to write
			if err := s.Health(t.Context()); err != nil {
				t.Fatalf("round %d: room again: %v", round, err)
			}
			if n := s.open.Load().freePages(); n < reserveLow {
				t.Errorf("recovered with %d free pages", n)
			}
			mustLogin(t, s, 10+round)
			if rec, err := s.Lookup(t.Context(), kept.Digest); err != nil ||
				!rec.Session.UsedUntil.Equal(seen) {
				t.Errorf("a session used during the outage is used until %v, not %v, %v",
					rec.Session.UsedUntil, seen, err)
			}
			_, err := s.Lookup(t.Context(), testLogin(100).Digest)
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a refused login left a session: %v", err)
			}
			if u, err := s.User(t.Context(), kept.User); err != nil || len(u.Sessions) != 2+round {
				t.Errorf("user after the outage: %+v, %v", u, err)
			}
			time.Sleep(2 * relapseWithin) // another outage, not the same one
			if logs.Len() != 2*(round+1) {
				t.Errorf("round %d: %d log lines: %v", round, logs.Len(), logs.All())
			}
		}
		must(t, s.Close())
		s, _ = openTest(t, path)
		if _, err := s.Lookup(t.Context(), kept.Digest); err != nil {
			t.Errorf("after reopening: %v", err)
		}
	})
}

func TestClose_DiskFull_GivesUp(t *testing.T) {
	path := newPath(t)
	s, _ := openTest(t, path)
	l := mustLogin(t, s, 1)
	free := fillDisk(t, path)
	defer free()
	s.Touch(l.Digest, l.Created.Add(time.Minute))
	if _, err := s.Login(t.Context(), testLogin(2)); !isUnavailable(err) {
		t.Error(err)
	}
	must(t, s.Close())
}

func TestCheckRoom_LittleRoom_CopyRefused(t *testing.T) {
	path := newPath(t)
	free, ok := freeRoom(filepath.Dir(path))
	if !ok || free <= 0 {
		t.Fatalf("%d bytes free, %v", free, ok)
	}
	if err := checkRoom(path, 0); free > 2*spareRoom && err != nil {
		t.Error(err)
	}
	for _, size := range []int64{2 * free, 1 << 60} {
		if err := checkRoom(path, size); !errors.Is(err, ErrRoom) {
			t.Errorf("%d bytes where %d are free: %v", size, free, err)
		}
	}
	if _, ok := freeRoom(filepath.Join(path, "nowhere")); ok {
		t.Error("knows the room of a place that does not exist")
	}
}

// The batch is not applied, reads go on, and the next Open verifies the file.
func TestPanic_InTransaction_StoreFailsProcessLives(t *testing.T) {
	for _, where := range []string{"write", "read", "fault in a mapped page"} {
		t.Run(where, func(t *testing.T) {
			path := newPath(t)
			s, logs := openTest(t, path)
			l := mustLogin(t, s, 1)
			var err error
			switch where {
			case "write":
				err = s.write(t.Context(), func(tb *tables) error {
					if err := tb.bucket(sess).Delete(l.Digest[:]); err != nil {
						return err
					}
					panic("boom")
				})
			case "read":
				err = s.read(t.Context(), func(*tables) error { panic("boom") })
			default:
				err = s.read(t.Context(), func(*tables) error { return readUnmapped(t) })
			}
			if !isUnavailable(err) {
				t.Fatalf("got %v", err)
			}
			if err := s.Health(t.Context()); !isUnavailable(err) {
				t.Errorf("health: %v", err)
			}
			for range 3 {
				if err := s.End(t.Context(), l.Digest, store.EndLogout); !isUnavailable(err) {
					t.Errorf("write after a panic: %v", err)
				}
				if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
					t.Errorf("read after a panic: %v", err)
				}
			}
			if logs.Len() != 1 {
				t.Errorf("logged %v", logs.All())
			}
			if s.Close() == nil {
				t.Error("Close hides the panic")
			}
			s, logs = openTest(t, path)
			if _, err := s.Lookup(t.Context(), l.Digest); err != nil ||
				logs.FilterMessageSnippet("sound").Len() != 1 {
				t.Errorf("after reopening: %v, %v", err, logs.All())
			}
		})
	}
}

// readUnmapped reads a page that the file no longer has, which is a SIGBUS.
func readUnmapped(t *testing.T) error {
	f, err := os.Create(filepath.Join(t.TempDir(), "short"))
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return err
	}
	defer syscall.Munmap(b)
	_, err = fmt.Fprint(io.Discard, b[7])
	return err
}

// hold keeps the committer busy until the returned function is called.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	busy, done := make(chan struct{}), make(chan struct{})
	go s.write(context.WithoutCancel(t.Context()), func(*tables) error {
		close(busy)
		<-done
		return nil
	})
	<-busy
	return func() { close(done) }
}

func TestCommit_Queue_OneTransaction(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t, path)
		mustLogin(t, s, 0)
		release := hold(t, s)
		results := make(chan error)
		for n := range 100 {
			go func() {
				_, err := s.Login(t.Context(), testLogin(n+1))
				results <- err
			}()
		}
		synctest.Wait()
		before := txID(t, s)
		release()
		for range 100 {
			must(t, <-results)
		}
		if n := txID(t, s) - before; n != 2 { // the one that was held and one for all
			t.Errorf("%d commits", n)
		}
		if u, err := s.User(t.Context(), testLogin(0).User); err != nil || len(u.Sessions) != 101 {
			t.Errorf("%d sessions, %v", len(u.Sessions), err)
		}
	})
}

func txID(t *testing.T, s *Store) (id int) {
	t.Helper()
	must(t, s.open.Load().db.View(func(tx *bolt.Tx) error { id = tx.ID(); return nil }))
	return id
}

func TestCommit_NothingToDo_WritesNothing(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t, path)
		mustLogin(t, s, 0)
		before := txID(t, s)
		time.Sleep(30 * time.Minute)
		if n := txID(t, s) - before; n != 0 {
			t.Errorf("%d commits", n)
		}
	})
}

// Health tells of it. An operation whose caller has given up is not done later.
func TestCommit_StuckDisk_CallersGiveUp(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t, path)
		kept := mustLogin(t, s, 0)
		release := hold(t, s)
		const n = queueLen + 10
		results := make(chan error)
		for range n {
			go func() { results <- s.End(context.Background(), kept.Digest, store.EndLogout) }()
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := s.Login(ctx, testLogin(1))
			results <- err
		}()
		synctest.Wait()
		if err := s.Health(t.Context()); err != nil {
			t.Errorf("health at first: %v", err)
		}
		cancel()
		if err := <-results; !isUnavailable(err) || !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
		time.Sleep(stallAfter + time.Second)
		if err := s.Health(t.Context()); !isUnavailable(err) {
			t.Errorf("health of a stuck disk: %v", err)
		}
		if _, err := s.Lookup(t.Context(), kept.Digest); err != nil {
			t.Errorf("read: %v", err)
		}
		for range n {
			if err := <-results; !isUnavailable(err) {
				t.Errorf("gave up with %v", err)
			}
		}
		release()
		synctest.Wait()
		if err := s.Health(t.Context()); err != nil {
			t.Errorf("health afterwards: %v", err)
		}
		if _, err := s.Lookup(t.Context(), kept.Digest); err != nil {
			t.Errorf("an end that was given up was done: %v", err)
		}
	})
}

func TestClose_Queue_Committed(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t, path)
		release := hold(t, s)
		const n = maxBatch + 100
		results := make(chan error)
		for i := range n {
			l := testLogin(0)
			l.Digest = sha256.Sum256(fmt.Append(nil, i))
			go func() {
				_, err := s.Login(t.Context(), l)
				results <- err
			}()
		}
		synctest.Wait()
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		synctest.Wait()
		release()
		for range n {
			must(t, <-results)
		}
		must(t, <-closed)
		s, _ = openTest(t, path)
		if u, err := s.User(t.Context(), testLogin(0).User); err != nil || len(u.Sessions) != n {
			t.Errorf("%d sessions, %v", len(u.Sessions), err)
		}
	})
}

func TestTouch_CommitterBusy_BoundedAndNeverBlocks(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, _ := openTest(t, path)
		release := hold(t, s)
		for i := range 2 * store.MaxTouches {
			s.Touch(sha256.Sum256(fmt.Append(nil, i)), time.Now())
		}
		if n := s.touches.Len(); n != store.MaxTouches {
			t.Errorf("%d touches wait", n)
		}
		release()
		time.Sleep(2 * time.Second)
		if n := len(s.touches.Take()); n != 0 {
			t.Errorf("%d touches still wait", n)
		}
	})
}

// The session is unknown, the log does not show its key, no write fails, and
// the user can log in again.
func TestDamagedRecord_AnyRow_RefusedAndReplaced(t *testing.T) {
	l := testLogin(1)
	h := l.User.Hash()
	other := store.User{ID: store.UserID{AppID: l.User.AppID, OpenID: "oMallory"}}
	otherRow, _ := other.AppendBinary(nil)
	rows := map[string]struct {
		bucket int
		key    []byte
	}{
		"session":      {sess, l.Digest[:]},
		"user":         {user, h[:]},
		"global epoch": {epoch, keyGlobal},
		"app epoch":    {epoch, appKey(l.User.AppID)},
	}
	damages := map[string]func(v []byte) []byte{
		"missing": func([]byte) []byte { return nil },
		"empty":   func([]byte) []byte { return []byte{} },
		"short":   func(v []byte) []byte { return v[:len(v)-1] },
		"long":    func(v []byte) []byte { return append(v, 0) },
		"version": func(v []byte) []byte { return append([]byte{9}, v...) },
		"another": func([]byte) []byte { return otherRow },
	}
	for rowName, row := range rows {
		for damageName, damage := range damages {
			t.Run(rowName+"/"+damageName, func(t *testing.T) {
				s, logs := openTest(t, newPath(t))
				mustLogin(t, s, 1)
				err := s.write(t.Context(), func(tb *tables) error {
					b := tb.bucket(row.bucket)
					v := damage(append([]byte(nil), b.Get(row.key)...))
					if v == nil {
						return b.Delete(row.key)
					}
					return b.Put(row.key, v)
				})
				must(t, err)
				checkDamaged(t, s, l)
				if got, want := logs.Len() > 0, damageName != "missing"; got != want {
					t.Errorf("logged: %v", logs.All())
				}
				for _, e := range logs.All() {
					text, whole := fmt.Sprint(e.ContextMap()), fmt.Sprintf("%x", row.key)
					if strings.Contains(text, whole) && len(row.key) > 4 {
						t.Errorf("the log shows the whole key: %s", text)
					}
				}
			})
		}
	}
}

func checkDamaged(t *testing.T, s *Store, l store.Login) {
	t.Helper()
	refused := func(when string) {
		t.Helper()
		if rec, err := s.Lookup(t.Context(), l.Digest); !errors.Is(err, store.ErrNotFound) &&
			(err != nil || rec.Current == rec.Session.Epochs) {
			t.Errorf("%s: %+v, %v", when, rec, err)
		}
	}
	if _, err := s.Lookup(t.Context(), l.Digest); !errors.Is(err, store.ErrNotFound) ||
		isUnavailable(err) {
		t.Errorf("lookup: %v", err)
	}
	s.Touch(l.Digest, l.Created.Add(time.Minute))
	again := testLogin(2) // ends nothing itself: new epochs start at random
	if _, err := s.Login(t.Context(), again); err != nil {
		t.Fatalf("login: %v", err)
	}
	refused("after a login")
	if rec, err := s.Lookup(t.Context(), again.Digest); err != nil ||
		rec.Current != rec.Session.Epochs {
		t.Errorf("the new session: %+v, %v", rec, err)
	}
	for name, err := range map[string]error{
		"end":  s.End(t.Context(), l.Digest, store.EndLogout),
		"user": s.RevokeUser(t.Context(), l.User, store.EndRevoked),
		"app":  s.RevokeApp(t.Context(), l.User.AppID),
		"all":  s.RevokeAll(t.Context()),
	} {
		if err != nil {
			t.Errorf("revoking %s: %v", name, err)
		}
	}
	refused("after the revocations")
	must(t, s.Health(t.Context()))
}

// The revocation holds even if the bytes come back.
func TestRevoke_DamagedRow_Removed(t *testing.T) {
	l := testLogin(1)
	h := l.User.Hash()
	revoke := map[string]func(*Store) error{
		"user": func(s *Store) error {
			return s.RevokeUser(t.Context(), l.User, store.EndRevoked)
		},
		"global": func(s *Store) error { return s.RevokeAll(t.Context()) },
		"app":    func(s *Store) error { return s.RevokeApp(t.Context(), l.User.AppID) },
	}
	for name, row := range map[string]struct {
		bucket int
		key    []byte
	}{"user": {user, h[:]}, "global": {epoch, keyGlobal}, "app": {epoch, appKey(l.User.AppID)}} {
		t.Run(name, func(t *testing.T) {
			s, _ := openTest(t, newPath(t))
			mustLogin(t, s, 1)
			must(t, s.write(t.Context(), func(tb *tables) error {
				return tb.bucket(row.bucket).Put(row.key, []byte("x"))
			}))
			must(t, revoke[name](s))
			if err := s.read(t.Context(), func(tb *tables) error {
				if v := tb.bucket(row.bucket).Get(row.key); v != nil {
					t.Errorf("the row is still there: %q", v)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDamagedRecord_ManyReads_FewLogLines(t *testing.T) {
	s, logs := openTest(t, newPath(t))
	l := mustLogin(t, s, 1)
	must(t, s.write(t.Context(), func(tb *tables) error {
		return tb.bucket(sess).Put(l.Digest[:], []byte("x"))
	}))
	for range 1000 {
		if _, err := s.Lookup(t.Context(), l.Digest); !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := logs.Len(); n < 1 || n > 10 {
		t.Errorf("%d log lines for 1000 reads", n)
	}
}
