package session_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/storetest"
)

// sharedStore is one gate's way to data in memory that several gates share, with ways to part them. Changes are reported before they are acknowledged, unless reports are slow or lost.
type sharedStore struct {
	*memStore

	// asked is called by Heard before it answers.
	asked func()

	link    sync.Mutex
	report  func(store.Change)
	reports reports
	held    []store.Change
	until   time.Time // reports came until then, when they do not come now
}

// reports is how changes reach a gate.
type reports int

const (
	reportsCome reports = iota
	reportsSlow
	reportsLost
)

var _ store.Shared = (*sharedStore)(nil)

func newShared(d *memData) *sharedStore {
	s := &sharedStore{memStore: newMemStore(d)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers = append(d.watchers, s.tell)
	return s
}

func (s *sharedStore) tell(c store.Change) {
	s.link.Lock()
	defer s.link.Unlock()
	switch {
	case s.report == nil:
	case s.reports == reportsCome:
		s.report(c)
	case s.reports == reportsSlow:
		s.held = append(s.held, c)
	}
}

// reach reports whether changes are told to this gate.
func (s *sharedStore) reach() bool {
	s.link.Lock()
	defer s.link.Unlock()
	return s.reports == reportsCome
}

// setReports parts the gate from the others' reports, or brings them back: slow ones arrive, and for lost ones there is AllChanged.
func (s *sharedStore) setReports(how reports) {
	s.link.Lock()
	defer s.link.Unlock()
	if s.reports == reportsCome {
		s.until = time.Now()
	}
	if s.reports == reportsLost && how != reportsLost {
		s.held = []store.Change{{What: store.AllChanged}}
	}
	if s.reports = how; how == reportsCome {
		for _, c := range s.held {
			s.report(c)
		}
	}
	if how != reportsSlow {
		s.held = nil
	}
}

func (s *sharedStore) Watch(report func(store.Change)) {
	s.link.Lock()
	defer s.link.Unlock()
	if s.report != nil {
		panic("watched twice")
	}
	s.report = report
}

func (s *sharedStore) Heard() time.Time {
	if s.asked != nil {
		s.asked()
	}
	s.link.Lock()
	defer s.link.Unlock()
	if s.reports != reportsCome {
		return s.until
	}
	return time.Now()
}

func (s *sharedStore) Spend(ctx context.Context, key string, r store.Rate) (wait time.Duration, err error) {
	err = s.do(ctx, "Spend", func(d *memData) error {
		b := d.buckets[key]
		if b == nil {
			b = rate.NewLimiter(rate.Every(r.Every), r.Burst)
			d.buckets[key] = b
		}
		res := b.Reserve()
		if wait = res.Delay(); wait > 0 {
			res.Cancel()
		}
		return nil
	})
	return wait, err
}

const staleness = 30 * time.Second

// newFleet returns gates that share their data, keys and WeChat.
func newFleet(t testing.TB, n int, edit ...func(*session.CoreConfig, *session.Config)) (gates []*gate, links []*sharedStore) {
	t.Helper()
	data, keys, weChat := newMemData(), newKeys(t), new(wechat)
	for range n {
		s := newShared(data)
		all := append([]func(*session.CoreConfig, *session.Config){func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys, c.WeChat, c.MaxStaleness = s, keys, weChat, staleness
		}}, edit...)
		g := newGate(t, all...)
		g.store, g.wechat = s.memStore, weChat
		gates, links = append(gates, g), append(links, s)
	}
	return gates, links
}

// TestSharedMemContract: the shared store of these tests keeps the contract of every store.
func TestSharedMemContract(t *testing.T) {
	storetest.Run(t, storetest.Harness{New: func(*testing.T) storetest.Opener {
		d := newMemData()
		return func() (store.Store, error) { return newShared(d), nil }
	}})
}
