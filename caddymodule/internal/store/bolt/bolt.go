// Package bolt keeps sessions and users in one bbolt file: the store of a single
// gate.
//
// It owns the file: its lock, its layout, the commits, the removal of expired
// sessions, and what happens when the disk fails. It judges no session, and knows
// neither tokens nor HTTP.
//
// One goroutine writes. It commits all that has queued up during the last commit
// in one transaction with one fsync (docs/stores.md#group-commit). Reads go to
// the memory-mapped file directly.
//
// An unreadable record counts as absent, and is logged: the client logs in again,
// and the login writes the record anew. "Unavailable" would lock the client out
// until the record expires.
//
// The package has more than 14 files: one for each step of opening a file (path,
// open, verify, pages, schema), for each kind of change, and for each way to copy
// the file, since these share no state.
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

	// closeWait bounds the closing of a file whose last transaction panicked and
	// may have kept a lock.
	closeWait = 2 * time.Second

	// stallAfter is how long a commit may run before the disk counts as stuck.
	stallAfter = 2 * time.Second
)

// Config tells Open what to open. Only Path is required.
type Config struct {
	Path string // the file, or a symbolic link to it; Open creates its directory

	// Expected says that another file tells of a database at Path. A missing
	// one then counts as lost (Store.Lost). A file that is not a database then
	// counts as damaged, and Open sets it aside.
	Expected bool

	// Wait bounds how long Open waits while another process has the file open, as
	// during the exit of the gate before. After it comes one more second.
	Wait time.Duration

	TouchEvery time.Duration // longest wait of a Touch for a commit; 0 means 1 s
	SweepEvery time.Duration // pause between searches for expired sessions; 0 means 1 s
	Logger     *zap.Logger   // nil means no log
}

// Store is a store.Store in a bbolt file. Make one with Open.
type Store struct {
	named    string // Config.Path made absolute; may be a symbolic link
	path     string // of the file
	log      *zap.Logger
	db       *bolt.DB
	file     os.FileInfo // of the file that db has open
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

var (
	_ store.Store      = (*Store)(nil)
	_ store.Identified = (*Store)(nil)
)

// Open opens or creates the session store at c.Path and holds an exclusive lock
// on it until Close. It waits for the lock: Config.Wait and one second.
//
// Open verifies the file. It sets a damaged one aside under another name (see
// SetAside) and begins with an empty one, which logs all users out.
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
	awaitFree(path, c.Wait, s.log)
	o, err := openFile(path, c.Expected, s.log)
	if err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, err)
	}
	s.db, s.file, s.restored, s.setAside, s.lost = o.db, o.info, o.restored, o.setAside, o.lost

	var ctx context.Context
	ctx, s.stopSweep = context.WithCancel(context.Background())
	go s.commitLoop()
	go s.sweepLoop(ctx, sweepEvery)
	return s, nil
}

// Path returns the absolute path of the file, symbolic links followed.
func (s *Store) Path() string { return s.path }

// SetAside returns the new path of the damaged file that Open set aside, or "".
func (s *Store) SetAside() string { return s.setAside }

// Lost reports whether Open found no file, or an empty one, where a session
// store had been: the last process did not close it, or Config.Expected says so.
// A first start that was cut off looks the same.
func (s *Store) Lost() bool { return s.lost }

// Health implements store.Store. It reports the outcome of the last commit, a
// stuck commit, and a missing file. After a failure the committer retries every
// second, so Health recovers without a login that fails first.
func (s *Store) Health(ctx context.Context) error {
	const doing = "checking session store"
	if ctx.Err() != nil {
		return unavailable(doing, context.Cause(ctx))
	}
	select {
	case <-s.closing:
		return unavailable(doing, errClosed)
	default:
	}
	if f := s.fault.Load(); f != nil {
		return unavailable(doing, f.err)
	}
	if err := s.missing(s.named); err != nil {
		return unavailable(doing, err)
	}
	if start := s.committing.Load(); start != nil {
		if d := time.Since(*start); d > stallAfter {
			return unavailable(doing, fmt.Errorf("%w: a commit has been running for %s",
				errSlow, d.Round(time.Second)))
		}
	}
	return nil
}

// Close commits the queue and the touches, then releases the file. Further
// calls return the same error.
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

// release closes the file. The dirty marker stays after a panic, so that the
// next Open verifies the file, and beside a file of another process.
func (s *Store) release() error {
	f := s.fault.Load()
	if f == nil || !f.final {
		if err := s.missing(s.path); err != nil {
			return errors.Join(err, s.db.Close())
		}
		// Under the lock: afterwards the marker may be the next process's.
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

// damaged counts and logs an unreadable record. The log shows only the start of
// its key: enough to find it, too little to use.
func (s *Store) damaged(kind string, key []byte) {
	n := s.damagedN.Add(1)
	s.damagedLog.Do(func() {
		s.log.Error("damaged record in session store; treated as absent",
			zap.String("kind", kind), zap.Int64("seen", n),
			zap.String("key", fmt.Sprintf("%x", key[:min(4, len(key))])))
	})
}
