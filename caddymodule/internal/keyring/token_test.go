package keyring_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func TestMint_Token_HasItsShape(t *testing.T) {
	ring := parse(t, newMasterKeys(1)...)
	seen := make(map[string]bool)
	for range 1000 {
		token := ring.Mint(keyring.Holder{})
		if len(token) != 45 || !strings.HasPrefix(token, "wxs_") ||
			strings.Trim(token, alphabet) != "" {
			t.Fatalf("token %q", token)
		}
		if seen[token[4:36]] {
			t.Fatal("the same random part twice")
		}
		seen[token[4:36]] = true
		if token[36] != ring.Mint(keyring.Holder{})[36] {
			t.Fatal("the key id differs between tokens of one key")
		}
	}
	// No character is wasted on padding bits.
	for at := range 32 {
		used := make(map[byte]bool)
		for random := range seen {
			used[random[at]] = true
		}
		if len(used) != 64 {
			t.Errorf("place %d takes %d values", at, len(used))
		}
	}
}

// shaped says in its own words what WellFormed reports.
func shaped(token string) bool {
	return len(token) == 45 && strings.HasPrefix(token, "wxs_") &&
		strings.Trim(token[4:], alphabet) == ""
}

func TestThreat21_ChangedToken_IsNotSigned(t *testing.T) {
	ring := parse(t, newMasterKeys(2)...)
	token := ring.Mint(keyring.Holder{})
	if !keyring.WellFormed(token) || !ring.Signed(token) {
		t.Fatal("a minted token is refused")
	}
	refuse := func(t interface{ Fatalf(string, ...any) }, changed string) {
		if got := keyring.WellFormed(changed); got != shaped(changed) {
			t.Fatalf("%q is well formed: %v", changed, got)
		} else if got && ring.Signed(changed) {
			t.Fatalf("%q is signed", changed)
		}
	}
	// Every byte at every place, exhaustively.
	for i := range len(token) {
		for b := range 256 {
			if byte(b) != token[i] {
				refuse(t, token[:i]+string([]byte{byte(b)})+token[i+1:])
			}
		}
		refuse(t, token[:i])
		refuse(t, token[i+1:])
	}
	for _, s := range []string{
		token + "A", " " + token, token + " ", token + "\n", token + "\x00", token + "=",
		token + token,
		strings.ToUpper(token), strings.ToLower(token), token[:44] + "é",
		strings.Repeat("A", 45), strings.Repeat("\x80", 45),
	} {
		refuse(t, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(token)
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			at := rapid.IntRange(4, len(b)-1).Draw(t, "at")
			b[at] = alphabet[rapid.IntRange(0, 63).Draw(t, "to")]
		}
		if string(b) != token {
			refuse(t, string(b))
		}
	})
}

// TestThreat37_Token_IsBoundToItsHolder: and to no other, under every ring that holds
// its key. Tokens of releases before say nothing of a holder.
func TestThreat37_Token_IsBoundToItsHolder(t *testing.T) {
	keys := newMasterKeys(2)
	before, ring := parse(t, keys[1]), parse(t, keys...)
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "created"))
		h := keyring.Holder{User: drawUser(t), Created: at, Expires: at.Add(time.Hour)}
		token := before.Mint(h)
		if got := ring.Binding(token, h); got != keyring.Bound {
			t.Fatalf("its own holder: %v", got)
		}
		others := []keyring.Holder{{}, h, h, h, h}
		others[1].Created = at.Add(time.Millisecond)
		others[2].Expires = h.Expires.Add(time.Millisecond)
		others[3].Expires = h.Expires.Add(-time.Millisecond)
		others[4].Created, others[4].Expires = h.Expires, h.Created
		for _, u := range strangers(h.User) {
			o := h
			o.User = u
			others = append(others, o)
		}
		for _, o := range others {
			if got := ring.Binding(token, o); got != keyring.Other {
				t.Fatalf("%+v with a token of %+v: %v", o, h, got)
			}
		}
		if parse(t, keys[0]).Binding(token, h) == keyring.Bound {
			t.Fatal("bound without its key")
		}
	})
	const oldKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for _, token := range []string{ // of the release before
		"wxs_kg_Wg5o5LC9bdifrVa3k8DWJORYqiGXMGhQluTpMi",
		"wxs_Hd-f856zmq0iBxZamV0TtLxwykHAz-rCGpUp36q2Q",
		"wxs_28sVikn8JBaa_Uw2AfvFJBFABaTrofseGT8ut-6Mu",
	} {
		old := parse(t, oldKey)
		got := old.Binding(token, keyring.Holder{})
		if got != keyring.Silent || !old.Signed(token) {
			t.Errorf("%s: %v, signed: %v", token, got, old.Signed(token))
		}
	}
}

func TestThreat37_UnionID_IsProvenForItsUser(t *testing.T) {
	keys := newMasterKeys(2)
	before, ring := parse(t, keys[1]), parse(t, keys...)
	rapid.Check(t, func(t *rapid.T) {
		u := drawUser(t)
		id := rapid.StringMatching(`[!-~]{1,30}`).Draw(t, "unionid")
		p := before.ProveUnionID(u, id)
		if !ring.Proves(p, u, id) || ring.Proves(p, u, id+"x") ||
			ring.Proves(keyring.Proof{}, u, id) {
			t.Fatal("the proof is not of this unionid")
		}
		for _, other := range strangers(u) {
			if ring.Proves(p, other, id) {
				t.Fatalf("the proof of %v is one of %v", u, other)
			}
		}
		if parse(t, keys[0]).Proves(p, u, id) {
			t.Fatal("proven without its key")
		}
	})
}

func TestSigned_RingOfAToken_DecidesAlone(t *testing.T) {
	keys := newMasterKeys(2)
	before, after := parse(t, keys[1]), parse(t, keys[0])
	rotated := parse(t, keys...)
	if old := before.Mint(keyring.Holder{}); !rotated.Signed(old) || after.Signed(old) {
		t.Error("a token from before a rotation")
	}
	if fresh := rotated.Mint(keyring.Holder{}); !after.Signed(fresh) || before.Signed(fresh) {
		t.Error("the first key does not sign")
	}
	for range 300 { // a foreign key has the id of ours once in 64
		if rotated.Signed(parse(t, keyring.NewMasterKey()).Mint(keyring.Holder{})) {
			t.Fatal("a foreign token is signed")
		}
	}
}
