package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
)

const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// refusal returns the error that a token gets which is not the live one.
func refusal(token string) error {
	rest, prefixed := strings.CutPrefix(token, keyring.TokenPrefix)
	if len(token) != keyring.TokenLen || !utf8.ValidString(token) || !prefixed ||
		strings.Trim(rest, tokenAlphabet) != "" {
		return session.ErrMalformed
	}
	return session.ErrForged
}

// No change of a live token opens anything or costs a call to the store.
func TestThreat21_ChangedToken_IsRefusedWithoutStore(t *testing.T) {
	g := newGate(t)
	token := g.login("alice").Token
	changes := []string{newKeys(t).Mint(nobody), token + "A", " " + token, strings.ToUpper(token)}
	for i := range len(token) {
		changes = append(changes, token[:i], token[:i]+"\x00"+token[i+1:])
		for _, c := range "Aa0-" {
			if byte(c) != token[i] {
				changes = append(changes, token[:i]+string(c)+token[i+1:])
			}
		}
	}
	for _, changed := range changes {
		var err error
		n := g.asks(func() { _, err = g.Authenticate(context.Background(), changed) })
		if n != 0 || !errors.Is(err, refusal(changed)) || !errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%q: %d calls of the store, %v, want %v", changed, n, err, refusal(changed))
		}
	}
	g.accept(token)
}

func TestAuthenticate_RotatedRing_AcceptsOldTokens(t *testing.T) {
	keys := newMasters(2)
	newKey, oldKey := keys[0], keys[1]
	data := memstore.NewData()
	under := func(keys ...string) *gate {
		return newGate(t, keeping(t, data, keys...))
	}
	before := under(oldKey).login("alice").Token
	rotated := under(newKey, oldKey)
	if id := rotated.accept(before); id.OpenID != "alice" {
		t.Fatalf("got %+v", id)
	}
	after := rotated.login("alice").Token
	rotated.accept(after)

	dropped := under(newKey)
	dropped.accept(after)
	if n := dropped.asks(func() { dropped.refuse(before, session.ErrForged) }); n != 0 {
		t.Error("the store was asked for a token whose key is gone")
	}
	under(oldKey).refuse(after, session.ErrForged)
}

// Authenticate accepts nothing but the one live token, and asks the store for
// nothing that no key of the ring has signed.
func FuzzToken(f *testing.F) {
	g := newGate(f)
	live := g.cached("alice")
	unknown := g.keys.Mint(nobody)
	for _, s := range []string{
		"", "wxs_", live, unknown, live[:44], live + "A", newKeys(f).Mint(nobody),
		strings.Repeat("A", 45), "wxs_" + strings.Repeat("é", 41),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		var err error
		n := g.asks(func() { _, err = g.Authenticate(context.Background(), token) })
		switch {
		case token == live:
			if err != nil {
				t.Fatalf("the live token is refused: %v", err)
			}
		case token == unknown:
			if errors.Is(err, context.DeadlineExceeded) {
				return // a busy machine
			}
			if n != 1 || !errors.Is(err, session.ErrUnknown) {
				t.Fatalf("%d calls, %v", n, err)
			}
		case n != 0 || !errors.Is(err, refusal(token)):
			t.Fatalf("%q: %d calls of the store, %v, want %v", token, n, err, refusal(token))
		}
	})
}
