package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	bbolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// backup returns a copy of a store with so many users.
func backup(t testing.TB, users int) []byte {
	t.Helper()
	s := open(t, bolt.Config{Path: newPath(t)})
	fill(t, s, users)
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func TestRestore_OldFile_KeptUnchanged(t *testing.T) {
	saved := backup(t, 120)
	for name, prepare := range map[string]func(t *testing.T, path string){
		"nothing": func(*testing.T, string) {},
		"store": func(t *testing.T, path string) {
			s := open(t, bolt.Config{Path: path})
			fill(t, s, 10)
			s.Close()
		},
		"store left unclean": func(t *testing.T, path string) { unclean(t, path, 10) },
		"damaged store": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, unclean(t, path, 300)[3*pageSize:], 0o600))
		},
		"empty file": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			prepare(t, path)
			before, there := content(t, path)
			for range 2 { // the second time over a restored one
				stop := func() {}
				if there {
					stop = watch(t, path)
				}
				away, err := bolt.Restore(bytes.NewReader(saved), path)
				stop()
				must(t, err)
				if (away != "") != there || away != "" && string(readFile(t, away)) != before {
					t.Errorf("put away as %q, or not as it was", away)
				}
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%v, %v", info.Mode(), err)
				}
				if r, err := bolt.Check(path); err != nil || r.Damaged != 0 ||
					r.Stats.Users != 120 {
					t.Errorf("not what was restored: %+v, %v", r, err)
				}
				before, there = content(t, path)
				time.Sleep(2 * time.Millisecond) // names of what is put away differ by milliseconds
			}
			checkFilled(t, open(t, bolt.Config{Path: path}), 120)
		})
	}
}

// content is what is in the file, or "" when there is none.
func content(t testing.TB, path string) (b string, there bool) {
	if _, err := os.Stat(path); err != nil {
		return "", false
	}
	return string(readFile(t, path)), true
}

// A backup lacks later uses: a session counts as used for an interval longer,
// but not beyond the restore.
func TestRestore_SessionInUse_NotIdle(t *testing.T) {
	s := open(t, bolt.Config{Path: newPath(t)})
	now := time.UnixMilli(time.Now().UnixMilli())
	until := []time.Time{now.Add(-3 * time.Hour), now.Add(-time.Minute), now.Add(time.Minute)}
	for i, at := range until {
		l := store.Login{
			User:      userOf("o"),
			Digest:    digest(i),
			Created:   now.Add(-4 * time.Hour),
			UsedUntil: at,
			Expires:   now.Add(time.Hour),
		}
		if _, err := s.Login(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	path := newPath(t)
	if _, err := bolt.Restore(&b, path); err != nil {
		t.Fatal(err)
	}
	restored := time.Now()
	check := func(s interface {
		Lookup(context.Context, store.Digest) (store.Record, error)
	},
	) {
		t.Helper()
		for i, want := range []struct{ from, to time.Time }{
			{until[0].Add(time.Hour), until[0].Add(time.Hour)},
			{now, restored},
			{until[2], until[2]},
		} {
			rec, err := s.Lookup(t.Context(), digest(i))
			if got := rec.Session.UsedUntil; err != nil || got.Before(want.from) ||
				got.After(want.to) {
				t.Errorf("session %d is used until %v, want from %v to %v; %v",
					i, got, want.from, want.to, err)
			}
		}
	}
	snap, err := bolt.OpenSnapshot(path, nil)
	must(t, err)
	check(snap)
	snap.Close()
	for range 2 {
		r := open(t, bolt.Config{Path: path})
		check(r)
		r.Touch(digest(0), until[0].Add(time.Minute)) // too early to change anything
		r.Close()
	}
	r := open(t, bolt.Config{Path: path})
	r.Touch(digest(0), restored.Add(time.Hour))
	r.Close()
	if rec, err := open(t, bolt.Config{Path: path}).Lookup(t.Context(), digest(0)); err != nil ||
		rec.Session.UsedUntil.UnixMilli() != restored.Add(time.Hour).UnixMilli() {
		t.Errorf("after another use: %v, %v", rec.Session.UsedUntil, err)
	}
}

func TestRestore_NoStore_RefusedUnchanged(t *testing.T) {
	saved := backup(t, 300)
	foreign := newPath(t)
	makeForeign(t, foreign)
	newer := newPath(t)
	open(t, bolt.Config{Path: newer}).Close()
	setSchema(t, newer, 9)
	garbled := bytes.Clone(saved)
	for i := 2 * pageSize; i < len(garbled); i += pageSize {
		garbled[i+8] ^= 0xff // the kind of the page
	}
	text := strings.Repeat("precious text\n", 9000)
	read := func(path string) io.Reader { return bytes.NewReader(readFile(t, path)) }
	cutOff := io.MultiReader(bytes.NewReader(saved[:9000]), broken{})
	for name, tt := range map[string]struct {
		from io.Reader
		want string
	}{
		"nothing":                    {strings.NewReader(""), "empty"},
		"text":                       {strings.NewReader(text), "not a session store"},
		"cut short":                  {bytes.NewReader(saved[:len(saved)-pageSize]), "damaged"},
		"garbled":                    {bytes.NewReader(garbled), "damaged"},
		"another program's database": {read(foreign), "not a session store"},
		"newer schema":               {read(newer), "schema version 9"},
		"reading fails":              {cutOff, "cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			path := newPath(t)
			s := open(t, bolt.Config{Path: path})
			fill(t, s, 10)
			s.Close()
			before := fingerprint(t, path)
			_, err := bolt.Restore(tt.from, path)
			if err == nil || !strings.Contains(err.Error(), tt.want) ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if fingerprint(t, path) != before {
				t.Error("the store was changed")
			}
			checkAlone(t, path)
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("cut off") }

func TestRestore_GateRuns_Refused(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a lock or writes megabytes; run without -short")
	}
	t.Parallel() // waits for the lock
	saved := backup(t, 20)
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	l := login(t, s, "o", 1, time.Hour)
	if _, err := bolt.Restore(bytes.NewReader(saved), path); err == nil ||
		!strings.Contains(err.Error(), "another running instance") {
		t.Fatalf("got %v", err)
	}
	if _, err := bolt.Check(path); err == nil ||
		!strings.Contains(err.Error(), "another running instance") {
		t.Fatalf("check: %v", err)
	}
	checkAlone(t, path)
	login(t, s, "o", 2, time.Hour)
	s.Close()
	if _, err := open(t, bolt.Config{Path: path}).Lookup(t.Context(), l.Digest); err != nil {
		t.Error(err)
	}
}

// Writes to the old file, which has no name, would be lost.
func TestOpen_FileReplacedMeanwhile_OpensNewOne(t *testing.T) {
	saved := backup(t, 20)
	path, next := newPath(t), newPath(t)
	must(t, os.WriteFile(next, saved, 0o600))
	first := open(t, bolt.Config{Path: path})
	must(t, os.Remove(path+".dirty")) // or it would wait to verify the file, not to lock it
	second := make(chan *bolt.Store)
	go func() {
		s, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Error(err)
		}
		second <- s
	}()
	time.Sleep(200 * time.Millisecond) // until it waits; else it opens the new file at once
	must(t, os.Rename(next, path))
	first.Close()
	s := <-second
	if s == nil {
		return
	}
	defer s.Close()
	checkFilled(t, s, 20)
	login(t, s, "o", 1, time.Hour)
}

func TestCheck_FlippedBits_Counted(t *testing.T) {
	path := newPath(t)
	s := open(t, bolt.Config{Path: path})
	fill(t, s, 50)
	s.Close()
	edit(t, path, func(tx *bbolt.Tx) error {
		for _, name := range []string{"sess", "user"} {
			b := tx.Bucket([]byte(name))
			k, v := b.Cursor().First()
			v = bytes.Clone(v)
			v[20] ^= 1
			if err := b.Put(bytes.Clone(k), v); err != nil {
				return err
			}
			if err := b.Put([]byte("no such key"), v); err != nil {
				return err
			}
		}
		return nil
	})
	before := fingerprint(t, path)
	r, err := bolt.Check(path)
	if err != nil || r.Damaged != 4 || r.Stats.Sessions != 51 || r.Stats.Users != 51 {
		t.Errorf("%+v, %v", r, err)
	}
	if fingerprint(t, path) != before {
		t.Error("checking changed the file")
	}
	checkAlone(t, path)
}
