package weixin

import (
	"context"
	"time"

	"github.com/sony/gobreaker/v2"
)

const (
	defaultTripAfter = 8
	defaultOpenFor   = 2 * time.Second
)

// breaker is a circuit breaker over one kind of calls. It opens when the health of
// these calls is hopeless, and a caller that hangs up proves nothing.
type breaker struct {
	cb     *gobreaker.CircuitBreaker[struct{}]
	health *health
}

func newBreaker(tripAfter uint32, openFor time.Duration, tell func(Transition)) *breaker {
	if tripAfter == 0 {
		tripAfter = defaultTripAfter
	}
	if openFor == 0 {
		openFor = defaultOpenFor
	}
	h := &health{tripAfter: int(tripAfter), tell: tell}
	return &breaker{health: h, cb: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Timeout:      openFor,
		ReadyToTrip:  func(gobreaker.Counts) bool { return h.hopeless() },
		IsSuccessful: func(err error) bool { return judgeOutcome(err) != outcomeFailed },
		IsExcluded:   func(err error) bool { return judgeOutcome(err) == outcomeNothing },
	})}
}

// run makes the call unless the breaker is open. It neither makes nor counts a
// call whose ctx has ended before.
func (b *breaker) run(ctx context.Context, call func() *Error) *Error {
	if ctx.Err() != nil {
		e := contextError(ctx, false)
		e.unsent = true
		return e
	}
	var failed *Error
	_, err := b.cb.Execute(func() (struct{}, error) {
		b.health.begin()
		failed = call()
		b.health.end(failed)
		if failed != nil {
			return struct{}{}, failed
		}
		return struct{}{}, nil
	})
	if failed == nil && err != nil {
		const reason = "not tried: the circuit breaker is open after repeated failures"
		return &Error{Class: ClassUnavailable, Reason: reason, unsent: true, refused: true}
	}
	return failed
}

// refuses reports whether the breaker is open, or half open with its one probe
// under way.
func (b *breaker) refuses() bool {
	switch b.cb.State() {
	case gobreaker.StateOpen:
		return true
	case gobreaker.StateHalfOpen:
		n := b.cb.Counts()
		return n.Requests > n.TotalExclusions
	default:
		return false
	}
}
