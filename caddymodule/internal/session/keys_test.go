package session_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var alice = user("alice")

func TestParseKeyRing(t *testing.T) {
	key := session.NewMasterKey()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 || key == session.NewMasterKey() {
		t.Fatalf("NewMasterKey: %d bytes, %v", len(raw), err)
	}
	second := session.NewMasterKey()
	for sharesShortID(key, second) {
		second = session.NewMasterKey()
	}
	odd := bytes.Repeat([]byte{0xfb}, 32)
	for name, tt := range map[string]struct{ text, want string }{
		"one":               {key, ""},
		"line end":          {key + "\r\n", ""},
		"comma":             {key + "," + second, ""},
		"white space":       {"\t" + key + " \n" + second + " , ", ""},
		"empty":             {"", "holds no key"},
		"only separators":   {" ,\n,", "holds no key"},
		"short":             {base64.StdEncoding.EncodeToString(raw[:31]), "key 1 of 1 is not 32 bytes"},
		"long":              {base64.StdEncoding.EncodeToString(append(slices.Clone(raw), 1)), "key 1 of 1 is not 32 bytes"},
		"URL alphabet":      {base64.StdEncoding.EncodeToString(odd) + "," + base64.URLEncoding.EncodeToString(odd), "keys 1 and 2 are the same"},
		"no padding":        {key + "," + strings.TrimRight(key, "="), "keys 1 and 2 are the same"},
		"hex":               {key + "," + hex.EncodeToString(raw), "keys 1 and 2 are the same"},
		"named":             {key + ",2026b:" + key, "keys 1 and 2 are the same"},
		"short hex":         {hex.EncodeToString(raw[:31]), "key 1 of 1 is not 32 bytes"},
		"a passphrase":      {"correct-horse-battery-staple", "not 32 bytes in base64 or hex"},
		"second is bad":     {key + ",x", "key 2 of 2"},
		"same twice":        {key + "," + second + "," + key, "keys 1 and 3 are the same"},
		"same, other spell": {key + "," + respell(key), "keys 1 and 2 are the same"},
	} {
		_, err := session.ParseKeyRing(tt.text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// respell changes the two bits of base64 that a key of 32 bytes does not use.
func respell(key string) string {
	const std = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(key) - 2
	return key[:last] + string(std[strings.IndexByte(std, key[last])|1]) + key[last+1:]
}

func sharesShortID(a, b string) bool {
	_, err := session.ParseKeyRing(a + "," + b)
	return err != nil
}

// TestParseKeyRingShortID: a token names its key by one character, so two keys that share it cannot be in one ring.
func TestParseKeyRingShortID(t *testing.T) {
	key := session.NewMasterKey()
	for range 10_000 {
		next := session.NewMasterKey()
		if _, err := session.ParseKeyRing(key + "," + next); err != nil {
			if !strings.Contains(err.Error(), "keys 1 and 2 share the short id") {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no two of 10,000 keys share one of 64 ids")
}

// TestP6_KeyRingErrorsShowNothing: no error repeats a part of a master key.
func TestP6_KeyRingErrorsShowNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := make([]string, rapid.IntRange(1, 4).Draw(t, "keys"))
		for i := range words {
			raw := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
			words[i] = base64.StdEncoding.EncodeToString(raw)
		}
		words = append(words, words[0]) // the error of duplicates, if nothing comes before
		broken := rapid.IntRange(0, len(words)-1).Draw(t, "broken")
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			words[broken] = words[broken][:rapid.IntRange(1, 43).Draw(t, "cut")]
		case 1:
			words[broken] += "AAAA"
		case 2:
			words[broken] = "!" + words[broken]
		}
		_, err := session.ParseKeyRing(strings.Join(words, ","))
		if err == nil {
			t.Fatal("accepted")
		}
		for _, w := range words {
			for i := 0; i+5 <= len(w); i++ {
				if part := w[i : i+5]; part != "AAAAA" && strings.Contains(err.Error(), part) {
					t.Fatalf("%q shows %q", err, part)
				}
			}
		}
	})
}

func TestSealRoundTrip(t *testing.T) {
	ring := newKeys(t)
	rapid.Check(t, func(t *rapid.T) {
		u := store.UserID{AppID: rapid.StringMatching(`[!-~]{1,20}`).Draw(t, "appid"), OpenID: rapid.StringMatching(`[!-~]{1,30}`).Draw(t, "openid")}
		key := rapid.StringMatching(`[!-~]{0,128}`).Draw(t, "session_key")
		a, b := ring.Seal(u, key), ring.Seal(u, key)
		if got, err := ring.Open(u, a); err != nil || got != key {
			t.Fatalf("got %q, %v; want %q", got, err, key)
		}
		if bytes.Equal(a.Box, b.Box) {
			t.Fatal("two envelopes are equal: the nonce is used again")
		}
		if a.Tag != b.Tag || a.Tag == ring.Seal(u, key+"x").Tag {
			t.Fatal("the tag does not tell whether two boxes hold the same key")
		}
		if len(key) >= 4 && bytes.Contains(a.Box, []byte(key)) {
			t.Fatal("the envelope shows the key")
		}
		swapped := store.UserID{AppID: u.AppID + u.OpenID[:1], OpenID: u.OpenID[1:]}
		for _, w := range []store.UserID{{AppID: u.AppID, OpenID: u.OpenID + "x"}, {AppID: u.AppID + "x", OpenID: u.OpenID}, {AppID: u.OpenID, OpenID: u.AppID + "x"}, swapped, {}} {
			if _, err := ring.Open(w, a); !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("the envelope of %v opens for %v: %v", u, w, err)
			}
			if ring.Seal(w, key).Tag == a.Tag {
				t.Fatalf("two users with the same key have the same tag")
			}
		}
	})
}

func TestSealTampered(t *testing.T) {
	ring := newKeys(t)
	sealed := ring.Seal(alice, "session key of alice")
	open := func(box []byte) error {
		got, err := ring.Open(alice, store.SealedKey{Tag: sealed.Tag, Box: box})
		if got != "" {
			t.Fatalf("a tampered envelope shows %q", got)
		}
		return err
	}
	for i := range sealed.Box {
		for bit := range 8 {
			box := bytes.Clone(sealed.Box)
			box[i] ^= 1 << bit
			// Bytes 1 to 4 name the key: changed, they name one that we do not have.
			if err := open(box); err == nil || errors.Is(err, store.ErrDamaged) == (i >= 1 && i <= 4) {
				t.Fatalf("byte %d, bit %d: %v", i, bit, err)
			}
		}
		if err := open(sealed.Box[:i]); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if err := open(append(bytes.Clone(sealed.Box), 0)); !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("with a byte more: %v", err)
	}
	if err := open(nil); !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("no envelope: %v", err)
	}
}

// TestSealRotation: keys sealed before a rotation still open, under every ring that holds their master key, and under no other.
func TestSealRotation(t *testing.T) {
	var masters []string
	for len(masters) < 4 {
		k := session.NewMasterKey()
		if _, err := session.ParseKeyRing(strings.Join(append(masters, k), ",")); err == nil {
			masters = append(masters, k)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation(masters).Draw(t, "order")
		n := rapid.IntRange(1, len(order)).Draw(t, "keys")
		ring, err := session.ParseKeyRing(strings.Join(order[:n], " "))
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range order {
			sealer, err := session.ParseKeyRing(m)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ring.Open(alice, sealer.Seal(alice, "the key"))
			if i < n && (err != nil || got != "the key") || i >= n && (err == nil || got != "") {
				t.Fatalf("key %d of a ring of %d: %q, %v", i, n, got, err)
			}
			if _, err := sealer.Open(alice, ring.Seal(alice, "the key")); (err == nil) != (i == 0) {
				t.Fatalf("not the first key seals: %v", err)
			}
		}
	})
}
