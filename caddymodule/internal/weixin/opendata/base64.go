package opendata

import (
	"bytes"
	"crypto/aes"
	"encoding/base64"
)

const (
	keyText = 24       // a session_key as text: base64 of 16 bytes (WECHAT.md 2.2)
	maxText = 64 << 10 // encryptedData; a month of steps, the longest there is, has about 2,000 characters
)

// decodeKey reads a session_key. It is exact, since the key comes from WeChat and not from a client; an empty key above all is none.
func decodeKey(s string) ([]byte, bool) {
	if len(s) != keyText {
		return nil, false
	}
	key, err := base64.StdEncoding.Strict().DecodeString(s)
	return key, err == nil && len(key) == aes.BlockSize
}

// decode reads base64 as it arrives from clients (WECHAT.md 11.10, 12.10). Bits after the last byte must be zero, so that no two texts
// differ in more than these habits and mean the same.
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
