package weixin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// roundTripper carries calls to nowhere.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func response(status int, body io.Reader, length int64) *http.Response {
	return &http.Response{
		StatusCode: status, Header: make(http.Header),
		Body: io.NopCloser(body), ContentLength: length,
	}
}

// answered relays a call that cannot be repeated, whose answer is resp.
func answered(ctx context.Context, c *weixin.Client, resp *http.Response) (weixin.Relayed, error) {
	return c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
		return resp, nil
	}), testApp, relayCall(ctx, "x", false))
}

func relayCall(ctx context.Context, body string, again bool) *http.Request {
	r, err := http.NewRequestWithContext(ctx, "POST", "/wxa/x?access_token=theirs", nil)
	if err != nil {
		panic(err)
	}
	if body != "" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	if again {
		r.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(body)), nil
		}
	}
	return r
}

const refusedBody = `{"errcode":40001,"errmsg":"invalid credential, rid: 1-2-3"}`

// tokenServer answers requests for a token with t1, t2 and so on.
func tokenServer(tokens *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body := fmt.Sprintf(`{"access_token":"canary-t%d","expires_in":7200}`, tokens.Add(1))
		reply(200, body)(w, r)
	}
}

func TestRelay_RepeatsOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		status  int // of a refusal
		body    string
		again   bool
		good    string // token that WeChat takes; "" for none
		calls   int
		refused bool
	}{
		{"good at once", 200, "{}", true, "canary-t1", 1, false},
		{"no body", 200, "", false, "canary-t2", 2, false},
		{"short body", 200, "{}", true, "canary-t2", 2, false},
		{"body that is gone", 200, "{}", false, "canary-t2", 1, true},
		{"refused for ever", 200, "{}", true, "", 2, true},
		{"server's error", 503, "{}", true, "canary-t2", 2, false},
		{"server's error, for ever", 500, "{}", true, "", 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tokens atomic.Int32
				var observed []weixin.Class
				c, _ := servePipe(t, weixin.Config{Observe: func(call weixin.Call) {
					if call.Name == "relayed" {
						observed = append(observed, call.Class)
					}
				}}, tokenServer(&tokens))
				if _, err := c.Tokens().Token(t.Context(), testApp); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second) // or the keeper leaves WeChat alone
				calls := 0
				got, err := c.Relay(roundTripper(func(r *http.Request) (*http.Response, error) {
					calls++
					if r.Body != nil {
						if b, err := io.ReadAll(r.Body); string(b) != tt.body || err != nil {
							t.Errorf("call %d has the body %q", calls, b)
						}
					}
					token := r.URL.Query()["access_token"]
					if len(token) == 1 && token[0] == tt.good {
						return response(200, strings.NewReader(`{"errcode":0}`), -1), nil
					}
					return response(tt.status, strings.NewReader(refusedBody), -1), nil
				}), testApp, relayCall(t.Context(), tt.body, tt.again))
				if err != nil {
					t.Fatal(err)
				}
				want, class := `{"errcode":0}`, weixin.ClassOK
				if tt.refused {
					want, class = refusedBody, weixin.ClassMisconfigured
				}
				if b, err := io.ReadAll(got.Body); string(b) != want || err != nil {
					t.Errorf("the answer is %q, %v", b, err)
				}
				if calls != tt.calls || got.Renewed != (calls == 2) ||
					(got.Refused != nil) != tt.refused ||
					!slices.Equal(observed, []weixin.Class{class}) {
					t.Errorf("%d calls, renewed %t, refused %v, observed %v",
						calls, got.Renewed, got.Refused, observed)
				}
				if got.Refused != nil &&
					(got.Refused.ErrCode != 40001 || got.Refused.RID != "1-2-3") {
					t.Errorf("refused: %v", got.Refused)
				}
				// The next call has a token that WeChat did not refuse.
				time.Sleep(2 * time.Second)
				if token := seenToken(t, c); token == "canary-t1" && tt.good != "canary-t1" {
					t.Error("the refused token is used on")
				}
			})
		})
	}
}

// seenToken makes a call and returns the token that it carried.
func seenToken(t *testing.T, c *weixin.Client) (token string) {
	t.Helper()
	_, err := c.Relay(roundTripper(func(r *http.Request) (*http.Response, error) {
		token = r.URL.Query().Get("access_token")
		return response(200, strings.NewReader("{}"), 2), nil
	}), testApp, relayCall(t.Context(), "", false))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// No error shows the token, even when the transport's does.
func TestRelay_NoAnswerOfWeChat_IsAnError(t *testing.T) {
	var tokens atomic.Int32
	c := serve(t, tokenServer(&tokens))
	leak := &url.Error{
		Op: "Get", URL: "https://api.weixin.qq.com/?access_token=canary-t1",
		Err: errors.New("malformed HTTP response \"canary-t1\""),
	}
	for _, tt := range []struct {
		name  string
		call  *http.Request
		via   roundTripper
		class weixin.Class
	}{
		{"redirect", nil, func(*http.Request) (*http.Response, error) {
			r := response(302, http.NoBody, 0)
			r.Header.Set("Location", "https://elsewhere.example/?access_token=canary-t1")
			return r, nil
		}, weixin.ClassProtocol},
		{"upgrade", nil, func(*http.Request) (*http.Response, error) {
			return response(101, http.NoBody, 0), nil
		}, weixin.ClassProtocol},
		{"bad gateway", nil, func(*http.Request) (*http.Response, error) {
			return response(502, strings.NewReader("<html>"), -1), nil
		}, weixin.ClassUnavailable},
		{"broken", nil, func(*http.Request) (*http.Response, error) {
			return nil, leak
		}, weixin.ClassUnavailable},
		{"body too long", func() *http.Request {
			r := relayCall(t.Context(), "", false)
			body := io.NopCloser(strings.NewReader("xxx"))
			r.Body, r.ContentLength = http.MaxBytesReader(nil, body, 2), -1
			return r
		}(), readingTransport, weixin.ClassCanceled},
		{"body broken off", func() *http.Request {
			r := relayCall(t.Context(), "", false)
			r.Body, r.ContentLength = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)), -1
			return r
		}(), readingTransport, weixin.ClassCanceled},
		{"body gone", func() *http.Request {
			r := relayCall(t.Context(), "x", false)
			r.GetBody = func() (io.ReadCloser, error) { return nil, io.ErrClosedPipe }
			return r
		}(), readingTransport, weixin.ClassCanceled},
	} {
		call := tt.call
		if call == nil {
			call = relayCall(t.Context(), "{}", true)
		}
		_, err := c.Relay(tt.via, testApp, call)
		e := wantClass(t, err, tt.class)
		if text := fmt.Sprintf("%v %+v %#v", e, e, e); strings.Contains(text, "canary") ||
			e.Op == "" {
			t.Errorf("%s: %s", tt.name, text)
		}
		tooLong := errors.As(err, new(*http.MaxBytesError))
		if tooLong != (tt.name == "body too long") {
			t.Errorf("%s: too long: %t", tt.name, tooLong)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Relay(roundTripper(func(r *http.Request) (*http.Response, error) {
		return nil, r.Context().Err()
	}), testApp, relayCall(gone, "", false))
	if wantClass(t, err, weixin.ClassCanceled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not tell that the caller has gone", err)
	}
}

// readingTransport reads the request to its end, as a transport does.
func readingTransport(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", err)
		}
	}
	return response(200, strings.NewReader("{}"), 2), nil
}

func TestRelay_NoToken_SendsNothing(t *testing.T) {
	c := serve(t, reply(200, `{"errcode":40125,"errmsg":"x"}`))
	_, err := c.Relay(roundTripper(func(*http.Request) (*http.Response, error) {
		t.Error("something was sent")
		return nil, io.EOF
	}), testApp, relayCall(t.Context(), "{}", true))
	wantClass(t, err, weixin.ClassMisconfigured)
}

// Relay waits for the first piece only of an answer that is no text.
func TestRelay_Media_StreamsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which notices a deadlock
		var tokens atomic.Int32
		c, _ := servePipe(t, weixin.Config{}, tokenServer(&tokens))
		r, w := io.Pipe()
		go w.Write([]byte("\xff\xd8"))
		got, err := answered(t.Context(), c, response(200, r, -1))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(got.Body, b); err != nil || string(b) != "\xff\xd8" {
			t.Errorf("%q, %v", b, err)
		}
		if got.Request.URL.Query().Get("access_token") == "canary-t1" {
			t.Error("the answer names a request with the token")
		}
		got.Body.Close()
	})
}

// FuzzRelay_Answer: an answer arrives unchanged, and only a JSON object with one
// of three errcodes is a refusal.
func FuzzRelay_Answer(f *testing.F) {
	for _, body := range []string{
		refusedBody, "\ufeff" + refusedBody, " \n" + refusedBody, `{"errcode":"42001"}`,
		`{"errcode":40014.0}`, `{"errcode":0}`, `{"errcode":null}`, `{}`, `{`, ``, "\xff\xd8\xff",
		`{"errcode":40001,"errmsg":"` + strings.Repeat("x", 5000) + `"}`, `[` + refusedBody + `]`,
		refusedBody + refusedBody, refusedBody + strings.Repeat(" ", 5000),
	} {
		f.Add([]byte(body), false)
		f.Add([]byte(body), true)
	}
	var tokens atomic.Int32
	c := serve(f, tokenServer(&tokens))
	f.Fuzz(func(t *testing.T, body []byte, sized bool) {
		length := int64(-1)
		if sized {
			length = int64(len(body))
		}
		text := iotest.OneByteReader(bytes.NewReader(body))
		got, err := answered(t.Context(), c, response(200, text, length))
		if err != nil {
			if !bytes.Contains(body, []byte("canary-t1")) {
				t.Fatal(err)
			}
			return
		}
		if b, err := io.ReadAll(got.Body); !bytes.Equal(b, body) || err != nil {
			t.Errorf("%q became %q, %v", body, b, err)
		}
		if got.Refused == nil {
			return
		}
		var env struct{ ErrCode json.RawMessage }
		err = json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &env)
		if err != nil || len(body) > 4<<10 {
			t.Errorf("%q is a refusal", body)
		}
		switch got.Refused.ErrCode {
		case 40001, 40014, 42001:
		default:
			t.Errorf("%q is a refusal with errcode %d", body, got.Refused.ErrCode)
		}
	})
}

// FuzzRelay_Request: WeChat gets one token under one name, at the host of the
// base URL, whatever an app requests.
func FuzzRelay_Request(f *testing.F) {
	f.Add("/wxa/x", "a=1&access_token=x", "Cookie")
	f.Add("/wxa/x", "a=1;access_token=x&%61ccess_token=y&ACCESS_TOKEN=z&cloudbase_access_token=q",
		"X-Wx-Openid")
	f.Add("//evil.example/x", "", "Host")
	f.Add("/..%2f..%2fcgi-bin/token", "%zz", "Wechatmp-Appid")
	var tokens atomic.Int32
	c := serve(f, tokenServer(&tokens))
	f.Fuzz(func(t *testing.T, path, query, header string) {
		call := relayCall(t.Context(), "", false)
		call.URL = &url.URL{Path: path, RawQuery: query}
		call.Header[header] = []string{"v"}
		_, err := c.Relay(roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Scheme != "http" || !strings.HasPrefix(r.URL.Host, "127.0.0.1:") ||
				r.Host != r.URL.Host || !strings.HasPrefix(r.URL.Path, "/") {
				t.Errorf("sent to %s", r.URL)
			}
			n := 0
			for name, values := range r.URL.Query() {
				if strings.EqualFold(name, "access_token") ||
					strings.EqualFold(name, "cloudbase_access_token") {
					n += len(values)
				}
			}
			token := r.URL.Query()["access_token"]
			if len(token) != 1 || token[0] != "canary-t1" || n != 1 {
				t.Errorf("%q became %q", query, r.URL.RawQuery)
			}
			for name := range r.Header {
				if name == header && name != "User-Agent" &&
					!strings.HasPrefix(name, "Wechatmp-") &&
					!strings.Contains("Accept Accept-Language Content-Type Range", name) {
					t.Errorf("%s was sent", name)
				}
			}
			return response(200, strings.NewReader("{}"), 2), nil
		}), testApp, call)
		if err != nil {
			t.Fatal(err)
		}
	})
}

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
