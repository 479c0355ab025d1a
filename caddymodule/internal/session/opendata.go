package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// SealedData is a piece of open data as the client got it from WeChat (WECHAT.md 3). All of it is the client's word until it has been opened.
type SealedData struct {
	EncryptedData, IV string // base64

	// RawData and Signature come together or not at all: the text that WeChat has signed, byte for byte, and the signature.
	RawData   []byte // nil: none
	Signature string // empty: none
}

// DataError says that a piece of open data is not acceptable. Its text is the same whatever was wrong.
type DataError struct {
	LoginAgain bool            // it was probably sealed under a session_key that is not known here: a new wx.login, and then new data, will help
	Reason     opendata.Reason // for a log or a metric, never for the client
}

// Error returns the text of ErrData.
func (*DataError) Error() string { return ErrData.Error() }

// Unwrap returns ErrData.
func (*DataError) Unwrap() error { return ErrData }

// dataAhead is how far ahead of ours the clock of WeChat may be, and behind.
const dataAhead = 10 * time.Minute

// OpenData decrypts and checks what WeChat has sealed for a user (WECHAT.md 3) and returns the JSON object in it, byte for byte. A unionId in it is bound to the user when OpenData returns,
// unless another is known and the data is older than the last login by more than dataAhead: the next request of every session of theirs shows it. The error is a *DataError, or wraps ErrUnknown when there is no such user, or ErrUnavailable. Whatever the error but the last,
// nothing has changed.
func (s *Service) OpenData(ctx context.Context, id store.UserID, d SealedData) (object []byte, err error) {
	if err := s.cfg.Core.uses.begin(); err != nil {
		return nil, wrap("opening data", err)
	}
	defer s.cfg.Core.uses.done()
	u, err := s.knownUser(ctx, id)
	if err != nil {
		return nil, wrap("opening data", err)
	}
	data, err := s.open(u, d)
	if err != nil {
		return nil, err
	}
	if u.UnionID != "" && data.Time.Before(u.LastLogin.Add(-dataAhead)) {
		return data.Object, nil // no news: a client may keep data of before a change, and would choose between the two
	}
	if err := s.bind(ctx, u, data.UnionID); err != nil {
		return nil, wrap("binding unionid", err)
	}
	return data.Object, nil
}

// open tries the current session_key and then the one before: which of two logins came last at WeChat is not known here (STORE.md 5.2). Where neither is the right one, the reason is that
// of the first.
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

// open verifies and decrypts by one session_key. The error is an *opendata.Error.
func (d SealedData) open(o opendata.Opener, sessionKey string) (opendata.Data, error) {
	if d.RawData != nil {
		if err := opendata.VerifySignature(d.RawData, d.Signature, sessionKey); err != nil {
			return opendata.Data{}, err
		}
	}
	return o.Open(sessionKey, d.EncryptedData, d.IV)
}

// bind makes a unionid that has come to light that of the user; the empty one is no news.
func (s *Service) bind(ctx context.Context, u store.User, unionID string) error {
	if unionID == "" || unionID == u.UnionID {
		return nil
	}
	res, err := s.amend(ctx, u.ID, store.Amendment{UnionID: unionID})
	if err == nil && res.UnionIDChanged && s.cfg.UnionIDBound != nil {
		s.cfg.UnionIDBound(u.ID, res.UnionIDWas != "")
	}
	return err
}

// amend makes what is known of a user durable first and marks the cache second, like a revocation: no check that begins later is answered from before it. The caller's leaving does not
// interrupt it: a change that was under way could take effect after the mark.
func (s *Service) amend(ctx context.Context, id store.UserID, a store.Amendment) (store.Amended, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	c := s.cfg.Core
	res, err := c.store.Amend(ctx, id, a)
	if err != nil || res.UnionIDChanged || a.Phone != nil {
		c.cache.void(userKey(id))
	}
	return res, noUser(c.asked(writing, err))
}

// knownUser is user, whose absence is ErrUnknown.
func (s *Service) knownUser(ctx context.Context, id store.UserID) (store.User, error) {
	u, err := s.user(ctx, id)
	return u, noUser(err)
}

func noUser(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}
