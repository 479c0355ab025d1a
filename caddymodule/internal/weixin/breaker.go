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

// breaker is a circuit breaker that counts only failures which say that the
// host is not there. Any answer proves the host, whatever it holds, and a caller
// that hangs up proves nothing.
type breaker struct {
	cb *gobreaker.CircuitBreaker[struct{}]
}

func newBreaker(tripAfter uint32, openFor time.Duration) *breaker {
	if tripAfter == 0 {
		tripAfter = defaultTripAfter
	}
	if openFor == 0 {
		openFor = defaultOpenFor
	}
	return &breaker{gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:  1,
		Timeout:      openFor,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool { return classOf(err) != ClassUnavailable },
		IsExcluded:   func(err error) bool { return classOf(err) == ClassCanceled },
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
		if failed = call(); failed != nil {
			return struct{}{}, failed
		}
		return struct{}{}, nil
	})
	if failed == nil && err != nil {
		const reason = "not tried: the circuit breaker is open after repeated failures"
		return &Error{Class: ClassUnavailable, Reason: reason, unsent: true}
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
