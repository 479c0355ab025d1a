package opendata

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
)

// VerifySignature checks the signature of wx.getUserInfo's rawData in constant
// time: hex(sha1(rawData + session_key)), the key as text
// (docs/wechat.md#signature). The error is an [*Error].
func VerifySignature(rawData []byte, signature, sessionKey string) error {
	// An empty key would let anyone sign.
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

// Signature proves to WeChat that the caller knows the user's session_key:
// hex(hmac_sha256(key, body)), the key as text, the body empty for a GET
// (docs/wechat.md#check-session-key).
func Signature(sessionKey string, body []byte) string {
	h := hmac.New(sha256.New, []byte(sessionKey))
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}
