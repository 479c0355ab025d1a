package keyring

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// ErrDamaged means that an envelope is not what the ring made for that user.
var ErrDamaged = errors.New("damaged envelope")

// User owns sealed secrets: an envelope opens for its user only
// (docs/threats.md#t16).
type User struct{ AppID, OpenID string }

// Sealed is an encrypted session_key.
type Sealed struct {
	Tag [8]byte // keyed digest: equal when two boxes of one user hold the same session_key
	Box []byte  // envelope
}

// sealVersion heads every envelope: version | key id | nonce | ciphertext.
const sealVersion = 1

// SealSessionKey encrypts a user's session_key under the first key.
func (r *Ring) SealSessionKey(u User, sessionKey string) Sealed {
	k := r.keys[0]
	return Sealed{
		Tag: k.tag(u, sessionKey),
		Box: k.seal(k.sessionKeys, sessionKey, u.binding("session_key")),
	}
}

// OldTags returns the tags that SealSessionKey gave to the same session_key
// while another key of the ring was the first.
func (r *Ring) OldTags(u User, sessionKey string) [][8]byte {
	var tags [][8]byte
	for _, k := range r.keys[1:] {
		tags = append(tags, k.tag(u, sessionKey))
	}
	return tags
}

// OpenSessionKey decrypts a box of SealSessionKey under any key of the ring.
// The error wraps ErrDamaged unless the key is not in the ring.
func (r *Ring) OpenSessionKey(u User, box []byte) (string, error) {
	text, err := r.open(box, u.binding("session_key"), func(k *masterKey) cipher.AEAD {
		return k.sessionKeys
	})
	if err != nil {
		return "", fmt.Errorf("opening session_key: %w", err)
	}
	return text, nil
}

// SealPhone encrypts a user's telephone number under the first key.
func (r *Ring) SealPhone(u User, number string) []byte {
	k := r.keys[0]
	return k.seal(k.phones, number, u.binding("phone"))
}

// OpenPhone decrypts an envelope of SealPhone, as OpenSessionKey does.
func (r *Ring) OpenPhone(u User, box []byte) (string, error) {
	number, err := r.open(box, u.binding("phone"), func(k *masterKey) cipher.AEAD {
		return k.phones
	})
	if err != nil {
		return "", fmt.Errorf("opening phone number: %w", err)
	}
	return number, nil
}

// SealShared encrypts a secret that gates share, by its name, under the first key.
func (r *Ring) SealShared(name, text string) []byte {
	k := r.keys[0]
	return k.seal(k.shared, text, []byte("shared\x00"+name))
}

// OpenShared decrypts an envelope of SealShared, as OpenSessionKey does. current
// reports whether the first key sealed it.
func (r *Ring) OpenShared(name string, box []byte) (text string, current bool, err error) {
	text, err = r.open(box, []byte("shared\x00"+name), func(k *masterKey) cipher.AEAD {
		return k.shared
	})
	if err != nil {
		return "", false, fmt.Errorf("opening shared secret %s: %w", name, err)
	}
	return text, ID(box[1:5]) == r.keys[0].id, nil
}

// Proof shows that WeChat told a gate the unionid of a user; the zero Proof shows
// nothing.
type Proof [16]byte

// ProveUnionID returns the proof of a user's unionid under the first key.
func (r *Ring) ProveUnionID(u User, unionID string) Proof { return r.keys[0].prove(u, unionID) }

// Proves reports whether ProveUnionID made p for that unionid of u under a key of the
// ring.
func (r *Ring) Proves(p Proof, u User, unionID string) bool {
	return slices.ContainsFunc(r.keys, func(k *masterKey) bool {
		want := k.prove(u, unionID)
		return hmac.Equal(want[:], p[:])
	})
}

func (k *masterKey) prove(u User, unionID string) Proof {
	h := hmac.New(sha256.New, k.unionKey)
	h.Write(u.binding("unionid"))
	h.Write([]byte(unionID))
	return Proof(h.Sum(nil))
}

// tag is keyed, so that a reader of the store cannot try guesses against it.
func (k *masterKey) tag(u User, sessionKey string) [8]byte {
	h := hmac.New(sha256.New, k.tagKey)
	h.Write(u.binding("session_key"))
	h.Write([]byte(sessionKey))
	return [8]byte(h.Sum(nil))
}

func (k *masterKey) seal(aead cipher.AEAD, text string, binding []byte) []byte {
	return aead.Seal(append([]byte{sealVersion}, k.id[:]...), nil, []byte(text), binding)
}

// open decrypts an envelope by one of the ciphers of the key that it names.
func (r *Ring) open(box, binding []byte, aead func(*masterKey) cipher.AEAD) (string, error) {
	if len(box) < 5 || box[0] != sealVersion {
		return "", ErrDamaged
	}
	for _, k := range r.keys {
		if ID(box[1:5]) != k.id {
			continue
		}
		plain, err := aead(k).Open(nil, nil, box[5:], binding)
		if err != nil {
			return "", ErrDamaged
		}
		return string(plain), nil
	}
	return "", fmt.Errorf("key %x is not in the key ring", box[1:5])
}

// binding is the additional data that ties an envelope to its use and user.
func (u User) binding(use string) []byte {
	return []byte(use + "\x00" + u.AppID + "\x00" + u.OpenID + "\x00")
}
