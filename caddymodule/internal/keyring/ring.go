// Package keyring holds the master keys of a gate and all that is made with
// them: tokens with their check, and envelopes of secrets at rest. It must not
// know sessions, stores or caches.
package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// masterKeyLen is the length of a master key in bytes.
const masterKeyLen = 32

// Ring holds the master keys of a gate. The first key signs tokens and seals
// secrets; all keys verify and open. An operator rotates the key by putting a
// new one in front, which logs no user out. A key may go when the sessions made
// under it have expired; telephone numbers sealed under it are lost then.
type Ring struct {
	keys []*masterKey
}

// ID names a master key. It tells nothing of the key.
type ID [4]byte

// String returns the id in hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// masterKey is one master key as the keys derived from it, each under its own
// label, so that no use of one serves another use.
type masterKey struct {
	id          ID   // names the key in envelopes
	tokenID     byte // names the key in tokens
	sessionKeys cipher.AEAD
	phones      cipher.AEAD
	tickets     cipher.AEAD
	shared      cipher.AEAD
	tagKey      []byte
	unionKey    []byte
	macs        sync.Pool // of hash.Hash: docs/stores.md#check-cost
	seal64      sync.Pool // of hash.Hash, for the seals of tokens
}

// NewMasterKey returns a new random master key in the form that Parse reads.
func NewMasterKey() string {
	var b [masterKeyLen]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// Parse reads one or more master keys, newest first, separated by commas or
// white space. Each is 32 bytes in base64 (`openssl rand -base64 32`) or hex. A
// name may stand before a key for people, as in 2026b:…; Parse ignores it. The
// error tells which key is wrong and never shows any part of it.
func Parse(text string) (*Ring, error) {
	words := strings.FieldsFunc(text, func(r rune) bool {
		return strings.ContainsRune(", \t\r\n", r)
	})
	if len(words) == 0 {
		return nil, errors.New("parsing key ring: it holds no key")
	}
	ring := &Ring{}
	for i, w := range words {
		secret := decode(w)
		if len(secret) != masterKeyLen {
			return nil, fmt.Errorf(
				"parsing key ring: key %d of %d is not %d bytes in base64 or hex, "+
					"as `openssl rand -base64 32` makes them",
				i+1,
				len(words),
				masterKeyLen,
			)
		}
		k, err := derive(secret)
		if err != nil {
			return nil, fmt.Errorf("parsing key ring: key %d of %d: %w", i+1, len(words), err)
		}
		for j, other := range ring.keys {
			if other.id == k.id {
				return nil, fmt.Errorf("parsing key ring: keys %d and %d are the same", j+1, i+1)
			}
			if other.tokenID == k.tokenID {
				return nil, fmt.Errorf("parsing key ring: keys %d and %d share the short id %q, "+
					"which happens once in %d: make another key",
					j+1, i+1, k.tokenID, len(alphabet))
			}
		}
		ring.keys = append(ring.keys, k)
	}
	return ring, nil
}

// decode returns the bytes of a key in any spelling of hex or base64, or nil.
func decode(word string) []byte {
	if _, key, named := strings.Cut(word, ":"); named {
		word = key
	}
	if b, err := hex.DecodeString(word); err == nil && len(b) == masterKeyLen {
		return b
	}
	word = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(word, "="))
	b, err := base64.RawURLEncoding.DecodeString(word)
	if err != nil {
		return nil
	}
	return b
}

func derive(secret []byte) (*masterKey, error) {
	under := func(label string) []byte {
		b, err := hkdf.Key(sha256.New, secret, nil, "wxgate 1 "+label, 32)
		if err != nil {
			panic(err) // only for a length that SHA-256 cannot give
		}
		return b
	}
	sessionKeys, err := newAEAD(under("session_key seal"))
	if err != nil {
		return nil, err
	}
	phones, err := newAEAD(under("phone seal"))
	if err != nil {
		return nil, err
	}
	tickets, err := newAEAD(under("ticket seal"))
	if err != nil {
		return nil, err
	}
	shared, err := newAEAD(under("shared secret seal"))
	if err != nil {
		return nil, err
	}
	id, tokenKey, holderKey := under("key id"), under("token"), under("token holder")
	return &masterKey{
		id:          ID(id[:4]),
		tokenID:     alphabet[id[4]%byte(len(alphabet))],
		sessionKeys: sessionKeys,
		phones:      phones,
		tickets:     tickets,
		shared:      shared,
		tagKey:      under("session_key tag"),
		unionKey:    under("unionid"),
		macs:        sync.Pool{New: func() any { return hmac.New(sha256.New, tokenKey) }},
		seal64:      sync.Pool{New: func() any { return hmac.New(sha256.New, holderKey) }},
	}, nil
}

func newAEAD(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("making cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making cipher: %w", err)
	}
	return aead, nil
}

// Signer names the first key, which signs tokens and seals secrets.
func (r *Ring) Signer() ID { return r.keys[0].id }

// Has reports whether the ring holds a key.
func (r *Ring) Has(id ID) bool {
	return slices.ContainsFunc(r.keys, func(k *masterKey) bool { return k.id == id })
}

// IDs names the keys in the order of the ring.
func (r *Ring) IDs() []ID {
	ids := make([]ID, len(r.keys))
	for i, k := range r.keys {
		ids[i] = k.id
	}
	return ids
}
