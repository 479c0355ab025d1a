// Package reply owns the JSON bodies that the gate reads and writes itself: the
// problems (RFC 9457) with their stable codes, the one table that turns an error
// into a problem, and the small reader of request bodies.
//
// It must not know Caddy, configuration, or which route asks. Nothing in it logs:
// a problem never carries its cause, which [Cause] gives to the caller's log.
package reply

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Problem is an RFC 9457 error response with a stable code.
type Problem struct {
	ID         string // of this one answer; Write makes one where it is empty
	Status     int
	Code       string
	Detail     string        // constant text for the client's developer
	Challenge  string        // error parameter of WWW-Authenticate on a 401 (RFC 6750, 3)
	Allow      string        // the method that a 405 asks for
	RetryAfter time.Duration // 0: no Retry-After
	LoginAgain bool          // a new wx.login probably helps
	Wafer      bool          // Wafer 1 reads the mark that makes it log in again
}

// The problems. Copy one to change its detail; never change a variable.
var (
	SessionMissing = Problem{
		Status: 401, Code: "session_missing",
		Detail: "this route needs a 3rd_session token: " +
			"call wx.login and POST its code to the login endpoint",
	}
	SessionInvalid = Problem{
		Status: 401, Code: "session_invalid", Challenge: "invalid_token",
		Detail: "the 3rd_session token is not valid: call wx.login again",
	}
	Ambiguous = Problem{
		Status: 400, Code: "ambiguous_credentials",
		Detail: "the request carries two different tokens",
	}
	OtherApp = Problem{
		Status: 403, Code: "app_not_allowed",
		Detail: "this site does not serve that mini program",
	}
	CodeInvalid = Problem{
		Status: 401, Code: "code_invalid", Challenge: "invalid_token",
		Detail: "WeChat does not accept the code: call wx.login again",
	}
	CodeUsed = Problem{
		Status: 401, Code: "code_used", Challenge: "invalid_token",
		Detail: "the code was used before: call wx.login again",
	}
	CodeRefused = Problem{
		Status: 422, Code: "code_invalid",
		Detail: "WeChat does not accept the code: " +
			"it is wrong, used, older than 5 minutes or of another kind",
	}
	UserBlocked = Problem{
		Status: 403, Code: "user_blocked",
		Detail: "WeChat does not let this user log in",
	}
	UserUnknown = Problem{
		Status: 404, Code: "user_unknown",
		Detail: "no user with this openid has logged in to this mini program here",
	}
	KeyStale = Problem{
		Status: 409, Code: "session_key_stale", LoginAgain: true,
		Detail: "WeChat has replaced the session_key of this user: the user has to log in again",
	}
	OrderInvalid = Problem{
		Status: 422, Code: "order_invalid",
		Detail: "WeChat knows no such payment of this user within the last 5 minutes",
	}
	DataInvalid = Problem{
		Status: 422, Code: "data_invalid",
		Detail: "WeChat did not seal this data for this user",
	}
	RateLimited = Problem{
		Status: 429, Code: "rate_limited", RetryAfter: time.Minute,
		Detail: "too many logins: try again later",
	}
	Misconfigured = Problem{
		Status: 502, Code: "misconfigured",
		Detail: "the server cannot log users in; its log tells the operator why",
	}
	WeChatDown = Problem{
		Status: 503, Code: "wechat_unavailable", RetryAfter: 2 * time.Second,
		Detail: "WeChat does not answer: try again later",
	}
	StoreDown = Problem{
		Status: 503, Code: "store_unavailable", RetryAfter: time.Second,
		Detail: "the session store does not answer: try again later; the token stays valid",
	}
	NotFound   = Problem{Status: 404, Code: "not_found", Detail: "there is no such endpoint"}
	BadTrailer = Invalid(400, "a trailer under a reserved name")
	BodyBroken = Invalid(400, "the body could not be read to its end")
)

// NotServed returns OtherApp with the AppID that it is about.
func NotServed(appID string) Problem {
	return with(OtherApp, "this site does not serve the mini program "+appID)
}

// Invalid returns the problem of a malformed call.
func Invalid(status int, detail string) Problem {
	return Problem{Status: status, Code: "invalid_request", Detail: detail}
}

// MethodNotAllowed returns the problem of a call that needs another method.
func MethodNotAllowed(allow, detail string) Problem {
	p := Invalid(http.StatusMethodNotAllowed, detail)
	p.Allow = allow
	return p
}

// TooMany returns the problem of a user who has reached a rate limit.
func TooMany(wait time.Duration) Problem {
	p := RateLimited
	p.Detail, p.RetryAfter = "too many calls of this kind: try again later", wait
	return p
}

// NewID returns the id of an answer: the client's report and the operator's log line
// have it in common.
func NewID() string { return rand.Text()[:10] }

// Is reports whether a problem is another, whatever their details.
func (p Problem) Is(target error) bool {
	other, ok := target.(Problem)
	return ok && p.Status == other.Status && p.Code == other.Code
}

// Error makes a Problem an error, so that a function can return it where it
// finds it.
func (p Problem) Error() string { return p.Code + ": " + p.Detail }

// Level returns how loud the log tells a refusal. A fault that the operator has
// to mend is an error. An outage has a log line of its own; a line for each
// request that it refuses would flood the log.
func (p Problem) Level() zapcore.Level {
	switch {
	case p.Status == http.StatusServiceUnavailable:
		return zap.DebugLevel
	case p.Status >= http.StatusInternalServerError:
		return zap.ErrorLevel
	}
	return zap.InfoLevel
}

// Write sends the problem, whatever the client still sends.
func (p Problem) Write(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	if p.ID == "" {
		p.ID = NewID()
	}
	if p.Status == http.StatusUnauthorized {
		challenge := `Bearer realm="wxgate"`
		if p.Challenge != "" {
			challenge += `, error="` + p.Challenge + `"`
		}
		h.Set("WWW-Authenticate", challenge)
	}
	if p.Allow != "" {
		h.Set("Allow", p.Allow)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // a detail may name <3rd_session>
	mark, reason := 0, ""
	if p.Wafer {
		mark, reason = 1, "ERR_INVALID_SESSION"
	}
	err := enc.Encode(struct {
		Type       string `json:"type"`
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Code       string `json:"code"`
		Detail     string `json:"detail"`
		ID         string `json:"id"`
		LoginAgain bool   `json:"login_again,omitempty"`
		WaferMark  int    `json:"F2C224D4-2BCE-4C64-AF9F-A6D872000D1A,omitempty"`
		WaferError string `json:"error,omitempty"`
	}{
		"about:blank", http.StatusText(p.Status), p.Status, p.Code, p.Detail, p.ID, p.LoginAgain,
		mark, reason,
	})
	if err != nil {
		return err
	}
	return send(w, r, p.Status, "application/problem+json", bytes.TrimRight(body.Bytes(), "\n"))
}

// JSON sends a value as the body of an answer with status 200.
func JSON(w http.ResponseWriter, r *http.Request, body any) error {
	return JSONStatus(w, r, http.StatusOK, body)
}

// JSONStatus is JSON with another status.
func JSONStatus(w http.ResponseWriter, r *http.Request, status int, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return send(w, r, status, "application/json", b)
}

// Raw sends a JSON body byte for byte with status 200.
func Raw(w http.ResponseWriter, r *http.Request, b []byte) error {
	return send(w, r, http.StatusOK, "application/json", b)
}

// Text sends a plain text with status 200.
func Text(w http.ResponseWriter, r *http.Request, text string) error {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return send(w, r, http.StatusOK, "text/plain; charset=utf-8", []byte(text))
}

// OK sends an empty answer with status 200.
func OK(w http.ResponseWriter, r *http.Request) error {
	return send(w, r, http.StatusOK, "", nil)
}

// Cacheable sends a JSON body that anyone may keep for some time.
func Cacheable(w http.ResponseWriter, r *http.Request, b []byte, age time.Duration) error {
	return sendKept(w, r, http.StatusOK, "application/json", b,
		"public, max-age="+strconv.Itoa(int(age.Seconds())))
}

// NoContent sends an empty answer with status 204.
func NoContent(w http.ResponseWriter, r *http.Request) error {
	return send(w, r, http.StatusNoContent, "", nil)
}

// send sends an answer before the rest of the request's body has come (P11).
func send(w http.ResponseWriter, r *http.Request, status int, contentType string, b []byte) error {
	return sendKept(w, r, status, contentType, b, "no-store")
}

// sendKept is send of an answer that caches may keep.
func sendKept(
	w http.ResponseWriter, r *http.Request, status int, contentType string, b []byte, keep string,
) error {
	h := w.Header()
	// One array for all; the capacities keep an Add out of the neighbour.
	values := [...]string{keep, "1", contentType, strconv.Itoa(len(b))}
	h["Cache-Control"], h[MarkHeader] = values[0:1:1], values[1:2:2]
	if contentType != "" {
		h["Content-Type"] = values[2:3:3]
	}
	if status != http.StatusNoContent {
		h["Content-Length"] = values[3:4:4]
	}
	whileDropping(w, r, func() {
		w.WriteHeader(status)
		w.Write(b) // an error means that the client has left
	})
	return nil
}

// MarkHeader tells a client that the gate, not the app, answers.
const MarkHeader = "X-Wxgate"

// Mark sets the headers that every answer of the gate carries.
func Mark(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set(MarkHeader, "1")
}
