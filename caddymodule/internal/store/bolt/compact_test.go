package bolt_test

import (
	"encoding/binary"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

const mib = 1 << 20

// bloat makes the closed file at path take about so many bytes more, of which
// it keeps those that are to stay in use.
func bloat(t testing.TB, path string, grow, keep int) {
	t.Helper()
	key := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte("ballast"), uint32(i)) }
	const row = 3000 // one to a page
	edit(t, path, func(tx *bbolt.Tx) error {
		for i := range grow / pageSize {
			if err := tx.Bucket([]byte("meta")).Put(key(i), make([]byte, row)); err != nil {
				return err
			}
		}
		return nil
	})
	edit(t, path, func(tx *bbolt.Tx) error {
		for i := keep / pageSize; i < grow/pageSize; i++ {
			if err := tx.Bucket([]byte("meta")).Delete(key(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// bloated makes a store of 300 users with the given growth.
func bloated(t testing.TB, grow, keep int) (path string) {
	t.Helper()
	path = newPath(t)
	s := open(t, bolt.Config{Path: path})
	fill(t, s, 300)
	needs := map[store.MasterKeyID]time.Time{{2}: time.UnixMilli(5_000_000_000_000)}
	must(t, s.NeedMasterKeys(t.Context(), needs))
	s.Close()
	bloat(t, path, grow, keep)
	return path
}

// watch fails the test if there is no file at path at any moment until stop is called.
func watch(t *testing.T, path string) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			default:
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("for a moment: %v", err)
				return
			}
		}
	}()
	return func() { close(ended); <-done }
}

func size(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// Open compacts a file of which more than half is free.
func TestCompact_MostlyFree_SmallAndWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	t.Parallel() // waits for the lock
	for name, tt := range map[string]struct {
		grow, keep int
		want       bool
	}{
		"mostly free":       {24 * mib, 0, true},
		"a third in use":    {24 * mib, 8 * mib, true},
		"two thirds in use": {24 * mib, 16 * mib, false},
		"small":             {10 * mib, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := bloated(t, tt.grow, tt.keep)
			before, rows := size(t, path), count(t, path)
			core, logs := observer.New(zap.InfoLevel)
			stop := watch(t, path)
			s := open(t, bolt.Config{Path: path, Logger: zap.New(core)})
			stop()
			lines := logs.FilterMessage("session store compacted").All()
			if got := len(lines) == 1; got != tt.want || logs.Len() != len(lines) {
				t.Fatalf("compacted: %v; log %v", got, logs.All())
			}
			after := size(t, path)
			if small := after < before*2/3; small != tt.want {
				t.Errorf("%d bytes became %d", before, after)
			}
			if tt.want {
				m := lines[0].ContextMap()
				grown := m["bytes_before"].(int64) >= int64(tt.grow)
				if m["bytes"] != after || !grown || m["path"] != path {
					t.Errorf("log %v", m)
				}
			}
			checkAlone(t, path)
			if name == "mostly free" { // once: it takes a second
				if _, err := bolt.Open(bolt.Config{Path: path}); err == nil {
					t.Error("the file is not locked")
				}
			}
			checkFilled(t, s, 300)
			login(t, s, "more", 1, time.Hour)
			needs, err := s.MasterKeys(t.Context())
			if err != nil || len(needs) != 2 ||
				needs[store.MasterKeyID{2}].UnixMilli() != 5_000_000_000_000 {
				t.Errorf("needed are %v, %v", needs, err)
			}
			if ids, err := s.ByUnionID(t.Context(), "union"); err != nil || len(ids) != 301 {
				t.Errorf("%d users by unionid, %v", len(ids), err)
			}
			must(t, s.Close())
			for _, bucket := range []string{"sess", "user", "exp", "union"} {
				rows[bucket]++
			}
			if got := count(t, path); !maps.Equal(got, rows) {
				t.Errorf("rows %v, want %v", got, rows)
			}
			s = open(t, bolt.Config{Path: path, Logger: zap.New(core)})
			if logs.FilterMessage("session store compacted").Len() > 1 {
				t.Error("compacted twice")
			}
			checkFilled(t, s, 300)
		})
	}
}

// The next Open removes the leftovers of a compaction that died, and no file of
// another program.
func TestCompact_Leftovers_RemovedButNoOtherFile(t *testing.T) {
	path := bloated(t, 17*mib, 0)
	old := readFile(t, path)
	open(t, bolt.Config{Path: path}).Close()
	compacted := readFile(t, path)
	if len(compacted) > len(old)/2 {
		t.Fatal("not compacted")
	}
	for name, state := range map[string]struct{ store, temp []byte }{
		"before the first byte": {old, nil},
		"in the middle":         {old, compacted[:len(compacted)/3]},
		"before the sync":       {old, make([]byte, len(compacted))},
		"before the exchange":   {old, compacted},
		"after the exchange":    {compacted, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			mine := []string{path + ".tmp-1x", path + ".backup", path + ".tmp-old"}
			files := map[string][]byte{
				path:                state.store,
				path + ".dirty":     nil,
				path + ".tmp-12345": state.temp,
			}
			for _, p := range mine {
				files[p] = []byte("precious")
			}
			for p, b := range files {
				must(t, os.WriteFile(p, b, 0o600))
			}
			s := open(t, bolt.Config{Path: path})
			if s.SetAside() != "" {
				t.Errorf("set aside %s", s.SetAside())
			}
			checkFilled(t, s, 300)
			checkAlone(t, path, mine...)
			for _, p := range mine {
				readFile(t, p)
			}
			if size(t, path) > int64(len(old)/2) {
				t.Error("not compacted")
			}
		})
	}
}

// openEnv holds the path of the store that this test binary opens, and does
// nothing else with, when it is run as a child.
const openEnv = "WXGATE_TEST_BOLT_OPEN"

func openChild(path string) {
	os.Stdout.WriteString("opening\n")
	if _, err := bolt.Open(bolt.Config{Path: path}); err != nil {
		panic(err)
	}
	os.Stdout.WriteString("opened\n")
	select {}
}

// A kill at any moment of a compaction loses nothing.
func TestP2_KilledWhileCompacting(t *testing.T) {
	path := bloated(t, 20*mib, 0)
	old := readFile(t, path)
	took := killedWhileOpening(t, path, time.Minute)
	early, late, kills := 0, 0, 12
	if testing.Short() {
		kills = 3
	}
	for range kills {
		must(t, os.WriteFile(path, old, 0o600))
		killedWhileOpening(t, path, rand.N(took))
		if size(t, path) > int64(len(old)/2) {
			early++
		} else {
			late++
		}
		s := open(t, bolt.Config{Path: path})
		if s.SetAside() != "" {
			t.Fatalf("the file counts as damaged: %s", s.SetAside())
		}
		checkFilled(t, s, 300)
		checkAlone(t, path)
		s.Close()
	}
	t.Logf("opening takes %v; %d kills before the exchange, %d after", took, early, late)
}

// killedWhileOpening runs a child that opens the store and kills it after the
// given time, or when it is done. It returns how long the child lived from when
// it began.
func killedWhileOpening(t *testing.T, path string, after time.Duration) time.Duration {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), openEnv+"="+path)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 64)
	if _, err := out.Read(line); err != nil {
		t.Fatal(err, stderr.String())
	}
	begun := time.Now()
	kill := time.AfterFunc(after, func() { cmd.Process.Kill() })
	out.Read(line) // "opened", or the end
	lived := time.Since(begun)
	kill.Stop()
	cmd.Process.Kill()
	cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatal(stderr.String())
	}
	return lived
}

// A backup then says so.
func TestCompact_CopyImpossible_OpensAsItIs(t *testing.T) {
	from := bloated(t, 20*mib, 0)
	path := filepath.Join(t.TempDir(), strings.Repeat("s", 248)) // a copy's name is too long
	must(t, os.Rename(from, path))
	before := size(t, path)
	core, logs := observer.New(zap.InfoLevel)
	s := open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	if logs.FilterMessageSnippet("could not be compacted").Len() != 1 || logs.Len() != 1 ||
		size(t, path) < before {
		t.Errorf("%d bytes, log %v", size(t, path), logs.All())
	}
	checkFilled(t, s, 300)
	l := login(t, s, "more", 1, time.Hour)
	if n, err := s.Backup(t.Context(), io.Discard); err == nil || n != 0 {
		t.Errorf("backup: %d, %v", n, err)
	}
	s.Close()
	s = open(t, bolt.Config{Path: path})
	checkFilled(t, s, 300)
	if _, err := s.Lookup(t.Context(), l.Digest); err != nil {
		t.Error(err)
	}
	checkAlone(t, path)
}
