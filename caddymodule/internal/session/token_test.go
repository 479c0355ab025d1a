package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

func TestTokenShape(t *testing.T) {
	keys := newKeys(t)
	seen := make(map[string]bool)
	for range 1000 {
		token := keys.Mint()
		if len(token) != 45 || !strings.HasPrefix(token, "wxs_") || strings.Trim(token, session.Alphabet) != "" {
			t.Fatalf("token %q", token)
		}
		if seen[token[4:36]] {
			t.Fatal("the same random part twice")
		}
		seen[token[4:36]] = true
		if token[36] != keys.Mint()[36] {
			t.Fatal("the key id differs between tokens of one key")
		}
	}
	// Every place of the random part uses the whole alphabet: no character is wasted on padding bits.
	for at := 4; at < 36; at++ {
		used := make(map[byte]bool)
		for token := range seen {
			used[token[at-4]] = true
		}
		if len(used) != 64 {
			t.Errorf("place %d takes %d values", at, len(used))
		}
	}
}

// TestTokenAnyChangeIsRefused: no change of a live token opens anything, and none of them is worth a call to the store (THREATS.md 21).
func TestTokenAnyChangeIsRefused(t *testing.T) {
	g := newGate(t)
	token := g.login("alice").Token
	refuse := func(t interface{ Fatalf(string, ...any) }, changed string) {
		var err error
		if n := g.asks(func() { _, err = g.Authenticate(context.Background(), changed) }); n != 0 {
			t.Fatalf("%q: the store was asked %d times", changed, n)
		}
		want := session.ErrForged
		if len(changed) != len(token) || !strings.HasPrefix(changed, "wxs_") || strings.Trim(changed[4:], session.Alphabet) != "" {
			want = session.ErrMalformed
		}
		if !errors.Is(err, want) || !errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%q: got %v, want %v", changed, err, want)
		}
	}
	// Every byte at every place, exhaustively.
	for i := range len(token) {
		for b := range 256 {
			if byte(b) != token[i] {
				refuse(t, token[:i]+string([]byte{byte(b)})+token[i+1:])
			}
		}
	}
	for i := range len(token) {
		refuse(t, token[:i])
		refuse(t, token[i+1:])
	}
	for _, s := range []string{token + "A", " " + token, token + " ", token + "\n", token + "\x00", token + "=", token + token, strings.ToUpper(token), strings.ToLower(token), token[:44] + "é", strings.Repeat("A", 45), strings.Repeat("\x80", 45)} {
		refuse(t, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(token)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			b[rapid.IntRange(4, len(b)-1).Draw(t, "at")] = session.Alphabet[rapid.IntRange(0, 63).Draw(t, "to")]
		}
		if string(b) != token {
			refuse(t, string(b))
		}
	})
	g.accept(token)
}

func TestTokenOfForeignKey(t *testing.T) {
	g, foreign := newGate(t), newKeys(t)
	for range 300 { // a foreign key has our key's id once in 64
		if n := g.asks(func() { g.refuse(foreign.Mint(), session.ErrForged) }); n != 0 {
			t.Fatal("the store was asked")
		}
		foreign = newKeys(t)
	}
}

func TestTokenKeyRotation(t *testing.T) {
	oldKey, newKey := session.NewMasterKey(), ""
	for newKey == "" { // of another short id than the old one
		if k := session.NewMasterKey(); func() bool { _, err := session.ParseKeyRing(k + "," + oldKey); return err == nil }() {
			newKey = k
		}
	}
	data := newMemData()
	under := func(keys ...string) *gate {
		return newGate(t, func(cc *session.CoreConfig, c *session.Config) {
			cc.Store, c.Keys = newMemStore(data), newKeys(t, keys...)
		})
	}
	before := under(oldKey).login("alice").Token

	rotated := under(newKey, oldKey)
	if id := rotated.accept(before); id.OpenID != "alice" {
		t.Fatalf("got %+v", id)
	}
	after := rotated.login("alice").Token
	if after[36] == before[36] {
		t.Error("the new key is in front and does not sign")
	}
	rotated.accept(after)

	dropped := under(newKey)
	dropped.accept(after)
	if n := dropped.asks(func() { dropped.refuse(before, session.ErrForged) }); n != 0 {
		t.Error("the store was asked for a token whose key is gone")
	}
	under(oldKey).refuse(after, session.ErrForged)
}

// FuzzToken: whatever is presented, Authenticate does not panic, accepts nothing but the one live token, and asks the store for nothing that was not made under the key ring.
func FuzzToken(f *testing.F) {
	g := newGate(f)
	live := g.cached("alice")
	unknown := g.keys.Mint()
	for _, s := range []string{"", "wxs_", live, unknown, live[:44], live + "A", newKeys(f).Mint(), strings.Repeat("A", 45), "wxs_" + strings.Repeat("é", 41)} {
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
			return
		case token == unknown:
			if errors.Is(err, context.DeadlineExceeded) {
				return // a busy machine
			}
			if n != 1 || !errors.Is(err, session.ErrUnknown) {
				t.Fatalf("%d calls, %v", n, err)
			}
			return
		case n != 0:
			t.Fatalf("the store was asked %d times for %q", n, token)
		case !errors.Is(err, session.ErrMalformed) && !errors.Is(err, session.ErrForged):
			t.Fatalf("%q: %v", token, err)
		}
		if shaped := len(token) == session.TokenLen && utf8.ValidString(token) && strings.HasPrefix(token, session.TokenPrefix) && strings.Trim(token[4:], session.Alphabet) == ""; shaped != errors.Is(err, session.ErrForged) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
