package bolt

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Report is what Check found in a file that is sound as a whole.
type Report struct {
	Stats   store.Stats
	Damaged int64 // records of sessions and users that cannot be read; they count as absent
}

// Check reads the whole file at path and every record in it, changing nothing. The error says that it is no session store of ours, that it is damaged, or that a running gate has it open.
func Check(path string) (Report, error) {
	defer readAhead(path)()
	var r Report
	_, err := examine(path, func(tx *bolt.Tx) error {
		if _, err := checkSchema(tx); err != nil {
			return err
		}
		t := &tables{tx: tx, damaged: func(string, []byte) { r.Damaged++ }}
		r.Stats = t.stats(tx.Size())
		return t.readAll()
	})
	if err != nil {
		return Report{}, fmt.Errorf("checking session store %s: %w", path, explain(err))
	}
	return r, nil
}

// readAll decodes every record.
func (t *tables) readAll() error {
	err := t.bucket(sess).ForEach(func(k, _ []byte) error {
		if len(k) != len(store.Digest{}) {
			t.damaged("session", k)
			return nil
		}
		t.getSession(store.Digest(k))
		return nil
	})
	return errors.Join(err, t.bucket(user).ForEach(func(k, _ []byte) error {
		if len(k) != 16 {
			t.damaged("user", k)
			return nil
		}
		t.getUserByHash([16]byte(k))
		return nil
	}))
}
