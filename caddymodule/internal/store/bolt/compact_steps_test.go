package bolt

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// filled is the number of logins in the stores of these tests.
const filled = 200

// halfFree makes a store that Open would compact, and returns it as a process
// has it that is about to.
func halfFree(t *testing.T) (path string, db *bolt.DB) {
	t.Helper()
	path = newPath(t)
	must(t, Fill(path, filled, filling))
	o := &opening{path: path}
	must(t, o.lock())
	db = o.db
	junk := []byte("junk")
	err := errors.Join(
		putMarker(path),
		db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(bucketNames[meta]).Put(junk, make([]byte, 20<<20))
		}),
		db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketNames[meta]).Delete(junk) }),
	)
	must(t, err)
	return path, db
}

// checkWhole opens the store and demands that the n logins are in it and their
// indexes are right, and nothing beside it but what is named and what begins
// with one of the prefixes.
func checkWhole(t *testing.T, path string, n int, prefixes ...string) {
	t.Helper()
	s, err := Open(Config{Path: path})
	must(t, err)
	defer s.Close()
	if s.SetAside() != "" {
		t.Errorf("set aside: %s", s.SetAside())
	}
	for i := range n {
		if rec, err := s.Lookup(t.Context(), filling(i).Digest); err != nil ||
			rec.Session.Epochs != rec.Current {
			t.Fatalf("login %d: %v", i, err)
		}
	}
	if _, err := s.Login(t.Context(), filling(10*filled)); err != nil {
		t.Error(err)
	}
	must(t, s.Close())
	if r, err := Check(path); err != nil || int(r.Stats.Sessions) != n+1 {
		t.Errorf("%+v, %v", r, err)
	}
	must(t, Strays(path))
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		known := func(prefix string) bool {
			return strings.HasPrefix(e.Name(), filepath.Base(path)+prefix)
		}
		if e.Name() != filepath.Base(path) && !slices.ContainsFunc(prefixes, known) {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// A compaction that stops after any of its steps, as a kill does it, loses
// nothing.
func TestP2_CompactionSteps(t *testing.T) {
	var tmp string
	steps := []struct {
		name string
		do   func(path string, db *bolt.DB) error
	}{
		{"nothing done", func(string, *bolt.DB) error { return nil }},
		{"copy named", func(path string, _ *bolt.DB) error {
			f, err := makeTemp(path)
			if err != nil {
				return err
			}
			tmp = f.Name()
			return f.Close()
		}},
		{"copy begun", func(_ string, db *bolt.DB) error {
			o := options()
			o.NoSync = true
			dst, err := bolt.Open(tmp, 0o600, o)
			if err != nil {
				return err
			}
			return errors.Join(dst.Update(create), dst.Close(), os.Truncate(tmp, 5*4096))
		}},
		{"copy whole", func(path string, db *bolt.DB) error {
			file, err := os.Open(path)
			if err != nil {
				return err
			}
			defer file.Close()
			if err := os.Truncate(tmp, 0); err != nil {
				return err
			}
			_, err = (&opening{db: db, file: file}).copyCompact(tmp)
			return err
		}},
		{"exchanged", func(path string, _ *bolt.DB) error { return os.Rename(tmp, path) }},
		{"reopened", func(path string, _ *bolt.DB) error {
			o := &opening{path: path}
			if err := o.lock(); err != nil {
				return err
			}
			return o.db.Close()
		}},
	}
	for last, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			path, db := halfFree(t)
			for _, step := range steps[:last+1] {
				if err := step.do(path, db); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
			}
			if err := db.Close(); err != nil { // a kill gives the lock back, and keeps the marker
				t.Fatal(err)
			}
			checkWhole(t, path, filled)
			// bbolt makes a file grow by 16 MiB.
			if info, err := os.Stat(path); err != nil || info.Size() > 18<<20 {
				t.Errorf("not compacted in the end: %v, %v", info.Size(), err)
			}
		})
	}
}

// A restore that stops after any of its steps leaves the old store or the new
// one, and keeps the old file. A second try goes through.
func TestP2_RestoreSteps(t *testing.T) {
	const restored = filled / 2
	from := newPath(t)
	must(t, Fill(from, restored, filling))
	Trim(t, from)
	saved, err := os.ReadFile(from)
	must(t, err)
	before := newPath(t)
	must(t, Fill(before, filled, filling))
	Trim(t, before)
	old, err := os.ReadFile(before)
	must(t, err)
	var tmp string
	copied := func(n int) func(string) error {
		return func(path string) error {
			f, err := makeTemp(path)
			if err != nil {
				return err
			}
			tmp = f.Name()
			_, err = f.Write(saved[:n])
			return errors.Join(err, f.Sync(), f.Close())
		}
	}
	link := func(path string) error { return os.Link(path, path+".replaced-"+stamp()) }
	rename := func(path string) error { return os.Rename(tmp, path) }
	put := func(path string) error { return os.Link(tmp, path) }
	type steps []func(path string) error
	for _, tt := range []struct {
		name  string
		there bool // a store
		steps steps
		want  int
	}{
		{"copy begun", true, steps{copied(3 * 4096)}, filled},
		{"copy whole", true, steps{copied(len(saved))}, filled},
		{"old one linked", true, steps{copied(len(saved)), link}, filled},
		{"exchanged", true, steps{copied(len(saved)), link, rename}, restored},
		{"copy begun where there was none", false, steps{copied(3 * 4096)}, 0},
		{"copy whole where there was none", false, steps{copied(len(saved))}, 0},
		{"put where there was none", false, steps{copied(len(saved)), put}, restored},
	} {
		for _, marker := range []bool{false, true} {
			name := tt.name
			if marker { // the gate before was killed too
				name += ", unclean"
			}
			t.Run(name, func(t *testing.T) {
				path := newPath(t)
				if tt.there {
					must(t, os.WriteFile(path, old, 0o600))
				}
				if marker {
					must(t, putMarker(path))
				}
				for _, step := range tt.steps {
					must(t, step(path))
				}
				checkWhole(t, path, tt.want, ".replaced-")
				if away, _ := filepath.Glob(path + ".replaced-*"); tt.name == "exchanged" {
					if kept, err := os.ReadFile(away[0]); err != nil || !bytes.Equal(kept, old) {
						t.Errorf("the old store was changed: %v", err)
					}
				}
				if away, err := Restore(bytes.NewReader(saved), path); err != nil || away == "" {
					t.Errorf("second try: %q, %v", away, err)
				}
				checkWhole(t, path, restored, ".replaced-")
			})
		}
	}
}

// A kill just after a damaged file was set aside: the next start begins a new
// store and leaves that file alone.
func TestP2_SetAsideSteps(t *testing.T) {
	path := newPath(t)
	away := path + ".damaged-" + stamp()
	must(t, errors.Join(os.WriteFile(away, []byte("damaged"), 0o600), putMarker(path)))
	checkWhole(t, path, 0, ".damaged-")
	if kept, err := os.ReadFile(away); err != nil || string(kept) != "damaged" {
		t.Errorf("%q, %v", kept, err)
	}
}
