package session_test

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

func idOf(l session.Login) string { return hex.EncodeToString(l.Digest[:8]) }

func inApp(appID string) func(*session.LoginRequest) {
	return func(r *session.LoginRequest) { r.AppID = appID }
}

func wantStates(t *testing.T, u session.UserInfo, want ...string) {
	t.Helper()
	var got []string
	for _, s := range u.Sessions {
		got = append(got, s.State)
	}
	if !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
}

func TestUser_States_AreThoseOfChecks(t *testing.T) {
	ctx := context.Background()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.TTL, c.Idle = 10*time.Hour, 2*time.Hour }))
		if _, err := g.User(ctx, alice); !errors.Is(err, session.ErrUnknownUser) {
			t.Errorf("unknown: %v", err)
		}
		first := g.login("alice/union")
		g.login("bob")
		time.Sleep(9 * time.Hour)
		second := g.login("alice")
		time.Sleep(30 * time.Minute)
		g.accept(second.Token)
		third := g.login("alice")

		u, err := g.User(ctx, alice)
		g.must(err)
		if u.AppID != appA || u.OpenID != "alice" || u.UnionID != "union" ||
			!u.LastLogin.Equal(time.Now()) || len(u.Sessions) != 3 {
			t.Fatalf("got %+v", u)
		}
		for i, l := range []session.Login{first, second, third} {
			s := u.Sessions[i]
			made := l.Expires.Add(-10 * time.Hour)
			if s.ID != idOf(l) || !s.Expires.Equal(l.Expires) || !s.Created.Equal(made) {
				t.Errorf("session %d: %+v", i, s)
			}
		}
		wantStates(t, u, session.StateIdle, session.StateLive, session.StateLive)
		unused, used := u.Sessions[0], u.Sessions[1]
		if !used.LastSeen.Equal(time.Now()) || !unused.LastSeen.Equal(unused.Created) {
			t.Errorf("last seen %v and %v", used.LastSeen, unused.LastSeen)
		}
		time.Sleep(30 * time.Minute)
		g.must(g.Logout(ctx, second.Token))
		u, err = g.User(ctx, alice)
		g.must(err)
		wantStates(t, u, session.StateExpired, session.StateLive)
		g.must(g.RevokeApp(ctx, appA))
		u, err = g.User(ctx, alice)
		g.must(err)
		wantStates(t, u, session.StateExpired, session.StateRevoked)
		g.must(g.RevokeUser(ctx, alice, endRevoked))
		u, err = g.User(ctx, alice)
		g.must(err)
		if u.UnionID != "union" || len(u.Sessions) != 0 {
			t.Errorf("after a revocation: %+v", u)
		}
	})
}

func TestUser_SessionEndsMeanwhile_IsRevoked(t *testing.T) {
	g := newGate(t)
	l := g.login("alice")
	g.store.After = func(ctx context.Context, op string) error {
		if op != "User" {
			return nil
		}
		return memstore.New(g.store.Data).End(ctx, l.Digest, endLogout)
	}
	u, err := g.User(t.Context(), alice)
	g.must(err)
	wantStates(t, u, session.StateRevoked)
}

func TestOwnSessions_Live_NewestFirst(t *testing.T) {
	g := newGate(t)
	var tokens []string
	for range 52 {
		tokens = append(tokens, g.login("alice").Token)
	}
	g.login("bob")
	ended := tokens[51]
	g.must(g.Logout(t.Context(), ended))
	list, err := g.OwnSessions(t.Context(), alice)
	g.must(err)
	if len(list) != 50 {
		t.Fatalf("%d sessions, want 50", len(list))
	}
	for i, s := range list {
		if want := session.IDOf(tokens[50-i]); s.ID != want || s.State != session.StateLive {
			t.Errorf("%d: %+v, want %s", i, s, want)
		}
	}
	g.must(g.Forget(t.Context(), alice, endForgotten))
	if list, err := g.OwnSessions(t.Context(), alice); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("after Forget: %v, %v", list, err)
	}
}

func TestEndByID_Prefix_EndsOneSession(t *testing.T) {
	ctx := context.Background()
	g := newGate(t)
	first, second, foreign := g.login("alice"), g.login("alice"), g.login("bob")
	for _, l := range []session.Login{first, second, foreign} {
		g.accept(l.Token)
	}
	g.settle()
	full := hex.EncodeToString(first.Digest[:])
	for _, id := range []string{
		"", full[:7], full[:8] + "!", full + "0", "0000000000000000", idOf(foreign),
		"%%%%%%%%", "..", strings.Repeat("0", 1<<16),
	} {
		err := g.EndByID(ctx, alice, id, endRevoked)
		if !errors.Is(err, session.ErrUnknown) {
			t.Errorf("%.20q: %v", id, err)
		}
	}
	err := g.EndByID(ctx, user("nobody"), idOf(first), endRevoked)
	if !errors.Is(err, session.ErrUnknown) {
		t.Errorf("of an unknown user: %v", err)
	}
	for _, l := range []session.Login{first, second, foreign} {
		g.accept(l.Token)
	}
	g.must(g.EndByID(ctx, alice, idOf(first), endRevoked))
	g.refuse(first.Token, session.ErrUnknown)
	g.accept(second.Token)
	err = g.EndByID(ctx, alice, idOf(first), endRevoked)
	if !errors.Is(err, session.ErrUnknown) {
		t.Errorf("ended twice: %v", err)
	}
	upper := strings.ToUpper(hex.EncodeToString(second.Digest[:4]))
	g.must(g.EndByID(ctx, alice, upper, endRevoked))
	g.refuse(second.Token, session.ErrUnknown)
	g.accept(foreign.Token)
}

func TestEndByID_TwoMatch_EndsNeither(t *testing.T) {
	g := newGate(t)
	now := time.Now()
	for i := range byte(2) {
		d := store.Digest{1, 2, 3, 4, 5, i}
		l := store.Login{User: alice, Digest: d, Created: now, Expires: now.Add(time.Hour)}
		if _, err := g.store.Login(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"01020304", "0102030405"} {
		err := g.EndByID(t.Context(), alice, id, endRevoked)
		if !errors.Is(err, session.ErrUnknown) {
			t.Errorf("%s: %v", id, err)
		}
	}
	g.must(g.EndByID(t.Context(), alice, "010203040501", endRevoked))
	u, err := g.User(t.Context(), alice)
	if err != nil || len(u.Sessions) != 1 || u.Sessions[0].ID != "0102030405000000" {
		t.Errorf("left %+v, %v", u, err)
	}
}

func TestStats_Counts(t *testing.T) {
	g := newGate(t, with(func(c *session.Config) { c.Replay = time.Hour }))
	g.cached("alice")
	g.cached("bob")
	g.login("bob")
	st, err := g.Stats(t.Context())
	want := session.Stats{Store: st.Store, CacheEntries: 2, CacheMax: 1 << 12, LoginsKept: 3}
	if err != nil || st.Store.Sessions != 3 || st.Store.Users != 2 || st != want {
		t.Errorf("%+v, %v", st, err)
	}
	if answered, err := g.Ready(t.Context()); err != nil || !answered {
		t.Errorf("ready: %v, %v", answered, err)
	}
	if i, err := g.StoreIdentity(t.Context()); err != nil || i.ID == "" {
		t.Errorf("%+v, %v", i, err)
	}
	g.store.SetDown(true)
	st, err = g.Stats(t.Context())
	if unavailable(t, err); !st.StoreDown || st.CacheEntries != 2 || st.CacheMax != 1<<12 {
		t.Errorf("store down: %+v", st)
	}
}

// copied is a store that can be copied.
type copied struct {
	*memstore.Store
	err error
}

func (c copied) Backup(_ context.Context, w io.Writer) (int64, error) {
	n, err := io.WriteString(w, "everything")
	return int64(n), errors.Join(err, c.err)
}

func TestBackup_Store_DecidesIfItCan(t *testing.T) {
	var b strings.Builder
	n, err := newGate(t).Backup(t.Context(), &b)
	if n != 0 || !errors.Is(err, session.ErrNoBackup) || b.Len() != 0 {
		t.Errorf("of a store that cannot be copied: %d, %v", n, err)
	}
	for _, fails := range []error{nil, io.ErrClosedPipe} {
		b.Reset()
		s := copied{memstore.New(memstore.NewData()), fails}
		g := newGate(t, withCore(func(c *session.CoreConfig) { c.Store = s }))
		n, err := g.Backup(t.Context(), &b)
		if n != 10 || !errors.Is(err, fails) || b.String() != "everything" {
			t.Errorf("%d, %v, %q", n, err, &b)
		}
	}
}
