package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A token is the prefix, 24 random bytes, the id of the key that signed it, and 48 bits of HMAC over all that stands before: 45 characters, all of them safe in a header and a URL
// (STORE.md 4.1). Lengths are multiples of three bytes, so that every character counts and no two spellings mean the same token.
const (
	// TokenPrefix begins every token, so that a credential of another kind is told apart before any work is done.
	TokenPrefix = "wxs_"

	randomLen = 24
	keyIDAt   = len(TokenPrefix) + randomLen/3*4
	macAt     = keyIDAt + 1
	macLen    = 6
	tokenLen  = macAt + macLen/3*4
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// inAlphabet answers for every byte without a branch per range.
var inAlphabet = func() (set [256]bool) {
	for i := range len(alphabet) {
		set[alphabet[i]] = true
	}
	return set
}()

// wellFormed reports whether token has the exact shape of one of ours. It is the cheapest filter and comes first.
func wellFormed(token string) bool {
	if len(token) != tokenLen || token[:len(TokenPrefix)] != TokenPrefix {
		return false
	}
	for i := len(TokenPrefix); i < tokenLen; i++ {
		if !inAlphabet[token[i]] {
			return false
		}
	}
	return true
}

// digestOf returns the name under which a well-formed token is stored and cached.
func digestOf(token string) store.Digest {
	// On the stack: the hot path of every request must not allocate (DESIGN.md P8).
	var buf [tokenLen]byte
	copy(buf[:], token)
	return sha256.Sum256(buf[:])
}

// mint returns a new token under the ring's first key. Nothing in it is derived from the user (THREATS.md 15).
func (r *KeyRing) mint() string {
	var random [randomLen]byte
	rand.Read(random[:])

	k := r.keys[0]
	b := make([]byte, tokenLen)
	copy(b, TokenPrefix)
	base64.RawURLEncoding.Encode(b[len(TokenPrefix):keyIDAt], random[:])
	b[keyIDAt] = k.tokenID
	k.tokenMAC([macAt]byte(b[:macAt]), b[macAt:])
	return string(b)
}

// minted reports whether a well-formed token was made under one of the ring's keys. It keeps made-up tokens away from the store (THREATS.md 21) and is not the proof that a session exists:
// that is the digest.
func (r *KeyRing) minted(token string) bool {
	for _, k := range r.keys {
		if k.tokenID != token[keyIDAt] {
			continue
		}
		var body [macAt]byte
		copy(body[:], token)
		var want [tokenLen - macAt]byte
		k.tokenMAC(body, want[:])
		return string(want[:]) == token[macAt:]
	}
	return false
}
