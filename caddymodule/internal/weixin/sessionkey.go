package weixin

import (
	"context"
	"encoding/base64"
	"net/url"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const (
	opCheck      = "checking session_key"
	opReset      = "resetting session_key"
	opEncryptKey = "getting encryption keys"

	maxUserKeys = 16 // WeChat lists 3 at most
	userKeySize = 16 // bytes of key and iv
)

// signed makes a call that the user's session_key signs
// (docs/wechat.md#check-session-key). It refuses a session without a key: an
// empty key would prove nothing.
func signed[T any](
	ctx context.Context, c *Client, app Credentials, s Session, k call,
	decode func(answer) (T, *Error),
) (result T, err error) {
	if !isVisible(s.OpenID, maxID) || !isVisible(s.SessionKey, maxID) {
		return result, &Error{Op: k.op, Class: ClassKeyStale, Reason: "no usable openid and " +
			"session_key of the user are known: a new wx.login brings them"}
	}
	k.query = url.Values{
		"openid":     {s.OpenID},
		"signature":  {opendata.Signature(s.SessionKey, nil)},
		"sig_method": {"hmac_sha256"},
	}
	return authorized(ctx, c, app, k, decode)
}

// CheckSession asks WeChat whether s holds the user's current session_key: nil
// if so, an error of ClassKeyStale if not. Any error is an [*Error].
func (c *Client) CheckSession(ctx context.Context, app Credentials, s Session) error {
	k := call{name: "checksession", op: opCheck, path: "wxa/checksession"}
	_, err := signed(ctx, c, app, s, k, decodeCheck)
	return err
}

// decodeCheck demands an errcode, since any JSON object would mean yes without
// one.
func decodeCheck(a answer) (none struct{}, _ *Error) {
	var r envelope
	if e := a.decode(&r, &r); e != nil {
		return none, e
	}
	if r.ErrCode == nil {
		return none, a.unusable("without an errcode")
	}
	return none, nil
}

// ResetUserSessionKey has WeChat replace the session_key of s and returns s with
// the new key, which expires with the old one. Once WeChat has the call, the old
// key is dead, even if the answer is lost: only an error with an errcode other
// than -1 says that nothing has changed. Any error is an [*Error].
func (c *Client) ResetUserSessionKey(
	ctx context.Context, app Credentials, s Session,
) (Session, error) {
	k := call{name: "resetusersessionkey", op: opReset, path: "wxa/resetusersessionkey"}
	return signed(ctx, c, app, s, k, func(a answer) (Session, *Error) {
		return decodeReset(a, s)
	})
}

// decodeReset accepts only a session_key of the user of s.
func decodeReset(a answer, s Session) (Session, *Error) {
	fresh, e := decodeSession(a)
	if e != nil {
		return Session{}, e
	}
	if fresh.OpenID != s.OpenID {
		return Session{}, a.unusable("with the session_key of another user")
	}
	fresh.UnionID = s.UnionID
	return fresh, nil
}

// UserKey is one key of wx.getUserCryptoManager, with which a mini program and
// its server encrypt their messages (docs/wechat.md#user-keys). Printing, logging
// or marshalling it shows nothing of it.
type UserKey struct {
	unprintable

	Key       [userKeySize]byte
	IV        [userKeySize]byte // 16 hex digits, used as the characters they are
	Version   int               // the number by which the client names the key
	ExpiresIn time.Duration     // after the answer; 0 when expired
	Created   time.Time
}

// UserEncryptKey returns the user's latest keys, newest first, at least one. An
// error of ClassKeyStale says that s does not hold the current session_key. Any
// error is an [*Error].
func (c *Client) UserEncryptKey(
	ctx context.Context, app Credentials, s Session,
) ([]UserKey, error) {
	const path = "wxa/business/getuserencryptkey"
	k := call{name: "getuserencryptkey", op: opEncryptKey, path: path}
	return signed(ctx, c, app, s, k, decodeUserKeys)
}

type userKeyInfo struct {
	EncryptKey text    `json:"encrypt_key"`
	Version    integer `json:"version"`
	ExpireIn   integer `json:"expire_in"`
	IV         text    `json:"iv"`
	CreateTime integer `json:"create_time"`
}

// decodeUserKeys accepts only a list of complete keys.
func decodeUserKeys(a answer) ([]UserKey, *Error) {
	var r struct {
		envelope
		List []userKeyInfo `json:"key_info_list"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return nil, e
	}
	keys := make([]UserKey, 0, maxUserKeys)
	ok := len(r.List) > 0 && len(r.List) <= maxUserKeys
	for i := 0; ok && i < len(r.List); i++ {
		var k UserKey
		k, ok = r.List[i].toKey()
		keys = append(keys, k)
	}
	if !ok {
		return nil, a.unusable("without a usable list of keys")
	}
	return keys, nil
}

func (i userKeyInfo) toKey() (k UserKey, ok bool) {
	const longest = 1 << 32 // seconds: neither a time nor a duration overflows
	raw, err := base64.StdEncoding.DecodeString(string(i.EncryptKey))
	if err != nil || len(raw) != userKeySize ||
		len(i.IV) != userKeySize || !isVisible(string(i.IV), userKeySize) ||
		i.Version < 0 || i.Version > longest ||
		i.CreateTime <= 0 || i.CreateTime > longest || i.ExpireIn > longest {
		return UserKey{}, false
	}
	copy(k.Key[:], raw)
	copy(k.IV[:], i.IV)
	k.Version = int(i.Version)
	k.ExpiresIn = time.Duration(max(i.ExpireIn, 0)) * time.Second
	k.Created = time.Unix(int64(i.CreateTime), 0)
	return k, true
}
