package session

import (
	"sync/atomic"

	"go.uber.org/zap"
)

// Outage tells the operator once when something that the gate depends on goes away and once when it is back, however many requests notice (DESIGN.md P4).
type Outage struct {
	What string // the subject of the log lines, such as "session store"
	Log  *zap.Logger

	down atomic.Bool
}

// Note records the outcome of one call: nil for an answer, an error for an outage.
func (o *Outage) Note(err error) {
	switch {
	case err != nil && o.down.CompareAndSwap(false, true):
		o.Log.Error(o.What+" is unavailable", zap.Error(err))
	case err == nil && o.down.Load() && o.down.CompareAndSwap(true, false):
		o.Log.Info(o.What + " is back")
	}
}

// Down reports whether the last call failed.
func (o *Outage) Down() bool { return o.down.Load() }
