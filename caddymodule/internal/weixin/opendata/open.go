// Package opendata opens and checks the data that WeChat hands to a mini program
// for its server: the encrypted objects of wx.getUserInfo, getPhoneNumber and
// wx.getWeRunData, and the signatures (docs/wechat.md#open-data). It owns the
// cryptography and the judgement of the object. All input comes from a client,
// so no input may cause a panic, and every failure is one error ([ErrInvalid]).
//
// WeChat encrypts with AES-CBC and no MAC, so a client can change the first 16
// bytes of genuine data through the iv, and cut and splice blocks, with garbage
// between them. The checks of [Opener.Read] leave little room for that, but the
// data proves nothing that they do not cover.
package opendata

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"time"
)

// Opener holds the limits of acceptable data. The zero Opener accepts nothing.
type Opener struct {
	AppID  string // the mini program of the watermark
	OpenID string // the only openId that data may name; most kinds name none

	// NotBefore and NotAfter are the window of the watermark's time, to the second.
	// The zero time leaves its side open.
	NotBefore, NotAfter time.Time
}

// Open decrypts one piece of data and judges it as [Opener.Read] does. All
// arguments are base64: sessionKey as WeChat sends it, the others with the damage
// of clients (see decode). The error is an [*Error].
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

	// Judge the object also with wrong padding, so that the time shows no difference.
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

// unpad returns the length of text without its PKCS#7 padding of 1 to 16 bytes;
// with wrong padding, ok is false and the length is that of the whole text. It
// takes the same time for all contents.
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
