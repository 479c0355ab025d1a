package caddymodule

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// problem is an answer of the gate that is not what the client hoped for: RFC 9457 with a stable code (DESIGN.md 3). It never tells the cause; that goes to the log.
type problem struct {
	status     int
	code       string
	detail     string        // constant text for the client's developer
	challenge  string        // error parameter of WWW-Authenticate on a 401 (RFC 6750, section 3)
	allow      string        // method that a 405 would have liked
	retryAfter time.Duration // 0: none
	loginAgain bool          // a new wx.login will probably help
}

// The problems. A variable of this list is never changed; those that need a detail are copied.
var (
	probMissing     = problem{status: 401, code: "session_missing", detail: "this route needs a 3rd_session token: call wx.login and POST its code to the login endpoint"}
	probInvalid     = problem{status: 401, code: "session_invalid", detail: "the 3rd_session token opens nothing: call wx.login again", challenge: "invalid_token"}
	probAmbiguous   = problem{status: 400, code: "ambiguous_credentials", detail: "the request carries two different tokens"}
	probOtherApp    = problem{status: 403, code: "app_not_allowed", detail: "this site does not serve that mini program"}
	probCodeInvalid = problem{status: 401, code: "code_invalid", detail: "WeChat does not accept the code: call wx.login again", challenge: "invalid_token"}
	probCodeUsed    = problem{status: 401, code: "code_used", detail: "the code was used before: call wx.login again", challenge: "invalid_token"}
	probBlocked     = problem{status: 403, code: "user_blocked", detail: "WeChat does not let this user log in"}
	probLimited     = problem{status: 429, code: "rate_limited", detail: "too many logins: try again later", retryAfter: time.Minute}
	probMisconfig   = problem{status: 502, code: "misconfigured", detail: "the server cannot log anybody in; its operator has been told why"}
	probWeChatDown  = problem{status: 503, code: "wechat_unavailable", detail: "WeChat does not answer: try again later", retryAfter: 2 * time.Second}
	probStoreDown   = problem{status: 503, code: "store_unavailable", detail: "the session store does not answer: try again later; the token stays good", retryAfter: time.Second}
	probData        = problem{status: 422, code: "data_invalid", detail: "the data is not what WeChat has sealed for this user"}
	probNotFound    = problem{status: 404, code: "not_found", detail: "there is no such endpoint"}
	probTrailer     = invalidRequest(400, "a trailer under a reserved name")
)

// Error makes a problem an error, so that it can be returned from where it is found.
func (p problem) Error() string { return p.code + ": " + p.detail }

// level is how loud the log tells a refusal. What the operator has to mend is an error; an outage has a line of its own, and here it would have one for each client that tries.
func (p problem) level() zapcore.Level {
	switch {
	case p.status == http.StatusServiceUnavailable:
		return zap.DebugLevel
	case p.status >= http.StatusInternalServerError:
		return zap.ErrorLevel
	}
	return zap.InfoLevel
}

// invalidRequest is a malformed call.
func invalidRequest(status int, detail string) problem {
	return problem{status: status, code: "invalid_request", detail: detail}
}

// write sends the problem.
func (p problem) write(w http.ResponseWriter) error {
	h := w.Header()
	if p.status == http.StatusUnauthorized {
		challenge := `Bearer realm="wxgate"`
		if p.challenge != "" {
			challenge += `, error="` + p.challenge + `"`
		}
		h.Set("WWW-Authenticate", challenge)
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.retryAfter.Seconds()))))
	}
	return answer(w, p.status, "application/problem+json", struct {
		Type       string `json:"type"`
		Title      string `json:"title"`
		Status     int    `json:"status"`
		Code       string `json:"code"`
		Detail     string `json:"detail"`
		LoginAgain bool   `json:"login_again,omitempty"`
	}{"about:blank", http.StatusText(p.status), p.status, p.code, p.detail, p.loginAgain})
}

// answer sends a JSON body with the headers that every answer of the gate carries.
func answer(w http.ResponseWriter, status int, contentType string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return send(w, status, contentType, b)
}

// send is answer for a body that is written already.
func send(w http.ResponseWriter, status int, contentType string, b []byte) error {
	mark(w.Header())
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) // a client that has left is no failure of ours
	return nil
}

// mark says that the gate, not the app, answers.
func mark(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set(markHeader, "1")
}

const markHeader = "X-Wxgate"
