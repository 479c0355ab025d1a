package session_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

// stream is an open stream that counts how often it was told to end.
type stream struct {
	session.Stream
	ended atomic.Int32
}

func (g *gate) open(token string) *stream {
	g.t.Helper()
	s := new(stream)
	s.End = func() { s.ended.Add(1) }
	if _, err := g.OpenStream(context.Background(), token, &s.Stream); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// TestP10_EachEnding_ClosesTheStreams: at the gate of the ending and at another one,
// within a second while it hears of it, and within max_staleness and a little when not.
func TestP10_EachEnding_ClosesTheStreams(t *testing.T) {
	const expiry = 2 * time.Minute
	all := map[string]func(*gate, session.Login) error{
		"expiry": func(*gate, session.Login) error { time.Sleep(expiry); return nil },
	}
	for name, end := range endings {
		all[name] = end
	}
	for name, end := range all {
		for label, how := range map[string]memstore.Reports{
			"reported": memstore.Come, "lost": memstore.Lost,
		} {
			bubble(t, fmt.Sprint(name, " ", label), func(t *testing.T) {
				gates, links := newFleet(t, 2, with(func(c *session.Config) {
					if c.MaxPerUser = 2; name == "expiry" {
						c.TTL = expiry
					}
				}))
				a, b := gates[0], gates[1]
				l := a.login("alice/union")
				here, there := a.open(l.Token), b.open(l.Token)
				bystander := b.open(a.login("bob/another", inApp(appB)).Token)
				time.Sleep(2 * time.Second)
				if n := here.ended.Load() + there.ended.Load(); n != 0 {
					t.Fatal("ended before the session")
				}
				if open := b.core.Streams(); open != 2 {
					t.Errorf("%d streams are open, want 2", open)
				}
				links[1].SetReports(how)
				a.must(end(a, l))
				time.Sleep(time.Second)
				if n := here.ended.Load(); n != 1 {
					t.Errorf("at its own gate: told %d times", n)
				}
				if how == memstore.Lost {
					time.Sleep(staleness + 5*time.Second)
				}
				if n := there.ended.Load(); n != 1 {
					t.Errorf("at the other gate: told %d times", n)
				}
				if n := bystander.ended.Load(); n != 0 && name != "all" && name != "expiry" {
					t.Errorf("the bystander: told %d times", n)
				}
				for _, s := range []*stream{here, there, bystander} {
					s.Done()
				}
				if open := b.core.Streams(); open != 0 {
					t.Errorf("%d streams are left", open)
				}
			})
		}
	}
}

// TestP10_StoreOutage_EndsNoStream: an outage logs nobody out, and what it hid comes to
// light after it.
func TestP10_StoreOutage_EndsNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gates, links := newFleet(t, 2)
		a, b := gates[0], gates[1]
		gone, kept := a.login("alice").Token, a.login("bob").Token
		ends, stays := b.open(gone), b.open(kept)
		links[1].SetReports(memstore.Lost)
		b.store.SetDown(true)
		a.must(a.Logout(t.Context(), gone))
		time.Sleep(10 * time.Minute)
		if ends.ended.Load()+stays.ended.Load() != 0 {
			t.Error("the outage has ended a stream")
		}
		b.store.SetDown(false)
		links[1].SetReports(memstore.Come)
		time.Sleep(10 * time.Second)
		if ends.ended.Load() != 1 || stays.ended.Load() != 0 {
			t.Errorf("after it: %d and %d", ends.ended.Load(), stays.ended.Load())
		}
	})
}

// TestP10_AppEndsItsOwnSession_AnswersFirst: an app that closes an account in the user's
// own request gets its answer through.
func TestP10_AppEndsItsOwnSession_AnswersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		l := g.login("alice")
		answers, stays := g.open(l.Token), g.open(l.Token)
		time.Sleep(time.Second)
		g.must(g.Logout(t.Context(), l.Token))
		time.Sleep(350 * time.Millisecond)
		answers.Done()
		time.Sleep(time.Second)
		if answers.ended.Load() != 0 || stays.ended.Load() != 1 {
			t.Errorf("told %d and %d times", answers.ended.Load(), stays.ended.Load())
		}
	})
}

// TestP10_Done_IsNotEnded: a stream that is over is left alone, also when its place is
// used again.
func TestP10_Done_IsNotEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		alice, bob := g.login("alice").Token, g.login("bob").Token
		s := g.open(alice)
		time.Sleep(time.Second)
		s.Done()
		if _, err := g.OpenStream(t.Context(), bob, &s.Stream); err != nil {
			t.Fatal(err)
		}
		g.must(g.Logout(t.Context(), alice))
		time.Sleep(time.Second)
		if n := s.ended.Load(); n != 0 {
			t.Errorf("told %d times", n)
		}
	})
}

// TestIdle_OpenStream_IsAUse: the session of an open stream does not become idle.
func TestIdle_OpenStream_IsAUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) {
			c.TTL, c.Idle = 8*time.Hour, 5*time.Minute
		})).steady()
		token, other := g.login("alice").Token, g.login("bob").Token
		s := g.open(token)
		time.Sleep(25 * time.Minute)
		if s.ended.Load() != 0 {
			t.Error("the stream was ended")
		}
		g.accept(token)
		g.refuse(other, session.ErrExpired)
	})
}

func BenchmarkOpenStream(b *testing.B) {
	g := newGate(b)
	token := cachedTokens(b, g, 1)[0]
	s := session.Stream{End: func() {}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.OpenStream(b.Context(), token, &s); err != nil {
			b.Fatal(err)
		}
		s.Done()
	}
}

// TestThreat37_ForgedSession_ClosesItsStreams: an open stream is judged without its
// token, by what the gate saw of the session before.
func TestThreat37_ForgedSession_ClosesItsStreams(t *testing.T) {
	for name, forge := range attacks {
		bubble(t, name, func(t *testing.T) {
			var counted counter
			gates, links := newFleet(t, 1,
				withCore(func(c *session.CoreConfig) { c.Foreign = &counted }))
			g := gates[0]
			mallory, alice := g.login("mallory/union"), g.login("alice/union")
			forged, honest := g.open(mallory.Token), g.open(alice.Token)
			time.Sleep(time.Second)
			g.store.Data.Lock()
			forge(g.store.Data, mallory, alice)
			g.store.Data.Unlock()
			links[0].Reconnect() // the gate reads its sessions again
			time.Sleep(time.Second)
			if forged.ended.Load() != 1 || honest.ended.Load() != 0 || counted.Load() == 0 {
				t.Errorf("told %d and %d times, counted %d",
					forged.ended.Load(), honest.ended.Load(), counted.Load())
			}
		})
	}
}
