package weixintest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"slices"
	"strings"
)

// The cryptography of message pushes (docs/wechat.md#push-secure), written apart from
// that of the gate.

// signPush returns hex(sha1(the parts, sorted and joined)).
func signPush(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

func aesKey(encoded string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(encoded + "=")
	if err != nil || len(key) != 32 {
		return nil, errors.New("aes_key is no EncodingAESKey: it has 43 letters and digits")
	}
	return key, nil
}

func sealPush(encoded string, random, message []byte, receiver string) (string, error) {
	key, err := aesKey(encoded)
	if err != nil {
		return "", err
	}
	text := append(random, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(text[16:], uint32(len(message)))
	text = append(append(text, message...), receiver...)
	pad := 32 - len(text)%32
	for range pad {
		text = append(text, byte(pad))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text), nil
}

// openPush decrypts a reply.
func openPush(encoded, encrypt, receiver string) (string, error) {
	errBroken := errors.New("the reply does not decrypt")
	key, err := aesKey(encoded)
	if err != nil {
		return "", err
	}
	text, err := base64.StdEncoding.DecodeString(encrypt)
	if err != nil || len(text) < 32 || len(text)%32 != 0 {
		return "", errBroken
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	cipher.NewCBCDecrypter(block, key[:16]).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > 32 || len(text)-pad < 20 {
		return "", errBroken
	}
	text = text[:len(text)-pad]
	message, size := text[20:], int64(binary.BigEndian.Uint32(text[16:]))
	if size > int64(len(message)) || string(message[size:]) != receiver {
		return "", errBroken
	}
	return string(message[:size]), nil
}

func decodeReply(body []byte, isXML bool, into any) error {
	if isXML {
		return xml.Unmarshal(body, into)
	}
	return json.Unmarshal(body, into)
}

// randomNumber returns one.
func randomNumber() uint64 { return binary.BigEndian.Uint64(randomBytes(8)) }
