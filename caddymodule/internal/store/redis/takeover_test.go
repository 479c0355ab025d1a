package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

const oldPassword, newPassword = "canary-old-password", "canary-new-password"

// renewable is a store on a server with a password, and what it reports and logs.
type renewable struct {
	*Store
	srv      *redistest.Server
	cfg      Config
	logs     *observer.ObservedLogs
	contacts atomic.Int64 // reports that empty the cache
}

func newRenewable(t *testing.T) *renewable {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	r := &renewable{logs: logs}
	r.srv = redistest.Start(t, redistest.Password(oldPassword))
	r.cfg = config(r.srv.Addr)
	r.cfg.Password, r.cfg.Logger = oldPassword, zap.New(core)
	s, err := Open(r.cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	r.Store = s
	s.Watch(func(c store.Change) {
		if c.What != store.SessionChanged && c.What != store.UserChanged {
			r.contacts.Add(1)
		}
	})
	await(t, "the store is in contact", func() bool { return s.Health(t.Context()) == nil })
	r.contacts.Store(0)
	t.Cleanup(func() {
		for _, e := range logs.All() {
			if strings.Contains(fmt.Sprint(e.Message, e.ContextMap()), "canary") {
				t.Error("a password is logged")
			}
		}
	})
	return r
}

// changePassword leaves the present connections as they are, as Redis does.
func (r *renewable) changePassword(t *testing.T) {
	t.Helper()
	r.srv.Do("CONFIG", "SET", "requirepass", newPassword)
}

// reconnects ends all connections, and waits until calls succeed again.
func (r *renewable) reconnects(t *testing.T) {
	t.Helper()
	c := raw(t, r.srv.Addr, newPassword)
	must(t, do(c, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Error())
	await(t, "the store is in contact again", func() bool { return r.Health(t.Context()) == nil })
}

// TestRenew_PasswordChanged_IsTakenUp: without a call that fails, and with the cache.
func TestRenew_PasswordChanged_IsTakenUp(t *testing.T) {
	t.Parallel()
	r := newRenewable(t)
	stop, done := make(chan struct{}), make(chan error, 1)
	var renewed atomic.Bool
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			after := renewed.Load()
			err := r.Health(t.Context())
			if err != nil && !after && strings.Contains(err.Error(), "WRONGPASS") {
				continue // a connection opened between the server's change and the reload
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	r.changePassword(t)
	r.cfg.Password = newPassword
	must(t, r.Renew(r.cfg))
	renewed.Store(true)
	must(t, r.Renew(r.cfg)) // again: nothing to do
	close(stop)
	must(t, <-done)
	if n := r.contacts.Load(); n != 0 {
		t.Errorf("the cache was emptied %d times", n)
	}
	if n := r.logs.FilterMessage("settings of redis taken up").Len(); n != 1 {
		t.Errorf("%d lines: %v", n, r.logs.All())
	}
	r.reconnects(t)
}

// TestRenew_PasswordRefused_IsSaidAndTriedAgain: the old contact goes on, and the new
// password is taken up as soon as the server has it.
func TestRenew_PasswordRefused_IsSaidAndTriedAgain(t *testing.T) {
	t.Parallel()
	notShort(t)
	r := newRenewable(t)
	r.cfg.Password = newPassword
	err := r.Renew(r.cfg)
	if err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Fatalf("got %v", err)
	}
	must(t, r.Health(t.Context()))
	if n := r.logs.FilterMessageSnippet("no contact").Len(); n != 0 {
		t.Error("an outage is logged")
	}
	r.changePassword(t)
	await(t, "the new password is taken up", func() bool {
		return r.config().Password == newPassword
	})
	r.reconnects(t)
}

// TestRenew_InOutage_IsTakenUp: a password that was changed while the gate had the old
// one is an outage, which a reload ends.
func TestRenew_InOutage_IsTakenUp(t *testing.T) {
	t.Parallel()
	r := newRenewable(t)
	r.changePassword(t)
	c := raw(t, r.srv.Addr, newPassword)
	must(t, do(c, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Error())
	await(t, "the outage is known", func() bool { return r.Health(t.Context()) != nil })
	r.cfg.Password = newPassword
	must(t, r.Renew(r.cfg))
	must(t, r.Health(t.Context()))
	if r.contacts.Load() == 0 {
		t.Error("the cache holds sessions from before the outage")
	}
}

// TestRenew_Closed_Ends: attempts end with the store.
func TestRenew_Closed_Ends(t *testing.T) {
	t.Parallel()
	r := newRenewable(t)
	r.cfg.Password = newPassword
	if err := r.Renew(r.cfg); err == nil {
		t.Fatal("accepted")
	}
	must(t, r.Close())
	if err := r.Renew(r.cfg); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestRenew_TimeoutsOnly_AreTakenUp: without a new contact having to differ.
func TestRenew_TimeoutsOnly_AreTakenUp(t *testing.T) {
	t.Parallel()
	r := newRenewable(t)
	r.cfg.ReadTimeout = 7 * time.Second
	must(t, r.Renew(r.cfg))
	if check, _ := r.Patience(); check != 7*time.Second+answerTime {
		t.Errorf("a check waits %v", check)
	}
}

// TestTLS_FilesChanged_AreReadAgain: each connection reads them. While that fails, the
// last ones serve.
func TestTLS_FilesChanged_AreReadAgain(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, redistest.WithTLS())
	core, logs := observer.New(zap.WarnLevel)
	cfg := config(srv.Addr)
	cfg.Logger = zap.New(core)
	wrong := srv.TLS.Clone()
	wrong.Certificates = nil // the server asks for one
	cfg.TLS = wrong
	var reads atomic.Int64
	var broken atomic.Bool
	cfg.ReadTLS = func() (*tls.Config, error) {
		reads.Add(1)
		if broken.Load() {
			return nil, errors.New("half a certificate")
		}
		return srv.TLS, nil
	}
	s := mustOpen(t, cfg)
	if reads.Load() == 0 {
		t.Error("the files were not read")
	}
	broken.Store(true)
	must(t, srv.Try("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").Error())
	await(t, "the log says so", func() bool {
		return logs.FilterMessageSnippet("tls files of redis cannot be read").Len() > 0
	})
	broken.Store(false)
	await(t, "the store is in contact", func() bool { return s.Health(t.Context()) == nil })
}
