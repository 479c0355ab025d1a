package session

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Outage tells the operator once when something that the gate depends on goes away and once when it is back, however many requests notice (DESIGN.md P4).
type Outage struct {
	What  string // the subject of the log lines, such as "session store"
	Log   *zap.Logger
	Quiet bool // the lines are for debugging: somebody else tells, and knows more

	down atomic.Uint32 // ways that have failed
}

// Ways to notice an outage. A full disk fails every write and no read, so the one must not end what the other has noticed.
const (
	writing uint32 = 1 << iota
	reading
)

// Note records the outcome of one call: nil for an answer, an error for an outage.
func (o *Outage) Note(err error) { o.note(writing, err) }

// note is Note for one of several ways to notice: the outage ends when all that failed work again.
func (o *Outage) note(way uint32, err error) {
	switch {
	case err != nil && o.down.Load()&way == 0 && o.down.Or(way) == 0:
		o.Log.Log(o.level(zap.ErrorLevel), o.What+" is unavailable", zap.Error(err))
	case err == nil && o.down.Load()&way != 0 && o.down.And(^way) == way:
		o.Log.Log(o.level(zap.InfoLevel), o.What+" is back")
	}
}

func (o *Outage) level(loud zapcore.Level) zapcore.Level {
	if o.Quiet {
		return zap.DebugLevel
	}
	return loud
}

// Down reports whether the last call failed.
func (o *Outage) Down() bool { return o.down.Load() != 0 }
