package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The file holds free pages whose room on the disk is its own, for the logins that
// are under way when the disk fills up. Health fails as soon as the disk has no
// room for more of them, before a code is spent (docs/stores.md#bbolt-full).
const (
	reserveBytes = 2 << 20
	reserveLow   = reserveBytes / 2 / 4096 // pages: below it, the reserve is made anew

	// relapseWithin is how soon after an outage the next one counts as the same.
	relapseWithin = time.Minute
	maxRelapses   = 5
)

// keepReserve makes the reserve when the file has few free pages. A copy under way
// keeps free pages from being used again, so it waits for its end.
func (s *Store) keepReserve(o *opening) {
	f := o.fault.Load()
	switch {
	case f == nil && o.freePages() >= reserveLow, f != nil && f.kind != low,
		f != nil && time.Since(s.reserveTried) < retryEvery, s.copying.Load():
		return
	}
	s.reserveTried = time.Now()
	err := s.room(f)
	if err == nil {
		err = s.makeReserve(o)
	}
	switch {
	case err == nil:
		s.clear(o, low)
	case isBroken(err):
		s.settle(o, err)
	case f == nil:
		s.fail(o, low, fmt.Errorf("%w: %w", errFull, err))
	}
}

// room returns the fault again while the disk has no room for the reserve. After
// each commit that fails, bbolt walks the whole file.
func (s *Store) room(f *fault) error {
	if f == nil || !errors.Is(f.err, syscall.ENOSPC) {
		return nil
	}
	if free, ok := freeRoom(filepath.Dir(s.path)); ok && free < reserveBytes {
		return f.err
	}
	return nil
}

// makeReserve writes a large row and removes it, which leaves its pages free.
func (s *Store) makeReserve(o *opening) error {
	put := func(tx *bolt.Tx) (rows, error) {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
		b := make([]byte, reserveBytes)
		_, _ = rand.NewChaCha8(seed).Read(b) // a file system may keep zeros without room
		return rows{}, tx.Bucket(bucketNames[meta]).Put(keyProbe, b)
	}
	remove := func(tx *bolt.Tx) (rows, error) {
		return rows{}, tx.Bucket(bucketNames[meta]).Delete(keyProbe)
	}
	return protect(func() error {
		if err := o.update(put); err != nil {
			return err
		}
		return o.update(remove)
	})
}

// prove returns nil when the disk works again. It takes a write as large as the
// reserve, and more commits each time that an outage follows another: a disk that
// fails now and then must not spend a code each time.
func (s *Store) prove(o *opening, f *fault) error {
	if err := s.missing(o, s.named); err != nil {
		return err
	}
	if err := s.room(f); err != nil {
		return err
	}
	err := s.makeReserve(o)
	for n := 1; err == nil && n < 1<<s.relapses; n++ {
		err = protect(func() error {
			return o.update(func(tx *bolt.Tx) (rows, error) {
				return rows{}, tx.Bucket(bucketNames[meta]).Put(keyProbe, []byte{byte(n)})
			})
		})
	}
	return err
}

// relapse counts outages that follow one another closely. f is the fault before.
func (s *Store) relapse(f *fault, err error) {
	switch {
	case err == nil && f != nil && f.kind == failed:
		s.recovered = time.Now()
	case err == nil, f != nil && f.kind == failed:
	case time.Since(s.recovered) < relapseWithin:
		s.relapses = min(s.relapses+1, maxRelapses)
	default:
		s.relapses = 0
	}
}
