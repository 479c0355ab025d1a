package memstore

import (
	"context"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Shared is the store of one gate of a fleet: a store.Shared on Data that several
// gates share. It reports changes before the store acknowledges them, unless
// SetReports says otherwise.
type Shared struct {
	*Store

	// OnHeard, if set, runs before Heard answers.
	OnHeard func()

	// Until is what Heard answers while reports do not come: when they last came.
	Until time.Time

	link    sync.Mutex
	watch   func(store.Change)
	reports Reports
	held    []store.Change
}

// Reports is the way of changes to a gate.
type Reports int

// The ways of changes to a gate.
const (
	Come Reports = iota
	Slow         // they wait
	Lost         // they are lost
)

var _ store.Shared = (*Shared)(nil)

// NewShared returns a store on d.
func NewShared(d *Data) *Shared {
	s := &Shared{Store: New(d)}
	d.Watch(s.hear)
	return s
}

func (s *Shared) hear(c store.Change) {
	s.link.Lock()
	defer s.link.Unlock()
	switch {
	case s.watch == nil:
	case s.reports == Come:
		s.watch(c)
	case s.reports == Slow:
		s.held = append(s.held, c)
	}
}

// Reports returns the way of changes to this gate.
func (s *Shared) Reports() Reports {
	s.link.Lock()
	defer s.link.Unlock()
	return s.reports
}

// SetReports changes the way of changes to this gate. Slow ones then arrive. In
// place of lost ones AllChanged comes.
func (s *Shared) SetReports(how Reports) {
	s.link.Lock()
	defer s.link.Unlock()
	if s.reports == Come {
		s.Until = time.Now()
	}
	if s.reports == Lost && how != Lost {
		s.held = []store.Change{{What: store.AllChanged}}
	}
	if s.reports = how; how == Come {
		for _, c := range s.held {
			s.watch(c)
		}
	}
	if how != Slow {
		s.held = nil
	}
}

// Reconnect ends a loss of reports as a new connection does: with ContactMade.
func (s *Shared) Reconnect() {
	s.link.Lock()
	watch := s.watch
	if s.reports == Lost { // ContactMade stands for those
		s.reports, s.held = Slow, nil
	}
	s.link.Unlock()
	watch(store.Change{What: store.ContactMade})
	s.SetReports(Come)
}

// Watch implements store.Shared.
func (s *Shared) Watch(report func(store.Change)) {
	s.link.Lock()
	defer s.link.Unlock()
	if s.watch != nil {
		panic("watched twice")
	}
	s.watch = report
}

// Heard implements store.Shared.
func (s *Shared) Heard() time.Time {
	if s.OnHeard != nil {
		s.OnHeard()
	}
	s.link.Lock()
	defer s.link.Unlock()
	if s.reports != Come {
		return s.Until
	}
	return time.Now()
}

// Spend implements store.Shared.
func (s *Shared) Spend(
	ctx context.Context, key string, r store.Rate,
) (time.Duration, error) {
	return call(ctx, s.Store, "Spend", func(d *Data) (time.Duration, error) {
		most := time.Duration(r.Burst) * r.Every
		missing := max(0, min(time.Until(d.fullAt[key]), most)) + r.Every
		if missing > most {
			return missing - most, nil
		}
		d.fullAt[key] = time.Now().Add(missing)
		return 0, nil
	})
}
