package weixin

import (
	"context"
	"encoding/base64"
	"time"
)

const (
	opEncryptKey = "getting encryption keys"

	maxUserKeys = 16 // WeChat lists 3 at most
	userKeySize = 16 // bytes of key and iv
)

// UserKey is one key of wx.getUserCryptoManager, by which a user's mini program and its server encrypt what they exchange (WECHAT.md 7.3).
// The cipher is theirs to choose. Printing, logging or marshalling it shows nothing of it.
type UserKey struct {
	unprintable

	Key       [userKeySize]byte
	IV        [userKeySize]byte // 16 hex digits, used as the characters they are
	Version   int               // which key the client has used
	ExpiresIn time.Duration     // counted from the answer; 0 for one that is over
	Created   time.Time
}

// UserEncryptKey returns the user's latest keys, newest first, at least one. s proves that the caller knows the user's session_key: an
// error of ClassKeyStale says that it is not the present one. Any error is an [*Error].
func (c *Client) UserEncryptKey(ctx context.Context, app Credentials, s Session) ([]UserKey, error) {
	if e := checkUser(opEncryptKey, s); e != nil {
		return nil, e
	}
	var keys []UserKey
	k := call{name: "getuserencryptkey", op: opEncryptKey, path: "wxa/business/getuserencryptkey", query: signed(s)}
	err := c.authorized(ctx, app, k, func(a answer) (e *Error) {
		keys, e = decodeUserKeys(a)
		return e
	})
	return keys, err
}

type userKeysReply struct {
	envelope
	List []userKeyInfo `json:"key_info_list"`
}

type userKeyInfo struct {
	EncryptKey text    `json:"encrypt_key"`
	Version    integer `json:"version"`
	ExpireIn   integer `json:"expire_in"`
	IV         text    `json:"iv"`
	CreateTime integer `json:"create_time"`
}

// decodeUserKeys accepts a list of whole keys only.
func decodeUserKeys(a answer) ([]UserKey, *Error) {
	var r userKeysReply
	if e := a.decode(&r, &r.envelope); e != nil {
		return nil, e
	}
	if len(r.List) == 0 || len(r.List) > maxUserKeys {
		return nil, a.nonsense("the answer holds no usable list of keys")
	}
	keys := make([]UserKey, len(r.List))
	for i, info := range r.List {
		var ok bool
		if keys[i], ok = info.key(); !ok {
			return nil, a.nonsense("the answer holds no usable list of keys")
		}
	}
	return keys, nil
}

func (i userKeyInfo) key() (k UserKey, ok bool) {
	const longest = 1 << 32 // seconds: neither a time nor a duration overflows
	raw, err := base64.StdEncoding.DecodeString(string(i.EncryptKey))
	if err != nil || copy(k.Key[:], raw) != len(raw) || len(raw) != userKeySize || len(i.IV) != userKeySize || !isVisible(string(i.IV), userKeySize) ||
		i.Version < 0 || i.Version > longest || i.CreateTime <= 0 || i.CreateTime > longest || i.ExpireIn > longest {
		return UserKey{}, false
	}
	copy(k.IV[:], i.IV)
	k.Version = int(i.Version)
	k.ExpiresIn = time.Duration(max(i.ExpireIn, 0)) * time.Second
	k.Created = time.Unix(int64(i.CreateTime), 0)
	return k, true
}
