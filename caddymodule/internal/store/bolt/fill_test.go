package bolt

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Fill makes a store at path and puts n logins in it, each of another user, as
// Login would, but many thousands in one transaction and in the order of their
// keys, which takes a hundredth of the time. Pages are as full as logins in no
// order leave them.
func Fill(path string, n int, nth func(i int) store.Login) (err error) {
	s, err := Open(Config{Path: path, SweepEvery: time.Hour})
	if err != nil {
		return err
	}
	_, err = s.Login(context.Background(), nth(0)) // makes the epochs
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	o := options()
	o.NoSync = true
	db, err := bolt.Open(path, 0o600, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Sync(), db.Close()) }()

	first := nth(0)
	var epochs store.Epochs
	err = db.View(func(tx *bolt.Tx) error {
		t := &tables{tx: tx, damaged: func(string, []byte) {}}
		ses, ok := t.getSession(first.Digest)
		if epochs = ses.Epochs; !ok {
			return store.ErrNotFound
		}
		return nil
	})
	if err != nil {
		return err
	}
	epochOf := func(i int) uint64 { return epochs.User + uint64(i) }
	type login = store.Login
	userKey := func(l login) []byte { h := l.User.Hash(); return h[:] }
	for _, pass := range []struct {
		bucket int
		key    func(login) []byte
		put    func(t *tables, i int, l login) error
	}{
		{
			sess, func(l login) []byte { return l.Digest[:] },
			func(t *tables, i int, l login) error {
				ses := l.Session()
				ses.Epochs = epochs
				ses.Epochs.User = epochOf(i)
				return t.putSession(l.Digest, ses)
			},
		},
		{
			user, userKey,
			func(t *tables, i int, l login) error {
				u := store.User{Epoch: epochOf(i)}
				u.Admit(l)
				return t.putUser(u)
			},
		},
		{
			exp, func(l login) []byte { return expKey(l.Expires, l.Digest) },
			func(t *tables, _ int, l login) error {
				return t.bucket(exp).Put(expKey(l.Expires, l.Digest), nil)
			},
		},
		{
			union, func(l login) []byte { return append(unionPrefix(l.UnionID), userKey(l)...) },
			func(t *tables, _ int, l login) error {
				return t.indexUnion(store.User{}, store.User{ID: l.User, UnionID: l.UnionID})
			},
		},
	} {
		put := func(t *tables, i int) error { return pass.put(t, i, nth(i)) }
		if err := fillBucket(db, pass.bucket, sorted(n, nth, pass.key), put); err != nil {
			return err
		}
	}
	return nil
}

// sorted returns the numbers of the logins in the order of a key of at most 40 bytes.
func sorted(n int, nth func(i int) store.Login, key func(store.Login) []byte) []int {
	type row struct {
		key [40]byte
		i   uint32
	}
	rows := make([]row, n)
	for i := range rows {
		copy(rows[i].key[:], key(nth(i)))
		rows[i].i = uint32(i)
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(bytes.Compare(a.key[:], b.key[:]), cmp.Compare(a.i, b.i))
	})
	order := make([]int, n)
	for i, r := range rows {
		order[i] = int(r.i)
	}
	return order
}

func fillBucket(db *bolt.DB, bucket int, order []int, put func(*tables, int) error) error {
	for some := range slices.Chunk(order, 50_000) {
		err := db.Update(func(tx *bolt.Tx) error {
			t := &tables{tx: tx, damaged: func(string, []byte) {}}
			if b := t.bucket(bucket); bucket != exp {
				b.FillPercent = 0.69
			}
			for _, i := range some {
				if err := put(t, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Strays says what is in the indexes of a closed file and should not be, or the
// other way round: each live session has its user, its place in the user's list
// and in the order of expiry; each place in a list and each row of a unionid
// stands for something.
func Strays(path string) error {
	var strays []string
	stray := func(format string, args ...any) {
		strays = append(strays, fmt.Sprintf(format, args...))
	}
	_, err := verify(path, func(tx *bolt.Tx, _ census) error {
		damaged := func(kind string, key []byte) { stray("damaged %s %x", kind, key) }
		t := &tables{tx: tx, damaged: damaged}
		return errors.Join(
			t.bucket(sess).ForEach(func(k, _ []byte) error {
				ses, _ := t.getSession(store.Digest(k))
				expiry := expKey(ses.Expires, store.Digest(k))
				if found, _ := t.bucket(exp).Cursor().Seek(expiry); !bytes.Equal(found, expiry) {
					stray("session %x: no expiry", k[:4])
				}
				u, ok := t.getUser(ses.User)
				listed := slices.Contains(digests(u.Sessions), store.Digest(k))
				if ok && u.Epoch == ses.Epochs.User && !listed || !ok {
					stray("session %x: not on its user's list", k[:4])
				}
				return nil
			}),
			t.bucket(user).ForEach(func(k, _ []byte) error {
				u, _ := t.getUserByHash([16]byte(k))
				for _, r := range u.Sessions {
					ses, ok := t.getSession(r.Digest)
					if !ok || ses.User != u.ID || ses.Epochs.User != u.Epoch ||
						!ses.Expires.Equal(r.Expires) || !ses.Created.Equal(r.Created) {
						stray("user %x: lists what is not there", k[:4])
					}
				}
				if u.UnionID != "" && !slices.Contains(t.byUnionID(u.UnionID), u.ID) {
					stray("user %x: not found by unionid", k[:4])
				}
				return nil
			}),
			t.bucket(union).ForEach(func(k, _ []byte) error {
				if u, ok := t.getUserByHash([16]byte(k[16:])); !ok ||
					!bytes.Equal(unionPrefix(u.UnionID), k[:16]) {
					stray("unionid %x: of nobody", k[:4])
				}
				return nil
			}),
		)
	})
	if len(strays) > 0 {
		some := strays[:min(3, len(strays))]
		err = errors.Join(err, fmt.Errorf("%d strays: %q", len(strays), some))
	}
	return err
}

// filling is the i-th of the logins that the tests fill with.
func filling(i int) store.Login {
	hour := time.Now().Truncate(time.Hour).UnixMilli()
	created := time.UnixMilli(hour + int64(i/3)) // some at the same moment
	return store.Login{
		User:       store.UserID{AppID: "wx0123456789abcdef", OpenID: fmt.Sprintf("o%027d", i)},
		UnionID:    fmt.Sprintf("u%027d", i/2),
		Key:        store.SealedKey{Tag: [8]byte{byte(i)}, Box: bytes.Repeat([]byte{byte(i)}, 57)},
		Digest:     sha256.Sum256(fmt.Append(nil, "filling ", i)),
		Created:    created,
		Expires:    created.Add(48 * time.Hour),
		MaxPerUser: 10,
	}
}

// A filled store is one of as many logins.
func TestFill_Logins_Whole(t *testing.T) {
	const n = 2000
	path := newPath(t)
	must(t, Fill(path, n, filling))
	r, err := Check(path)
	if err != nil || r.Stats.Sessions != n || r.Stats.Users != n || r.Damaged != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	must(t, Strays(path))
	s, err := Open(Config{Path: path})
	must(t, err)
	defer s.Close()
	for _, i := range []int{0, 1, n / 2, n - 1} {
		l := filling(i)
		rec, err := s.Lookup(t.Context(), l.Digest)
		if err != nil || rec.Current != rec.Session.Epochs || rec.Session.User != l.User ||
			rec.UnionID != l.UnionID || !rec.Session.Expires.Equal(l.Expires) {
			t.Errorf("login %d: %+v, %v", i, rec, err)
		}
		next := l
		next.Digest = sha256.Sum256(l.Digest[:])
		res, err := s.Login(t.Context(), next)
		if err != nil || res.UnionIDChanged {
			t.Errorf("login %d again: %+v, %v", i, res, err)
		}
	}
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "sessions.db") }

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// UseMemoryForFiles puts the files of the tests into memory where there is room:
// these tests kill processes, not machines.
func UseMemoryForFiles() {
	const dir, room = "/dev/shm", 2 << 30
	if free, ok := freeRoom(dir); ok && free > room {
		os.Setenv("TMPDIR", dir)
	}
}

// Trim takes the free room out of a closed file: bbolt makes it grow by 16 MiB, and
// a test would copy that each time.
func Trim(t testing.TB, path string) {
	t.Helper()
	src, err := bolt.Open(path, 0, &bolt.Options{Timeout: lockWait, ReadOnly: true})
	must(t, err)
	dst, err := bolt.Open(path+".small", 0o600, &bolt.Options{NoFreelistSync: true})
	must(t, err)
	must(t, errors.Join(bolt.Compact(dst, src, 0), dst.Close(), src.Close(),
		os.Rename(path+".small", path)))
}
