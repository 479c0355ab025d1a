package session

import (
	"context"
	"errors"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// SealedData is a piece of open data as the client got it from WeChat
// (docs/wechat.md#open-data). All of it is the client's word until it has been
// opened.
type SealedData struct {
	EncryptedData, IV string // base64

	// RawData and Signature come together or not at all: the text that WeChat
	// has signed, byte for byte, and the signature.
	RawData   []byte // nil: none
	Signature string // empty: none
}

// DataError means that a piece of open data is not acceptable. Its text is the
// same for all reasons.
type DataError struct {
	// LoginAgain: the data is probably sealed under a session_key that the gate
	// does not know. A new wx.login, and then new data, will help.
	LoginAgain bool

	Reason opendata.Reason // for a log or a metric, never for the client
}

// Error returns the text of ErrData.
func (*DataError) Error() string { return ErrData.Error() }

// Unwrap returns ErrData.
func (*DataError) Unwrap() error { return ErrData }

// dataAhead is how far the clocks of WeChat and of the gate may be apart.
const dataAhead = 10 * time.Minute

// OpenData decrypts and checks what WeChat has sealed for a user
// (docs/wechat.md#open-data) and returns the JSON object in it, byte for byte.
// It binds a unionId in it to the user, so that the next request of each of
// their sessions shows it, unless another is known and the data is clearly
// older than the last login.
//
// The error is a *DataError, or wraps ErrUnknownUser or ErrUnavailable. Nothing
// has changed then, except perhaps with ErrUnavailable.
func (s *Service) OpenData(ctx context.Context, id User, d SealedData) (object []byte, err error) {
	const doing = "opening data"
	if err := s.cfg.Core.uses.begin(); err != nil {
		return nil, wrap(doing, err)
	}
	defer s.cfg.Core.uses.done()
	u, err := s.user(ctx, id)
	if err != nil {
		return nil, wrap(doing, err)
	}
	data, err := s.open(u, d)
	if err != nil {
		return nil, err
	}
	if s.proven(u.ID, u.UnionID, u.Proof) && data.Time.Before(u.LastLogin.Add(-dataAhead)) {
		// A client may keep data from before a change, and could choose between
		// the two.
		return data.Object, nil
	}
	if err := s.bind(ctx, u, data.UnionID); err != nil {
		return nil, wrap("binding unionid", err)
	}
	return data.Object, nil
}

// open tries the current session_key and then the one before, since the gate
// does not know which of two logins came last at WeChat
// (docs/stores.md#two-keys). Where neither fits, the reason is that of the
// first.
func (s *Service) open(u store.User, d SealedData) (opendata.Data, error) {
	if signed := d.RawData != nil; signed != (d.Signature != "") {
		return opendata.Data{}, &DataError{Reason: opendata.ReasonSignature}
	}
	now := time.Now()
	o := opendata.Opener{AppID: u.ID.AppID, OpenID: u.ID.OpenID, NotAfter: now.Add(dataAhead)}
	if s.cfg.DataMaxAge > 0 {
		o.NotBefore = now.Add(-s.cfg.DataMaxAge)
	}
	var stale *DataError
	for _, sealed := range []store.SealedKey{u.Key, u.PrevKey} {
		key, err := s.cfg.Keys.OpenSessionKey(keyring.User(u.ID), sealed.Box)
		if err != nil {
			continue
		}
		data, err := d.open(o, key)
		switch e, _ := errors.AsType[*opendata.Error](err); {
		case err == nil:
			return data, nil
		case !opendata.StaleKey(err):
			return opendata.Data{}, &DataError{Reason: e.Reason}
		case stale == nil:
			stale = &DataError{LoginAgain: true, Reason: e.Reason}
		}
	}
	if stale == nil {
		stale = &DataError{LoginAgain: true, Reason: opendata.ReasonSessionKey} // none that opens
	}
	return opendata.Data{}, stale
}

// open verifies and decrypts by one session_key. The error is an
// *opendata.Error.
func (d SealedData) open(o opendata.Opener, sessionKey string) (opendata.Data, error) {
	if d.RawData != nil {
		if err := opendata.VerifySignature(d.RawData, d.Signature, sessionKey); err != nil {
			return opendata.Data{}, err
		}
	}
	return o.Open(sessionKey, d.EncryptedData, d.IV)
}

// amend changes the record of a user. As with a revocation the store has it
// first and the cache is marked second, so no check that begins later is
// answered from before it. It goes on without ctx: a change under way could
// take effect after the mark.
func (s *Service) amend(ctx context.Context, id User, a store.Amendment) (store.Amended, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	c := s.cfg.Core
	res, err := c.store.Amend(ctx, id, a)
	if err != nil || res.UnionIDChanged || a.Phone != nil {
		c.cache.void(userKey(id))
	}
	if errors.Is(c.asked(writing, err), store.ErrNotFound) {
		err = ErrUnknownUser
	}
	return res, err
}
