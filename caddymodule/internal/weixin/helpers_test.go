package weixin_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	goodCode = "021ByuFs0fNXie1T5lJs0IwBFs0ByuF1"
	goodBody = `{"openid":"oTEST-openid_0123456789abcdef",` +
		`"session_key":"AAECAwQFBgcICQoLDA0ODw==","unionid":"oTEST-unionid"}`

	otherAppID = "wxfedcba9876543210"
)

var (
	testApp = weixin.Credentials{
		ID: "wx0123456789abcdef", Secret: "0123456789abcdef0123456789abcdef",
	}
	simulated = weixintest.Config{Apps: map[string]string{
		testApp.ID: testApp.Secret, otherAppID: "secret",
	}}
	goodSession = weixin.Session{
		OpenID:     "oTEST-openid_0123456789abcdef",
		SessionKey: "AAECAwQFBgcICQoLDA0ODw==",
		UnionID:    "oTEST-unionid",
	}
)

func newClient(t testing.TB, cfg weixin.Config) *weixin.Client {
	t.Helper()
	c, err := weixin.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// serve returns a client of an HTTP server that runs h.
func serve(t testing.TB, h http.HandlerFunc) *weixin.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return newClient(t, weixin.Config{BaseURL: srv.URL})
}

func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func exchange(c *weixin.Client) (weixin.Session, error) {
	return c.Code2Session(context.Background(), testApp, goodCode)
}

func asError(t testing.TB, err error) *weixin.Error {
	t.Helper()
	e, ok := errors.AsType[*weixin.Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want *weixin.Error", err, err)
	}
	return e
}

func wantClass(t testing.TB, err error, want weixin.Class) *weixin.Error {
	t.Helper()
	e := asError(t, err)
	if e.Class != want {
		t.Fatalf("class %v, want %v: %v", e.Class, want, err)
	}
	return e
}

// rawServer runs one script for each TCP connection and records the head of
// every request that a script reads with next.
type rawServer struct {
	ln    net.Listener
	mu    sync.Mutex
	heads []string
	wg    sync.WaitGroup
}

type rawConn struct {
	*net.TCPConn
	br  *bufio.Reader
	srv *rawServer
	n   int // number of the connection, from 0
}

func newRawServer(t testing.TB, script func(*rawConn)) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &rawServer{ln: ln}
	t.Cleanup(func() {
		_ = ln.Close()
		s.wg.Wait()
	})
	s.wg.Go(func() {
		for n := 0; ; n++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer conn.Close()
				script(&rawConn{conn.(*net.TCPConn), bufio.NewReader(conn), s, n})
			})
		}
	})
	return s
}

func (s *rawServer) url() string { return "http://" + s.ln.Addr().String() }

func (s *rawServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.heads...)
}

// next reads one request head; ok is false when the client has gone.
func (c *rawConn) next() (head string, ok bool) {
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			return head, false
		}
		head += line
		if line == "\r\n" {
			c.srv.mu.Lock()
			c.srv.heads = append(c.srv.heads, head)
			c.srv.mu.Unlock()
			return head, true
		}
	}
}

func (c *rawConn) send(s string) { _, _ = io.WriteString(c, s) }

func (c *rawConn) sendJSON(body string) {
	c.send("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body)
}

// reset makes the client see a connection reset instead of an end.
func (c *rawConn) reset() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// pipeNet is a network inside the process, for tests in a synctest bubble.
type pipeNet struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipeNet) Close() error   { return nil }
func (p *pipeNet) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipeNet) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// servePipe is serve for a synctest bubble.
func servePipe(t *testing.T, cfg weixin.Config, h http.HandlerFunc) (*weixin.Client, *pipeNet) {
	t.Helper()
	cfg.BaseURL = "http://wechat.test"
	c := newClient(t, cfg)
	p := &pipeNet{conns: make(chan net.Conn), done: make(chan struct{})}
	c.SetDial(p.dial)
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(p) }()
	t.Cleanup(func() {
		c.Close()
		close(p.done)
		_ = srv.Close()
	})
	return c, p
}
