package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// While the file is not at its path, the store acknowledges no login, reads go
// on, and one line tells. The store recovers when the file is back.
func TestP4_FileGone(t *testing.T) {
	rename := func(from, to string) func(string) error {
		return func(path string) error { return os.Rename(path+from, path+to) }
	}
	inFolder := func(f func(string) error) func(string) error {
		return func(path string) error { return f(filepath.Dir(path)) }
	}
	relink := func(to string) func(string) error {
		return func(path string) error { return errors.Join(os.Remove(path), os.Symlink(to, path)) }
	}
	away, back := rename("", ".away"), rename(".away", "")
	another := func(path string) error {
		return errors.Join(away(path), os.WriteFile(path, []byte("another"), 0o600))
	}
	for name, move := range map[string]struct{ away, back func(path string) error }{
		"renamed":              {away, back},
		"folder renamed":       {inFolder(away), inFolder(back)},
		"another file":         {another, back},
		"link leads elsewhere": {relink("nowhere"), relink("target")},
	} {
		for _, idle := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "in", "sessions.db")
			if strings.HasPrefix(name, "link") {
				must(t, os.Mkdir(filepath.Dir(path), 0o700))
				must(t, os.Symlink("target", path))
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					testGone(t, path, move.away, move.back, idle)
				})
			})
		}
	}
}

func testGone(t *testing.T, path string, away, back func(path string) error, idle bool) {
	core, logs := observer.New(zap.InfoLevel)
	s := open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	logs.TakeAll()
	l := login(t, s, "o", 1, time.Hour)
	must(t, away(path))
	if idle {
		time.Sleep(2 * time.Second) // nobody asks the store for anything
		if logs.Len() != 1 {
			t.Errorf("log %v", logs.All())
		}
	}
	for i := range 4 {
		if err := s.Health(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("health: %v", err)
		}
		refused := store.Login{
			User:       l.User,
			Digest:     digest("refused", i),
			Created:    l.Created,
			Expires:    l.Expires,
			MaxPerUser: 1,
		}
		if i == 0 && !idle {
			refused.User.OpenID = "p" // the commit that finds out may be made
		}
		if _, err := s.Login(t.Context(), refused); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("login: %v", err)
		}
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Errorf("read: %v", err)
		}
		if _, err := s.Stats(t.Context()); err != nil {
			t.Errorf("stats: %v", err)
		}
	}
	if logs.Len() != 1 ||
		!strings.Contains(fmt.Sprint(logs.All()[0].ContextMap()), "no longer at its path") {
		t.Errorf("log %v", logs.All())
	}
	must(t, back(path))
	time.Sleep(2 * time.Second)
	if err := s.Health(t.Context()); err != nil || logs.Len() != 2 {
		t.Errorf("file is back: %v, log %v", err, logs.All())
	}
	more := login(t, s, "o", 2, time.Hour)
	must(t, s.Close())
	s = open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	for _, l := range []store.Login{l, more} {
		if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
			t.Error(err)
		}
	}
	if logs.Len() != 2 {
		t.Errorf("log %v", logs.All())
	}
}

func TestClose_FileReplaced_LeavesOtherMarker(t *testing.T) {
	path := newPath(t)
	first := open(t, bolt.Config{Path: path})
	must(t, os.Remove(path))
	second := open(t, bolt.Config{Path: path})
	l := store.Login{User: userOf("o"), Digest: digest(1)}
	if _, err := first.Login(t.Context(), l); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("login: %v", err)
	}
	if err := first.Close(); err == nil || !strings.Contains(err.Error(), "no longer at its path") {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Stat(path + ".dirty"); err != nil {
		t.Error(err)
	}
	login(t, second, "o", 1, time.Hour)
}

func TestOpen_StoreLost_LoggedUnlessFirstStart(t *testing.T) {
	for name, tt := range map[string]struct {
		files    []string // suffixes of what is there, without a byte in it
		expected bool
		want     bool
	}{
		"first start":                 {nil, false, false},
		"empty file":                  {[]string{""}, false, false},
		"gone":                        {nil, true, true},
		"emptied":                     {[]string{""}, true, true},
		"gone after an unclean stop":  {[]string{".dirty"}, false, true},
		"empty after an unclean stop": {[]string{".dirty", ""}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			for _, suffix := range tt.files {
				must(t, os.WriteFile(path+suffix, nil, 0o600))
			}
			core, logs := observer.New(zap.InfoLevel)
			c := bolt.Config{Path: path, Expected: tt.expected, Logger: zap.New(core)}
			s := open(t, c)
			anew := logs.FilterMessageSnippet("beginning anew").FilterLevelExact(zap.ErrorLevel)
			if got := anew.Len() == 1; s.Lost() != tt.want || got != tt.want || logs.Len() > 1 ||
				s.SetAside() != "" {
				t.Errorf("lost: %v, log %v", s.Lost(), logs.All())
			}
			login(t, s, "o", 1, time.Hour)
			s.Close()
			before := logs.Len()
			if s := open(t, c); s.Lost() || logs.Len() != before {
				t.Errorf("the second time: %v, log %v", s.Lost(), logs.All())
			}
		})
	}
}

func TestLocate_LinkInLinkedFolder_FromItsRealPlace(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	for _, folder := range []string{at("real", "c"), at("real", "data"), at("a")} {
		must(t, os.MkdirAll(folder, 0o700))
	}
	must(t, os.Symlink(at("real", "c"), at("a", "link")))
	must(t, os.Symlink("../data/x.db", at("real", "c", "db")))
	path := at("a", "link", "db")
	if got, err := bolt.Locate(path); err != nil || got != at("real", "data", "x.db") {
		t.Errorf("%s, %v", got, err)
	}
	s := open(t, bolt.Config{Path: path})
	login(t, s, "o", 1, time.Hour)
	must(t, s.Health(t.Context()))
}

// Compaction and restore replace the file, not the link to it or to its folder.
func TestOpen_Symlink_StaysOne(t *testing.T) {
	saved, old := backup(t, 20), readFile(t, bloated(t, 17*mib, 0))
	for name, link := range map[string]func(path, target string) error{
		"file":     func(path, target string) error { return os.Symlink(target, path) },
		"relative": func(path, _ string) error { return os.Symlink("../there/sessions.db", path) },
		"chain": func(path, target string) error {
			next := filepath.Join(filepath.Dir(path), "next")
			return errors.Join(os.Symlink("next", path), os.Symlink(target, next))
		},
		"folder": func(path, target string) error {
			dir := filepath.Dir(path)
			return errors.Join(os.Remove(dir), os.Symlink(filepath.Dir(target), dir))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "here", "sessions.db")
			target := filepath.Join(dir, "there", "sessions.db")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			must(t, os.Mkdir(filepath.Dir(target), 0o700))
			must(t, link(path, target))
			isTarget := func(when string) {
				t.Helper()
				if to, err := filepath.EvalSymlinks(path); err != nil || to != target {
					t.Fatalf("%s: the path leads to %s, %v", when, to, err)
				}
			}
			if at, err := bolt.Locate(path); err != nil || at != target {
				t.Errorf("before there is a file: %s, %v", at, err)
			}
			s := open(t, bolt.Config{Path: path})
			if s.Path() != target {
				t.Errorf("path %s", s.Path())
			}
			if _, err := os.Stat(target + ".dirty"); err != nil {
				t.Error(err)
			}
			s.Close()
			must(t, os.WriteFile(target, old, 0o600))
			s = open(t, bolt.Config{Path: path})
			if size(t, target) > int64(len(old)/2) {
				t.Error("not compacted")
			}
			isTarget("after compaction")
			checkFilled(t, s, 300)
			s.Close()
			away, err := bolt.Restore(bytes.NewReader(saved), path)
			if err != nil || filepath.Dir(away) != filepath.Dir(target) {
				t.Errorf("put away as %s, %v", away, err)
			}
			isTarget("after a restore")
			checkFilled(t, open(t, bolt.Config{Path: path}), 20)
		})
	}
}

// An Open that may wait for another process says so once, leaves the file alone
// meanwhile, and opens it when the other has closed it in order.
func TestOpen_FileInUse_Waits(t *testing.T) {
	t.Parallel() // waits for the lock
	path := filepath.Join(t.TempDir(), "sessions.db")
	first := open(t, bolt.Config{Path: path})
	l := login(t, first, "o", 1, time.Hour)
	if _, err := bolt.Open(bolt.Config{Path: path, Wait: time.Millisecond}); err == nil {
		t.Fatal("opened by two")
	}
	core, logs := observer.New(zap.InfoLevel)
	cfg := bolt.Config{Path: path, Wait: time.Minute, Logger: zap.New(core)}
	opened := make(chan error)
	var second *bolt.Store
	go func() {
		var err error
		second, err = bolt.Open(cfg)
		opened <- err
	}()
	for logs.Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, first.Close())
	must(t, <-opened)
	defer second.Close()
	if _, err := second.Lookup(t.Context(), l.Digest); err != nil {
		t.Error(err)
	}
	if logs.Len() != 1 {
		t.Errorf("log %v", logs.All())
	}
}
