package weixin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNew_BadBaseURL_IsRefusedWithCure(t *testing.T) {
	for _, tc := range []struct{ name, base, cure string }{
		{"not a URL", "http://a b/", "not a URL"},
		{"no scheme", "api.weixin.qq.com", "scheme"},
		{"other scheme", "ftp://api.weixin.qq.com", "scheme"},
		{"opaque", "https:api.weixin.qq.com", "host"},
		{"no host", "https:///x", "host"},
		{"only a port", "https://:443", "host"},
		{"password", "https://user:hunter2@api.weixin.qq.com", "password"},
		{"password in an unparsable URL", "https://user:hunter2@a b", "not a URL"},
		{"query", "https://api.weixin.qq.com/?a=b", "query"},
		{"empty query", "https://api.weixin.qq.com/?", "query"},
		{"fragment", "https://api.weixin.qq.com/#a", "fragment"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := weixin.New(weixin.Config{BaseURL: tc.base})
			if err == nil {
				t.Fatal("accepted")
			}
			msg := err.Error()
			if !strings.Contains(msg, tc.cure) ||
				!strings.Contains(msg, "https://api.weixin.qq.com") ||
				strings.Contains(msg, "hunter2") {
				t.Errorf("unhelpful or leaking: %s", msg)
			}
		})
	}
	if _, err := weixin.New(weixin.Config{Timeout: -1}); err == nil {
		t.Error("negative timeout accepted")
	}
	if _, err := weixin.New(weixin.Config{OpenFor: -1}); err == nil {
		t.Error("negative breaker time accepted")
	}
}

func TestNew_NoBaseURL_IsProduction(t *testing.T) {
	c := newClient(t, weixin.Config{})
	var addr string
	c.SetDial(func(_ context.Context, _, a string) (net.Conn, error) {
		addr = a
		return nil, net.ErrClosed
	})
	_, err := exchange(c)
	wantClass(t, err, weixin.ClassUnavailable)
	if addr != "api.weixin.qq.com:443" {
		t.Errorf("dialed %q", addr)
	}
}

func TestNew_PathPrefix_IsKept(t *testing.T) {
	for _, base := range []string{"/wx", "/wx/"} {
		var path string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			path = r.URL.Path
			reply(200, goodBody)(w, r)
		}))
		c := newClient(t, weixin.Config{BaseURL: srv.URL + base})
		_, err := exchange(c)
		srv.Close()
		if err != nil || path != "/wx/sns/jscode2session" {
			t.Errorf("%s: path %q, error %v", base, path, err)
		}
	}
}

func TestTransport_Connections_AreReusedAndClosed(t *testing.T) {
	var mu sync.Mutex
	states := map[http.ConnState]int{}
	closed := make(chan struct{}, 1)
	srv := httptest.NewUnstartedServer(reply(200, goodBody))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		states[s]++
		if s == http.StateClosed {
			closed <- struct{}{}
		}
	}
	srv.Start()
	defer srv.Close()
	c := newClient(t, weixin.Config{BaseURL: srv.URL})
	for range 20 {
		if s, err := exchange(c); err != nil || s != goodSession {
			t.Fatalf("%v, %v", s, err)
		}
	}
	mu.Lock()
	opened := states[http.StateNew]
	mu.Unlock()
	if opened != 1 {
		t.Errorf("%d connections for 20 calls", opened)
	}
	c.Close()
	<-closed
}

func TestTransport_TLS_VerifiesTheServer(t *testing.T) {
	srv := httptest.NewUnstartedServer(reply(200, goodBody))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	var proto atomic.Value
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proto.Store(r.Proto)
		reply(200, goodBody)(w, r)
	})
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())

	c := newClient(t, weixin.Config{BaseURL: srv.URL})
	c.TrustOnly(pool)
	if _, err := exchange(c); err != nil || proto.Load() != "HTTP/1.1" {
		t.Errorf("proto %v, error %v", proto.Load(), err)
	}

	stranger := newClient(t, weixin.Config{BaseURL: srv.URL})
	stranger.TrustOnly(x509.NewCertPool())
	_, err := exchange(stranger)
	wantClass(t, err, weixin.ClassUnavailable)
	if !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unhelpful: %v", err)
	}
}

func TestTransport_TLS11_IsRefused(t *testing.T) {
	srv := httptest.NewUnstartedServer(reply(200, goodBody))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	c := newClient(t, weixin.Config{BaseURL: srv.URL})
	c.TrustOnly(pool)
	_, err := exchange(c)
	wantClass(t, err, weixin.ClassUnavailable)
}

func TestClient_ConcurrentCalls_GetTheirOwnAnswers(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reply(200, `{"openid":"o-`+r.URL.Query().Get("js_code")+`","session_key":"k"}`)(w, r)
	})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			code := strings.Repeat("c", i+1)
			s, err := c.Code2Session(t.Context(), testApp, code)
			if err != nil || s.OpenID != "o-"+code {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
	wg.Wait()
}

func TestObserve_GetsEachCallOnce(t *testing.T) {
	var calls []weixin.Call
	answers := []string{`{"errcode":-1}`, goodBody, `{"errcode":40029}`}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reply(200, answers[0])(w, r)
		answers = answers[1:]
	}))
	defer srv.Close()
	observe := func(k weixin.Call) { calls = append(calls, k) }
	c := newClient(t, weixin.Config{BaseURL: srv.URL, Observe: observe})
	_, _ = exchange(c) // two attempts
	_, _ = exchange(c)
	_, _ = c.Code2Session(t.Context(), testApp, "") // no call
	want := []weixin.Class{weixin.ClassOK, weixin.ClassCodeInvalid}
	if len(calls) != len(want) {
		t.Fatalf("observed %v", calls)
	}
	for i, k := range calls {
		if k.Name != "code2session" || k.Class != want[i] || k.Duration <= 0 {
			t.Errorf("call %d: %+v", i, k)
		}
	}
}

func TestClass_String_IsUnique(t *testing.T) {
	seen := map[string]bool{}
	for c := weixin.ClassOK; c <= weixin.ClassCanceled; c++ {
		if s := c.String(); seen[s] || strings.HasPrefix(s, "class_") {
			t.Errorf("%d is %q", c, s)
		} else {
			seen[s] = true
		}
	}
	if s := (weixin.ClassCanceled + 1).String(); !strings.HasPrefix(s, "class_") {
		t.Errorf("a class too many: %q", s)
	}
}
