package opendata

import (
	"bytes"
	"crypto/aes"
	"encoding/base64"
)

const (
	keyText = 24       // characters of a session_key: base64 of 16 bytes
	maxText = 64 << 10 // of encryptedData; a month of steps, the longest, has some 2,000
)

// decodeKey reads a session_key. It is strict, since the key comes from WeChat.
func decodeKey(s string) ([]byte, bool) {
	if len(s) != keyText {
		return nil, false
	}
	key, err := base64.StdEncoding.Strict().DecodeString(s)
	return key, err == nil && len(key) == aes.BlockSize
}

// decode reads base64 with the damage of clients: line breaks, spaces for '+', the
// URL-safe alphabet, no padding (docs/wechat.md#base64-damage). Bits after the
// last byte must be zero, so that no other two texts mean the same.
func decode(s string) ([]byte, bool) {
	if len(s) > maxText {
		return nil, false
	}
	text := make([]byte, 0, len(s))
	for i := range len(s) {
		switch c := s[i]; c {
		case '\r', '\n':
		case ' ', '-':
			text = append(text, '+')
		case '_':
			text = append(text, '/')
		default:
			text = append(text, c)
		}
	}
	bare := bytes.TrimRight(text, "=")
	if len(text)-len(bare) > 2 {
		return nil, false
	}
	enc := base64.RawStdEncoding.Strict()
	out := make([]byte, enc.DecodedLen(len(bare)))
	n, err := enc.Decode(out, bare)
	return out[:n], err == nil
}
