package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// ledger knows what the file has to be, without reading it: the number of the last
// commit, and the sessions and users after it. A file with another number was
// overwritten: a backup was copied over it. bbolt would follow its pages wherever
// they lead (docs/stores.md#bbolt-overwritten).
type ledger struct {
	done  atomic.Int64 // number of the last commit
	tried atomic.Int64 // of the commit that was begun last

	sessions, users atomic.Int64
	trial           rows // what the commit tried changes
}

// rows counts rows of sessions and users.
type rows struct{ sessions, users int64 }

// start begins the ledger with the file as it was opened.
func (o *opening) start(tx *bolt.Tx) error {
	o.done.Store(int64(tx.ID()))
	o.tried.Store(int64(tx.ID()))
	o.sessions.Store(o.counted.rows[sess])
	o.users.Store(o.counted.rows[user])
	return nil
}

// checkRead returns errOverwritten when a read transaction shows a commit that
// this process has not made. since is the last commit before the transaction.
func (l *ledger) checkRead(tx *bolt.Tx, since int64) error {
	if id := int64(tx.ID()); id < since || id > l.tried.Load() {
		return fmt.Errorf("%w: it holds commit %d in place of %d", errOverwritten, id, since)
	}
	return nil
}

// checkWrite is checkRead for a write transaction. A commit that failed took effect
// nevertheless if only its last fsync failed.
func (l *ledger) checkWrite(tx *bolt.Tx) error {
	switch before := int64(tx.ID()) - 1; before {
	case l.done.Load():
	case l.tried.Load():
		l.settle()
	default:
		return fmt.Errorf("%w: it holds commit %d in place of %d",
			errOverwritten, before, l.done.Load())
	}
	l.trial = rows{}
	l.tried.Store(int64(tx.ID()))
	return nil
}

// settle notes that the commit tried has taken effect.
func (l *ledger) settle() {
	l.sessions.Add(l.trial.sessions)
	l.users.Add(l.trial.users)
	l.done.Store(l.tried.Load())
}

// update makes one commit. bbolt's own Update walks all pages in a goroutine of its
// own when f panics, and a damaged page ends the process there.
func (o *opening) update(f func(*bolt.Tx) (rows, error)) error {
	tx, err := o.db.Begin(true)
	if err != nil {
		return err
	}
	if err = o.checkWrite(tx); err == nil {
		err = protect(func() (err error) {
			o.trial, err = f(tx)
			return err
		})
	}
	if err != nil {
		_ = tx.Rollback()
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	o.settle()
	return nil
}

// view begins a read transaction. bbolt dies with its locks taken when it cannot
// read the header of the file; then no other transaction can begin.
func (o *opening) view(f func(*bolt.Tx) error) error {
	if o.blind.Load() {
		return errBlind
	}
	begun, since := false, o.done.Load()
	err := protect(func() error {
		return o.db.View(func(tx *bolt.Tx) error {
			begun = true
			if err := o.checkRead(tx, since); err != nil {
				return err
			}
			return f(tx)
		})
	})
	if !begun && isPanic(err) || errors.Is(err, errOverwritten) {
		o.blind.Store(true)
	}
	return err
}

// freePages returns the number of free pages in the file.
func (o *opening) freePages() int {
	st := o.db.Stats()
	return st.FreePageN + st.PendingPageN
}

// Stats implements store.Store. It reads the ledger and one row.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	return read(ctx, s, func(t *tables) (store.Stats, error) {
		o := t.opening
		pages, page := t.tx.Size(), int64(o.db.Info().PageSize)
		st := store.Stats{
			Sessions: o.sessions.Load(), Users: o.users.Load(),
			Bytes: pages, LastExpiry: t.lastExpiry(),
		}
		if v := t.bucket(meta).Get(keyBackup); len(v) == 8 {
			st.LastBackup = time.UnixMilli(int64(binary.LittleEndian.Uint64(v)))
		}
		if info, err := os.Stat(s.path); err == nil {
			st.Bytes = info.Size() // with the room that the file has ahead
		}
		st.FreeBytes = max(0, st.Bytes-pages) + int64(o.freePages())*page
		return st, nil
	})
}

// KeepsCount implements store.Counting.
func (s *Store) KeepsCount() {}
