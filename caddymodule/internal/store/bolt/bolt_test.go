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
	bolt.UseMemoryForFiles()
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
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
		User: userOf(openID), UnionID: "union",
		Key:    store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 54)},
		Digest: digest(openID, n), Created: now, Expires: now.Add(length), MaxPerUser: 10,
	}
	if _, err := s.Login(context.Background(), l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestOpen_NewFolder_PrivateAndSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "dir", "sessions.db")
	s := open(t, bolt.Config{Path: filepath.Join(filepath.Dir(path), "..", "dir", "sessions.db")})
	if s.Path() != path {
		t.Errorf("path %q, want %q", s.Path(), path)
	}
	login(t, s, "o", 1, time.Hour)
	dir := filepath.Dir(path)
	for p, want := range map[string]fs.FileMode{
		path: 0o600, dir: 0o700 | fs.ModeDir, filepath.Dir(dir): 0o700 | fs.ModeDir,
	} {
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

func TestOpen_RelativePath_MadeAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	s := open(t, bolt.Config{Path: "sessions.db"})
	if !filepath.IsAbs(s.Path()) {
		t.Errorf("path %q", s.Path())
	}
}

func TestOpen_SecondProcess_RefusedFirstGoesOn(t *testing.T) {
	t.Parallel() // waits for the lock
	path := newPath(t)
	first := open(t, bolt.Config{Path: path})
	l := login(t, first, "o", 1, time.Hour)
	_, err := bolt.Open(bolt.Config{Path: path})
	if err == nil || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "another running instance") {
		t.Fatalf("second open: %v", err)
	}
	if _, err := first.Lookup(t.Context(), l.Digest); err != nil {
		t.Errorf("the first one was disturbed: %v", err)
	}
	if _, err := os.Stat(path + ".dirty"); err != nil {
		t.Errorf("the refused open took the marker of the one that runs: %v", err)
	}
}

func TestOpen_ForeignFile_RefusedUnchanged(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, path string)
		want    string
	}{
		{"newer schema", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			setSchema(t, path, 9)
		}, "schema version 9"},
		{"no schema", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			edit(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("meta")).Delete([]byte("schema"))
			})
		}, "not a session store"},
		{"bucket missing", func(t *testing.T, path string) {
			open(t, bolt.Config{Path: path}).Close()
			edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("epoch")) })
		}, "not a session store"},
		{"another program's database", func(t *testing.T, path string) {
			makeForeign(t, path)
		}, "not a session store"},
		{"not a database", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("precious text\n", 9000)), 0o600))
		}, "not a session store"},
		{"directory", func(t *testing.T, path string) {
			must(t, os.Mkdir(path, 0o700))
		}, "is a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := newPath(t)
			tt.prepare(t, path)
			before := fingerprint(t, path)
			for range 2 { // a refused file must not look unclean
				_, err := bolt.Open(bolt.Config{Path: path})
				if err == nil || !strings.Contains(err.Error(), tt.want) ||
					!strings.Contains(err.Error(), path) {
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
	must(t, err)
	defer db.Close()
	must(t, db.Update(f))
}

func setSchema(t testing.TB, path string, version byte) {
	t.Helper()
	edit(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte{version})
	})
}

// makeForeign makes a database of another program.
func makeForeign(t testing.TB, path string) {
	t.Helper()
	edit(t, path, func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("theirs"))
		return err
	})
}

func fingerprint(t testing.TB, path string) [32]byte {
	t.Helper()
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return [32]byte{}
	}
	b, err := os.ReadFile(path)
	must(t, err)
	return sha256.Sum256(b)
}

// count returns the number of rows in each bucket of a closed file.
func count(t testing.TB, path string) map[string]int {
	t.Helper()
	n := make(map[string]int)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	must(t, err)
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { n[string(name)]++; return nil })
		})
	})
	must(t, err)
	return n
}

func TestTouch_NoOtherWrite_ReachesFile(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := bolt.Open(bolt.Config{Path: path, TouchEvery: 5 * time.Second})
		must(t, err)
		defer s.Close()
		l := login(t, s, "o", 1, time.Hour)
		for i := range 3 {
			seen := l.Created.Add(time.Duration(i+1) * time.Minute)
			s.Touch(l.Digest, seen)
			time.Sleep(4 * time.Second)
			if rec, err := s.Lookup(t.Context(), l.Digest); err != nil ||
				rec.Session.UsedUntil.Equal(seen) {
				t.Errorf("round %d: flushed early: %v, %v", i, rec.Session.UsedUntil, err)
			}
			time.Sleep(2 * time.Second)
			if rec, err := s.Lookup(t.Context(), l.Digest); err != nil ||
				!rec.Session.UsedUntil.Equal(seen) {
				t.Errorf("round %d: not flushed: %v, %v", i, rec.Session.UsedUntil, err)
			}
		}
	})
}

func TestTouch_OtherWrite_TakesItAlong(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t), TouchEvery: time.Hour})
	l := login(t, s, "o", 1, time.Hour)
	s.Touch(l.Digest, l.Created.Add(time.Minute))
	login(t, s, "p", 1, time.Hour)
	if rec, err := s.Lookup(t.Context(), l.Digest); err != nil ||
		!rec.Session.UsedUntil.Equal(l.Created.Add(time.Minute)) {
		t.Errorf("%v, %v", rec.Session.UsedUntil, err)
	}
}

func TestLogin_LongAppID_RefusedAlone(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t)})
	long := strings.Repeat("w", 40_000) // bbolt refuses such a key in the middle of a transaction
	_, err := s.Login(t.Context(), store.Login{User: store.UserID{AppID: long}, Digest: digest(1)})
	for _, err := range []error{err, s.RevokeApp(t.Context(), long)} {
		if err == nil || strings.Contains(err.Error(), long) {
			t.Errorf("got %.200v", err)
		}
	}
	if err := s.RevokeUser(t.Context(), store.UserID{AppID: long}, store.EndRevoked); err != nil {
		t.Error(err)
	}
	must(t, s.Health(t.Context()))
}
