package keyring_test

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

var alice = keyring.User{AppID: "wxaaaaaaaaaaaaaaaa", OpenID: "alice"}

// use is one kind of secret that a ring seals.
type use struct {
	seal func(*keyring.Ring, keyring.User, string) []byte
	open func(*keyring.Ring, keyring.User, []byte) (string, error)
}

var uses = map[string]use{
	"session_key": {
		func(r *keyring.Ring, u keyring.User, text string) []byte {
			return r.SealSessionKey(u, text).Box
		},
		(*keyring.Ring).OpenSessionKey,
	},
	"phone": {(*keyring.Ring).SealPhone, (*keyring.Ring).OpenPhone},
	"shared": {
		func(r *keyring.Ring, u keyring.User, text string) []byte {
			return r.SealShared(u.AppID+" "+u.OpenID, text)
		},
		func(r *keyring.Ring, u keyring.User, box []byte) (string, error) {
			text, _, err := r.OpenShared(u.AppID+" "+u.OpenID, box)
			return text, err
		},
	},
}

func drawUser(t *rapid.T) keyring.User {
	return keyring.User{
		AppID:  rapid.StringMatching(`[!-~]{1,20}`).Draw(t, "appid"),
		OpenID: rapid.StringMatching(`[!-~]{1,30}`).Draw(t, "openid"),
	}
}

// strangers are users whose names resemble another's.
func strangers(u keyring.User) []keyring.User {
	return []keyring.User{
		{AppID: u.AppID, OpenID: u.OpenID + "x"},
		{AppID: u.AppID + "x", OpenID: u.OpenID},
		{AppID: u.OpenID, OpenID: u.AppID + "x"},
		{AppID: u.AppID + u.OpenID[:1], OpenID: u.OpenID[1:]},
		{},
	}
}

func TestThreat16_Envelope_OpensForItsUserAndUseOnly(t *testing.T) {
	ring := parse(t, newMasterKeys(1)...)
	for name, use := range uses {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			u := drawUser(t)
			text := rapid.StringMatching(`[!-~]{0,128}`).Draw(t, "secret")
			box := use.seal(ring, u, text)
			if got, err := use.open(ring, u, box); err != nil || got != text {
				t.Fatalf("got %q, %v; want %q", got, err, text)
			}
			if bytes.Equal(box, use.seal(ring, u, text)) {
				t.Fatal("two envelopes are equal: the nonce is used again")
			}
			if len(text) >= 4 && bytes.Contains(box, []byte(text)) {
				t.Fatal("the envelope shows the secret")
			}
			for _, other := range strangers(u) {
				if got, err := use.open(ring, other, box); !errors.Is(err, keyring.ErrDamaged) ||
					got != "" {
					t.Fatalf("the envelope of %v opens for %v: %v", u, other, err)
				}
			}
			for other, use := range uses {
				if got, err := use.open(ring, u, box); other != name && (err == nil || got != "") {
					t.Fatalf("it opens as %s", other)
				}
			}
		}))
	}
}

func TestSealSessionKey_Tag_TellsTheSameKeyOfOneUser(t *testing.T) {
	keys := newMasterKeys(3)
	ring := parse(t, keys...)
	rapid.Check(t, func(t *rapid.T) {
		u := drawUser(t)
		text := rapid.StringMatching(`[!-~]{0,128}`).Draw(t, "session_key")
		tag := ring.SealSessionKey(u, text).Tag
		if tag != ring.SealSessionKey(u, text).Tag || tag == ring.SealSessionKey(u, text+"x").Tag {
			t.Fatal("the tag does not tell whether two boxes hold the same key")
		}
		for _, other := range strangers(u) {
			if ring.SealSessionKey(other, text).Tag == tag {
				t.Fatalf("%v and %v with the same key have the same tag", u, other)
			}
		}
		for i, old := range ring.OldTags(u, text) {
			if old != parse(t, keys[i+1]).SealSessionKey(u, text).Tag {
				t.Fatalf("old tag %d is not what key %d gave", i, i+1)
			}
		}
	})
}

func TestThreat16_Envelope_TamperedWithOpensNothing(t *testing.T) {
	ring := parse(t, newMasterKeys(1)...)
	for name, use := range uses {
		sealed := use.seal(ring, alice, "secret of alice")
		open := func(box []byte) error {
			got, err := use.open(ring, alice, box)
			if got != "" {
				t.Fatalf("%s: a tampered envelope shows %q", name, got)
			}
			return err
		}
		for i := range sealed {
			for bit := range 8 {
				box := bytes.Clone(sealed)
				box[i] ^= 1 << bit
				// Bytes 1 to 4 name the key: changed, they name one that the ring lacks.
				if err := open(box); err == nil ||
					errors.Is(err, keyring.ErrDamaged) == (i >= 1 && i <= 4) {
					t.Fatalf("%s: byte %d, bit %d: %v", name, i, bit, err)
				}
			}
			if err := open(sealed[:i]); !errors.Is(err, keyring.ErrDamaged) {
				t.Fatalf("%s: cut to %d bytes: %v", name, i, err)
			}
		}
		for _, box := range [][]byte{append(bytes.Clone(sealed), 0), nil} {
			if err := open(box); !errors.Is(err, keyring.ErrDamaged) {
				t.Fatalf("%s: %d bytes: %v", name, len(box), err)
			}
		}
	}
}

// What was sealed before a rotation still opens, under every ring that holds
// its master key, and under no other.
func TestSeal_Rotation_OldEnvelopesOpen(t *testing.T) {
	keys := newMasterKeys(4)
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation(keys).Draw(t, "order")
		n := rapid.IntRange(1, len(order)).Draw(t, "keys")
		ring := parse(t, order[:n]...)
		for i, k := range order {
			sealer := parse(t, k)
			for name, use := range uses {
				got, err := use.open(ring, alice, use.seal(sealer, alice, "secret"))
				if i < n && (err != nil || got != "secret") || i >= n && (err == nil || got != "") {
					t.Fatalf("%s: key %d of a ring of %d: %q, %v", name, i, n, got, err)
				}
				_, err = use.open(sealer, alice, use.seal(ring, alice, "secret"))
				if (err == nil) != (i == 0) {
					t.Fatalf("%s: not the first key seals: %v", name, err)
				}
			}
		}
	})
}
