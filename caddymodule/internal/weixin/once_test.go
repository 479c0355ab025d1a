package weixin_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// The body that keeps net/http from a repetition adds nothing to the wire.
func TestCode2Session_OnTheWire_IsAPlainGET(t *testing.T) {
	srv := newRawServer(t, func(c *rawConn) {
		for {
			if _, ok := c.next(); !ok {
				return
			}
			c.sendJSON(goodBody)
		}
	})
	c := newClient(t, weixin.Config{BaseURL: srv.url()})
	for range 2 { // the second would begin with the body of the first, had it one
		if _, err := exchange(c); err != nil {
			t.Fatal(err)
		}
	}
	query := "appid=" + testApp.ID + "&grant_type=authorization_code&js_code=" + goodCode +
		"&secret=" + testApp.Secret
	want := "GET /sns/jscode2session?" + query + " HTTP/1.1\r\nHost: " + srv.ln.Addr().String() +
		"\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
	for _, head := range srv.seen() {
		if head != want {
			t.Errorf("got  %q\nwant %q", head, want)
		}
	}
}

// A code that may have reached WeChat is never sent again, whatever the
// connection does afterwards (docs/wechat.md#send-once).
func TestExchange_AmbiguousFailure_IsNotRepeated(t *testing.T) {
	const (
		ok    = "HTTP/1.1 200 OK\r\n"
		late  = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
		down  = weixin.ClassUnavailable
		other = weixin.ClassProtocol
	)
	after := func(text string) func(*rawConn) { return func(c *rawConn) { c.send(text) } }
	for name, tc := range map[string]struct {
		end   func(*rawConn)
		class weixin.Class
	}{
		"reset":                 {(*rawConn).reset, down},
		"end":                   {after(""), down},
		"half a head":           {after(ok), down},
		"half a header":         {after(ok + "Conte"), other}, // net/http parses the torn line
		"half a body":           {after(ok + "Content-Length: 1000\r\n\r\n{"), down},
		"half a chunk":          {after(ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab"), down},
		"408 at the wrong time": {after(late), other},
	} {
		for _, reused := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/reused=%t", name, reused), func(t *testing.T) {
				srv := newRawServer(t, func(c *rawConn) {
					for {
						head, ok := c.next()
						if !ok {
							return
						}
						if c.n == 0 && strings.Contains(head, "js_code=second") {
							tc.end(c)
							return
						}
						c.sendJSON(goodBody) // also rewards a forbidden repetition
					}
				})
				c := newClient(t, weixin.Config{BaseURL: srv.url()})
				if reused {
					if _, err := exchange(c); err != nil {
						t.Fatal(err)
					}
				}
				_, err := c.Code2Session(t.Context(), testApp, "second")
				wantClass(t, err, tc.class)
				if unsent(err) {
					t.Error("said to be unsent")
				}
				if n := strings.Count(strings.Join(srv.seen(), ""), "js_code=second"); n != 1 {
					t.Errorf("the code was sent %d times", n)
				}
			})
		}
	}
}

func TestExchange_Timeout_IsNotRepeated(t *testing.T) {
	for name, started := range map[string]bool{"silent": false, "trickling body": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests atomic.Int32
				c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					if started {
						_, _ = w.Write([]byte("{"))
						_ = http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				})
				start := time.Now()
				_, err := exchange(c)
				wantClass(t, err, weixin.ClassUnavailable)
				if !errors.Is(err, context.DeadlineExceeded) || requests.Load() != 1 {
					t.Errorf("%d requests, %v", requests.Load(), err)
				}
				if took := time.Since(start); took != 5*time.Second { // fake time
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestExchange_UnsentRequest_IsRepeatedOnce(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, tc := range []struct {
		failures, dials int
		ok              bool
	}{{1, 2, true}, {2, 2, false}} {
		var requests, dials atomic.Int32
		srv := newRawServer(t, func(c *rawConn) {
			if _, ok := c.next(); ok {
				requests.Add(1)
				c.sendJSON(goodBody)
			}
		})
		c := newClient(t, weixin.Config{BaseURL: srv.url()})
		c.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if int(dials.Add(1)) <= tc.failures {
				return nil, refused
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		})
		_, err := exchange(c)
		if (err == nil) != tc.ok || int(dials.Load()) != tc.dials {
			t.Errorf("%+v: %d dials, %v", tc, dials.Load(), err)
		}
		if err != nil {
			wantClass(t, err, weixin.ClassUnavailable)
			if !errors.Is(err, syscall.ECONNREFUSED) || !unsent(err) {
				t.Errorf("cause lost, or not said to be unsent: %v", err)
			}
		}
	}
}

// A kept connection dies in the instant between its choice and the write.
func TestExchange_DeadKeptConnection_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests []string
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			requests = append(requests, r.URL.Query().Get("js_code")+" "+r.Header.Get("Connection"))
			reply(200, goodBody)(w, r)
		})
		if _, err := c.Code2Session(t.Context(), testApp, "first"); err != nil {
			t.Fatal(err)
		}
		killed := 0
		kill := func(info httptrace.GotConnInfo) {
			if info.Reused {
				killed++
				_ = info.Conn.Close()
				synctest.Wait() // until the transport has noticed
			}
		}
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: kill})
		s, err := c.Code2Session(ctx, testApp, "second")
		if err != nil || s != goodSession || killed != 1 {
			t.Fatalf("killed %d, %v, %v", killed, s, err)
		}
		if got := strings.Join(requests, ","); got != "first ,second close" {
			t.Errorf("requests %q", got)
		}
	})
}

func TestExchange_Busy_IsRepeatedOnce(t *testing.T) {
	const busy = `{"errcode":-1,"errmsg":"system error"}`
	for _, tc := range []struct {
		name     string
		answers  []string
		requests int
		class    weixin.Class
	}{
		{"then well", []string{busy, goodBody}, 2, weixin.ClassOK},
		{"still busy", []string{busy, busy, goodBody}, 2, weixin.ClassUnavailable},
		{"consumed", []string{busy, `{"errcode":40163}`}, 2, weixin.ClassCodeUsed},
		{"other refusal", []string{`{"errcode":40029}`, goodBody}, 1, weixin.ClassCodeInvalid},
		{"nonsense", []string{`<html>`, goodBody}, 1, weixin.ClassProtocol},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
					reply(200, tc.answers[requests])(w, r)
					requests++
				})
				_, err := exchange(c)
				if tc.class == weixin.ClassOK {
					if err != nil {
						t.Error(err)
					}
				} else {
					wantClass(t, err, tc.class)
				}
				if requests != tc.requests {
					t.Errorf("%d requests", requests)
				}
			})
		})
	}
}

// Both kinds of repetition share one allowance and one deadline.
func TestExchange_BothRepetitions_ShareOneAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		c, p := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			reply(200, `{"errcode":-1}`)(w, r)
		})
		dials := 0
		c.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials == 1 {
				return nil, syscall.ECONNREFUSED
			}
			return p.dial(ctx, network, addr)
		})
		_, err := exchange(c)
		e := wantClass(t, err, weixin.ClassUnavailable)
		if e.ErrCode != -1 || requests.Load() != 1 || dials != 2 {
			t.Errorf("%d requests, %d dials, %v", requests.Load(), dials, e)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int32
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) > 1 {
				<-r.Context().Done()
				return
			}
			time.Sleep(4 * time.Second)
			reply(200, `{"errcode":-1}`)(w, r)
		})
		start := time.Now()
		_, err := exchange(c)
		wantClass(t, err, weixin.ClassUnavailable)
		if took := time.Since(start); took != 5*time.Second || requests.Load() != 2 {
			t.Errorf("took %v, %d requests", took, requests.Load())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(5*time.Second - time.Millisecond) // leaves no time for another attempt
			reply(200, `{"errcode":-1}`)(w, r)
		})
		_, err := exchange(c)
		if e := wantClass(t, err, weixin.ClassUnavailable); e.ErrCode != -1 {
			t.Errorf("the answer is forgotten: %v", e)
		}
	})
}

// unsent reports whether an error says that no request left.
func unsent(err error) bool {
	e, ok := errors.AsType[*weixin.Error](err)
	return ok && e.Unsent()
}

// An error says that a code is unused only when no request left.
func TestError_Unsent_OnlyWithoutARequest(t *testing.T) {
	srv := newRawServer(t, func(c *rawConn) {
		if _, ok := c.next(); ok {
			c.sendJSON(`{"errcode":-1,"errmsg":"system error"}`)
		}
	})
	c := newClient(t, weixin.Config{BaseURL: srv.url()})
	if _, err := exchange(c); err == nil || unsent(err) {
		t.Errorf("answered: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Code2Session(gone, testApp, "code"); !unsent(err) {
		t.Errorf("given up before: %v", err)
	}

	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	c = newClient(t, weixin.Config{BaseURL: srv.url()})
	c.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, refused })
	for !c.BreakerOpen() {
		if _, err := exchange(c); !unsent(err) {
			t.Fatalf("no connection: %v", err)
		}
	}
	if _, err := exchange(c); !unsent(err) {
		t.Errorf("breaker open: %v", err)
	}
}
