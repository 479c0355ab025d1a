package keyring

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash"
)

// A token is the prefix, 24 random bytes, the id of the key that signed it, and
// 48 bits of HMAC over all that: 45 characters, safe in a header and a URL
// (docs/stores.md#token). Each part has a multiple of three bytes, so that every
// character counts and no two spellings mean the same token.
const (
	// TokenPrefix begins every token, which tells it from other credentials.
	TokenPrefix = "wxs_"

	// TokenLen is the length of every token.
	TokenLen = macAt + macLen/3*4

	randomLen = 24
	keyIDAt   = len(TokenPrefix) + randomLen/3*4
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

// Mint returns a new token under the first key. Nothing in it is derived from
// the user (docs/threats.md#t15).
func (r *Ring) Mint() string {
	var random [randomLen]byte
	rand.Read(random[:])

	k := r.keys[0]
	b := make([]byte, TokenLen)
	copy(b, TokenPrefix)
	base64.RawURLEncoding.Encode(b[len(TokenPrefix):keyIDAt], random[:])
	b[keyIDAt] = k.tokenID
	k.mac([macAt]byte(b[:macAt]), b[macAt:])
	return string(b)
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
