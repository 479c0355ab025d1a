package session_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
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
	g.store.SetDown(true)
	_, err = g.OwnSessions(t.Context(), alice)
	unavailable(t, err)
}

func TestUsersByUnionID_AllMiniPrograms(t *testing.T) {
	g := newGate(t)
	g.login("alice/union")
	g.login("other/union", inApp(appB))
	g.login("bob/another")
	g.login("carol")
	users, err := g.UsersByUnionID(t.Context(), person("union"))
	g.must(err)
	var got []string
	for _, u := range users {
		got = append(got, fmt.Sprint(u.AppID, u.OpenID, u.UnionID, len(u.Sessions)))
	}
	slices.Sort(got)
	if want := []string{appA + "aliceunion1", appB + "otherunion1"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, nobody := range []string{"", "unio", "nobody"} {
		if users, err := g.UsersByUnionID(t.Context(), person(nobody)); err != nil ||
			len(users) != 0 {
			t.Errorf("%q: %v, %v", nobody, users, err)
		}
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

// TestP3_RevokeUnionID_AllMiniPrograms: at once, and no other user.
func TestP3_RevokeUnionID_AllMiniPrograms(t *testing.T) {
	ctx := context.Background()
	g := newGate(t)
	elsewhere := func(who string) string { return g.login(who, inApp(appB)).Token }
	gone := []string{g.cached("alice/union"), g.cached("alice"), elsewhere("other/union")}
	keep := []string{g.cached("bob/another"), g.cached("carol"), elsewhere("alice")}
	for _, nobody := range []string{"", "unio"} {
		if n, err := g.RevokeUnionID(ctx, person(nobody), endRevoked); n != 0 || err != nil {
			t.Errorf("%q: %d, %v", nobody, n, err)
		}
	}
	for _, token := range gone {
		g.accept(token)
	}
	g.settle()
	if n, err := g.RevokeUnionID(ctx, person("union"), endRevoked); n != 2 || err != nil {
		t.Fatalf("%d users, %v", n, err)
	}
	for _, token := range gone {
		g.refuse(token, session.ErrRevoked)
	}
	for _, token := range keep {
		g.accept(token)
	}
}

// TestForgetUnionID_AllMiniPrograms: and no other user.
func TestForgetUnionID_AllMiniPrograms(t *testing.T) {
	ctx := t.Context()
	g := newGate(t)
	gone := []string{g.login("alice/union").Token, g.login("other/union", inApp(appB)).Token}
	keep := g.login("bob/another").Token
	if n, err := g.ForgetUnionID(ctx, person("union"), endForgotten); n != 2 || err != nil {
		t.Fatalf("%d users, %v", n, err)
	}
	for _, token := range gone {
		g.refuse(token, session.ErrInvalid)
	}
	g.accept(keep)
	for _, id := range []store.UserID{alice, {AppID: appB, OpenID: "other"}} {
		if u, err := g.User(ctx, id); !errors.Is(err, session.ErrUnknownUser) {
			t.Errorf("known is %+v, %v", u, err)
		}
	}
	if u, err := g.User(ctx, user("bob")); err != nil || u.UnionID != "another" {
		t.Errorf("known of somebody else is %+v, %v", u, err)
	}
	for _, unionID := range []string{"union", "nobody", ""} {
		if n, err := g.ForgetUnionID(ctx, person(unionID), endForgotten); n != 0 || err != nil {
			t.Errorf("%q: %d users, %v", unionID, n, err)
		}
	}
}

// TestRevokeUnionID_OneFails_OthersEnd: and the caller hears of it.
func TestRevokeUnionID_OneFails_OthersEnd(t *testing.T) {
	g := newGate(t)
	g.login("alice/union")
	g.login("other/union", inApp(appB))
	failed := false
	g.store.Before = func(_ context.Context, op string) error {
		if op != "RevokeUser" || failed {
			return nil
		}
		failed = true
		return store.ErrUnavailable
	}
	n, err := g.RevokeUnionID(t.Context(), person("union"), endRevoked)
	if unavailable(t, err); n != 1 {
		t.Errorf("%d users", n)
	}
	if n, err := g.RevokeUnionID(t.Context(), person("union"), endRevoked); n != 2 || err != nil {
		t.Errorf("again: %d users, %v", n, err)
	}
}

// TestP4_Operator_StoreDown_IsUnavailable: never unknown.
func TestP4_Operator_StoreDown_IsUnavailable(t *testing.T) {
	ctx := context.Background()
	g := newGate(t)
	l := g.login("alice")
	g.accept(l.Token)
	g.settle()
	g.store.SetDown(true)
	one, all := person("u"), person("union")
	for name, call := range map[string]func() error{
		"User":           func() error { _, err := g.User(ctx, alice); return err },
		"UsersByUnionID": func() error { _, err := g.UsersByUnionID(ctx, all); return err },
		"EndByID":        func() error { return g.EndByID(ctx, alice, idOf(l), endRevoked) },
		"RevokeUnionID":  func() error { _, err := g.RevokeUnionID(ctx, one, 0); return err },
		"Stats":          func() error { _, err := g.Stats(ctx); return err },
		"StoreHealth":    func() error { return g.StoreHealth(ctx) },
		"StoreIdentity":  func() error { _, err := g.StoreIdentity(ctx); return err },
	} {
		t.Run(name, func(t *testing.T) { unavailable(t, call()) })
	}
	st, err := g.Stats(ctx)
	if err == nil || !st.StoreDown || st.CacheEntries != 1 || st.CacheMax != 1<<12 {
		t.Errorf("%+v, %v", st, err)
	}
	g.store.SetDown(false)
	g.accept(l.Token)
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
	g.must(g.StoreHealth(t.Context()))
	if i, err := g.StoreIdentity(t.Context()); err != nil || i.ID == "" {
		t.Errorf("%+v, %v", i, err)
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
