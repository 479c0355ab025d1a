package weixintest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// start runs a server over real sockets that ends with the test.
func start(t *testing.T) *weixintest.Server {
	t.Helper()
	s := weixintest.NewServer(config())
	t.Cleanup(s.Close)
	return s
}

// get sends one login over HTTP, following no redirect.
func get(ctx context.Context, s *weixintest.Server, code string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL+loginTarget(appA, secretA, code), nil)
	if err != nil {
		return nil, err
	}
	c := *s.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c.Do(r)
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFault_Kinds_Answers(t *testing.T) {
	const html, text = "text/html", "text/plain"
	type fault = weixintest.Fault
	for name, c := range map[string]struct {
		kind   weixintest.FaultKind
		fault  weixintest.Fault
		status int
		mime   string
		holds  string
		spent  bool
	}{
		"status": {
			weixintest.FaultStatus, fault{Status: 503}, 503, html, "<html>", false,
		},
		"status default": {weixintest.FaultStatus, fault{}, 502, html, "<html>", false},
		"html":           {weixintest.FaultHTML, fault{}, 200, html, "<html>", false},
		"redirect":       {weixintest.FaultRedirect, fault{}, 302, html, "", false},
		"errcode": {
			weixintest.FaultErrCode,
			fault{ErrCode: -1},
			200, text, `{"errcode":-1,"errmsg":"system error, rid: `, false,
		},
		"other errcode": {
			weixintest.FaultErrCode,
			fault{ErrCode: 40243, ErrMsg: "frozen"},
			200, text, `{"errcode":40243,"errmsg":"frozen, rid: `, false,
		},
		"errcode string": {
			weixintest.FaultErrCodeString,
			fault{ErrCode: 40029},
			200, text, `{"errcode":"40029","errmsg":"invalid code, `, false,
		},
		"body": {
			weixintest.FaultBody, fault{Body: `{"openid":"o"}`}, 200, text, `{"openid":"o"}`, false,
		},
		"body status": {weixintest.FaultBody, fault{Status: 404}, 404, text, ``, false},
		"slow":        {weixintest.FaultSlow, fault{Delay: 1}, 200, text, `"openid":"o`, true},
		"truncated":   {weixintest.FaultTruncated, fault{}, 200, text, `{"session_key":"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			code := s.Code(appA, "alice")
			c.fault.Kind = c.kind
			s.Inject(c.fault)
			r, err := get(t.Context(), s, code)
			if err != nil {
				t.Fatal(err)
			}
			got := body(t, r)
			mime := r.Header.Get("Content-Type")
			if r.StatusCode != c.status || mime != c.mime || !strings.Contains(got, c.holds) {
				t.Errorf("status %d, type %q, %q", r.StatusCode, mime, got)
			}
			if json.Valid([]byte(got)) && c.kind == weixintest.FaultTruncated {
				t.Errorf("%q is whole", got)
			}
			log := s.Calls()
			if len(log) != 1 || log[0].Fault != c.kind || log[0].ErrCode != c.fault.ErrCode {
				t.Errorf("log %+v", log)
			}
			want := 0
			if c.spent {
				want = 40163
			}
			wantErrCode(t, login(t, s, code), want)
		})
	}
}

// TestFault_Cut_EndsInTheMiddle: the code is spent, and the answer is not whole.
func TestFault_Cut_EndsInTheMiddle(t *testing.T) {
	s := start(t)
	code := s.Code(appA, "alice")
	s.Inject(weixintest.Fault{Kind: weixintest.FaultCut})
	r, err := get(t.Context(), s, code)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if _, err := io.ReadAll(r.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reading: %v", err)
	}
	wantErrCode(t, login(t, s, code), 40163)
}

func TestFault_Every_TakesTurns(t *testing.T) {
	s := start(t)
	s.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1, Times: 3, Every: 2})
	for i, want := range []int{40029, -1, 40029, -1, 40029, -1, 40029, 40029} {
		if a := login(t, s, "0x"); a.fields["errcode"] != float64(want) {
			t.Errorf("call %d: %s", i, a.raw)
		}
	}
}

func TestSetSecret_Old_IsRefused(t *testing.T) {
	s := weixintest.New(config())
	s.SetSecret(appA, "another")
	wantErrCode(t, login(t, s, s.Code(appA, "alice")), 40125)
	a := call(t, s, "POST", "/_sim/secret", `{"appid":"`+appA+`","secret":"`+secretA+`"}`)
	if a.status != 204 {
		t.Fatalf("status %d, %s", a.status, a.raw)
	}
	wantErrCode(t, login(t, s, s.Code(appA, "alice")), 0)
}

func TestFault_Reset_IsRST(t *testing.T) {
	for kind, want := range map[weixintest.FaultKind]int{
		weixintest.FaultReset: 0, weixintest.FaultLost: 40163,
	} {
		t.Run(string(kind), func(t *testing.T) {
			s := start(t)
			code := s.Code(appA, "alice")
			s.Inject(weixintest.Fault{Kind: kind})
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n",
				loginTarget(appA, secretA, code))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %d bytes, %v", n, err)
			}
			wantErrCode(t, login(t, s, code), want)
		})
	}
}

func TestFault_Lost_DelaysAfterWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.NewPipeServer(config())
		defer s.Close()
		code := s.Code(appA, "alice")
		s.Inject(weixintest.Fault{Kind: weixintest.FaultLost, Delay: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := get(ctx, s, code); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("client sees %v", err)
		}
		wantErrCode(t, login(t, s, code), 40163)
	})
}

func TestFault_Hang_LastsUntilClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.NewPipeServer(config())
		defer s.Close()
		code := s.Code(appA, "alice")
		s.Inject(weixintest.Fault{Kind: weixintest.FaultHang})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := get(ctx, s, code)
		if d := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || d != time.Minute {
			t.Errorf("client sees %v after %v", err, d)
		}
		wantErrCode(t, login(t, s, code), 0)
	})
}

func TestClose_HeldCall_Ends(t *testing.T) {
	for _, kind := range []weixintest.FaultKind{
		weixintest.FaultHang, weixintest.FaultSlow, weixintest.FaultEndless,
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := weixintest.NewPipeServer(config())
				s.Inject(weixintest.Fault{Kind: kind, Delay: 24 * time.Hour})
				done := make(chan error)
				go func() {
					r, err := get(t.Context(), s, s.Code(appA, "alice"))
					if err == nil {
						_, err = io.Copy(io.Discard, r.Body)
						r.Body.Close()
					}
					done <- err
				}()
				synctest.Wait()
				if s.Count(loginPath) != 1 {
					t.Error("a call that is held up is not counted")
				}
				s.Close()
				if err := <-done; err == nil {
					t.Error("the call ended well")
				}
			})
		})
	}
}

// A call that reached the handler without a connection is held up by the
// handler alone.
func TestFault_HeldCallWithoutConnection_Ends(t *testing.T) {
	for name, f := range map[string]weixintest.Fault{
		"hang":    {Kind: weixintest.FaultHang},
		"slow":    {Kind: weixintest.FaultSlow, Delay: 24 * time.Hour},
		"endless": {Kind: weixintest.FaultEndless},
	} {
		for _, end := range []string{"client", "simulator", "server"} {
			t.Run(name+" "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := weixintest.NewPipeServer(config())
					defer s.Close()
					s.Inject(f)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					stop := map[string]func(){
						"client": cancel, "simulator": s.Simulator.Close, "server": s.Close,
					}[end]
					go func() { time.Sleep(time.Hour); stop() }()
					begin := time.Now()
					defer func() {
						v, d := recover(), time.Since(begin)
						if v != http.ErrAbortHandler || d < time.Hour || d > time.Hour+time.Minute {
							t.Errorf("ends after %v with %v", d, v)
						}
					}()
					r := httptest.NewRequestWithContext(ctx, "GET", loginPath, nil)
					s.ServeHTTP(&sink{header: http.Header{}}, r)
				})
			})
		}
	}
}

// sink takes a write a minute and forgets it.
type sink struct{ header http.Header }

func (w *sink) Header() http.Header { return w.header }
func (w *sink) WriteHeader(int)     {}
func (w *sink) Write(b []byte) (int, error) {
	time.Sleep(time.Minute)
	return len(b), nil
}

func TestClose_StalledReader_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.NewPipeServer(config())
		s.Inject(weixintest.Fault{Kind: weixintest.FaultEndless})
		r, err := get(t.Context(), s, "0x")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		synctest.Wait() // the server is stuck in a write
		s.Close()
	})
}

func TestFault_Delay_Passes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := weixintest.NewPipeServer(config())
		defer s.Close()
		for _, f := range []weixintest.Fault{
			{Kind: weixintest.FaultSlow, Delay: time.Hour},
			{Kind: weixintest.FaultErrCode, ErrCode: -1, Delay: time.Hour},
			{Kind: weixintest.FaultBody, Delay: time.Hour},
		} {
			s.Inject(f)
			begin := time.Now()
			r, err := get(t.Context(), s, s.Code(appA, "alice"))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if d := time.Since(begin); d != time.Hour {
				t.Errorf("%s took %v", f.Kind, d)
			}
		}
	})
}

func TestFault_Endless_BodyGoesOn(t *testing.T) {
	s := start(t)
	s.Inject(weixintest.Fault{Kind: weixintest.FaultEndless})
	r, err := get(t.Context(), s, "0x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b := bufio.NewReader(r.Body)
	if head, err := b.Peek(13); err != nil || string(head) != `{"openid":"aa` {
		t.Errorf("%q, %v", head, err)
	}
	if n, err := io.CopyN(io.Discard, b, 8<<20); err != nil {
		t.Errorf("ends after %d bytes: %v", n, err)
	}
}

func TestFault_RedirectFollowed_IsLogged(t *testing.T) {
	s := start(t)
	s.Inject(weixintest.Fault{Kind: weixintest.FaultRedirect})
	r, err := s.Client().Get(s.URL + loginPath)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if s.Count("/redirected") != 1 {
		t.Errorf("log %+v", s.Calls())
	}
	const elsewhere = "https://example.com/"
	s.Inject(weixintest.Fault{Kind: weixintest.FaultRedirect, Location: elsewhere})
	r, err = get(t.Context(), s, "0x")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if got := r.Header.Get("Location"); got != elsewhere {
		t.Errorf("Location %q", got)
	}
}

func TestInject_SeveralFaults_Order(t *testing.T) {
	s := weixintest.New(config())
	errcode := func(path string, times, code int) {
		s.Inject(weixintest.Fault{
			Kind: weixintest.FaultErrCode, Path: path, Times: times, ErrCode: code,
		})
	}
	errcode(tokenPath, 0, 1)
	errcode(loginPath, 2, 2)
	errcode("", 1, 3)
	errcode(loginPath, -1, 4)
	for i, want := range []int{2, 2, 3, 4, 4, 4} {
		if got := login(t, s, s.Code(appA, "alice")).errcode(); got != want {
			t.Errorf("call %d: errcode %d, want %d", i, got, want)
		}
	}
	wantErrCode(t, call(t, s, "POST", tokenPath, ""), 1)
	wantErrCode(t, call(t, s, "POST", tokenPath, ""), 44002)
	s.Reset()
	wantErrCode(t, login(t, s, s.Code(appA, "alice")), 0)
}

func TestInject_BadFault_Panics(t *testing.T) {
	for name, f := range map[string]weixintest.Fault{
		"no kind": {}, "unknown kind": {Kind: "explode"},
		"status": {Kind: weixintest.FaultStatus, Status: 99},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			weixintest.New(config()).Inject(f)
		}()
	}
}

// Where there is no connection to break, the handler aborts as net/http wants
// it.
func TestFault_ResetWithoutConnection_Aborts(t *testing.T) {
	s := weixintest.New(config())
	s.Inject(weixintest.Fault{Kind: weixintest.FaultReset})
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("panic %v", v)
		}
	}()
	login(t, s, "0x")
}
