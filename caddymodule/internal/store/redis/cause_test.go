package redis

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestOutage_EachCause_IsNamedWithItsCure: the line, and what the operator's status
// shows, say where, why and what to do, and hold no password.
func TestOutage_EachCause_IsNamedWithItsCure(t *testing.T) {
	t.Parallel()
	const password = "canary-password"
	at := func(s *redistest.Server) Config { return config(s.Addr) }
	secured := func(s *redistest.Server) Config {
		c := at(s)
		c.Password = password
		return c
	}
	for name, test := range map[string]struct {
		opt  redistest.Option
		cfg  func(*redistest.Server) Config
		kind string
	}{
		"refused": {nil, func(*redistest.Server) Config {
			return config("127.0.0.1:1")
		}, "refused"},
		"no socket": {nil, func(s *redistest.Server) Config {
			return config(s.Dir + "/no-such-socket")
		}, "no socket"},
		"DNS": {
			nil, func(*redistest.Server) Config { return config("no.such.host.invalid:1") },
			"DNS",
		},
		"no password":    {redistest.Password("other"), at, "password"},
		"wrong password": {redistest.Password("other"), secured, "password"},
		"unwanted password": {nil, func(s *redistest.Server) Config {
			c := secured(s)
			c.Username = "nobody"
			return c
		}, "password"},
		"TLS to a plain server": {nil, func(s *redistest.Server) Config {
			c := at(s)
			c.TLS = &tls.Config{InsecureSkipVerify: true}
			c.DialTimeout = 500 * time.Millisecond
			return c
		}, "TLS|time-out"}, // the server waits for the rest of what it takes for a command
		"unknown authority": {redistest.WithTLS(), func(s *redistest.Server) Config {
			c := at(s)
			c.TLS = &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "127.0.0.1"}
			return c
		}, "TLS"},
		"no certificate": {redistest.WithTLS(), func(s *redistest.Server) Config {
			c := at(s)
			c.TLS = s.TLS.Clone()
			c.TLS.Certificates = nil
			return c
		}, "TLS|connection closed"},
		"plain to TLS": {redistest.WithTLS(), at, "connection closed|TLS|answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			core, logs := observer.New(zap.InfoLevel)
			cfg := test.cfg(serverWith(t, test.opt))
			cfg.Logger = zap.New(core)
			s, err := Open(cfg)
			must(t, err)
			defer s.Close()
			down := func() int { return logs.FilterMessage("no contact with redis").Len() }
			await(t, "the outage is logged", func() bool { return down() > 0 })
			line := logs.FilterMessage("no contact with redis").All()[0].ContextMap()
			kind := fmt.Sprint(line["cause"])
			if !strings.Contains("|"+test.kind+"|", "|"+kind+"|") || line["cure"] == "" {
				t.Errorf("cause %q, want %q: %v", kind, test.kind, line)
			}
			if down() != 1 {
				t.Errorf("%d lines", down())
			}
			c := s.Contact()
			if c.Up || c.LastError == nil || c.Since.IsZero() || !c.LastSuccess.IsZero() {
				t.Errorf("the contact is %+v", c)
			}
			health := s.Health(t.Context()).Error()
			if !strings.Contains(health, cfg.Addresses[0]) &&
				!strings.Contains(health, "no.such.host") {
				t.Errorf("the cause names no address: %s", health)
			}
			if strings.Contains(fmt.Sprint(line, health), "canary") {
				t.Error("a password is told")
			}
		})
	}
}

// TestContact_Refusals_AreNamed: what a healthy server refuses.
func TestContact_Refusals_AreNamed(t *testing.T) {
	t.Parallel()
	f := fixtureAt(t, redistest.Start(t))
	if c := f.Contact(); !c.Up || c.LastSuccess.IsZero() || c.Since.IsZero() {
		t.Errorf("the contact is %+v", c)
	}
	f.do("CONFIG", "SET", "maxmemory", "1")
	await(t, "the refusal is known", func() bool { return !f.Contact().Up })
	c := f.Contact()
	if got := troubleOf(c.LastError).kind; got != "memory" {
		t.Errorf("%v is %q", c.LastError, got)
	}
}

// TestClock_Differs_IsToldOnce: a jump of the clock is one line, and its end another.
func TestClock_Differs_IsToldOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if f.Clock() == nil || f.Contact().ClockAhead != 0 {
		t.Errorf("the clock is %v, %v ahead", f.Clock(), f.Contact().ClockAhead)
	}
	now := time.Now()
	c := &store.Clock{Server: now.Round(0).Add(-time.Hour), Local: now}
	if got := c.At(now.Add(time.Minute)); !got.Equal(now.Add(time.Minute - time.Hour)) {
		t.Errorf("a minute later it is %v by the server", got)
	}
	core, logs := observer.New(zap.InfoLevel)
	log := transitions{log: zap.New(core)}
	for _, ahead := range []time.Duration{0, 0, time.Hour, 2 * time.Hour, time.Hour, 0, 0} {
		log.clock(ahead)
	}
	if n := logs.Len(); n != 2 || logs.All()[0].Level != zap.WarnLevel {
		t.Errorf("%d lines: %v", n, logs.All())
	}
}

// TestTroubleOf_WrappedSilence_IsATimeOut: the lines name the server before the cause.
func TestTroubleOf_WrappedSilence_IsATimeOut(t *testing.T) {
	err := fmt.Errorf("redis:6379: %w", noAnswer(defaultPace.overdue))
	if got := troubleOf(err); got.kind != "time-out" || got.cure == "" {
		t.Errorf("%v is of the kind %q", err, got)
	}
	if got := troubleOf(errAgain).kind; got != "other" {
		t.Errorf("%v is of the kind %q", errAgain, got)
	}
}
