package reply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Call is the kind of call that an error ends.
type Call int

// The kinds of calls.
const (
	Login   Call = iota // a login
	OwnData             // a client's call for its own data: decrypt, phone
	ForUser             // an app's call for a user
	Relay               // an app's call that goes on to WeChat
)

// byClass turns an answer of WeChat into a problem, one column for each kind of
// call. A class that is not here means that WeChat is unavailable.
var byClass = map[weixin.Class][4]Problem{
	//                          Login          OwnData        ForUser        Relay
	weixin.ClassCodeInvalid:   {CodeInvalid, CodeRefused, CodeRefused, WeChatDown},
	weixin.ClassCodeUsed:      {CodeUsed, CodeRefused, CodeRefused, WeChatDown},
	weixin.ClassUserBlocked:   {UserBlocked, UserBlocked, UserBlocked, WeChatDown},
	weixin.ClassRateLimited:   {RateLimited, quotaSpent, quotaSpent, tokenQuota},
	weixin.ClassMisconfigured: {Misconfigured, callRefused, callRefused, noToken},
	weixin.ClassRejected:      {Misconfigured, callRefused, callRefused, noToken},
	weixin.ClassUnauthorized:  {noMerchant, noMerchant, noMerchant, noMerchant},
	weixin.ClassNoTicket:      {noTicket, noTicket, noTicket, noTicket},
	// These two speak of what a login or a client's own call does not hold.
	weixin.ClassKeyStale:     {Misconfigured, callRefused, KeyStale, WeChatDown},
	weixin.ClassOrderInvalid: {Misconfigured, callRefused, OrderInvalid, WeChatDown},
	weixin.ClassCanceled:     {WeChatDown, WeChatDown, WeChatDown, BodyBroken},
}

var (
	blocked     = with(UserBlocked, "the operator of this service does not let this user log in")
	quotaSpent  = with(RateLimited, "WeChat takes no more of these calls for now")
	callRefused = with(Misconfigured, "WeChat refuses the call; the log tells the operator why")
	noMerchant  = with(OtherApp, "the mini program has not authorised this service")
	noTicket    = after(WeChatDown, 10*time.Second)
	noToken     = with(Misconfigured,
		"the gate has no access token to call WeChat with; the log tells the operator why")
	tokenQuota = after(WeChatDown, time.Minute)
)

// byError turns an error of the gate's own into a problem, likewise. The first
// row that matches counts.
var byError = []struct {
	err error
	by  [4]Problem
}{
	{session.ErrUnknownApp, all(OtherApp)},
	{session.ErrMalformed, all(SessionInvalid)},
	{session.ErrForged, all(SessionInvalid)},
	{session.ErrForeign, all(SessionInvalid)},
	{session.ErrExpired, all(SessionInvalid)},
	{session.ErrRevoked, all(SessionInvalid)},
	// A client's user is forgotten between the check and the call.
	{session.ErrUnknown, all(SessionInvalid)},
	{
		session.ErrUnknownUser,
		[4]Problem{SessionInvalid, SessionInvalid, UserUnknown, SessionInvalid},
	},
	{session.ErrBlocked, all(blocked)},
	{session.ErrUnavailable, all(StoreDown)},
}

// For returns the problem that an error means for a kind of call. A Problem is
// itself. An error that no row knows is a fault of the gate's own, which must not
// cost a user the session: the store, or for a relayed call WeChat, is down.
func For(call Call, err error) Problem {
	if p, ok := errors.AsType[Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*session.DataError](err); ok {
		p := DataInvalid
		p.LoginAgain = e.LoginAgain
		return p
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return BodyTooLong(e.Limit)
	}
	if e, ok := errors.AsType[*weixin.Error](err); ok {
		if by, ok := byClass[e.Class]; ok {
			return by[call]
		}
		return WeChatDown
	}
	for _, row := range byError {
		if errors.Is(err, row.err) {
			return row.by[call]
		}
	}
	if call == Relay {
		return WeChatDown
	}
	return StoreDown
}

// Refused is a problem that keeps its cause for the log.
type Refused struct {
	Problem
	Err error
}

// Unwrap returns the problem and its cause.
func (e Refused) Unwrap() []error { return []error{e.Problem, e.Err} }

// errGone is the cause of a call whose client has left.
var errGone = errors.New("client left before the answer")

// Cause returns what the log tells of an error. A problem without a cause is its
// own.
func Cause(err error) error {
	if e, ok := errors.AsType[Refused](err); ok {
		err = e.Err
	}
	if errors.Is(err, context.Canceled) && errors.Is(err, session.ErrUnavailable) {
		return errGone // and nothing is known of the store
	}
	if e, ok := errors.AsType[*session.DataError](err); ok {
		return fmt.Errorf("%w: %s", e, e.Reason)
	}
	if p, ok := errors.AsType[Problem](err); ok {
		return errors.New(p.Detail)
	}
	return err
}

func with(p Problem, detail string) Problem {
	p.Detail = detail
	return p
}

func after(p Problem, wait time.Duration) Problem {
	p.RetryAfter = wait
	return p
}

func all(p Problem) [4]Problem { return [4]Problem{p, p, p, p} }
