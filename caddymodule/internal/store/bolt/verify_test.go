package bolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

const pageSize = 4096

// unclean fills a store and leaves it as a killed process does. It returns the
// bytes of the file.
func unclean(t *testing.T, path string, users int) []byte {
	t.Helper()
	s := open(t, bolt.Config{Path: path})
	fill(t, s, users)
	must(t, s.Close())
	if _, err := os.Stat(path + ".dirty"); err == nil {
		t.Fatal("Close left the marker")
	}
	bolt.Trim(t, path)
	must(t, os.WriteFile(path+".dirty", nil, 0o600))
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func TestOpen_UncleanStop_Verified(t *testing.T) {
	path := newPath(t)
	unclean(t, path, 300)
	core, logs := observer.New(zap.InfoLevel)
	s := open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	if s.SetAside() != "" || logs.FilterMessageSnippet("sound").Len() != 1 {
		t.Errorf("set aside %q, log %v", s.SetAside(), logs.All())
	}
	checkFilled(t, s, 300)
	s.Close()
	open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	if logs.Len() != 1 {
		t.Errorf("a clean stop was not seen as one: %v", logs.All())
	}
}

// Whichever page is damaged, before or after a clean stop: the file is sound,
// or set aside unchanged. Without the check, bbolt ends the process
// (docs/stores.md#bbolt-damage).
func TestOpen_DamagedPage_WholeOrSetAside(t *testing.T) {
	const users = 300
	path := newPath(t)
	sound := unclean(t, path, users)
	pages := len(sound) / pageSize
	used := 0
	for p := range pages {
		if strings.Trim(string(sound[p*pageSize:(p+1)*pageSize]), "\x00") != "" {
			used = p + 1
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	page := func(b []byte) []byte {
		p := 2 + rnd.IntN(used-2)
		return b[p*pageSize : (p+1)*pageSize]
	}
	kinds := map[string]func([]byte) []byte{
		"zeroed": func(b []byte) []byte { clear(page(b)); return b },
		"garbage": func(b []byte) []byte {
			p := page(b)[:16]
			for i := range p {
				p[i] = byte(rnd.Uint32())
			}
			return b
		},
		"truncated": func(b []byte) []byte { return b[:rnd.IntN(used*pageSize)] },
		"swapped":   func(b []byte) []byte { copy(page(b), page(b)); return b },
		"doubled": func(b []byte) []byte { // a misplaced write: another page of the same bucket
			leaves := sessionLeaves(b)
			to, from := leaves[rnd.IntN(len(leaves))], leaves[rnd.IntN(len(leaves))]
			// An older state of the very same page is left out: nothing in the
			// file tells that it is old.
			if bytes.Compare(lastKey(from), firstKey(to)) < 0 ||
				bytes.Compare(firstKey(from), lastKey(to)) > 0 {
				copy(to[8:], from[8:])
			}
			return b
		},
		"circle": func(b []byte) []byte { // a branch that leads to itself, or to another
			branches := pagesOf(b, 1)
			of, to := branches[rnd.IntN(len(branches))], branches[rnd.IntN(len(branches))]
			copy(of[16+8:16+16], to[:8])
			return b
		},
		"bucket circle": func(b []byte) []byte { // a bucket that is the bucket it is in
			for _, leaf := range pagesOf(b, 2) {
				if binary.LittleEndian.Uint32(leaf[16:]) == 1 {
					pos := binary.LittleEndian.Uint32(leaf[16+4:])
					at := 16 + pos + binary.LittleEndian.Uint32(leaf[16+8:])
					copy(leaf[at:at+8], leaf[:8])
				}
			}
			return b
		},
		"keys swapped": func(b []byte) []byte { // inside a page
			for _, leaf := range sessionLeaves(b) {
				if binary.LittleEndian.Uint16(leaf[10:]) > 1 {
					one, other := leafKey(leaf, 0), leafKey(leaf, 1)
					kept := bytes.Clone(one)
					copy(one, other)
					copy(other, kept)
				}
			}
			return b
		},
		"no metas": func(b []byte) []byte { clear(b[:2*pageSize]); return b },
	}
	setAside, rounds := 0, 12
	if testing.Short() {
		rounds = 3
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) { // in order, for the seed
		damage := kinds[name]
		for i := range rounds {
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				b := damage(append([]byte(nil), sound...))
				if checkDamagedFile(t, b, users) {
					setAside++
				}
				checkDamagedClosed(t, b, users)
			})
		}
	}
	if setAside < rounds {
		t.Errorf("only %d damaged files were found", setAside)
	}
}

// checkDamagedFile opens a file after an unclean stop and reports whether it
// was set aside.
func checkDamagedFile(t *testing.T, b []byte, users int) (setAside bool) {
	t.Helper()
	path := newPath(t)
	for p, b := range map[string][]byte{path: b, path + ".dirty": nil} {
		must(t, os.WriteFile(p, b, 0o600))
	}
	core, logs := observer.New(zap.ErrorLevel)
	s := open(t, bolt.Config{Path: path, Logger: zap.New(core)})
	return checkSetAside(t, s, logs, b, users)
}

// checkDamagedClosed opens a file that came to harm after a clean stop. What
// bbolt takes for no database of its own is refused, as it may be somebody
// else's.
func checkDamagedClosed(t *testing.T, b []byte, users int) {
	t.Helper()
	path := newPath(t)
	must(t, os.WriteFile(path, b, 0o600))
	core, logs := observer.New(zap.ErrorLevel)
	s, err := bolt.Open(bolt.Config{Path: path, Logger: zap.New(core)})
	if err != nil {
		if len(b) >= 2*pageSize && strings.Trim(string(b[:2*pageSize]), "\x00") != "" {
			t.Errorf("refused: %v", err)
		}
		if string(readFile(t, path)) != string(b) {
			t.Error("a refused file was changed")
		}
		// Unless something beside it says that it had been one of ours.
		c := bolt.Config{Path: path, Logger: zap.New(core), Expected: true}
		if s, err = bolt.Open(c); err != nil {
			t.Errorf("refused, although it is expected: %v", err)
			return
		}
	}
	defer s.Close()
	checkSetAside(t, s, logs, b, users)
}

// checkSetAside: either everything is there, or the file is put away unchanged
// and reported.
func checkSetAside(
	t *testing.T, s *bolt.Store, logs *observer.ObservedLogs, b []byte, users int,
) bool {
	t.Helper()
	away, _ := filepath.Glob(s.Path() + ".damaged-*")
	if s.SetAside() == "" {
		if len(b) == 0 { // an empty file is a new one
			return false
		}
		if len(away) != 0 || logs.Len() != 0 {
			t.Fatalf("sound, but set aside: %v, %v", away, logs.All())
		}
		checkFilled(t, s, users)
		return false
	}
	if len(away) != 1 || away[0] != s.SetAside() || logs.Len() != 1 || s.Lost() {
		t.Fatalf("set aside %q, found %v, log %v", s.SetAside(), away, logs.All())
	}
	if kept, err := os.ReadFile(away[0]); err != nil || string(kept) != string(b) {
		t.Errorf("the damaged file was changed: %v", err)
	}
	login(t, s, "o", 1, time.Hour)
	return true
}

// pagesOf returns the pages that bear a flag, in use or not: 1 for branches, 2
// for leaves.
func pagesOf(b []byte, flag uint16) (found [][]byte) {
	for p := 2; p < len(b)/pageSize; p++ {
		page := b[p*pageSize : (p+1)*pageSize]
		if binary.LittleEndian.Uint16(page[8:]) == flag {
			found = append(found, page)
		}
	}
	return found
}

// sessionLeaves returns the pages that look like leaves of the bucket of
// sessions, in use or not: their first key has 32 bytes.
func sessionLeaves(b []byte) [][]byte {
	return slices.DeleteFunc(pagesOf(b, 2), func(page []byte) bool {
		return binary.LittleEndian.Uint32(page[24:]) != 32
	})
}

func firstKey(leaf []byte) []byte { return leafKey(leaf, 0) }

func lastKey(leaf []byte) []byte {
	return leafKey(leaf, uint32(binary.LittleEndian.Uint16(leaf[10:]))-1)
}

// leafKey returns a key of a leaf: its place and length stand in an element
// behind the page's header.
func leafKey(leaf []byte, i uint32) []byte {
	element := 16 + 16*i
	at := element + binary.LittleEndian.Uint32(leaf[element+4:])
	return leaf[at : at+binary.LittleEndian.Uint32(leaf[element+8:])]
}

// Even when the missing end was free room: bbolt would write beyond it.
func TestOpen_EndMissing_SetAside(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	l := login(t, s, "o", 0, time.Hour)
	for i := range 200 { // a record of several pages, which become free
		l.Digest, l.MaxPerUser = digest("more", i), 0
		if _, err := s.Login(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	must(t, s.RevokeUser(t.Context(), l.User, store.EndRevoked))
	s.Close()
	var size int64
	edit(t, path, func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	must(t, errors.Join(os.Truncate(path, size-pageSize), os.WriteFile(path+".dirty", nil, 0o600)))
	if s := open(t, bolt.Config{Path: path}); s.SetAside() == "" {
		t.Error("taken for sound")
	}
}

// rootPage returns the number of the file's root page and the size of pages.
func rootPage(t *testing.T, path string) (id, size int) {
	t.Helper()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true})
	must(t, err)
	defer db.Close()
	must(t, db.View(func(tx *bbolt.Tx) error {
		id, size = int(tx.Cursor().Bucket().Root()), db.Info().PageSize
		return nil
	}))
	return id, size
}

// bbolt follows the page of a small bucket, which lies inside a row, without
// checking.
func TestOpen_DamagedInlineBucket_SetAside(t *testing.T) {
	put16 := func(at int, v uint16) func([]byte) {
		return func(b []byte) { binary.NativeEndian.PutUint16(b[at:], v) }
	}
	put32 := func(at int, v uint32) func([]byte) {
		return func(b []byte) { binary.NativeEndian.PutUint32(b[at:], v) }
	}
	sound := newPath(t)
	open(t, bolt.Config{Path: sound}).Close()
	bolt.Trim(t, sound)
	id, size := rootPage(t, sound)
	for name, damage := range map[string]struct{ element, value func([]byte) }{
		"cut":           {element: put32(12, 16)},
		"cut to a root": {element: put32(12, 8)},
		"kind":          {value: put16(24, 0x77)},
		"branch":        {value: put16(24, 0x01)},
		"count":         {value: put16(26, 0xff0)},
		"zeroed":        {value: func(b []byte) { clear(b[16:]) }},
		"bucket in it":  {value: put32(32, 0x01)},
		"key beyond":    {value: put32(36, 1<<30)},
		"long key":      {value: put32(40, 1<<31)},
	} {
		for _, unclean := range []bool{false, true} {
			path, b := newPath(t), readFile(t, sound)
			page, hit := b[id*size:], false
			for i := range int(binary.NativeEndian.Uint16(page[10:])) {
				e := page[16+16*i:]
				key := e[binary.NativeEndian.Uint32(e[4:]):][:binary.NativeEndian.Uint32(e[8:])]
				if bytes.Equal(key, []byte("meta")) {
					at := int(binary.NativeEndian.Uint32(e[4:])) + len(key)
					value := e[at:][:binary.NativeEndian.Uint32(e[12:])]
					if damage.element != nil {
						damage.element(e)
					} else {
						damage.value(value)
					}
					hit = true
				}
			}
			if !hit {
				t.Fatal("there is no such bucket: this test shows nothing")
			}
			must(t, os.WriteFile(path, b, 0o600))
			if unclean {
				must(t, os.WriteFile(path+".dirty", nil, 0o600))
			}
			s := open(t, bolt.Config{Path: path})
			if away := s.SetAside(); away == "" || !bytes.Equal(readFile(t, away), b) {
				t.Errorf("%s, unclean %v: put aside as %q, or not as it was", name, unclean, away)
			}
			s.Close()
		}
	}
}
