package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

// failover makes the data what it was when saved was taken, and the gates hear of a new server after an outage.
func failover(d *memstore.Data, saved memstore.Records, outage time.Duration, gates ...*memstore.Shared) {
	for _, s := range gates {
		s.SetReports(memstore.Lost)
	}
	time.Sleep(outage)
	d.Restore(saved)
	for _, s := range gates {
		s.Reconnect()
	}
}

// TestP3_LostRevocation: what a failover brings back is ended again, at all gates, by the one that ended it; sessions that were made since live, as far as the revocation can tell them apart.
func TestP3_LostRevocation(t *testing.T) {
	for name, end := range endings {
		if name == "presented" || name == "max per user" {
			continue // which are no revocations: a login that is lost loses what it ended
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				gates, links := newFleet(t, 2, func(cc *session.CoreConfig, _ *session.Config) { cc.Logger = zap.New(core) })
				a, b := gates[0], gates[1]
				data := links[0].Data
				l := a.login("alice/union")
				bystander := b.login("bob", inApp(appB)).Token
				saved := data.Save()
				time.Sleep(time.Millisecond)
				a.must(end(a, l))
				a.refuse(l.Token, session.ErrInvalid)
				b.refuse(l.Token, session.ErrInvalid)
				time.Sleep(10 * time.Second)
				failover(data, saved, time.Minute, links...)
				a.refuse(l.Token, session.ErrInvalid) // at once, where it was ended
				since := b.login("alice/union").Token
				time.Sleep(2 * time.Second)
				for _, g := range gates {
					g.refuse(l.Token, session.ErrInvalid)
					if name != "all" {
						g.accept(bystander)
					}
					if name != "all" && name != "app" {
						g.accept(since)
					}
				}
				if n := logs.FilterMessageSnippet("repeating revocations after a loss").Len(); n != 1 || logs.FilterMessage(lineDone).Len() != 0 || a.pending() != 0 {
					t.Errorf("%d lines, %d pending", n, a.pending())
				}

				// What was on its way to the old server is lost with it, too.
				late := b.login("alice/union")
				saved = data.Save()
				failover(data, saved, 0, links...)
				time.Sleep(time.Second)
				a.must(end(a, late))
				data.Restore(saved)
				time.Sleep(6 * time.Second)
				a.refuse(late.Token, session.ErrInvalid)

				// Later there is nothing to repeat.
				time.Sleep(time.Minute)
				logs.TakeAll()
				after := b.login("alice/union").Token
				failover(data, data.Save(), 0, links...)
				time.Sleep(2 * time.Second)
				a.accept(after)
				if n := logs.FilterMessageSnippet("repeating revocations after a loss").Len(); n != 0 {
					t.Errorf("%d lines after a minute", n)
				}
			})
		})
	}
}

// TestLostRevocations: many are repeated, each once, and a store that is away for longer is waited for.
func TestLostRevocations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 1)
		g := gates[0]
		data := links[0].Data
		var tokens []string
		for range 2000 {
			tokens = append(tokens, g.login("alice").Token)
		}
		saved := data.Save()
		for _, token := range tokens {
			g.must(g.Logout(context.Background(), token))
		}
		g.store.SetDown(true)
		failover(data, saved, 0, links...)
		time.Sleep(20 * time.Second)
		g.store.SetDown(false)
		before := g.store.Count("End")
		time.Sleep(10 * time.Second)
		if n := g.store.Count("End") - before; n < len(tokens) || n > len(tokens)+1 || g.pending() != 0 {
			t.Errorf("%d are repeated, %d pending", n, g.pending())
		}
		for _, token := range tokens {
			g.refuse(token, session.ErrInvalid)
		}
	})
}
