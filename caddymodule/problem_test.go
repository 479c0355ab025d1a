package caddymodule

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

// TestProblemWireForm is the table of codes in DESIGN.md 3, as bytes.
func TestProblemWireForm(t *testing.T) {
	limited := probLimited
	limited.retryAfter = 1500 * time.Millisecond
	method := invalidRequest(405, "call it with POST")
	method.allow = "POST"
	again := probData
	again.loginAgain = true
	for _, c := range []struct {
		problem                      problem
		status                       int
		code                         string
		challenge, allow, retryAfter string
	}{
		{probMissing, 401, "session_missing", `Bearer realm="wxgate"`, "", ""},
		{probInvalid, 401, "session_invalid", `Bearer realm="wxgate", error="invalid_token"`, "", ""},
		{probAmbiguous, 400, "ambiguous_credentials", "", "", ""},
		{probOtherApp, 403, "app_not_allowed", "", "", ""},
		{probCodeInvalid, 401, "code_invalid", `Bearer realm="wxgate", error="invalid_token"`, "", ""},
		{probCodeUsed, 401, "code_used", `Bearer realm="wxgate", error="invalid_token"`, "", ""},
		{probBlocked, 403, "user_blocked", "", "", ""},
		{probLimited, 429, "rate_limited", "", "", "60"},
		{limited, 429, "rate_limited", "", "", "2"},
		{probMisconfig, 502, "misconfigured", "", "", ""},
		{probWeChatDown, 503, "wechat_unavailable", "", "", "2"},
		{probStoreDown, 503, "store_unavailable", "", "", "1"},
		{probNotFound, 404, "not_found", "", "", ""},
		{probTrailer, 400, "invalid_request", "", "", ""},
		{method, 405, "invalid_request", "", "POST", ""},
		{invalidRequest(413, "too long"), 413, "invalid_request", "", "", ""},
		{invalidRequest(415, "compressed"), 415, "invalid_request", "", "", ""},
		{probData, 422, "data_invalid", "", "", ""},
		{again, 422, "data_invalid", "", "", ""},
		{tooMany(90 * time.Second), 429, "rate_limited", "", "", "90"},
	} {
		t.Run(fmt.Sprint(c.code, c.status), func(t *testing.T) {
			rec := httptest.NewRecorder()
			if err := c.problem.write(rec); err != nil {
				t.Fatal(err)
			}
			if rec.Code != c.status {
				t.Errorf("status %d, want %d", rec.Code, c.status)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Wxgate": "1", "Content-Length": fmt.Sprint(rec.Body.Len()),
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
			if body["code"] != c.code || body["status"] != float64(c.status) || body["type"] != "about:blank" || body["title"] == "" || body["detail"] == "" {
				t.Errorf("body %v", body)
			}
			if again, told := body["login_again"]; told != c.problem.loginAgain || told && (again != true || len(body) != 6) || !told && len(body) != 5 {
				t.Errorf("body %v", body)
			}
			checkDetail(t, body["detail"].(string))
		})
	}
}

// internals are words that a client has no business with.
var internals = regexp.MustCompile(`(?i)[{}%]|\b(bolt|redis|ristretto|cache|errcode|digest|hmac|appsecret|session_key|caddy|panic|nil|goroutine|openid|unionid|forged|expired|revoked|unknown)\b|/(var|etc|run)/|\.go\b`)

func checkDetail(t *testing.T, detail string) {
	t.Helper()
	if hit := internals.FindString(detail); hit != "" {
		t.Errorf("detail %q tells of %q", detail, hit)
	}
}

// TestThreat22_OneAnswerForAllReasons: malformed, forged, unknown, expired and revoked tokens cannot be told apart by the answer; TestDecisions holds that they all get this one.
func TestThreat22_OneAnswerForAllReasons(t *testing.T) {
	w := newWorld(t, &Gate{}).start()
	gone := w.token(appID, "gone")
	if err := w.app.live.Load().sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, token := range []string{"wxs_short", madeUp, gone, w.tokenFor(appID, "late", -time.Minute)} {
		r, rec := request("GET", "/", token)
		if err := w.gate.ServeHTTP(rec, r, new(next)); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(rec.Code, rec.Header(), rec.Body)
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("%s\ndiffers from\n%s", got, first)
		}
	}
}

// TestP4_OutageIsNotLoggedByTheRequest: what keeps every client from logging in is told once, by whoever notices it, and not by each of them.
func TestP4_OutageIsNotLoggedByTheRequest(t *testing.T) {
	for status, want := range map[int]zapcore.Level{401: zap.InfoLevel, 422: zap.InfoLevel, 429: zap.InfoLevel, 500: zap.ErrorLevel, 502: zap.ErrorLevel, 503: zap.DebugLevel} {
		if got := (problem{status: status}).level(); got != want {
			t.Errorf("%d is told at level %s, want %s", status, got, want)
		}
	}
}
