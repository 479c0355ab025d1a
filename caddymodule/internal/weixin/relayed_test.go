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

// oddToken is one whose form in a query is another.
const oddToken = "canary/+t="

func oddClient(t *testing.T) *weixin.Client {
	return serve(t, reply(200, `{"access_token":"`+oddToken+`","expires_in":7200}`))
}

// TestRelay_ServerErrors: with an errcode a 5xx is WeChat's own word, and goes the way of every other (TestRelay_RepeatsOnce); without one it is nobody's.
func TestRelay_ServerErrors(t *testing.T) {
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
		got, err := serve(t, tokenServer(&tokens)).Relay(roundTripper(func(*http.Request) (*http.Response, error) {
			return response(503, strings.NewReader(tt.body), -1), nil
		}), testApp, relayCall(t.Context(), "{}", true))
		if !tt.own {
			wantClass(t, err, weixin.ClassUnavailable)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if b, err := io.ReadAll(got.Body); string(b) != tt.body || err != nil || got.StatusCode != 503 {
			t.Errorf("%s: %d %q, %v", tt.name, got.StatusCode, b, err)
		}
		if (got.Refused != nil) != tt.refused {
			t.Errorf("%s: refused %v", tt.name, got.Refused)
		}
	}
}

// TestRelay_ShowsNoToken: whatever a server echoes, neither the caller nor the log sees a token.
func TestRelay_ShowsNoToken(t *testing.T) {
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
			got, err := c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
				return response(tt.status, strings.NewReader(tt.body), length), nil
			}), testApp, relayCall(t.Context(), "", false))
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
			if e := asError(t, err); e.Class != weixin.ClassProtocol && e.Class != weixin.ClassUnavailable || !strings.Contains(err.Error(), "shows the access token") || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}

	trailer := http.Header{"X-Echo": {oddToken}}
	got, err := c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
		r := response(200, strings.NewReader("{}"), -1)
		r.Trailer = trailer
		r.Header = http.Header{"X-Echo": {"a", oddToken}, "Location": {"/?" + escaped}, "X-Other": {"canary"}}
		return r, nil
	}), testApp, relayCall(t.Context(), "", false))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Trailer) > 0 || len(got.Header) != 1 || len(trailer) != 1 {
		t.Errorf("the caller gets the trailer %v and the header %v", got.Trailer, got.Header)
	}
}

// TestRelay_HidesTraces: nobody else hears of 1xx answers, and the rest of the context is there.
func TestRelay_HidesTraces(t *testing.T) {
	type key struct{}
	ctx := httptrace.WithClientTrace(context.WithValue(t.Context(), key{}, "kept"), &httptrace.ClientTrace{
		Got1xxResponse: func(int, textproto.MIMEHeader) error { t.Error("told of a 1xx answer"); return nil },
		GotConn:        func(httptrace.GotConnInfo) { t.Error("told of a connection") },
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

// TestRelay_BrokenAnswers: what net/http says of an answer that breaks off may quote it; what the reader is told does not.
func TestRelay_BrokenAnswers(t *testing.T) {
	c := oddClient(t)
	leak := textproto.ProtocolError("malformed MIME header: missing colon: \"" + oddToken + "\"")
	for _, start := range []string{"{", "\xff\xd8"} {
		for name, tt := range map[string]struct{ err, is error }{
			"malformed": {leak, nil},
			"truncated": {fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, leak), io.ErrUnexpectedEOF},
		} {
			got, err := c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
				return response(200, io.MultiReader(strings.NewReader(start), iotest.ErrReader(tt.err)), -1), nil
			}), testApp, relayCall(t.Context(), "", false))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(got.Body)
			if e := asError(t, err); string(b) != start || strings.Contains(e.Error(), "canary") || e.Op == "" || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, err := c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
		return response(200, io.MultiReader(strings.NewReader("\xff"), iotest.ErrReader(leak)), -1), nil
	}), testApp, relayCall(ctx, "", false))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if b, err := io.ReadAll(got.Body); string(b) != "\xff" || err != context.Canceled {
		t.Errorf("the caller has gone: %q, %v", b, err)
	}
}
