package weixin

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// explain turns an error of the transport into one of ours. The original is dropped: its text may hold bytes of the answer, and an answer
// may echo the request ("malformed HTTP response \"GET /…secret=…\""). Only values that are known to hold neither are kept as cause.
func (p *progress) explain(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return ended(ctx, p.sent.Load())
	}
	e := &Error{Class: ClassUnavailable, Reason: "no connection"}
	if p.connected.Load() {
		e.Reason = "connection broken"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		e.cause = dns
		return e
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		e.cause = cert
		return e
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return ended(ctx, p.sent.Load())
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		e.cause = errno
		return e
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.cause = io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		e.cause = io.EOF
	case p.answered.Load():
		e.Class, e.Reason = ClassProtocol, "the answer is not HTTP"
	case !p.connected.Load():
		e.Reason = "no connection: TLS or proxy handshake failed"
	}
	return e
}

// ended is the error of a call that was cancelled or ran out of time.
func ended(ctx context.Context, sent bool) *Error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{Class: ClassCanceled, Reason: "given up by the caller", cause: context.Canceled}
	case sent:
		return &Error{Class: ClassUnavailable, Reason: "no answer in time", cause: context.DeadlineExceeded}
	default:
		return &Error{Class: ClassUnavailable, Reason: "no connection in time", cause: context.DeadlineExceeded}
	}
}
