package keyring_test

import (
	"errors"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

func TestTicket_ItsTarget_GivesTheToken(t *testing.T) {
	keys := newMasterKeys(2)
	ring := parse(t, keys[0])
	token, ends := ring.Mint(keyring.Holder{}), time.UnixMilli(1_900_000_000_123)
	ticket := ring.SealTicket(token, "/files/a.jpg", ends)

	for name, r := range map[string]*keyring.Ring{
		"the same ring": ring, "after a rotation": parse(t, keys[1]+","+keys[0]),
	} {
		got, until, err := r.OpenTicket(ticket, "/files/a.jpg")
		if got != token || !until.Equal(ends) || err != nil {
			t.Errorf("%s: %q until %v, %v", name, got, until, err)
		}
	}
	if _, _, err := ring.OpenTicket(ticket, "/files/b.jpg"); !errors.Is(err, keyring.ErrDamaged) {
		t.Errorf("for another target: %v", err)
	}
	if _, _, err := parse(t, keys[1]).OpenTicket(ticket, "/files/a.jpg"); err == nil {
		t.Error("another ring opens it")
	}
}

func TestTicket_EachCharacterChanged_OpensNothing(t *testing.T) {
	ring := parse(t, keyring.NewMasterKey())
	ticket := ring.SealTicket(ring.Mint(keyring.Holder{}), "/", time.Now())
	for i := range ticket {
		for _, c := range []string{"A", "B", "-", "=", "%", " "} {
			if changed := ticket[:i] + c + ticket[i+1:]; changed != ticket {
				if token, _, err := ring.OpenTicket(changed, "/"); err == nil {
					t.Errorf("character %d as %q opens %q", i, c, token)
				}
			}
		}
		if _, _, err := ring.OpenTicket(ticket[:i], "/"); err == nil {
			t.Errorf("the first %d characters open", i)
		}
	}
	// An envelope of another use is no ticket.
	sealed := ring.SealPhone(keyring.User{}, "13580006666")
	if _, _, err := ring.OpenTicket(string(sealed), "/"); err == nil {
		t.Error("a telephone number opens")
	}
}
