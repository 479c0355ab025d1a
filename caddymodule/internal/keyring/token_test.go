package keyring_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func TestMint_Token_HasItsShape(t *testing.T) {
	ring := parse(t, newMasterKeys(1)...)
	seen := make(map[string]bool)
	for range 1000 {
		token := ring.Mint()
		if len(token) != 45 || !strings.HasPrefix(token, "wxs_") ||
			strings.Trim(token, alphabet) != "" {
			t.Fatalf("token %q", token)
		}
		if seen[token[4:36]] {
			t.Fatal("the same random part twice")
		}
		seen[token[4:36]] = true
		if token[36] != ring.Mint()[36] {
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
	token := ring.Mint()
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

func TestSigned_RingOfAToken_DecidesAlone(t *testing.T) {
	keys := newMasterKeys(2)
	before, after := parse(t, keys[1]), parse(t, keys[0])
	rotated := parse(t, keys...)
	if old := before.Mint(); !rotated.Signed(old) || after.Signed(old) {
		t.Error("a token from before a rotation")
	}
	if fresh := rotated.Mint(); !after.Signed(fresh) || before.Signed(fresh) {
		t.Error("the first key does not sign")
	}
	for range 300 { // a foreign key has the id of ours once in 64
		if rotated.Signed(parse(t, keyring.NewMasterKey()).Mint()) {
			t.Fatal("a foreign token is signed")
		}
	}
}
