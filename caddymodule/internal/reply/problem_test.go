package reply

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestProblemWireForm is the table of codes in docs/design.md#wire, as bytes.
func TestProblemWireForm(t *testing.T) {
	limited := RateLimited
	limited.RetryAfter = 1500 * time.Millisecond
	method := MethodNotAllowed("POST", "call it with POST")
	again, ids := DataInvalid, make(map[string]bool)
	again.LoginAgain = true
	for _, c := range []struct {
		problem                      Problem
		status                       int
		code                         string
		challenge, allow, retryAfter string
	}{
		{SessionMissing, 401, "session_missing", `Bearer realm="wxgate"`, "", ""},
		{
			SessionInvalid, 401, "session_invalid", `Bearer realm="wxgate", error="invalid_token"`,
			"", "",
		},
		{Ambiguous, 400, "ambiguous_credentials", "", "", ""},
		{OtherApp, 403, "app_not_allowed", "", "", ""},
		{CodeInvalid, 401, "code_invalid", `Bearer realm="wxgate", error="invalid_token"`, "", ""},
		{CodeUsed, 401, "code_used", `Bearer realm="wxgate", error="invalid_token"`, "", ""},
		{UserBlocked, 403, "user_blocked", "", "", ""},
		{RateLimited, 429, "rate_limited", "", "", "60"},
		{limited, 429, "rate_limited", "", "", "2"},
		{Misconfigured, 502, "misconfigured", "", "", ""},
		{WeChatDown, 503, "wechat_unavailable", "", "", "2"},
		{StoreDown, 503, "store_unavailable", "", "", "1"},
		{NotFound, 404, "not_found", "", "", ""},
		{BadTrailer, 400, "invalid_request", "", "", ""},
		{method, 405, "invalid_request", "", "POST", ""},
		{Invalid(413, "too long"), 413, "invalid_request", "", "", ""},
		{Invalid(415, "compressed"), 415, "invalid_request", "", "", ""},
		{DataInvalid, 422, "data_invalid", "", "", ""},
		{again, 422, "data_invalid", "", "", ""},
		{TooMany(90 * time.Second), 429, "rate_limited", "", "", "90"},
	} {
		t.Run(fmt.Sprint(c.code, c.status), func(t *testing.T) {
			rec := httptest.NewRecorder()
			if err := c.problem.Write(rec, httptest.NewRequest("GET", "/", nil)); err != nil {
				t.Fatal(err)
			}
			if rec.Code != c.status {
				t.Errorf("status %d, want %d", rec.Code, c.status)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/problem+json", "Cache-Control": "no-store",
				"X-Wxgate": "1", "Content-Length": fmt.Sprint(rec.Body.Len()),
				"Www-Authenticate": c.challenge, "Allow": c.allow, "Retry-After": c.retryAfter,
			} {
				if got := rec.Header()[name]; strings.Join(got, "|") != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			var body map[string]any
			if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			if body["code"] != c.code || body["status"] != float64(c.status) ||
				body["type"] != "about:blank" || body["title"] == "" || body["detail"] == "" {
				t.Errorf("body %v", body)
			}
			if again, told := body["login_again"]; told != c.problem.LoginAgain ||
				told && (again != true || len(body) != 7) || !told && len(body) != 6 {
				t.Errorf("body %v", body)
			}
			checkDetail(t, body["detail"].(string))
			id, _ := body["id"].(string)
			if len(id) != 10 || ids[id] {
				t.Errorf("id %q is malformed or that of another problem", id)
			}
			ids[id] = true
		})
	}
}

// internals are words that a client has no business with.
var internals = regexp.MustCompile(
	`(?i)[{}%]|\b(bolt|redis|ristretto|cache|errcode|digest|hmac|appsecret|session_key|caddy|` +
		`panic|nil|goroutine|openid|unionid|forged|expired|revoked|unknown)\b|/(var|` +
		`etc|run)/|\.go\b`,
)

func checkDetail(t *testing.T, detail string) {
	t.Helper()
	if hit := internals.FindString(detail); hit != "" {
		t.Errorf("detail %q tells of %q", detail, hit)
	}
}

// TestP4_OutageIsNotLoggedByTheRequest: what keeps every client from logging in
// is told once, by whoever notices it, and not by each of them.
func TestP4_OutageIsNotLoggedByTheRequest(t *testing.T) {
	for status, want := range map[int]zapcore.Level{
		401: zap.InfoLevel, 422: zap.InfoLevel, 429: zap.InfoLevel, 500: zap.ErrorLevel,
		502: zap.ErrorLevel, 503: zap.DebugLevel,
	} {
		if got := (Problem{Status: status}).Level(); got != want {
			t.Errorf("%d is told at level %s, want %s", status, got, want)
		}
	}
}
