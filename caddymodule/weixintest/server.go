package weixintest

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Server is a Simulator that listens.
type Server struct {
	*Simulator
	// URL is the base URL without a trailing slash: what a client takes in
	// place of https://api.weixin.qq.com.
	URL string

	http *httptest.Server
}

// NewServer starts a Simulator on a loopback port of the system's choice. Close
// ends it.
func NewServer(cfg Config) *Server {
	return start(cfg, nil)
}

// NewPipeServer starts a Simulator that is reached through Client only, over
// net.Pipe instead of sockets, so that it works inside a testing/synctest
// bubble. FaultReset and FaultLost then close the connection without an RST.
func NewPipeServer(cfg Config) *Server {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := start(cfg, l)
	s.http.Client().Transport = &http.Transport{DialContext: l.dial}
	return s
}

func start(cfg Config, l net.Listener) *Server {
	s := New(cfg)
	h := httptest.NewUnstartedServer(s)
	if l != nil {
		_ = h.Listener.Close()
		h.Listener = l
	}
	h.Start()
	return &Server{Simulator: s, URL: h.URL, http: h}
}

// Client returns an HTTP client that reaches the server and whose idle
// connections Close closes.
func (s *Server) Client() *http.Client { return s.http.Client() }

// Close breaks all connections, ends all calls and returns when no goroutine of
// the server is left.
func (s *Server) Close() {
	s.stop()
	s.http.CloseClientConnections()
	s.http.Close()
	s.busy.Wait()
}

// pipeListener hands one end of a net.Pipe to the server for each dial.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr returns an address that only looks like one.
func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "api.weixin.invalid" }
