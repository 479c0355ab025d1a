package session

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
	"hash"
	"strings"
	"sync"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// masterLen is the length of a master key in bytes.
const masterLen = 32

// KeyRing holds the master keys of the gate. The first signs tokens and seals session_keys and telephone numbers; all of them verify and open, so that a key is rotated by putting a new one in front and
// nobody is logged out. A key may be dropped once the sessions made under it have expired; the
// telephone numbers sealed under it are then forgotten.
type KeyRing struct {
	keys []*key
}

// key is one master key and what is derived from it, under separate labels so that no use can be turned into another.
type key struct {
	id      store.KeyID // names the key in envelopes
	tokenID byte        // names the key in tokens
	aead    cipher.AEAD // of session_keys
	phones  cipher.AEAD // of telephone numbers
	tagKey  []byte
	macs    sync.Pool // of hash.Hash: a fresh HMAC costs eight times a reset one (STORE.md 1.6)
}

// NewMasterKey returns a new random master key in the form that ParseKeyRing reads.
func NewMasterKey() string {
	var b [masterLen]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// ParseKeyRing reads one or more master keys, newest first: each 32 bytes in base64 (`openssl rand -base64 32`) or hex, separated by commas or white space. A name may stand before a key,
// as in 2026b:…, for people; it means nothing. The error says which of them is wrong and never shows any part of it.
func ParseKeyRing(text string) (*KeyRing, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\r' || r == '\n' })
	if len(words) == 0 {
		return nil, errors.New("parsing key ring: it holds no key")
	}
	ring := &KeyRing{}
	for i, w := range words {
		master := decodeMaster(w)
		if len(master) != masterLen {
			return nil, fmt.Errorf("parsing key ring: key %d of %d is not %d bytes in base64 or hex, as `openssl rand -base64 32` makes them", i+1, len(words), masterLen)
		}
		k, err := newKey(master)
		if err != nil {
			return nil, fmt.Errorf("parsing key ring: key %d of %d: %w", i+1, len(words), err)
		}
		for j, other := range ring.keys {
			if other.id == k.id {
				return nil, fmt.Errorf("parsing key ring: keys %d and %d are the same", j+1, i+1)
			}
			if other.tokenID == k.tokenID {
				return nil, fmt.Errorf("parsing key ring: keys %d and %d share the short id %q, which happens once in %d: make another key", j+1, i+1, k.tokenID, len(alphabet))
			}
		}
		ring.keys = append(ring.keys, k)
	}
	return ring, nil
}

// decodeMaster returns the bytes of a key, or nothing. The spellings of base64 differ in two letters and the padding; all mean the same bytes.
func decodeMaster(word string) []byte {
	if _, key, named := strings.Cut(word, ":"); named {
		word = key
	}
	if b, err := hex.DecodeString(word); err == nil && len(b) == masterLen {
		return b
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(word, "=")))
	if err != nil {
		return nil
	}
	return b
}

func newKey(master []byte) (*key, error) {
	derive := func(label string) []byte {
		b, err := hkdf.Key(sha256.New, master, nil, "wxgate 1 "+label, 32)
		if err != nil {
			panic(err) // only for a length that SHA-256 cannot give
		}
		return b
	}
	aead, err := newAEAD(derive("session_key seal"))
	if err != nil {
		return nil, err
	}
	phones, err := newAEAD(derive("phone seal"))
	if err != nil {
		return nil, err
	}
	id := derive("key id")
	tokenKey := derive("token")
	return &key{
		id:      store.KeyID(id[:4]),
		tokenID: alphabet[id[4]%byte(len(alphabet))],
		aead:    aead,
		phones:  phones,
		tagKey:  derive("session_key tag"),
		macs:    sync.Pool{New: func() any { return hmac.New(sha256.New, tokenKey) }},
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

// tokenMAC writes the textual MAC of a token's first part into dst.
func (k *key) tokenMAC(body [macAt]byte, dst []byte) {
	h := k.macs.Get().(hash.Hash)
	defer k.macs.Put(h)
	h.Reset()
	h.Write(body[:])
	var sum [sha256.Size]byte
	base64.RawURLEncoding.Encode(dst, h.Sum(sum[:0])[:macLen])
}

// sealVersion heads every envelope: version | key id | nonce | ciphertext.
const sealVersion = 1

// seal encrypts a user's session_key under the first key. The envelope opens for this user only (THREATS.md 16).
func (r *KeyRing) seal(u store.UserID, sessionKey string) store.SealedKey {
	k := r.keys[0]
	return store.SealedKey{Tag: k.tag(u, sessionKey), Box: k.box(k.aead, sessionKey, sessionKeyOf(u))}
}

// box makes an envelope that opens under one of the key's ciphers and for its owner only.
func (k *key) box(c cipher.AEAD, text string, owner []byte) []byte {
	return c.Seal(append([]byte{sealVersion}, k.id[:]...), nil, []byte(text), owner)
}

// oldTags returns the tags that seal gave to the same session_key while another key of the ring was the first.
func (r *KeyRing) oldTags(u store.UserID, sessionKey string) [][8]byte {
	var tags [][8]byte
	for _, k := range r.keys[1:] {
		tags = append(tags, k.tag(u, sessionKey))
	}
	return tags
}

// tag is keyed, so that who reads the store cannot try guesses against it.
func (k *key) tag(u store.UserID, sessionKey string) [8]byte {
	h := hmac.New(sha256.New, k.tagKey)
	h.Write(sessionKeyOf(u))
	h.Write([]byte(sessionKey))
	return [8]byte(h.Sum(nil))
}

// open decrypts what seal made for the same user under any key of the ring.
func (r *KeyRing) open(u store.UserID, s store.SealedKey) (string, error) {
	text, err := r.unbox(func(k *key) cipher.AEAD { return k.aead }, s.Box, sessionKeyOf(u))
	return text, wrap("opening session_key", err)
}

// unbox reads an envelope by one of the ciphers of the key that it names.
func (r *KeyRing) unbox(by func(*key) cipher.AEAD, box, owner []byte) (string, error) {
	if len(box) < 5 || box[0] != sealVersion {
		return "", store.ErrDamaged
	}
	for _, k := range r.keys {
		if store.KeyID(box[1:5]) != k.id {
			continue
		}
		plain, err := by(k).Open(nil, nil, box[5:], owner)
		if err != nil {
			return "", store.ErrDamaged
		}
		return string(plain), nil
	}
	return "", fmt.Errorf("key %x is not in the key ring", box[1:5])
}

// sessionKeyOf binds a session_key to its user.
func sessionKeyOf(u store.UserID) []byte {
	return []byte("session_key\x00" + u.AppID + "\x00" + u.OpenID + "\x00")
}
