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
// The package has more than 14 files, since the steps of opening a file (open,
// verify, pages, schema), the kinds of change, and the copies (backup, compact,
// dump) share no state.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

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

	OnAnew        func()              // called when the store begins anew for a damaged or lost one
	ObserveCommit func(time.Duration) // called after each commit
}

// Store is a store.Store in a bbolt file. Make one with Open.
type Store struct {
	store.EndReports

	named   string // Config.Path made absolute; may be a symbolic link
	path    string // of the file
	log     *zap.Logger
	open    atomic.Pointer[opening]
	onAnew  func()
	observe func(time.Duration)

	queue      chan *operation
	touches    *store.Touches
	touchEvery time.Duration
	writing    sync.Mutex                // held by the committer, and by Reopen
	committing atomic.Pointer[time.Time] // start of the running commit; nil between commits

	recovered    time.Time // end of the last outage; this and the next two: under writing
	relapses     int       // outages that followed one another closely
	reserveTried time.Time
	copying      atomic.Bool // a copy keeps free pages from being used again

	telling sync.Mutex
	told    told

	damagedLog rate.Sometimes
	damagedN   atomic.Int64

	closing   chan struct{} // closed by Close: no new work
	stopped   chan struct{} // closed by the committer when all work is done
	closeOnce sync.Once
	closeErr  error
	backup    sync.Mutex
	stopSweep context.CancelFunc
	swept     chan struct{}
	silent    chan struct{} // closed by tellLoop
}

var (
	_ store.Store         = (*Store)(nil)
	_ store.Identified    = (*Store)(nil)
	_ store.Reopener      = (*Store)(nil)
	_ store.SelfReporting = (*Store)(nil)
	_ store.Counting      = (*Store)(nil)
	_ store.EndReporter   = (*Store)(nil)
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
		silent:     make(chan struct{}),
		onAnew:     c.OnAnew,
		observe:    c.ObserveCommit,
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
	if err := s.begin(c.Expected); err != nil {
		return nil, fmt.Errorf("opening session store %s: %w", path, err)
	}
	var ctx context.Context
	ctx, s.stopSweep = context.WithCancel(context.Background())
	go s.commitLoop()
	go s.sweepLoop(ctx, sweepEvery)
	go s.tellLoop(ctx, sweepEvery)
	return s, nil
}

// begin opens the file.
func (s *Store) begin(expected bool) error {
	o, err := openFile(s.path, expected, s.log)
	if err != nil {
		return err
	}
	s.open.Store(o)
	if s.onAnew != nil && (o.setAside != "" || o.lost) {
		s.onAnew()
	}
	return nil
}

// Reopen implements store.Reopener. A file that turns out to be damaged is set
// aside, as by Open. After an error, the store has no file until Reopen succeeds.
func (s *Store) Reopen() (bool, error) {
	broke := func(o *opening) bool {
		f := o.fault.Load()
		return f != nil && f.kind == broken
	}
	if !broke(s.open.Load()) {
		return false, nil
	}
	for begun := time.Now(); !s.writing.TryLock(); time.Sleep(closeWait / 100) {
		if time.Since(begun) > closeWait {
			return false, unavailable("opening session store again", errSlow)
		}
	}
	defer s.writing.Unlock()
	o := s.open.Load()
	if !broke(o) {
		return false, nil
	}
	o.blind.Store(true)
	o.abandon()
	if err := s.begin(true); err != nil {
		return false, fmt.Errorf("opening session store %s again: %w", s.path, err)
	}
	s.log.Info("session store opened again")
	return true, nil
}

// Path returns the absolute path of the file, symbolic links followed.
func (s *Store) Path() string { return s.path }

// SetAside returns the new path of the damaged file that Open set aside, or "".
func (s *Store) SetAside() string { return s.open.Load().setAside }

// Lost reports whether Open found no file, or an empty one, where a session
// store had been: the last process did not close it, or Config.Expected says so.
// A first start that was cut off looks the same.
func (s *Store) Lost() bool { return s.open.Load().lost }

// Close commits the queue and the touches, then releases the file. Further
// calls return the same error.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.stopSweep()
		<-s.swept
		<-s.silent
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
	o := s.open.Load()
	if f := o.fault.Load(); f != nil && f.kind == broken {
		o.abandon()
		return f.err
	}
	if err := s.missing(o, s.path); err != nil {
		return errors.Join(err, o.db.Close())
	}
	// Under the lock: afterwards the marker may be the next process's.
	return errors.Join(removeMarker(s.path), o.db.Close())
}

// abandon closes the file of a store that is broken. A transaction that panicked
// may have kept bbolt's locks for ever. Then only the file is closed, which ends the
// lock on it; its pages stay mapped.
func (o *opening) abandon() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = o.db.Close() // the cause is told already
	}()
	select {
	case <-done:
	case <-time.After(closeWait):
		unlock(o.file)
		_ = o.file.Close()
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

// Backup returns these errors when it does not begin.
var (
	ErrBusy = errors.New("another copy is being made")
	ErrRoom = errors.New("the disk has too little room for a copy")
)

var (
	errClosed  = errors.New("the store is closed")
	errSlow    = errors.New("the disk took too long")
	errDamage  = errors.New("the file is damaged")
	errEmpty   = errors.New("the file is empty")
	errForeign = errors.New("the file is a bbolt database, but not a session store")
	errMoved   = errors.New("the file was replaced while it was being opened")
	errGone    = errors.New("the database file is no longer at its path; put it back, " +
		"or stop the gate to begin with what is there")
	errFull = errors.New("the disk has too little room for the next logins")

	// errOverwritten is final: free pages that this process knows are in use there.
	errOverwritten = errors.New("the file was overwritten while it was open")
	errBroken      = errors.New("the store is broken; " +
		"a reload with --force checks the file and opens it again")
	errBlind = errors.New("the file can no longer be read")
	errAppID = errors.New("appid too long")
)

// panicError is a panic of a transaction, turned into an error.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

func isPanic(err error) bool { return errors.As(err, new(panicError)) }

// protect runs f and returns its error, or its panic as a panicError. An
// unreadable page of the mapped file is a memory fault, which would end the
// process; protect makes it a panic.
func protect(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = panicError{v}
		}
	}()
	return f()
}

// unavailable wraps err in store.ErrUnavailable.
func unavailable(doing string, err error) error {
	return fmt.Errorf("%s: %w: %w", doing, store.ErrUnavailable, err)
}
