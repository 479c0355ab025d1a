// Package wxsim is the command line of the simulator of WeChat, for wxsim and for
// wxgate sim. It must not know the gate.
package wxsim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// Run executes the command line of the program name until ctx ends and returns the
// exit status.
func Run(ctx context.Context, name string, args []string, stdout, stderr io.Writer) int {
	o, err := parse(name, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	case err != nil:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{ReplaceAttr: dropEmpty}))
	if err := serve(ctx, o, stdout, log); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// dropEmpty removes empty attributes from a log line.
func dropEmpty(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Equal(slog.StringValue("")) {
		return slog.Attr{}
	}
	return a
}

func serve(ctx context.Context, o options, stdout io.Writer, log *slog.Logger) error {
	now := func() time.Time { return time.Now().Add(o.ahead) }
	tell := func(c weixintest.Call) {
		log.Info("call", "method", c.Method, "path", c.Path, "appid", c.AppID, "user", c.User,
			"code", c.Code, "errcode", c.ErrCode, "fault", string(c.Fault))
	}
	cfg := weixintest.Config{Apps: o.apps, Now: now, OnCall: tell}
	if o.component.AppID != "" {
		cfg.Components = []weixintest.Component{o.component}
	}
	sim := weixintest.New(cfg)
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           sim,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	greet(stdout, "http://"+l.Addr().String(), o.apps)
	if o.component.EventsURL != "" {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go pushTickets(ctx, sim, o.component.AppID, log)
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// No graceful shutdown: an answer takes microseconds unless a fault delays it.
	err = srv.Close()
	sim.Close()
	return err
}

// greet prints commands to try. It prints no secret but the demo's.
func greet(w io.Writer, url string, apps map[string]string) {
	appid := slices.Min(slices.Collect(maps.Keys(apps)))
	secret := "SECRET"
	if apps[appid] == demoSecret {
		secret = demoSecret
	}
	query := "appid=" + appid + "&secret=" + secret + "&grant_type=authorization_code&js_code=CODE"
	fmt.Fprintf(w, `wxsim: simulating api.weixin.qq.com at %[1]s

  curl %[1]s/_sim/code -d '{"appid":"%[2]s","user":"alice"}'
  curl '%[1]s/sns/jscode2session?%[3]s'
  curl %[1]s/_sim/calls
`, url, appid, query)
}

const (
	ticketEvery = 10 * time.Minute
	ticketRetry = time.Second // while no gate answers
)

// pushTickets pushes a ticket at once and every ten minutes, as WeChat does.
func pushTickets(
	ctx context.Context, sim *weixintest.Simulator, component string, log *slog.Logger,
) {
	for told := false; ; {
		wait := ticketEvery
		p, err := sim.PushTicket(ctx, component)
		if err != nil || p.Status != http.StatusOK {
			if wait = ticketRetry; !told {
				log.Warn("no gate takes the ticket; trying again", "status", p.Status)
			}
			told = true
		} else {
			log.Info("ticket pushed", "component", component)
			told = false
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}
