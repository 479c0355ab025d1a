package weixin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// oddToken has another form in a query.
const oddToken = "canary/+t="

func oddClient(t *testing.T) *weixin.Client {
	return serve(t, reply(200, `{"access_token":"`+oddToken+`","expires_in":7200}`))
}

// A 5xx with an errcode is WeChat's answer; a 5xx without one is an error.
func TestRelay_ServerError_NeedsAnErrcode(t *testing.T) {
	for _, tt := range []struct {
		name, body   string
		own, refused bool
	}{
		{"another errcode", `{"errcode":-1,"errmsg":"system error"}`, true, false},
		{"unknown errcode", `{"errcode":"99999"}`, true, false},
		{"errcode of success", `{"errcode":0}`, true, false},
		{"token refused", refusedBody, true, true},
		{"no errcode", `{"error":"busy"}`, false, false},
		{"nothing for an errcode", `{"errcode":null}`, false, false},
		{"malformed errcode", `{"errcode":"x"}`, false, false},
		{"cut off", `{"errcode":40001`, false, false},
		{"too long", `{"errcode":-1,"errmsg":"` + strings.Repeat("x", 5000) + `"}`, false, false},
		{"page", "<html>", false, false},
		{"nothing", "", false, false},
	} {
		var tokens atomic.Int32
		c := serve(t, tokenServer(&tokens))
		got, err := answered(t.Context(), c, response(503, strings.NewReader(tt.body), -1))
		if !tt.own {
			wantClass(t, err, weixin.ClassUnavailable)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		b, err := io.ReadAll(got.Body)
		if string(b) != tt.body || err != nil || got.StatusCode != 503 {
			t.Errorf("%s: %d %q, %v", tt.name, got.StatusCode, b, err)
		}
		if (got.Refused != nil) != tt.refused {
			t.Errorf("%s: refused %v", tt.name, got.Refused)
		}
	}
}

// Neither the caller nor the log sees a token that a server echoes.
func TestP6_Relay_EchoedToken_IsAnError(t *testing.T) {
	const escaped = "canary%2F%2Bt%3D"
	c := oddClient(t)
	for _, tt := range []struct {
		name   string
		status int
		body   string
		shown  bool
	}{
		{"JSON", 200, `{"you":"sent ` + oddToken + `"}`, true},
		{"JSON, a query", 200, ` {"url":"/wxa/x?access_token=` + escaped + `"}`, true},
		{"JSON, a slash escaped", 200, `{"t":"canary\/+t="}`, true},
		{"JSON, a plus escaped", 200, `{"t":"canary/\u002bt\u003D"}`, true},
		{"an array", 200, `["` + oddToken + `"]`, true},
		{"a page", 200, "<html>" + escaped, true},
		{"an error", 404, "no " + escaped + " here", true},
		{"a long error", 404, oddToken + strings.Repeat("x", 5000), true},
		{"a server's error", 500, oddToken, true},
		{"with an errcode", 500, `{"errcode":-1,"errmsg":"` + oddToken + `"}`, true},
		{"refused with it", 200, `{"errcode":40001,"errmsg":"` + oddToken + `"}`, true},
		{"something else", 200, `{"you":"sent canary"}`, false},
		{"another error", 404, "canary", false},
	} {
		for _, length := range []int64{-1, int64(len(tt.body))} {
			body := strings.NewReader(tt.body)
			got, err := answered(t.Context(), c, response(tt.status, body, length))
			if !tt.shown {
				if b, _ := io.ReadAll(got.Body); string(b) != tt.body || err != nil {
					t.Errorf("%s: %q, %v", tt.name, b, err)
				}
				continue
			}
			if err == nil {
				t.Errorf("%s: comes through", tt.name)
				continue
			}
			class := asError(t, err).Class
			if class != weixin.ClassProtocol && class != weixin.ClassUnavailable ||
				!strings.Contains(err.Error(), "shows the access token") ||
				strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}

	trailer := http.Header{"X-Echo": {oddToken}}
	r := response(200, strings.NewReader("{}"), -1)
	r.Trailer = trailer
	r.Header["X-Echo"] = []string{"a", oddToken}
	r.Header["Location"] = []string{"/?" + escaped}
	r.Header["X-Other"] = []string{"canary"}
	got, err := answered(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Trailer) > 0 || len(got.Header) != 1 || len(trailer) != 1 {
		t.Errorf("the caller gets the trailer %v and the header %v", got.Trailer, got.Header)
	}
}

// No other trace gets 1xx answers; the rest of the context stays.
func TestRelay_ForeignTrace_IsHidden(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "kept")
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			t.Error("got a 1xx answer")
			return nil
		},
		GotConn: func(httptrace.GotConnInfo) { t.Error("got a connection") },
	})
	if _, err := oddClient(t).Relay(roundTripper(func(r *http.Request) (*http.Response, error) {
		trace := httptrace.ContextClientTrace(r.Context())
		if trace.GotConn(httptrace.GotConnInfo{}); trace.Got1xxResponse != nil {
			trace.Got1xxResponse(103, nil)
		}
		if r.Context().Value(key{}) != "kept" {
			t.Error("the context has lost a value")
		}
		return response(200, strings.NewReader("{}"), -1), nil
	}), testApp, relayCall(ctx, "", false)); err != nil {
		t.Fatal(err)
	}
}

// net/http's error for a broken answer may quote it; the reader's does not.
func TestP6_Relay_BrokenAnswer_IsNotQuoted(t *testing.T) {
	c := oddClient(t)
	leak := textproto.ProtocolError("malformed MIME header: missing colon: \"" + oddToken + "\"")
	for _, start := range []string{"{", "\xff\xd8"} {
		for name, tt := range map[string]struct{ err, is error }{
			"malformed": {leak, nil},
			"truncated": {fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, leak), io.ErrUnexpectedEOF},
		} {
			body := io.MultiReader(strings.NewReader(start), iotest.ErrReader(tt.err))
			got, err := answered(t.Context(), c, response(200, body, -1))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(got.Body)
			e := asError(t, err)
			if string(b) != start || strings.Contains(e.Error(), "canary") || e.Op == "" ||
				tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := io.MultiReader(strings.NewReader("\xff"), iotest.ErrReader(leak))
	got, err := answered(ctx, c, response(200, body, -1))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if b, err := io.ReadAll(got.Body); string(b) != "\xff" || err != context.Canceled {
		t.Errorf("the caller has gone: %q, %v", b, err)
	}
}
