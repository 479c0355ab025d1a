package opendata

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"time"
)

// Opener says whose data is acceptable. The zero Opener accepts nothing.
type Opener struct {
	AppID  string // the watermark must name this mini program
	OpenID string // an openId in the data must be this one; most kinds of data have none

	// NotBefore and NotAfter are the window in which WeChat must have made the data, to the second; the zero time leaves its side open.
	NotBefore, NotAfter time.Time
}

// Open decrypts one piece of data and judges it as [Opener.Read] does. All arguments are base64: sessionKey as WeChat gave it, the
// others as they arrive from clients, with line breaks, with spaces in place of '+', in the URL-safe alphabet, without padding
// (WECHAT.md 11.10). The error is an [*Error].
func (o Opener) Open(sessionKey, encryptedData, iv string) (Data, error) {
	key, ok := decodeKey(sessionKey)
	if !ok {
		return Data{}, invalid(ReasonSessionKey)
	}
	vector, ok := decode(iv)
	if !ok || len(vector) != aes.BlockSize {
		return Data{}, invalid(ReasonIV)
	}
	text, ok := decode(encryptedData)
	if !ok || len(text) == 0 || len(text)%aes.BlockSize != 0 {
		return Data{}, invalid(ReasonCiphertext)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return Data{}, invalid(ReasonSessionKey)
	}
	cipher.NewCBCDecrypter(block, vector).CryptBlocks(text, text)

	// The object is judged even if the padding is wrong, so that the time taken does not tell the two apart.
	size, padded := unpad(text)
	d, r := o.judge(text[:size])
	if !padded {
		r = ReasonPadding
	}
	if r != "" {
		return Data{}, invalid(r)
	}
	return d, nil
}

// unpad returns the length of text without its PKCS#7 padding of 1 to 16 bytes. If the padding is wrong, ok is false and the length is
// that of the whole text. It takes the same time for all contents.
func unpad(text []byte) (size int, ok bool) {
	last := text[len(text)-1]
	n := int(last)
	good := subtle.ConstantTimeLessOrEq(1, n) & subtle.ConstantTimeLessOrEq(n, aes.BlockSize)
	for i, b := range text[len(text)-aes.BlockSize:] {
		outside := subtle.ConstantTimeLessOrEq(i+n+1, aes.BlockSize)
		good &= outside | subtle.ConstantTimeByteEq(b, last)
	}
	return len(text) - subtle.ConstantTimeSelect(good, n, 0), good == 1
}
