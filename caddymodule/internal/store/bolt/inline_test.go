package bolt_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// rootPage returns the number of the file's root page and the size of pages.
func rootPage(t *testing.T, path string) (id, size int) {
	t.Helper()
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error {
		id, size = int(tx.Cursor().Bucket().Root()), db.Info().PageSize
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return id, size
}

// TestInlineBucketDamaged: a small bucket has its page inside the row that names it. bbolt follows what stands there, in a goroutine where a panic ends the process, or for ever; so such a file is
// put aside, whether or not it was closed properly.
func TestInlineBucketDamaged(t *testing.T) {
	for name, damage := range map[string]func(element, value []byte){
		"cut":           func(element, _ []byte) { binary.NativeEndian.PutUint32(element[12:], 16) },
		"cut to a root": func(element, _ []byte) { binary.NativeEndian.PutUint32(element[12:], 8) },
		"kind":          func(_, value []byte) { binary.NativeEndian.PutUint16(value[24:], 0x77) },
		"branch":        func(_, value []byte) { binary.NativeEndian.PutUint16(value[24:], 0x01) },
		"count":         func(_, value []byte) { binary.NativeEndian.PutUint16(value[26:], 0xff0) },
		"zeroed":        func(_, value []byte) { clear(value[16:]) },
		"bucket in it":  func(_, value []byte) { binary.NativeEndian.PutUint32(value[32:], 0x01) },
		"key beyond":    func(_, value []byte) { binary.NativeEndian.PutUint32(value[36:], 1<<30) },
		"long key":      func(_, value []byte) { binary.NativeEndian.PutUint32(value[40:], 1<<31) },
	} {
		for _, unclean := range []bool{false, true} {
			path := newPath(t)
			open(t, bolt.Config{Path: path}).Close()
			id, size := rootPage(t, path)
			b := readFile(t, path)
			page, hit := b[id*size:], false
			for i := range int(binary.NativeEndian.Uint16(page[10:])) {
				e := page[16+16*i:]
				key := e[binary.NativeEndian.Uint32(e[4:]):][:binary.NativeEndian.Uint32(e[8:])]
				if bytes.Equal(key, []byte("meta")) {
					value := e[int(binary.NativeEndian.Uint32(e[4:]))+len(key):][:binary.NativeEndian.Uint32(e[12:])]
					damage(e, value)
					hit = true
				}
			}
			if !hit {
				t.Fatal("there is no such bucket: this test shows nothing")
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if unclean {
				if err := os.WriteFile(path+".dirty", nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := open(t, bolt.Config{Path: path})
			if away := s.SetAside(); away == "" || !bytes.Equal(readFile(t, away), b) {
				t.Errorf("%s, unclean %v: put aside as %q, or not as it was", name, unclean, away)
			}
			s.Close()
		}
	}
}
