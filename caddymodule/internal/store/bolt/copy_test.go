package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// checkAlone: nothing lies beside the store but its marker and what is named.
func checkAlone(t testing.TB, path string, others ...string) {
	t.Helper()
	known := map[string]bool{path: true, path + ".dirty": true}
	for _, o := range others {
		known[o] = true
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		if name := filepath.Join(filepath.Dir(path), e.Name()); !known[name] {
			t.Errorf("left behind: %s", name)
		}
	}
}

func TestBackup_Filled_OpensElsewhere(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	fill(t, s, 300)
	var b bytes.Buffer
	n, err := s.Backup(t.Context(), &b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d bytes of %d, %v", n, b.Len(), err)
	}
	checkAlone(t, path)
	later := login(t, s, "later", 1, time.Hour)

	copied := newPath(t)
	must(t, os.WriteFile(copied, b.Bytes(), 0o600))
	r, err := bolt.Check(copied)
	if err != nil || r.Stats.Sessions != 300 || r.Stats.Users != 300 || r.Damaged != 0 ||
		r.Stats.LastExpiry.IsZero() || r.Stats.Bytes == 0 {
		t.Errorf("report %+v, %v", r, err)
	}
	c := open(t, bolt.Config{Path: copied})
	checkFilled(t, c, 300)
	if _, err := c.Lookup(t.Context(), later.Digest); err == nil {
		t.Error("a login made after the backup is in it")
	}
	login(t, c, "o1", 400, time.Hour)
	checkFilled(t, s, 300)
}

func TestBackup_UnderLoad_HasAllAcknowledgedLogins(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t)})
	fill(t, s, 200)
	var mu sync.Mutex
	acked := 0
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			login(t, s, fmt.Sprint("hot", i%50), i, time.Hour)
			mu.Lock()
			acked = i + 1
			mu.Unlock()
		}
	})
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		time.Sleep(20 * time.Millisecond) // for some logins; how many does not matter
		mu.Lock()
		want := acked
		mu.Unlock()
		var b bytes.Buffer
		if _, err := s.Backup(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		path := newPath(t)
		if _, err := bolt.Restore(&b, path); err != nil {
			t.Fatal(err)
		}
		c := open(t, bolt.Config{Path: path})
		checkFilled(t, c, 200)
		for i := max(0, want-50*10); i < want; i++ { // later logins have ended earlier ones
			if _, err := c.Lookup(t.Context(), digest(fmt.Sprint("hot", i%50), i)); err != nil {
				u, _ := c.User(t.Context(), userOf(fmt.Sprint("hot", i%50)))
				if len(u.Sessions) < 10 {
					t.Errorf("login %d of %d: %v", i, want, err)
				}
			}
		}
		for i := range 50 {
			if u, err := c.User(t.Context(), userOf(fmt.Sprint("hot", i))); err == nil {
				checkList(t, c, u.ID)
			}
		}
		c.Close()
	}
}

// slow is a reader at the other end who takes nothing until told to.
type slow struct {
	got         bytes.Buffer // not embedded: its ReadFrom would take all at once
	begun, goOn chan struct{}
	once        sync.Once
}

func newSlow() *slow { return &slow{begun: make(chan struct{}), goOn: make(chan struct{})} }

func (s *slow) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.begun); <-s.goOn })
	return s.got.Write(p)
}

// Neither logins nor Close wait for the reader, who gets a whole copy. A second
// backup is refused meanwhile.
func TestBackup_SlowReader_HoldsUpNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	t.Parallel() // the second backup waits
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	fill(t, s, 100)
	w, done := newSlow(), make(chan error)
	go func() {
		_, err := s.Backup(context.WithoutCancel(t.Context()), w)
		done <- err
	}()
	<-w.begun
	login(t, s, "p", 1, time.Hour)
	if _, err := s.Backup(t.Context(), io.Discard); err == nil {
		t.Error("two backups at once: the disk would have to hold both")
	}
	if err := s.Close(); err != nil { // waits for every read transaction
		t.Error(err)
	}
	close(w.goOn)
	must(t, <-done)
	copied := newPath(t)
	if _, err := bolt.Restore(&w.got, copied); err != nil {
		t.Fatal(err)
	}
	checkFilled(t, open(t, bolt.Config{Path: copied}), 100)
	checkAlone(t, path)
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestBackup_GivenUp_LeavesNothing(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	fill(t, s, 100)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Backup(ended, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := s.Backup(t.Context(), brokenPipe{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("with a vanished reader: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, done := newSlow(), make(chan error)
	go func() {
		_, err := s.Backup(ctx, w)
		done <- err
	}()
	<-w.begun
	cancel()
	close(w.goOn)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("given up in the middle: %v", err)
	}
	checkAlone(t, path)
	if _, err := s.Backup(t.Context(), io.Discard); err != nil {
		t.Error(err)
	}
	s.Close()
	if _, err := s.Backup(t.Context(), io.Discard); err == nil {
		t.Error("of a closed store")
	}
}
