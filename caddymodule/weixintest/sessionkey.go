package weixintest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"time"
)

// Life of a getUserEncryptKey key and how many are listed
// (docs/wechat.md#user-keys).
const (
	encryptKeyTTL  = time.Hour
	encryptKeyList = 3
)

// encryptKey is one key of wx.getUserCryptoManager.
type encryptKey struct {
	value, iv string
	version   int
	created   time.Time
}

// signedUser returns the user that a call names, once its signature proves the
// current session_key (docs/wechat.md#check-session-key). A user without a key
// has one that expired at time zero.
func (q *query) signedUser() (*user, int) {
	u := q.app.openids[q.Get("openid")]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	if q.Get("sig_method") != "hmac_sha256" {
		return nil, 40097
	}
	if !q.now.Before(u.keyExpires) || q.Get("signature") != keySignature(u.key) {
		return nil, 87009
	}
	return u, 0
}

// keySignature signs the empty message with the session_key text, which is not
// decoded (docs/wechat.md#check-session-key).
func keySignature(key string) string {
	return hex.EncodeToString(hmac.New(sha256.New, []byte(key)).Sum(nil))
}

// checkSession is GET /wxa/checksession.
func (s *Simulator) checkSession(q *query) (any, int) {
	_, code := q.signedUser()
	return succeeded(), code
}

// resetSessionKey is GET /wxa/resetusersessionkey: the new key inherits the end
// of the old one (docs/wechat.md#check-session-key).
func (s *Simulator) resetSessionKey(q *query) (any, int) {
	u, code := q.signedUser()
	if code != 0 {
		return nil, code
	}
	u.key = newKey()
	return struct {
		outcome
		OpenID     string `json:"openid"`
		SessionKey string `json:"session_key"`
	}{succeeded(), u.openid, u.key}, 0
}

// userEncryptKey is GET or POST /wxa/business/getuserencryptkey. A key is made
// when the newest has run out.
func (s *Simulator) userEncryptKey(q *query) (any, int) {
	u, code := q.signedUser()
	if code != 0 {
		return nil, code
	}
	keys := u.encryptKeys
	if len(keys) == 0 || q.now.Sub(keys[0].created) >= encryptKeyTTL {
		k := encryptKey{
			value:   base64.StdEncoding.EncodeToString(randomBytes(16)),
			iv:      randomHex(8),
			version: 1,
			created: q.now,
		}
		if len(keys) > 0 {
			k.version = keys[0].version + 1
		}
		keys = append([]encryptKey{k}, keys[:min(len(keys), encryptKeyList-1)]...)
		u.encryptKeys = keys
	}
	type info struct {
		EncryptKey string `json:"encrypt_key"`
		Version    int    `json:"version"`
		ExpireIn   int    `json:"expire_in"`
		IV         string `json:"iv"`
		CreateTime int64  `json:"create_time"`
	}
	list := make([]info, len(keys))
	for i, k := range keys {
		left := max(0, k.created.Add(encryptKeyTTL).Sub(q.now))
		list[i] = info{k.value, k.version, int(left / time.Second), k.iv, k.created.Unix()}
	}
	return struct {
		outcome
		KeyInfoList []info `json:"key_info_list"`
	}{succeeded(), list}, 0
}
