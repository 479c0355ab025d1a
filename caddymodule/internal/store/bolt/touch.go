package bolt

import (
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Touch implements store.Store.
func (s *Store) Touch(d store.Digest, t time.Time) { s.touches.Add(d, t) }

// touch writes seen times. The row's expiry is absolute, so its place in exp stays.
func (t *tables) touch(seen map[store.Digest]time.Time) error {
	for d, at := range seen {
		ses, ok := t.getSession(d)
		if !ok || !at.After(ses.LastSeen) {
			continue
		}
		ses.LastSeen = at
		if err := t.putSession(d, ses); err != nil {
			return err
		}
	}
	return nil
}
