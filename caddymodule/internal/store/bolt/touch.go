package bolt

import (
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Touch implements store.Store.
func (s *Store) Touch(d store.Digest, until time.Time) { s.touches.Add(d, until) }

// touch writes until when sessions are used. The row's expiry is absolute, so its place in exp stays.
func (t *tables) touch(used map[store.Digest]time.Time) error {
	for d, until := range used {
		ses, ok := t.getSession(d)
		if !ok || !until.After(ses.UsedUntil) {
			continue
		}
		ses.UsedUntil = until
		if err := t.putSession(d, ses); err != nil {
			return err
		}
	}
	return nil
}
