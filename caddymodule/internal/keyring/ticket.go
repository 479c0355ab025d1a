package keyring

import (
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"
)

// SealTicket returns a ticket: a token of this ring, encrypted for one target and a
// time, so that a link can carry it. It is safe in a URL. A ticket ends with the
// session of its token, since whoever opens it checks the token in the same way.
func (r *Ring) SealTicket(token, target string, ends time.Time) string {
	k := r.keys[0]
	text := binary.BigEndian.AppendUint64(nil, uint64(ends.UnixMilli()))
	text = append(text, token...)
	box := k.seal(k.tickets, string(text), ticketBinding(target))
	return base64.RawURLEncoding.EncodeToString(box)
}

// OpenTicket returns the token in a ticket of SealTicket for the same target, and the
// time when the ticket ends. The error wraps ErrDamaged unless the key is not in the
// ring.
func (r *Ring) OpenTicket(ticket, target string) (token string, ends time.Time, err error) {
	// Strict, so that no two spellings are one ticket.
	box, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("opening ticket: %w", ErrDamaged)
	}
	text, err := r.open(box, ticketBinding(target), func(k *masterKey) cipher.AEAD {
		return k.tickets
	})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("opening ticket: %w", err)
	}
	if len(text) != 8+TokenLen {
		return "", time.Time{}, fmt.Errorf("opening ticket: %w", ErrDamaged)
	}
	return text[8:], time.UnixMilli(int64(binary.BigEndian.Uint64([]byte(text)))), nil
}

func ticketBinding(target string) []byte { return []byte("ticket\x00" + target) }
