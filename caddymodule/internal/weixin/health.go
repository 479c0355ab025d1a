package weixin

import (
	"errors"
	"math/bits"
	"sync"
	"time"
)

// State says how one kind of calls fares.
type State uint8

// The states.
const (
	Well   State = iota
	Partly       // some calls fail, and WeChat answers others
	Down         // no call is answered
)

// String returns "well", "partly" or "down".
func (s State) String() string { return [...]string{"well", "partly", "down"}[s] }

// Health is what the client knows of one kind of calls.
type Health struct {
	State       State
	LastSuccess time.Time // zero: none since the client was made
	LastError   *Error    // that asks something of the operator; nil: none
	LastErrorAt time.Time

	// Since is the first failure of the present trouble, zero when there is none.
	// Calls and Failed count from then on.
	Since         time.Time
	Calls, Failed int
}

// Transition is a change of State that has lasted. Health is that of the new State;
// after a return to Well, Since, Calls and Failed tell of the trouble that is over.
type Transition struct {
	Before State
	Health
}

const (
	// settling is the time that failures must last, so that a few broken
	// connections are no outage. Calls that open the breaker need not last.
	settling = 2 * time.Second

	// Calls are well again when WeChat has answered all of them for twice as long as
	// the trouble lasted, within these bounds: an outage that comes and goes is one.
	shortestCalm, longestCalm = time.Second, 10 * time.Second

	// partly is the number of failures among the last 64 calls that is a State of
	// its own, and of answers in a row that end it.
	partly = 8

	// Where answers and failures mix, more failures in a row open the breaker: eight
	// in a row come by chance when half of the calls fail.
	mixedFactor = 4
)

// health follows the outcomes of one kind of calls.
type health struct {
	tripAfter int
	tell      func(Transition) // nil: nobody listens

	mu        sync.Mutex
	known     Health
	recent    uint64 // one bit a call, the last call lowest; 1: failed
	run       int    // consecutive failures
	runSince  time.Time
	lastBad   time.Time // last failure
	good      int       // consecutive answers
	goodSince time.Time
	calm      *time.Timer // to the end of the trouble, or nil

	waiting    int       // calls under way
	quietSince time.Time // last answer, or begin of the first call under way
}

// outcome is what a call says of WeChat.
type outcome uint8

const (
	outcomeNothing  outcome = iota // the caller has gone, or the caller's data were odd
	outcomeAnswered                // WeChat answers, whatever it says
	outcomeFailed                  // no answer, or one that is not WeChat's
)

func judgeOutcome(err error) outcome {
	if e, ok := errors.AsType[*Error](err); ok && e != nil && e.blameless {
		return outcomeNothing
	}
	switch classOf(err) {
	case ClassCanceled:
		return outcomeNothing
	case ClassUnavailable, ClassProtocol:
		return outcomeFailed
	default:
		return outcomeAnswered
	}
}

// begin counts a call as under way, until end.
func (h *health) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting == 0 {
		h.quietSince = time.Now()
	}
	h.waiting++
}

// end records the outcome of a call.
func (h *health) end(e *Error) {
	var err error
	if e != nil {
		err = e
	}
	h.mu.Lock()
	now, before := time.Now(), h.known.State
	h.waiting--
	h.remember(e, now)
	switch judgeOutcome(err) {
	case outcomeAnswered:
		h.quietSince = now
		h.answered(now)
	case outcomeFailed:
		h.failed(now)
	}
	t := Transition{Before: before, Health: h.known}
	h.mu.Unlock()
	h.report(t)
}

// remember keeps the last success and the last error that is not a client's doing.
func (h *health) remember(e *Error, now time.Time) {
	switch {
	case e == nil:
		h.known.LastSuccess = now
	case !e.blameless && isOperators(e.Class):
		h.known.LastError, h.known.LastErrorAt = e, now
	}
}

func isOperators(c Class) bool {
	switch c {
	case ClassUnavailable, ClassProtocol, ClassMisconfigured, ClassRateLimited, ClassRejected,
		ClassNoTicket:
		return true
	}
	return false
}

func (h *health) failed(now time.Time) {
	if h.run == 0 {
		h.runSince = now
	}
	if h.known.Since.IsZero() {
		h.known.Since, h.known.Calls, h.known.Failed = now, 0, 0
	}
	h.recent = h.recent<<1 | 1
	h.run++
	h.good, h.lastBad = 0, now
	h.known.Calls++
	h.known.Failed++
	mixed, lasts := h.mixed(), func(since time.Time) bool { return now.Sub(since) >= settling }
	switch {
	case h.known.State == Down:
	case h.run >= h.limit(), h.run > 1 && !mixed && lasts(h.runSince):
		if h.known.State == Well {
			h.known.Since, h.known.Calls, h.known.Failed = h.runSince, h.run, h.run
		}
		h.known.State = Down
	case mixed && bits.OnesCount64(h.recent) >= partly && lasts(h.known.Since):
		h.known.State = Partly
	}
}

func (h *health) answered(now time.Time) {
	h.recent <<= 1
	if h.run >= h.tripAfter {
		h.recent = 0 // an outage has ended: the next one is no mixture with it
	}
	if h.run, h.good = 0, h.good+1; h.good == 1 {
		h.goodSince = now
	}
	if h.known.State == Well && h.recent == 0 {
		h.known.Since = time.Time{}
	}
	if h.known.Since.IsZero() {
		return
	}
	h.known.Calls++
	if h.calm == nil && h.known.State != Well && h.good >= h.needed() {
		h.calm = time.AfterFunc(h.calmAt().Sub(now), h.settle)
	}
}

// settle ends the trouble if it has been calm for long enough. A failure in between
// leaves it to a later answer.
func (h *health) settle() {
	h.mu.Lock()
	h.calm = nil
	t := Transition{Before: h.known.State, Health: h.known}
	wait := time.Until(h.calmAt())
	switch {
	case h.known.State == Well || h.good < h.needed():
	case wait > 0:
		h.calm = time.AfterFunc(wait, h.settle)
	default:
		h.known.State, h.recent = Well, 0
		t.State = Well
		h.known.Since = time.Time{}
	}
	h.mu.Unlock()
	h.report(t)
}

// calmAt returns when the trouble is over unless a call fails.
func (h *health) calmAt() time.Time {
	lasted := h.lastBad.Sub(h.known.Since)
	return h.goodSince.Add(min(max(2*lasted, shortestCalm), longestCalm))
}

// needed returns the number of consecutive answers that end the trouble.
func (h *health) needed() int {
	if h.known.State == Partly {
		return partly
	}
	return 1
}

// mixed reports whether WeChat has answered between the failures of the last 64
// calls.
func (h *health) mixed() bool { return h.recent>>h.run != 0 }

// limit returns the number of consecutive failures that open the breaker.
func (h *health) limit() int {
	if h.mixed() {
		return h.tripAfter * mixedFactor
	}
	return h.tripAfter
}

// hopeless reports whether the breaker should open.
func (h *health) hopeless() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.run >= h.limit()
}

// silent reports whether calls have waited for d without any answer.
func (h *health) silent(d time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting > 0 && time.Since(h.quietSince) >= d
}

func (h *health) get() Health {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

func (h *health) report(t Transition) {
	if h.tell != nil && t.Before != t.State {
		h.tell(t)
	}
}

// close forgets the trouble, so that nothing is told of it any more.
func (h *health) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calm != nil {
		h.calm.Stop()
	}
}
