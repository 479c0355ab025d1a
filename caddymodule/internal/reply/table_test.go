package reply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// TestFor_ErrorByCall_Problem holds the table of docs/design.md from an error to
// what the caller is told: Login, OwnData, ForUser, Relay.
func TestFor_ErrorByCall_Problem(t *testing.T) {
	const again = true
	answer := func(c weixin.Class) error { return fmt.Errorf("call: %w", &weixin.Error{Class: c}) }
	for _, c := range []struct {
		err   error
		want  [4]string // status and code
		again bool
	}{
		{answer(weixin.ClassCodeInvalid), [4]string{
			"401 code_invalid", "422 code_invalid", "422 code_invalid", "503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassCodeUsed), [4]string{
			"401 code_used", "422 code_invalid", "422 code_invalid", "503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassUserBlocked), [4]string{
			"403 user_blocked", "403 user_blocked", "403 user_blocked", "503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassRateLimited), [4]string{
			"429 rate_limited", "429 rate_limited", "429 rate_limited", "503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassMisconfigured), same("502 misconfigured"), false},
		{answer(weixin.ClassRejected), same("502 misconfigured"), false},
		{answer(weixin.ClassKeyStale), [4]string{
			"502 misconfigured", "502 misconfigured", "409 session_key_stale",
			"503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassOrderInvalid), [4]string{
			"502 misconfigured", "502 misconfigured", "422 order_invalid",
			"503 wechat_unavailable",
		}, false},
		{answer(weixin.ClassUnavailable), same("503 wechat_unavailable"), false},
		{answer(weixin.ClassProtocol), same("503 wechat_unavailable"), false},
		{answer(weixin.ClassCanceled), [4]string{
			"503 wechat_unavailable", "503 wechat_unavailable", "503 wechat_unavailable",
			"400 invalid_request",
		}, false},
		{session.ErrUnknownApp, same("403 app_not_allowed"), false},
		{session.ErrBlocked, same("403 user_blocked"), false},
		{session.ErrUnavailable, same("503 store_unavailable"), false},
		{session.ErrExpired, same("401 session_invalid"), false},
		{session.ErrUnknown, same("401 session_invalid"), false},
		{fmt.Errorf("opening data: %w", session.ErrUnknownUser), [4]string{
			"401 session_invalid", "401 session_invalid", "404 user_unknown",
			"401 session_invalid",
		}, false},
		{&session.DataError{}, same("422 data_invalid"), false},
		{&session.DataError{LoginAgain: true, Reason: "iv"}, same("422 data_invalid"), again},
		{Invalid(413, "the body is longer than 9 bytes"), same("413 invalid_request"), false},
		{TooMany(time.Second), same("429 rate_limited"), false},
		{errors.New("anything else"), [4]string{
			"503 store_unavailable", "503 store_unavailable", "503 store_unavailable",
			"503 wechat_unavailable",
		}, false},
	} {
		for call, want := range c.want {
			p := For(Call(call), c.err)
			if got := fmt.Sprint(p.Status, " ", p.Code); got != want {
				t.Errorf("%v, call %d: %s, want %s", c.err, call, got, want)
			}
			stale := p.Code == "session_key_stale"
			if p.LoginAgain != (c.again || stale) {
				t.Errorf("%v, call %d: login again %v", c.err, call, p.LoginAgain)
			}
			if waits := p.Status == 429 || p.Status == 503; waits != (p.RetryAfter > 0) {
				t.Errorf("%v, call %d: %d with Retry-After %s", c.err, call, p.Status, p.RetryAfter)
			}
			if Call(call) != ForUser { // an app knows openids
				checkDetail(t, p.Detail)
			}
		}
	}
}

func same(want string) [4]string { return [4]string{want, want, want, want} }

// TestCause_ClientLeft_IsNotTheStore: a client who leaves tells nothing of the store.
func TestCause_ClientLeft_IsNotTheStore(t *testing.T) {
	for _, tt := range []struct {
		err  error
		says string
	}{
		{fmt.Errorf("waiting: %w: %w", session.ErrUnavailable, context.Canceled), "client left"},
		{errors.Join(session.ErrUnavailable, context.Canceled), "client left"},
		{errors.Join(session.ErrUnavailable, context.DeadlineExceeded), "unavailable"},
		{session.ErrUnavailable, "unavailable"},
	} {
		if got := Cause(tt.err).Error(); !strings.Contains(got, tt.says) {
			t.Errorf("%v: %q", tt.err, got)
		}
	}
}
