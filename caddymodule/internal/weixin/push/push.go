// Package push owns the protocol of WeChat's message push (docs/wechat.md#push): the
// signatures, the encryption, the envelopes in JSON and XML, and what a message says.
//
// It must not know HTTP, sessions or stores. Whether a message is late or was taken
// before is the caller's to judge.
package push

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// MaxBody bounds the body of a push, and the message in it.
const MaxBody = 1 << 20

const (
	keyLength  = 43 // characters of an EncodingAESKey
	padding    = 32 // PKCS#7 to this block length, twice that of AES
	randomSize = 16
	headerSize = randomSize + 4 // with the length of the message
)

// Every failure of this package wraps one of these.
var (
	// ErrMalformed means a query or a body that WeChat does not send.
	ErrMalformed = errors.New("malformed push")

	// ErrSignature means a signature that the Token did not make.
	ErrSignature = errors.New("wrong signature of push")

	// ErrSealed means a signed ciphertext that no EncodingAESKey opens.
	ErrSealed = errors.New("push does not decrypt")

	// ErrReceiver means a message for another receiver: another mini program or
	// platform.
	ErrReceiver = errors.New("push is for another receiver")
)

// Receiver is one address of pushes: a mini program, an official account, or a
// third-party platform. Printing it shows no secret.
type Receiver struct {
	id, token string
	keys      []key // current, then previous
}

type key struct {
	block cipher.Block
	iv    []byte
}

// Key is a place in the list of EncodingAESKeys: 0 is the current one.
type Key int

// New returns the receiver with an id, which ends every message for it: the AppID, or
// the platform's own for all pushes of a third-party platform. It takes the Token of
// the WeChat console, and the EncodingAESKeys: the current one first. Plain mode needs
// none.
func New(id, token string, aesKeys ...string) (*Receiver, error) {
	if err := CheckToken(token); err != nil {
		return nil, err
	}
	r := &Receiver{id: id, token: token}
	for _, text := range aesKeys {
		k, err := parseKey(text)
		if err != nil {
			return nil, err
		}
		r.keys = append(r.keys, k)
	}
	return r, nil
}

// CheckToken refuses a text that the WeChat console does not take for a Token.
func CheckToken(token string) error {
	if len(token) < 3 || len(token) > 32 || !alphanumeric(token) {
		return errors.New("the push token is not 3 to 32 letters and digits, " +
			"as the WeChat console has it")
	}
	return nil
}

// parseKey reads an EncodingAESKey. Its last character holds two spare bits, which
// WeChat's own samples set.
func parseKey(text string) (key, error) {
	raw, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(text) != keyLength {
		return key{}, fmt.Errorf("the push aes_key is not an EncodingAESKey: "+
			"the WeChat console shows %d letters and digits", keyLength)
	}
	block, err := aes.NewCipher(raw)
	return key{block, raw[:aes.BlockSize]}, err
}

func alphanumeric(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	})
}

// ID returns the receiver's id.
func (r *Receiver) ID() string { return r.id }

// Format writes the id for every verb.
func (r Receiver) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "Receiver{"+r.id+"}") }

// sign returns the signature of the parts: hex(sha1(sorted and joined)).
func (r *Receiver) sign(parts ...string) string {
	parts = append(parts, r.token)
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

// Signed checks the signature of the query, in constant time. It covers no body. The
// error is ErrSignature.
func (r *Receiver) Signed(q Query) error {
	return equal(r.sign(q.Timestamp, q.Nonce), q.Signature)
}

func equal(want, got string) error {
	if !hmac.Equal([]byte(want), []byte(got)) {
		return ErrSignature
	}
	return nil
}

// Open returns the message in an Encrypt that msg_signature covers, and the key that
// opened it, for the reply. It looks at nothing but the signature before that holds.
// The error is ErrSignature, ErrSealed or ErrReceiver.
func (r *Receiver) Open(q Query, encrypt string) (message []byte, with Key, err error) {
	if err := equal(r.sign(q.Timestamp, q.Nonce, encrypt), q.MsgSignature); err != nil {
		return nil, 0, err
	}
	text, err := base64.StdEncoding.DecodeString(encrypt)
	if err != nil || len(text) == 0 || len(text)%aes.BlockSize != 0 {
		return nil, 0, ErrSealed
	}
	err = ErrSealed
	for i, k := range r.keys {
		message, receiver, ok := k.open(text)
		switch {
		case !ok:
		case receiver == r.id:
			return message, Key(i), nil
		default:
			err = ErrReceiver
		}
	}
	return nil, 0, err
}

// open decrypts whole blocks: 16 random bytes, the length of the message, the message,
// the receiver's id, padding.
func (k key) open(text []byte) (message []byte, receiver string, ok bool) {
	plain := make([]byte, len(text))
	cipher.NewCBCDecrypter(k.block, k.iv).CryptBlocks(plain, text)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > padding || pad > len(plain) {
		return nil, "", false
	}
	plain, end := plain[:len(plain)-pad], plain[len(plain)-pad:]
	for _, b := range end {
		if int(b) != pad {
			return nil, "", false
		}
	}
	if len(plain) < headerSize {
		return nil, "", false
	}
	size := binary.BigEndian.Uint32(plain[randomSize:])
	rest := plain[headerSize:]
	if uint64(size) > uint64(len(rest)) {
		return nil, "", false
	}
	return rest[:size:size], string(rest[size:]), true
}

// Seal encrypts a message for, or from, the receiver.
func (r *Receiver) Seal(message []byte, with Key) (encrypt string) {
	random := make([]byte, randomSize)
	rand.Read(random)
	return r.seal(random, message, with)
}

func (r *Receiver) seal(random, message []byte, with Key) string {
	plain := slices.Concat(random, binary.BigEndian.AppendUint32(nil, uint32(len(message))),
		message, []byte(r.id))
	pad := padding - len(plain)%padding
	plain = append(plain, slices.Repeat([]byte{byte(pad)}, pad)...)
	k := r.keys[with]
	cipher.NewCBCEncrypter(k.block, k.iv).CryptBlocks(plain, plain)
	return base64.StdEncoding.EncodeToString(plain)
}
