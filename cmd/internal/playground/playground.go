// Package playground is the page of wxgate demo and wxgate dev: a pretend phone, and
// beside it what the gate makes of each request. It serves the page, sends the
// requests of the page to the gates, and looks at what the app receives.
//
// It must not know Caddy, nor how dev and demo build a configuration. wxgate run never serves it:
// only dev and demo use it, and make a handler of Caddy of the Tap.
package playground

import (
	"context"
	"errors"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// Site is a gate that the page may call.
type Site struct {
	Name   string   `json:"name"`   // its hosts in the Caddyfile, "" for any
	URL    string   `json:"url"`    // its base URL
	Prefix string   `json:"prefix"` // of the gate's endpoints, such as /wx
	Token  string   `json:"token"`  // the header that carries a token, up to the token
	Apps   []string `json:"apps"`   // AppIDs that log in here; none with cloudrun
}

// addr returns the address of the site, host and port.
func (s Site) addr() string { return strings.TrimPrefix(s.URL, "http://") }

// Config is what the page works with.
type Config struct {
	Sites  []Site
	Users  []string
	WeChat *weixintest.Simulator
	// Explain tells what the gates do with a request. Headers are written 'Name: value'.
	Explain func(method, url string, headers []string) ([]Row, error)
}

// Row is one line of an explanation. An empty Name continues the row before.
type Row struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// UserShape is the shape of a user's name.
var UserShape = regexp.MustCompile(`^[\pL\pN._-]{1,64}$`)

// maxAtOnce bounds the exchanges at one time, and so the memory of all of them.
const maxAtOnce = 4

// Server serves the page. The zero value lets WeChat work, and serves nothing yet.
type Server struct {
	cfg   Config
	hosts []string // the values of Host that mean this server
	slots chan struct{}
	mode  atomic.Value // the mode of WeChat, a string

	mu        sync.Mutex
	noUnionID map[[2]string]bool // by AppID and user, what the page asked last
}

// Start serves the page on l, which listens on a loopback address, until the returned
// function is called. It must be called once.
func (s *Server) Start(l net.Listener, cfg Config) (stop func() error) {
	s.cfg = cfg
	s.slots = make(chan struct{}, maxAtOnce)
	s.noUnionID = make(map[[2]string]bool)
	addr := l.Addr().String()
	s.hosts = []string{addr}
	if _, port, err := net.SplitHostPort(addr); err == nil {
		s.hosts = append(s.hosts, net.JoinHostPort("localhost", port))
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{
		Handler:           s.guard(s.routes()),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	return func() error {
		cancel()
		err := srv.Close()
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}
}
