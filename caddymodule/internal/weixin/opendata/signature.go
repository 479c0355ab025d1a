package opendata

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
)

// VerifySignature checks the signature that wx.getUserInfo gives beside rawData: hex(sha1(rawData + session_key)) over the bytes as the
// client got them and the key as text (WECHAT.md 3.1). It compares in constant time. The error is an [*Error].
func VerifySignature(rawData []byte, signature, sessionKey string) error {
	// Under an empty key everybody could sign.
	if _, ok := decodeKey(sessionKey); !ok {
		return invalid(ReasonSessionKey)
	}
	h := sha1.New()
	h.Write(rawData)
	h.Write([]byte(sessionKey))
	if !hmac.Equal([]byte(hex.EncodeToString(h.Sum(nil))), []byte(signature)) {
		return invalid(ReasonSignature)
	}
	return nil
}

// Signature returns what proves to WeChat that the caller knows the user's session_key: hex(hmac_sha256(key, body)), the key as text and
// not decoded, the body empty for a GET (WECHAT.md 4).
func Signature(sessionKey string, body []byte) string {
	h := hmac.New(sha256.New, []byte(sessionKey))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
