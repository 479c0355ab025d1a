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

// breaker spares callers the time-out of a host that does not answer. It counts what says "not there" and nothing else: an answer of
// any content proves that the host is there, and a caller that hangs up proves nothing.
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

// run makes the call unless the breaker is open. A call whose ctx is already over is not made and not counted: it says nothing of the
// host.
func (b *breaker) run(ctx context.Context, call func() *Error) *Error {
	if ctx.Err() != nil {
		e := ended(ctx, false)
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
		return &Error{Class: ClassUnavailable, Reason: "not tried: the circuit breaker is open after repeated failures", unsent: true}
	}
	return failed
}

// refusing is true while the breaker is open, and in the half-open state while its one probe is out.
func (b *breaker) refusing() bool {
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
