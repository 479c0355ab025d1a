package keyring

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"time"
)

// A token is the prefix, 24 bytes of body, the id of the key that signed it, and
// 48 bits of HMAC over all that: 45 characters, safe in a header and a URL
// (docs/stores.md#token). Each part has a multiple of three bytes, so that every
// character counts and no two spellings mean the same token.
//
// The body is 16 random bytes and a seal: 20 bits of HMAC over these, which show that
// the token has a seal, and 44 bits of HMAC over these and the Holder. Gates of
// before have 24 random bytes there. To them, and to all without the key, a seal is
// as random.
const (
	// TokenPrefix begins every token, which tells it from other credentials.
	TokenPrefix = "wxs_"

	// TokenLen is the length of every token.
	TokenLen = macAt + macLen/3*4

	bodyLen   = randomLen + 8
	randomLen = 16
	holderSet = 1<<44 - 1 // bits of the seal that depend on the Holder
	keyIDAt   = len(TokenPrefix) + bodyLen/3*4
	macAt     = keyIDAt + 1
	macLen    = 6
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// inAlphabet answers for every byte without a branch per range.
var inAlphabet = func() (set [256]bool) {
	for i := range len(alphabet) {
		set[alphabet[i]] = true
	}
	return set
}()

// WellFormed reports whether a credential has the shape of a token. It is the
// cheapest filter and comes first.
func WellFormed(token string) bool {
	if len(token) != TokenLen || token[:len(TokenPrefix)] != TokenPrefix {
		return false
	}
	for i := len(TokenPrefix); i < TokenLen; i++ {
		if !inAlphabet[token[i]] {
			return false
		}
	}
	return true
}

// Holder is what a token is made for. The record of its session must say the same.
// Times count in milliseconds.
type Holder struct {
	User             User
	Created, Expires time.Time
}

// Mint returns a new token for h under the first key. It tells nothing of h to those
// without the key (docs/threats.md#t15).
func (r *Ring) Mint(h Holder) string {
	var body [bodyLen]byte
	rand.Read(body[:randomLen])

	k := r.keys[0]
	sealed, holder := k.seals([randomLen]byte(body[:]), h)
	binary.BigEndian.PutUint64(body[randomLen:], sealed&^holderSet|holder&holderSet)
	b := make([]byte, TokenLen)
	copy(b, TokenPrefix)
	base64.RawURLEncoding.Encode(b[len(TokenPrefix):keyIDAt], body[:])
	b[keyIDAt] = k.tokenID
	k.mac([macAt]byte(b[:macAt]), b[macAt:])
	return string(b)
}

// Binding tells what a token says of its holder.
type Binding int

// The bindings of a token.
const (
	Other  Binding = iota // made for another holder
	Bound                 // made for that holder
	Silent                // of a gate of before, which made tokens for no holder
)

// Binding tells whether a token that is Signed was made for h. One token of before in
// a million reads as made for another holder.
func (r *Ring) Binding(token string, h Holder) Binding {
	for _, k := range r.keys {
		if k.tokenID != token[keyIDAt] {
			continue
		}
		var body [bodyLen]byte
		if _, err := base64.RawURLEncoding.Decode(
			body[:], []byte(token[len(TokenPrefix):keyIDAt]),
		); err != nil {
			return Other
		}
		seal := binary.BigEndian.Uint64(body[randomLen:])
		sealed, holder := k.seals([randomLen]byte(body[:]), h)
		switch {
		case (seal^sealed)&^holderSet != 0:
			return Silent
		case (seal^holder)&holderSet == 0:
			return Bound
		}
	}
	return Other
}

// seals returns the HMACs of which a seal consists. Their inputs differ in length.
func (k *masterKey) seals(random [randomLen]byte, h Holder) (sealed, holder uint64) {
	mac := k.seal64.Get().(hash.Hash)
	defer k.seal64.Put(mac)
	var buf [256]byte
	b := append(buf[:0], random[:]...)
	sealed = sum64(mac, b)
	b = binary.BigEndian.AppendUint64(b, uint64(h.Created.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(h.Expires.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64(len(h.User.AppID)))
	b = append(b, h.User.AppID...)
	b = append(b, h.User.OpenID...)
	return sealed, sum64(mac, b)
}

func sum64(mac hash.Hash, b []byte) uint64 {
	mac.Reset()
	mac.Write(b)
	var sum [sha256.Size]byte
	return binary.BigEndian.Uint64(mac.Sum(sum[:0]))
}

// Signed reports whether a key of the ring signed a well-formed token. It keeps
// invented tokens away from the store (docs/threats.md#t21); the proof that a
// session exists is the digest of the whole token.
func (r *Ring) Signed(token string) bool {
	for _, k := range r.keys {
		if k.tokenID != token[keyIDAt] {
			continue
		}
		var body [macAt]byte
		copy(body[:], token)
		var want [TokenLen - macAt]byte
		k.mac(body, want[:])
		return string(want[:]) == token[macAt:]
	}
	return false
}

// mac writes the HMAC of a token's first part into dst, as text.
func (k *masterKey) mac(body [macAt]byte, dst []byte) {
	h := k.macs.Get().(hash.Hash)
	defer k.macs.Put(h)
	h.Reset()
	h.Write(body[:])
	var sum [sha256.Size]byte
	base64.RawURLEncoding.Encode(dst, h.Sum(sum[:0])[:macLen])
}
