// Package bolt keeps sessions and users in one bbolt file: the store of a single node.
//
// It owns the file: its lock, its layout, the commits, the clean-up of expired sessions and what happens when the disk fails. It must not know tokens, session_keys in the clear, HTTP, or when
// a session is good: it implements store.Store and judges nothing.
//
// Every write goes through one goroutine, which commits what has queued up while the last commit ran in a single transaction with a single fsync (STORE.md 2.1). Reads go to the memory-mapped
// file directly.
//
// A record that cannot be read counts as absent, and is logged: its session is refused, the client logs in again, and the login writes the record anew. Answering "unavailable" instead would
// lock the client out until the record expires; accepting it would trust garbage.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	defaultTouchEvery = time.Second
	defaultSweepEvery = time.Second

	// closeWait bounds the closing of a file whose last transaction panicked and may have left a lock taken.
	closeWait = 2 * time.Second
)

// Config tells Open what to open. Only Path is required.
type Config struct {
	Path string // the file, or a symbolic link to it; its directory is made when missing

	// Expected says that something beside the file tells of a database at Path. When there is none, it is a loss, and reported (see Store.Lost); when what is there is none any more, it is damaged
	// and set aside, rather than refused as somebody else's.
	Expected bool

	TouchEvery time.Duration // longest time that a noted Touch waits for a commit; 0 means 1 s
	SweepEvery time.Duration // pause between looks for expired sessions; 0 means 1 s
	Logger     *zap.Logger   // nil means no log
}

// Store is a store.Store in a bbolt file. Make one with Open.
type Store struct {
	named    string // what Path names, which may be a symbolic link
	path     string // where the file is
	log      *zap.Logger
	db       *bolt.DB
	file     os.FileInfo // what db has open
	setAside string
	lost     bool
	restored time.Time // restoredAt

	queue      chan *operation
	touches    *store.Touches
	touchEvery time.Duration
	fault      atomic.Pointer[fault]     // nil while commits succeed
	blind      atomic.Bool               // no transaction can begin any more
	committing atomic.Pointer[time.Time] // start of the running commit; nil between commits

	damagedLog rate.Sometimes
	damagedN   atomic.Int64

	closing   chan struct{} // closed by Close: no new work
	stopped   chan struct{} // closed by the committer when all work is done
	closeOnce sync.Once
	closeErr  error
	backup    sync.Mutex
	stopSweep context.CancelFunc
	swept     chan struct{}
}

var _ store.Store = (*Store)(nil)

// Open opens or makes the session store at c.Path and holds an exclusive lock on it until Close. When the last process did not close it, the file is checked first; a damaged one is set aside
// under another name, never changed (see SetAside), and an empty one takes its place, which logs everybody out. Open waits at most one second for the lock.
func Open(c Config) (*Store, error) {
	if c.Path == "" {
		return nil, errors.New("opening session store: no path given")
	}
	named, path, err := locate(c.Path)
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", c.Path, err)
	}
	s := &Store{
		named:      named,
		path:       path,
		log:        c.Logger,
		queue:      make(chan *operation, queueLen),
		touches:    store.NewTouches(),
		touchEvery: c.TouchEvery,
		damagedLog: rate.Sometimes{First: 3, Interval: time.Minute},
		closing:    make(chan struct{}),
		stopped:    make(chan struct{}),
		swept:      make(chan struct{}),
	}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.log = s.log.With(zap.String("path", path))
	if s.touchEvery <= 0 {
		s.touchEvery = defaultTouchEvery
	}
	sweepEvery := c.SweepEvery
	if sweepEvery <= 0 {
		sweepEvery = defaultSweepEvery
	}
	o, err := openFile(path, c.Expected, s.log)
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, err)
	}
	s.db, s.file, s.setAside, s.lost, s.restored = o.db, o.info, o.setAside, o.lost, o.restored

	var ctx context.Context
	ctx, s.stopSweep = context.WithCancel(context.Background())
	go s.commitLoop()
	go s.sweepLoop(ctx, sweepEvery)
	return s, nil
}

// Path returns the absolute, cleaned path of the file, symbolic links followed.
func (s *Store) Path() string { return s.path }

// SetAside returns the path under which Open put a damaged file away, or "" when the file was sound.
func (s *Store) SetAside() string { return s.setAside }

// Lost reports whether Open found no file, or one with nothing in it, although there had been a session store: the last process did not close it, or Config.Expected says so. A first start that was
// cut off looks the same.
func (s *Store) Lost() bool { return s.lost }

// Close commits what is queued and what Touch left, then releases the file. It may be called more than once and returns the same error each time.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.stopSweep()
		<-s.swept
		close(s.closing)
		<-s.stopped
		if err := s.release(); err != nil {
			s.closeErr = fmt.Errorf("closing session store %s: %w", s.path, err)
		}
	})
	return s.closeErr
}

// release gives the file back. After a panic the dirty marker stays, so that the next Open checks the file, and so it does beside a file that is another's.
func (s *Store) release() error {
	f := s.fault.Load()
	if f == nil || !f.final {
		if err := s.missing(s.path); err != nil {
			return errors.Join(err, s.db.Close())
		}
		// The marker goes while the lock is still held: afterwards it may be the next process's.
		return errors.Join(removeMarker(s.path), s.db.Close())
	}
	done := make(chan error, 1)
	go func() { done <- s.db.Close() }()
	select {
	case err := <-done:
		return errors.Join(f.err, err)
	case <-time.After(closeWait):
		return fmt.Errorf("the file is still locked by a transaction that panicked: %w", f.err)
	}
}

// damaged notes a record that cannot be read. Only the start of its key is logged: enough to find it, too little to use.
func (s *Store) damaged(kind string, key []byte) {
	n := s.damagedN.Add(1)
	s.damagedLog.Do(func() {
		s.log.Error("damaged record in session store; treated as absent", zap.String("kind", kind), zap.String("key", fmt.Sprintf("%x", key[:min(4, len(key))])), zap.Int64("seen", n))
	})
}
