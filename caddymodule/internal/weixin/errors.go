package weixin

import (
	"errors"
	"fmt"
	"strings"
)

// Class says what kind of end a call had. It is a closed set, fit for metric labels and for choosing the gate's own answer
// (DESIGN.md 3).
type Class uint8

// The classes.
const (
	ClassOK            Class = iota
	ClassCodeInvalid         // wrong, expired or foreign code: the client calls wx.login again
	ClassCodeUsed            // the code was exchanged before: likewise
	ClassUserBlocked         // WeChat blocks or limits this user
	ClassRateLimited         // a quota of WeChat is used up
	ClassMisconfigured       // the operator has to change something
	ClassKeyStale            // the session_key is not the user's present one: the client calls wx.login again
	ClassOrderInvalid        // no such order of this user, or paid more than 5 minutes ago
	ClassRejected            // WeChat refused with an errcode that WECHAT.md does not list
	ClassUnavailable         // no usable answer in time: network, time-out, 5xx, errcode -1, breaker open
	ClassProtocol            // an answer that is not one of this API
	ClassCanceled            // the caller cancelled its context
)

// String returns the metric label, such as "code_invalid".
func (c Class) String() string {
	switch c {
	case ClassOK:
		return "ok"
	case ClassCodeInvalid:
		return "code_invalid"
	case ClassCodeUsed:
		return "code_used"
	case ClassUserBlocked:
		return "user_blocked"
	case ClassRateLimited:
		return "rate_limited"
	case ClassMisconfigured:
		return "misconfigured"
	case ClassKeyStale:
		return "key_stale"
	case ClassOrderInvalid:
		return "order_invalid"
	case ClassRejected:
		return "rejected"
	case ClassUnavailable:
		return "unavailable"
	case ClassProtocol:
		return "protocol"
	case ClassCanceled:
		return "canceled"
	default:
		return fmt.Sprintf("class_%d", uint8(c))
	}
}

// Error is the only error type that the calls of [Client] return, always as *Error. It is made of our own words, numbers and a strictly
// shaped rid, so it may be logged; its text is for the operator, not for the client of the gate.
type Error struct {
	Op      string // what was being done: "exchanging code"
	Class   Class
	ErrCode int    // WeChat's errcode; 0 when the failure is not one of WeChat's answers
	RID     string // request id for a support request to WeChat; often empty
	Reason  string // meaning and, where there is one, the cure

	cause  error // only values that cannot hold a byte of the request or of the answer
	unsent bool
}

// Unsent reports that nothing of the call has left this process: a code in it is as good as before.
func (e *Error) Unsent() bool { return e.unsent }

// Error returns one line, such as "exchanging code: errcode 40163 (code already used: …), rid 61a0…".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.ErrCode != 0 {
		fmt.Fprintf(&b, ": errcode %d (%s)", e.ErrCode, e.Reason)
	} else {
		b.WriteString(": " + e.Reason)
	}
	if e.RID != "" {
		b.WriteString(", rid " + e.RID)
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause, if it is one that can be told without telling a secret: context.Canceled, context.DeadlineExceeded,
// a *net.DNSError, a *tls.CertificateVerificationError, a *fs.PathError, a syscall.Errno, io.EOF or io.ErrUnexpectedEOF.
func (e *Error) Unwrap() error { return e.cause }

// classOf returns the class of what a call of this package returned.
func classOf(err error) Class {
	if err == nil {
		return ClassOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassUnavailable
}
