package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

// attacks are what one who can write to the store, but has no master key, makes of the
// session behind mallory's token.
var attacks = map[string]func(d *memstore.Data, mallory, alice session.Login){
	"alice's openid and epochs": func(d *memstore.Data, mallory, alice session.Login) {
		s := d.Sessions[mallory.Digest]
		s.User, s.Epochs = alice.User, d.Sessions[alice.Digest].Epochs
		d.Sessions[mallory.Digest] = s
	},
	"alice's record": func(d *memstore.Data, mallory, alice session.Login) {
		d.Sessions[mallory.Digest] = d.Sessions[alice.Digest]
	},
	"the same openid in another mini program": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		was := s.User
		s.User.AppID = appB
		d.Users[s.User], d.Apps[appB] = d.Users[was], s.Epochs.App
		d.Sessions[mallory.Digest] = s
	},
	"a later end": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Expires = s.Expires.Add(time.Millisecond)
		d.Sessions[mallory.Digest] = s
	},
	"a later begin and end": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Created, s.Expires = s.Created.Add(time.Hour), s.Expires.Add(time.Hour)
		d.Sessions[mallory.Digest] = s
	},
	"a later begin, ending soon": func(d *memstore.Data, mallory, _ session.Login) {
		s := d.Sessions[mallory.Digest]
		s.Created, s.Expires = s.Created.Add(time.Hour), s.Created.Add(2*time.Hour)
		d.Sessions[mallory.Digest] = s
	},
}

// TestThreat37_ForgedSession_IsNobody: it is refused for as long as it is there,
// logged once a minute and counted. Other sessions go on, and a login brings
// mallory back as mallory.
func TestThreat37_ForgedSession_IsNobody(t *testing.T) {
	for name, forge := range attacks {
		bubble(t, name, func(t *testing.T) {
			logger, logs := observed()
			var counted counter
			g := newGate(t, logger, withCore(func(c *session.CoreConfig) { c.Foreign = &counted }))
			g.core.SetEntries(newFaultCache(1))
			mallory, alice := g.login("mallory/union"), g.login("alice/union")
			g.accept(mallory.Token)
			g.store.Data.Lock()
			forge(g.store.Data, mallory, alice)
			g.store.Data.Unlock()
			g.core.SetEntries(newFaultCache(2)) // as after a while
			for range 3 {
				g.refuse(mallory.Token, session.ErrForeign)
				g.settle()
			}
			lines := logs.FilterMessage("record in session store is not a gate's; not believed").
				All()
			if len(lines) != 1 || lines[0].Level != zap.ErrorLevel || counted.Load() != 3 {
				t.Errorf("counted %d, logged %+v", counted.Load(), lines)
			}
			time.Sleep(time.Minute)
			g.refuse(mallory.Token, session.ErrForeign)
			if n := logs.FilterMessageSnippet("is not a gate's").Len(); n != 2 {
				t.Errorf("%d lines after a minute", n)
			}
			g.accept(alice.Token)
			again := g.login(
				"mallory",
				func(r *session.LoginRequest) { r.Presented = mallory.Token },
			)
			if id := g.accept(again.Token); id.OpenID != "mallory" {
				t.Errorf("mallory is %+v", id)
			}
			// The login may have shortened the session to less than it was, which is true.
			if id, err := g.authenticate(mallory.Token); err == nil && id.OpenID != "mallory" {
				t.Errorf("mallory's token is %+v", id)
			}
		})
	}
}

// TestThreat37_ForgedUnionID_IsHidden: whatever proof stands beside it. The next login
// shows the true one.
func TestThreat37_ForgedUnionID_IsHidden(t *testing.T) {
	for name, forge := range map[string]func(bob, alice *store.User){
		"proof of bob's": func(bob, alice *store.User) { bob.UnionID = alice.UnionID },
		"proof of alice's": func(bob, alice *store.User) {
			bob.UnionID, bob.Proof = alice.UnionID, alice.Proof
		},
		"no proof": func(bob, alice *store.User) {
			bob.UnionID, bob.Proof = alice.UnionID, store.Proof{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t)
			bob, alice := g.login("bob/his"), g.login("alice/hers")
			users := g.store.Data.Users
			forge(users[bob.User], users[alice.User])
			if id := g.accept(bob.Token); id.OpenID != "bob" || id.UnionID != "" {
				t.Errorf("bob is %+v", id)
			}
			if l := g.login("bob"); l.UnionIDBound {
				t.Error("a login without a unionid counts the forged one as bound")
			}
			other := g.login("bob/his")
			for _, token := range []string{bob.Token, other.Token} {
				if id := g.accept(token); id.UnionID != "his" {
					t.Errorf("after a login: %+v", id)
				}
			}
			if id := g.accept(alice.Token); id.UnionID != "hers" {
				t.Errorf("alice is %+v", id)
			}
		})
	}
}

// TestThreat37_Decrypt_ProvesTheUnionID: also the one that is on record, unproven, from
// a release before.
func TestThreat37_Decrypt_ProvesTheUnionID(t *testing.T) {
	const sessionKey = "AAECAwQFBgcICQoLDA0ODw=="
	g := gateOf(t, alice, sessionKey)
	token := g.login("alice").Token
	g.store.Data.Users[alice].UnionID = "found"
	if id := g.accept(token); id.UnionID != "" {
		t.Errorf("unproven, but shown: %+v", id)
	}
	g.settle()
	text := object(alice, "found")
	g.openAs(alice, seal(sessionKey, text), text)
	if id := g.accept(token); id.UnionID != "found" {
		t.Errorf("after it was proven: %+v", id)
	}
}

// oldToken is one that the release before silentUntil's made, under oldMasterKey.
const (
	oldToken     = "wxs_kg_Wg5o5LC9bdifrVa3k8DWJORYqiGXMGhQluTpMi"
	oldMasterKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// TestThreat37_OldToken_HoldsForATime: sessions of a release before go on after the
// upgrade, with their unionids. Then the gate believes no such record.
func TestThreat37_OldToken_HoldsForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, with(func(c *session.Config) { c.Keys = newKeys(t, oldMasterKey) }))
		now := time.Now()
		session.SetSilentUntil(t, now.Add(time.Hour))
		_, err := g.store.Login(t.Context(), store.Login{
			User: alice, UnionID: "union", Digest: session.DigestOf(oldToken), Created: now,
			Expires: now.Add(2 * time.Hour), UsedUntil: now.Add(time.Minute),
		})
		g.must(err)
		for range 2 {
			if id := g.accept(oldToken); id.OpenID != "alice" || id.UnionID != "union" {
				t.Errorf("an old session: %+v", id)
			}
			time.Sleep(time.Hour - time.Second)
		}
		g.refuse(oldToken, session.ErrForeign)
		g.accept(g.login("alice").Token)
	})
}
