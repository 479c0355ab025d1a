package main

import (
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/command"
	"github.com/wxgate/wxgate/cmd/internal/playground"
)

// tap makes a handler of Caddy of a playground.Tap.
type tap struct{ playground.Tap }

// CaddyModule tells Caddy of the handler.
func (tap) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers." + playground.TapName,
		New: func() caddy.Module { return new(tap) },
	}
}

func (t tap) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return t.Look(r, func(r *http.Request) error { return next.ServeHTTP(w, r) })
}

// registerTap is for demo and dev only: no other command knows the handler.
var registerTap = sync.OnceFunc(func() { caddy.RegisterModule(tap{}) })

// addTaps puts taps into a part of Caddy's configuration, which it changes.
func addTaps(config any) {
	registerTap()
	playground.AddTaps(config)
}

// pageAddress is the address of the playground, unless another program has it.
const pageAddress = "127.0.0.1:8790"

// servePage serves the playground at addr, or if that is empty at the usual address or
// any that is free, until stop is called.
func servePage(
	play *playground.Server, addr string, cfg playground.Config,
) (url string, stop func() error, err error) {
	l, err := listenForPage(addr)
	if err != nil {
		return "", nil, fmt.Errorf("starting playground: %w", err)
	}
	cfg.Explain = explain
	return "http://" + l.Addr().String(), play.Start(l, cfg), nil
}

// listenForPage takes an address of the developer's choice, or else the usual one or any
// that is free: the page is printed, and no reason to refuse the rest.
func listenForPage(addr string) (net.Listener, error) {
	const cure = "choose another with --page-listen"
	if addr != "" {
		return listen(addr, cure)
	}
	if l, err := listen(pageAddress, cure); err == nil {
		return l, nil
	}
	return listen("127.0.0.1:0", cure)
}

// explain returns the rows of wxgate wechat explain for a request.
func explain(method, url string, headers []string) (rows []playground.Row, err error) {
	found, err := command.ExplainRunning(method, url, headers)
	for _, r := range found {
		rows = append(rows, playground.Row(r))
	}
	return rows, err
}
