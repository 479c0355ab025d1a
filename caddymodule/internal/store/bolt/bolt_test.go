package bolt_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bbolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		child(path)
		return
	}
	if path := os.Getenv(openEnv); path != "" {
		openChild(path)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(t *testing.T) storetest.Opener {
		path := filepath.Join(t.TempDir(), "sessions.db")
		return func() (store.Store, error) { return bolt.Open(bolt.Config{Path: path}) }
	}})
}

func open(t testing.TB, c bolt.Config) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "sessions.db") }

func digest(parts ...any) store.Digest { return sha256.Sum256([]byte(fmt.Sprint(parts...))) }

func userOf(openID string) store.UserID {
	return store.UserID{AppID: "wx0123456789abcdef", OpenID: openID}
}

// login makes a session of the given length, now.
func login(t testing.TB, s store.Store, openID string, n int, length time.Duration) store.Login {
	t.Helper()
	now := time.UnixMilli(time.Now().UnixMilli())
	l := store.Login{
		User: userOf(openID), UnionID: "union", Key: store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 54)},
		Digest: digest(openID, n), Created: now, Expires: now.Add(length), MaxPerUser: 10,
	}
	if _, err := s.Login(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOpenLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "sessions.db")
	s := open(t, bolt.Config{Path: filepath.Join(filepath.Dir(path), "..", "dir", "sessions.db")})
	if s.Path() != path {
		t.Errorf("path %q, want %q", s.Path(), path)
	}
	login(t, s, "o", 1, time.Hour)
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir, filepath.Dir(filepath.Dir(path)): 0o700 | fs.ModeDir} {
		info, err := os.Stat(p)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", p, info.Mode(), err, want)
		}
	}
	// The mapping is a gigabyte of addresses; the file must not be.
	if info, err := os.Stat(path); err != nil || info.Size() > 32<<20 {
		t.Errorf("new file has %d bytes, %v", info.Size(), err)
	}
}

func TestOpenRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	s := open(t, bolt.Config{Path: "sessions.db"})
	if !filepath.IsAbs(s.Path()) {
		t.Errorf("path %q", s.Path())
	}
}

func TestOpenLocked(t *testing.T) {
	path := newPath(t)
	first := open(t, bolt.Config{Path: path})
	l := login(t, first, "o", 1, time.Hour)
	_, err := bolt.Open(bolt.Config{Path: path})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another running instance") {
		t.Fatalf("second open: %v", err)
	}
	if _, err := first.Lookup(t.Context(), l.Digest); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if _, err := os.Stat(path + ".dirty"); err != nil {
		t.Errorf("the refused open took the marker of the one that runs: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"newer schema", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{9}) })
		}, "schema version 9"},
		{"no schema", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("schema")) })
		}, "not a session store"},
		{"bucket missing", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("epoch")) })
		}, "not a session store"},
		{"another program's database", func(t *testing.T, path string) {
			edit(t, path, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
		}, "not a session store"},
		{"not a database", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("precious text\n", 9000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a session store"},
		{"directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := newPath(t)
			tt.prepare(t, path)
			before := fingerprint(t, path)
			for range 2 { // twice: the first refusal must not make the file look like one that was left unclean
				_, err := bolt.Open(bolt.Config{Path: path})
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
					t.Fatalf("got %v, want %q", err, tt.want)
				}
			}
			if fingerprint(t, path) != before {
				t.Error("a refused file was changed")
			}
			if names, _ := filepath.Glob(path + ".*"); len(names) != 0 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
	if _, err := bolt.Open(bolt.Config{}); err == nil {
		t.Error("opened without a path")
	}
}

// edit changes the file behind the store's back.
func edit(t testing.TB, path string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(f); err != nil {
		t.Fatal(err)
	}
}

func fingerprint(t testing.TB, path string) [32]byte {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return [32]byte{}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// count returns the number of rows in each bucket of a closed file.
func count(t testing.TB, path string) map[string]int {
	t.Helper()
	n := make(map[string]int)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { n[string(name)]++; return nil })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSweep: expired sessions go, more than a batch of them, with their places in the lists; what is left is untouched, and the store is idle again.
func TestSweep(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		const sessions = 750 // ten for each of 75 users, far more than a batch
		for i := range sessions {
			login(t, s, fmt.Sprint("o", i%75), i, time.Minute)
		}
		ended := login(t, s, "p", 998, time.Minute)
		if err := s.End(t.Context(), ended.Digest); err != nil {
			t.Fatal(err)
		}
		keep := login(t, s, "p", 999, time.Hour)
		time.Sleep(59 * time.Second)
		if _, err := s.Lookup(t.Context(), digest("o1", 1)); err != nil {
			t.Errorf("a session went before its time: %v", err)
		}
		time.Sleep(3 * time.Second)
		for i := range sessions {
			if _, err := s.Lookup(t.Context(), digest(fmt.Sprint("o", i%75), i)); err != store.ErrNotFound {
				t.Fatalf("session %d after its time: %v", i, err)
			}
		}
		if _, err := s.Lookup(t.Context(), keep.Digest); err != nil {
			t.Error(err)
		}
		if u, err := s.User(t.Context(), keep.User); err != nil || len(u.Sessions) != 1 || u.Sessions[0].Digest != keep.Digest {
			t.Errorf("user: %+v, %v", u, err)
		}
		if u, err := s.User(t.Context(), store.UserID{AppID: keep.User.AppID, OpenID: "o74"}); err != nil || len(u.Sessions) != 0 || u.UnionID != "union" {
			t.Errorf("user without sessions: %+v, %v", u, err)
		}
	})
	if n := count(t, path); n["sess"] != 1 || n["exp"] != 1 || n["user"] != 76 {
		t.Errorf("rows left: %v", n)
	}
}

// TestSweepTrustsTheSession: the session's row decides, not the index.
func TestSweepTrustsTheSession(t *testing.T) {
	path := newPath(t)
	var l store.Login
	synctest.Test(t, func(t *testing.T) { // in the time of the bubble, which starts anew with each
		s, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		l = login(t, s, "o", 1, time.Hour)
		s.Close()
	})
	edit(t, path, func(tx *bbolt.Tx) error {
		exp := tx.Bucket([]byte("exp"))
		k, _ := exp.Cursor().First()
		early := append([]byte{0x80, 0, 0, 0, 0, 0, 0, 1}, k[8:]...)
		if err := exp.Delete(k); err != nil {
			return err
		}
		if err := exp.Put([]byte("not one of ours"), nil); err != nil {
			return err
		}
		return exp.Put(early, nil)
	})
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		time.Sleep(5 * time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Fatalf("swept by the index: %v", err)
		}
		time.Sleep(time.Until(l.Expires) - time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Fatalf("swept early: %v", err)
		}
		time.Sleep(5 * time.Second)
		if _, err := s.Lookup(t.Context(), l.Digest); err != store.ErrNotFound {
			t.Fatalf("entered anew, but not swept: %v", err)
		}
	})
	if n := count(t, path); n["sess"] != 0 || n["exp"] != 0 {
		t.Errorf("rows left: %v", n)
	}
}

// TestTouchFlush: a touch reaches the file without another write and without Close.
func TestTouchFlush(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path, TouchEvery: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		l := login(t, s, "o", 1, time.Hour)
		for i := range 3 {
			seen := l.Created.Add(time.Duration(i+1) * time.Minute)
			s.Touch(l.Digest, seen)
			time.Sleep(4 * time.Second)
			if rec, err := s.Lookup(t.Context(), l.Digest); err != nil || rec.Session.UsedUntil.Equal(seen) {
				t.Errorf("round %d: flushed early: %v, %v", i, rec.Session.UsedUntil, err)
			}
			time.Sleep(2 * time.Second)
			if rec, err := s.Lookup(t.Context(), l.Digest); err != nil || !rec.Session.UsedUntil.Equal(seen) {
				t.Errorf("round %d: not flushed: %v, %v", i, rec.Session.UsedUntil, err)
			}
		}
	})
}

// TestTouchRides: another write takes the touch along.
func TestTouchRides(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t), TouchEvery: time.Hour})
	l := login(t, s, "o", 1, time.Hour)
	s.Touch(l.Digest, l.Created.Add(time.Minute))
	login(t, s, "p", 1, time.Hour)
	if rec, err := s.Lookup(t.Context(), l.Digest); err != nil || !rec.Session.UsedUntil.Equal(l.Created.Add(time.Minute)) {
		t.Errorf("%v, %v", rec.Session.UsedUntil, err)
	}
}

func TestAppIDTooLong(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t)})
	long := strings.Repeat("w", 40_000) // bbolt refuses such a key in the middle of a transaction
	_, err := s.Login(t.Context(), store.Login{User: store.UserID{AppID: long}, Digest: digest(1)})
	for _, err := range []error{err, s.RevokeApp(t.Context(), long)} {
		if err == nil || strings.Contains(err.Error(), long) {
			t.Errorf("got %.200v", err)
		}
	}
	if err := s.RevokeUser(t.Context(), store.UserID{AppID: long}); err != nil {
		t.Error(err)
	}
	if err := s.Health(t.Context()); err != nil {
		t.Error(err)
	}
}
