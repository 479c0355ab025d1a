package weixintest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
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

// OpenData is what wx.getUserInfo and its kind give to the mini program
// (docs/wechat.md#open-data). The JSON names are WeChat's.
type OpenData struct {
	// EncryptedData and IV are base64.
	EncryptedData string `json:"encryptedData"`
	IV            string `json:"iv"`
	// RawData is the data in clear, without a watermark, byte for byte as
	// signed.
	RawData string `json:"rawData"`
	// Signature is hex(sha1(RawData + session_key text)).
	Signature string `json:"signature"`
}

// Encrypt makes open data for a user with the user's current session_key. data
// is anything that marshals to a JSON object; a json.RawMessage keeps its bytes
// (less the white space). A watermark of the mini program and of now is put at
// its end unless data brings its own. openId and unionId are not added. An
// unknown appid, or data that is no object, is an error.
func (s *Simulator) Encrypt(appid, user string, data any) (OpenData, error) {
	raw, err := marshal(data)
	if err != nil {
		return OpenData{}, fmt.Errorf("encoding open data: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return OpenData{}, fmt.Errorf("unknown appid %q", appid)
	}
	plain, err := withWatermark(raw, watermark{s.cfg.Now().Unix(), appid})
	if err != nil {
		return OpenData{}, err
	}
	key, iv := s.key(a.user(user)), randomBytes(aes.BlockSize)
	sealed, err := seal(key, iv, plain)
	if err != nil {
		return OpenData{}, err
	}
	sum := sha1.Sum(append(bytes.Clone(raw), key...))
	return OpenData{
		EncryptedData: sealed,
		IV:            base64.StdEncoding.EncodeToString(iv),
		RawData:       string(raw),
		Signature:     hex.EncodeToString(sum[:]),
	}, nil
}

func withWatermark(object []byte, w watermark) ([]byte, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(object, &fields) != nil || fields == nil {
		return nil, errors.New("open data is not a JSON object")
	}
	if _, own := fields["watermark"]; own {
		return object, nil
	}
	head := bytes.Clone(bytes.TrimSuffix(object, []byte("}")))
	if len(fields) > 0 {
		head = append(head, ',')
	}
	return fmt.Appendf(head, `"watermark":%s}`, mustJSON(w)), nil
}

// seal is AES-128-CBC with PKCS#7 padding under a base64 key
// (docs/wechat.md#decryption).
func seal(key string, iv, plain []byte) (string, error) {
	k, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", fmt.Errorf("decoding session_key: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return "", fmt.Errorf("using session_key: %w", err)
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	buf := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(buf, buf)
	return base64.StdEncoding.EncodeToString(buf), nil
}
