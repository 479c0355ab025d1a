package session

import (
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Outage logs once when a dependency of the gate goes away and once when it is back,
// however many requests notice (docs/design.md#p4).
type Outage struct {
	What  string // the subject of the log lines, such as "session store"
	Log   *zap.Logger
	Quiet bool // log at debug level: the dependency logs its outages itself

	down atomic.Uint32 // ways that have failed
}

// way is one of the ways to notice an outage. A full disk fails every write and no
// read, so a read must not end what a write has noticed.
type way uint32

const (
	writing way = 1 << iota
	reading
)

// Note records the outcome of one call: nil for an answer, an error for an outage.
func (o *Outage) Note(err error) { o.note(writing, err) }

// note is Note for one way. The outage ends when all ways that failed work again.
func (o *Outage) note(w way, err error) {
	bit := uint32(w)
	switch {
	case err != nil && o.down.Load()&bit == 0 && o.down.Or(bit) == 0:
		o.Log.Log(o.level(zap.ErrorLevel), o.What+" is unavailable", zap.Error(err))
	case err == nil && o.down.Load()&bit != 0 && o.down.And(^bit) == bit:
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
