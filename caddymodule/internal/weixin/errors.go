package weixin

import (
	"errors"
	"fmt"
	"strings"
)

// Class is the kind of outcome of a call. The set is closed: classes label
// metrics and select the gate's own answer.
type Class uint8

// The classes.
const (
	ClassOK            Class = iota
	ClassCodeInvalid         // wrong, expired or foreign code: the client calls wx.login again
	ClassCodeUsed            // code exchanged before: the client calls wx.login again
	ClassUserBlocked         // WeChat blocks or limits this user
	ClassRateLimited         // a quota of WeChat is used up
	ClassMisconfigured       // the operator has to change something
	ClassKeyStale            // not the user's current session_key: the client calls wx.login again
	ClassOrderInvalid        // no such order of this user, or paid more than 5 minutes ago
	ClassUnauthorized        // this mini program has not authorised the third-party platform
	ClassNoTicket            // the third-party platform waits for a component_verify_ticket
	ClassRejected            // an errcode that errcodes does not list
	ClassUnavailable         // no usable answer in time: network, timeout, 5xx, -1, open breaker
	ClassProtocol            // the answer does not come from this API
	ClassCanceled            // the caller cancelled its context
)

var classNames = [...]string{
	ClassOK:            "ok",
	ClassCodeInvalid:   "code_invalid",
	ClassCodeUsed:      "code_used",
	ClassUserBlocked:   "user_blocked",
	ClassRateLimited:   "rate_limited",
	ClassMisconfigured: "misconfigured",
	ClassKeyStale:      "key_stale",
	ClassOrderInvalid:  "order_invalid",
	ClassUnauthorized:  "unauthorized",
	ClassNoTicket:      "no_ticket",
	ClassRejected:      "rejected",
	ClassUnavailable:   "unavailable",
	ClassProtocol:      "protocol",
	ClassCanceled:      "canceled",
}

// String returns the metric label, such as "code_invalid".
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return fmt.Sprintf("class_%d", uint8(c))
}

// Error is the only error type that the calls of [Client] return, always as
// *Error. It holds constant texts, numbers and a strictly shaped rid, so it may
// be logged. Its text is for the operator, not for the client of the gate.
type Error struct {
	Op      string // the operation, such as "exchanging code"
	Class   Class
	ErrCode int    // WeChat's errcode; 0 when WeChat did not refuse the call
	RID     string // request id for a support request to WeChat; often empty
	Host    string // that did not answer, or not as WeChat does; else empty
	Reason  string // meaning and, where there is one, the cure

	cause     error // only values that hold no byte of the request or of the answer
	unsent    bool
	refused   bool // by the open circuit breaker
	blameless bool // says nothing of WeChat: odd data of the client's may be the cause
}

// Unsent reports that no complete request left this process, so a code is
// still unused.
func (e *Error) Unsent() bool { return e.unsent }

// Error returns one line, such as
// "exchanging code: errcode 40163 (code already used: …), rid 61a0…" or
// "exchanging code: api.weixin.qq.com: HTTP 407 from a proxy".
func (e *Error) Error() string { return e.Op + ": " + e.Cause() }

// Cause returns the error without its operation.
func (e *Error) Cause() string {
	var b strings.Builder
	if e.Host != "" {
		b.WriteString(e.Host + ": ")
	}
	if e.ErrCode != 0 {
		fmt.Fprintf(&b, "errcode %d (%s)", e.ErrCode, e.Reason)
	} else {
		b.WriteString(e.Reason)
	}
	if e.RID != "" {
		b.WriteString(", rid " + e.RID)
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	return b.String()
}

// Unwrap returns a cause that holds no secret: context.Canceled,
// context.DeadlineExceeded, a *net.DNSError, a *tls.CertificateVerificationError,
// a *fs.PathError, an *http.MaxBytesError, a syscall.Errno, io.EOF or
// io.ErrUnexpectedEOF.
func (e *Error) Unwrap() error { return e.cause }

// classOf returns the class of an error of this package.
func classOf(err error) Class {
	if err == nil {
		return ClassOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassUnavailable
}

// systemBusy is the one errcode that allows a second attempt with the same code
// (docs/wechat.md#send-once).
const systemBusy = -1

const (
	secretInvalid  = 40125
	ipNotListed    = 40164
	dailyQuota     = 45009
	ipUnregistered = 61004 // of a third-party platform
	refreshInvalid = 61023
)

// RefreshInvalid reports that WeChat does not accept the refresh token of a mini
// program: the list of the platform has another one.
func (e *Error) RefreshInvalid() bool { return e.ErrCode == refreshInvalid }

// TokenRefused reports that WeChat refuses the token of a call, so that another one may
// help.
func (e *Error) TokenRefused() bool { return isTokenRefusal(e.ErrCode) }

// QuotaSpent reports that WeChat takes no more of these calls of the mini program
// before midnight Beijing time (docs/wechat.md#code2session-limits).
func (e *Error) QuotaSpent() bool { return e.ErrCode == dailyQuota }

// isTokenRefusal reports whether an errcode refuses the access token, so that
// another token may help (docs/wechat.md#token-refused).
func isTokenRefusal(errcode int) bool {
	return errcode == 40001 || errcode == 40014 || errcode == 42001
}

const (
	queryChanged = "something between this server and WeChat changes the query"
	tokenRefused = "access token refused: it is void, superseded or another account's. " +
		"Look for a process that forces refreshes, and at the token file if there is one"
	malformed = "request malformed on its way: something between this server and WeChat " +
		"changes it, or the base URL is wrong"
)

// errcodes lists the class and the meaning of each known errcode, with the
// operator's cure where there is one (docs/wechat.md#errcodes).
var errcodes = map[int]struct {
	class   Class
	meaning string
}{
	systemBusy: {ClassUnavailable, "WeChat is busy"},
	1005: {ClassMisconfigured, "the code belongs to another plugin: " +
		"compare the plugin's appid with the configured one"},
	1007:  {ClassCodeInvalid, "code wrong, expired or not one of wx.pluginLogin: no openpid"},
	40001: {ClassMisconfigured, tokenRefused},
	40002: {ClassMisconfigured, malformed},
	40003: {ClassMisconfigured, "openid unknown to this account: " +
		"the access token may be that of another mini program"},
	40013: {ClassMisconfigured, "appid invalid: " +
		"look for a typing error, a stray space or a cut-off appid in the configuration"},
	40014: {ClassMisconfigured, tokenRefused},
	40029: {ClassCodeInvalid, "code wrong, expired, of another appid or of another kind: " +
		"codes of wx.login, getPhoneNumber and wx.pluginLogin are not interchangeable. " +
		"If every one fails, compare the appid of the client project with the configured one"},
	40066: {ClassMisconfigured, malformed},
	40090: {ClassMisconfigured, "the mini program is managed by a third-party platform: " +
		"take out its app line, so that the gate logs users in through the component"},
	40094: {ClassMisconfigured, "component_access_token and component appid do not match"},
	40097: {ClassMisconfigured, malformed},
	secretInvalid: {ClassMisconfigured, "AppSecret invalid: " +
		"it is wrong or was reset in the WeChat console; configure the current one"},
	40163: {ClassCodeUsed, "code already used: each wx.login code can be exchanged once"},
	ipNotListed: {ClassMisconfigured, "this server's IP is not whitelisted: " +
		"add its egress IP to the API IP whitelist in the WeChat console"},
	40226: {ClassUserBlocked, "WeChat blocks this user as high-risk"},
	40243: {ClassMisconfigured, "AppSecret frozen: unfreeze or reset it in the WeChat console"},
	41001: {ClassMisconfigured, "access token missing in the request: " + queryChanged +
		", or a cloud-hosting token is sent under the name of an ordinary one"},
	41002: {ClassMisconfigured, "appid missing in the request: " + queryChanged},
	41004: {ClassMisconfigured, "AppSecret missing in the request: " + queryChanged},
	41008: {ClassMisconfigured, "code missing in the request: " + queryChanged},
	41018: {ClassMisconfigured, "component appid missing in the request: " + queryChanged},
	41021: {ClassMisconfigured, "component_access_token missing in the request: " + queryChanged},
	42001: {ClassMisconfigured, tokenRefused},
	43001: {ClassMisconfigured, malformed},
	43002: {ClassMisconfigured, malformed},
	44002: {ClassMisconfigured, malformed},
	dailyQuota: {ClassRateLimited, "daily API quota used up " +
		"until midnight Beijing time: the WeChat console can reset it ten times a month"},
	45011: {ClassRateLimited, "too many calls this minute"},
	47001: {ClassMisconfigured, malformed},
	48001: {ClassMisconfigured, "API not authorised for this account: " +
		"check its permissions in the WeChat console, and send nothing that carries a token " +
		"or secret of its own through a cloud-hosting open-API service"},
	50001: {ClassUserBlocked, "the user has not authorised this API"},
	50002: {ClassUserBlocked, "the user is limited: account frozen or cancelled"},
	61003: {ClassUnauthorized, "the mini program has not authorised this third-party platform"},
	ipUnregistered: {ClassMisconfigured, "this server's IP is not on the whitelist of the " +
		"third-party platform: add its egress IP there, on the WeChat Open Platform"},
	61005: {ClassNoTicket, "component_verify_ticket expired: the next push brings another"},
	61006: {ClassNoTicket, "component_verify_ticket invalid, or another platform's: " +
		"the next push brings another"},
	61007: {ClassMisconfigured, "the mini program has not granted this API to the " +
		"third-party platform: it authorises again, with more permission sets"},
	61009: {ClassRejected, "authorization_code invalid or used"},
	61010: {ClassRejected, "authorization_code expired"},
	61011: {ClassMisconfigured, "the third-party platform is invalid: compare its appid"},
	61014: {ClassMisconfigured, "token of another kind: a component's for a mini program's"},
	refreshInvalid: {ClassRejected, "refresh token of the mini program invalid: " +
		"it has withdrawn, or authorised again"},
	61024: {ClassMisconfigured, "the appid is a third-party platform's, not a mini program's: " +
		"configure it with the word component"},
	87009: {ClassKeyStale, "signature refused: the session_key is not the user's current one"},
	89002: {ClassMisconfigured, "no unionid: " +
		"bind the mini program to a WeChat Open Platform account"},
	89300: {ClassOrderInvalid, "no such order of this user, or paid more than 5 minutes ago"},
	89503: {ClassMisconfigured, "this server's IP waits for the administrator's confirmation " +
		"in the WeChat console"},
}

// explain returns the class and the meaning of an errcode.
func explain(errcode int) (Class, string) {
	if e, ok := errcodes[errcode]; ok {
		return e.class, e.meaning
	}
	return ClassRejected, "refused for a reason not known here: see WeChat's list of return codes"
}
