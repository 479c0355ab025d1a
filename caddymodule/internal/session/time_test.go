package session_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// TestExpiryExact: a session holds until the last millisecond before its end and not a moment longer, cached or not, used or not.
func TestExpiryExact(t *testing.T) {
	for name, cached := range map[string]bool{"cached": true, "not cached": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, with(func(c *session.Config) { c.TTL = 5 * time.Minute }))
				defer g.core.Close()
				time.Sleep(700 * time.Microsecond) // logins do not begin on a full millisecond
				l := g.login("alice")
				if left := time.Until(l.Expires); left != 5*time.Minute {
					t.Errorf("expires in %v", left)
				}
				if cached {
					g.accept(l.Token)
					g.settle()
				}
				time.Sleep(5*time.Minute - 2*time.Millisecond)
				g.accept(l.Token)
				if cached {
					g.settle()
				}
				time.Sleep(2 * time.Millisecond)
				g.refuse(l.Token, session.ErrExpired)
				time.Sleep(time.Hour)
				g.refuse(l.Token, session.ErrExpired)
			})
		})
	}
}

// TestIdle: with an idle limit a session in use lives to the end of its absolute life, one that is not used dies exactly when the limit after its last noted use is over.
func TestIdle(t *testing.T) {
	const (
		ttl  = 20 * time.Hour
		idle = time.Hour
		note = 3 * time.Minute // a twentieth
	)
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.TTL, c.Idle = ttl, idle }))
		defer g.core.Close()
		used, unused := g.login("alice").Token, g.login("bob").Token
		g.accept(used)
		g.accept(unused)
		time.Sleep(idle - time.Millisecond)
		g.accept(used) // noted
		time.Sleep(time.Millisecond)
		g.refuse(unused, session.ErrExpired)
		time.Sleep(idle - 2*time.Millisecond)
		g.accept(used) // noted
		time.Sleep(note - time.Millisecond)
		g.accept(used) // too soon to be noted
		time.Sleep(idle - note)
		g.accept(used) // noted, in the last millisecond
		time.Sleep(idle)
		g.refuse(used, session.ErrExpired)
		g.refuse(unused, session.ErrExpired)
	})
}

// TestIdleInUse: use at any pace below the limit less the touch interval keeps a session alive to its absolute end, and writes no more than one touch an interval.
func TestIdleInUse(t *testing.T) {
	for _, tt := range []struct {
		ttl, idle, pace, interval time.Duration
	}{
		{24 * time.Hour, 30 * time.Minute, 10 * time.Second, 90 * time.Second},
		{24 * time.Hour, 30 * time.Minute, 28 * time.Minute, 90 * time.Second},
		{3 * time.Hour, 3 * time.Minute, time.Second, 45 * time.Second},         // a quarter of a short limit
		{3 * time.Hour, 10 * time.Minute, 7 * time.Second, time.Minute},         // not more often than once a minute
		{10 * time.Hour, 0, 5 * time.Minute, 30 * time.Minute},                  // no limit: a twentieth of the life
		{48 * time.Hour, 0, 5 * time.Minute, time.Hour},                         // but once an hour
		{60 * time.Hour, 50 * time.Hour, 5 * time.Minute, time.Hour},            // also with a limit of days
		{10 * time.Minute, 0, time.Second, time.Minute},                         // not more often than once a minute
		{time.Hour, 2 * time.Hour, 5 * time.Minute, 6 * time.Minute},            // a limit above the life
		{2 * time.Minute, 4 * time.Second, 900 * time.Millisecond, time.Second}, // seconds
	} {
		t.Run(tt.idle.String()+" "+tt.pace.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, with(func(c *session.Config) { c.TTL, c.Idle = tt.ttl, tt.idle }))
				defer g.core.Close()
				token := g.login("alice").Token
				for d := tt.pace; d < tt.ttl; d += tt.pace {
					time.Sleep(tt.pace)
					g.accept(token)
				}
				touches := g.store.count("Touch")
				if most := int(tt.ttl/tt.interval) + 1; touches > most {
					t.Errorf("%d touches in %v, want at most %d", touches, tt.ttl, most)
				}
				if every := max(tt.interval, tt.pace) + tt.pace; touches < int(tt.ttl/every) {
					t.Errorf("%d touches in %v: use was not noted", touches, tt.ttl)
				}
				time.Sleep(tt.pace + time.Millisecond)
				g.refuse(token, session.ErrExpired)
			})
		})
	}
}

// TestIdleSurvivesCacheLoss: what was noted is known to a gate that starts anew, and what a forgetful cache holds is not the last word on it.
func TestIdleSurvivesCacheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, keys := newMemData(), newKeys(t)
		node := func() *gate {
			return newGate(t, func(cc *session.CoreConfig, c *session.Config) {
				cc.Store, c.Keys, c.Idle = newMemStore(data), keys, 4*time.Minute
			})
		}
		a, b := node(), node()
		defer a.core.Close()
		defer b.core.Close()
		token := a.cached("alice")
		b.accept(token)
		b.settle()
		for range 2 { // used on one node only, and not for so long that the other's cache forgets
			time.Sleep(3 * time.Minute)
			a.accept(token)
		}
		time.Sleep(2 * time.Minute)
		b.accept(token)
		c := node()
		defer c.core.Close()
		c.accept(token)
		time.Sleep(4 * time.Minute)
		for _, g := range []*gate{a, b, c} {
			g.refuse(token, session.ErrExpired)
		}
	})
}

// TestIdleByReload: an idle limit that a reload brings or shortens ends no session in use, whatever the configuration before noted, and still ends the others, however often there is a
// reload.
func TestIdleByReload(t *testing.T) {
	for _, tt := range []struct{ before, after time.Duration }{{0, 10 * time.Minute}, {0, 3 * time.Hour}, {40 * time.Hour, 10 * time.Minute}, {40 * time.Hour, time.Minute}} {
		t.Run(fmt.Sprint(tt.before, " to ", tt.after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(t, with(func(c *session.Config) { c.TTL, c.Idle = 48*time.Hour, tt.before }))
				defer g.core.Close()
				reload := func() {
					g.Service = session.New(session.Config{Core: g.core, WeChat: g.wechat, Keys: g.keys, TTL: 48 * time.Hour, Idle: tt.after})
				}
				used, unused := g.login("alice").Token, g.login("bob").Token
				for range 13 * 60 { // until 59 minutes after it was noted
					g.accept(used)
					time.Sleep(time.Minute)
				}
				time.Sleep(-time.Minute + tt.after/2)
				reload()
				time.Sleep(tt.after/2 - time.Millisecond)
				g.accept(used)
				g.refuse(unused, session.ErrExpired)

				for range 2 * (time.Hour + tt.after) / (tt.after / 2) / 2 {
					reload()
					time.Sleep(tt.after / 2)
				}
				time.Sleep(tt.after / 2)
				g.refuse(used, session.ErrExpired)
			})
		})
	}
}

// TestReload: a new configuration on the same core judges by its own limits, and finds the cache as it was.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		defer g.core.Close()
		token := g.cached("alice")
		next := session.New(session.Config{Core: g.core, WeChat: g.wechat, Keys: g.keys, TTL: time.Hour, Idle: 5 * time.Minute})
		g.core.SettleNoting()
		if n := g.asks(func() {
			if _, err := next.Authenticate(t.Context(), token); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("the store was asked %d times after a reload", n)
		}
		time.Sleep(5 * time.Minute)
		if _, err := next.Authenticate(t.Context(), token); !errors.Is(err, session.ErrExpired) {
			t.Errorf("idle for the new limit: %v", err)
		}
		g.accept(token)
		g.core.SetMaxSessions(1 << 10)
		g.accept(token)
	})
}
