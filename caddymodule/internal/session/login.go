package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// LoginRequest is one call of the login endpoint.
type LoginRequest struct {
	AppID, Code string

	// Presented is the token sent along, or empty. A live one ends store.Grace after
	// the login, and never changes its answer.
	Presented string

	// Client may get the same answer again; the zero Addr: no client may.
	Client netip.Addr

	// Begin takes room for an exchange. end gives it back with the outcome,
	// perhaps long after the client has gone. The code of a Begin that fails is
	// not spent. Nil: there is always room.
	Begin func() (end func(error), err error)
}

// Login is an answered login.
type Login struct {
	Token   string
	Expires time.Time
	User    User
	Digest  store.Digest // names the session in logs

	UnionIDBound bool
	Replayed     bool // the answer of an earlier request with the same code
}

// Undelivered says, once, that the client did not get the answer to req. While
// the answer is replayed, the next holder of the code gets it from any address:
// telephones change from Wi-Fi to mobile (docs/threats.md#t43).
func (s *Service) Undelivered(req LoginRequest) {
	fs := &s.cfg.Core.logins
	fs.mu.Lock()
	f := fs.m[flightKey(req.AppID, req.Code)]
	fs.mu.Unlock()
	if f != nil {
		fs.lose(f, 1)
	}
}

const (
	// storeTimeout bounds the durable write of a login. It is generous, since
	// the code is spent by then.
	storeTimeout = 10 * time.Second

	// readyTimeout bounds what a call waits to learn whether the store takes
	// writes.
	readyTimeout = time.Second
)

// Login exchanges a code for a session. A login that was sent to WeChat goes on
// without ctx: its code is spent, and the client may come back for the answer.
//
// The error is ErrUnknownApp, that of Begin, wraps ErrUnavailable or ErrBlocked, or is a
// *weixin.Error. A blocked user is known only from WeChat's answer, so the code is spent.
func (s *Service) Login(ctx context.Context, req LoginRequest) (Login, error) {
	app, err := s.app(ctx, req.AppID)
	if err != nil {
		return Login{}, err
	}
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return Login{}, wrap("logging in", err)
	}
	defer c.uses.done()
	if err := c.ready(ctx); err != nil {
		return Login{}, wrap("logging in", err)
	}
	f, leads, ok := c.logins.join(flightKey(req.AppID, req.Code), req.Client)
	if !ok {
		return Login{}, &weixin.Error{
			Op: "exchanging code", Class: weixin.ClassCodeUsed,
			Reason: "the code is in use by another client",
		}
	}
	if leads {
		if err := s.launch(ctx, f, app, req); err != nil {
			c.logins.finish(f, Login{}, err, 0)
			return Login{}, err
		}
	}
	select {
	case <-ctx.Done():
		c.logins.lose(f, 0)
		return Login{}, fmt.Errorf("%w: waiting for login: %w", ErrUnavailable, ctx.Err())
	case <-f.done:
		out := f.login
		out.Replayed = !leads
		c.logins.give(f)
		return out, f.err
	}
}

// launch starts the exchange of a flight, if there is room.
func (s *Service) launch(
	ctx context.Context, f *flight, app weixin.Credentials, req LoginRequest,
) error {
	end := func(error) {}
	if req.Begin != nil {
		var err error
		if end, err = req.Begin(); err != nil {
			return err
		}
	}
	c := s.cfg.Core
	if c.background(func() {
		out, err := survive(c, func() (Login, error) {
			return s.exchange(context.WithoutCancel(ctx), app, req)
		})
		end(err)
		c.logins.finish(f, out, err, s.cfg.Replay)
	}) {
		return nil
	}
	end(errClosed)
	return wrap("logging in", errClosed)
}

// exchange spends the code and makes the session durable.
func (s *Service) exchange(
	ctx context.Context, app weixin.Credentials, req LoginRequest,
) (Login, error) {
	wx, err := s.cfg.WeChat.Code2Session(ctx, app, req.Code)
	if err != nil {
		return Login{}, err
	}
	at := time.Now()
	now := s.cfg.Core.clock(at)
	expires := now.Add(s.cfg.TTL)
	owner := keyring.User{AppID: app.ID, OpenID: wx.OpenID}
	token := s.cfg.Keys.Mint(keyring.Holder{User: owner, Created: now, Expires: expires})
	l := store.Login{
		User:       User(owner),
		UnionID:    wx.UnionID,
		Digest:     digestOf(token),
		MasterKey:  store.MasterKeyID(s.cfg.Keys.Signer()),
		Created:    now,
		Expires:    expires,
		UsedUntil:  now.Add(time.Duration(s.touchEvery) * time.Millisecond),
		MaxPerUser: s.cfg.MaxPerUser,
	}
	if wx.UnionID != "" {
		l.Proof = store.Proof(s.cfg.Keys.ProveUnionID(owner, wx.UnionID))
	}
	l.Key = store.SealedKey(s.cfg.Keys.SealSessionKey(owner, wx.SessionKey))
	l.OldTags = s.cfg.Keys.OldTags(owner, wx.SessionKey)
	if keyring.WellFormed(req.Presented) {
		l.Ends = digestOf(req.Presented)
	}

	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	c := s.cfg.Core
	if err := s.notBlocked(ctx, l.User, l.UnionID); err != nil {
		return Login{}, wrap("logging in", err)
	}
	res, err := s.storeLogin(ctx, l)
	if err != nil {
		return Login{}, wrap("storing login", err)
	}
	for _, d := range res.Ended {
		c.cache.void(digestKey(d))
	}
	if !l.Ends.IsZero() {
		c.cache.void(digestKey(l.Ends)) // it ends sooner now
	}
	if res.UnionIDChanged {
		c.cache.void(userKey(l.User))
	}
	return Login{
		Token: token, Expires: at.Add(s.cfg.TTL), User: l.User, Digest: l.Digest,
		UnionIDBound: s.proven(l.User, res.UnionID, res.Proof),
	}, nil
}

// ready returns nil while the store takes writes. A call asks it before WeChat
// spends a code or a key, which would be lost with a store that is down
// (docs/threats.md#t23).
func (c *Core) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return c.asked(writing, c.store.Health(ctx))
}

// storeLogin makes a login durable. It retries while a shared store is down and
// time is left: the code is spent, and a server that restarts is back in a
// moment. A repeated store.Login makes no second session.
//
// It asks for blocks last: one that is made meanwhile is seen here, or was not yet made
// when the session was on record, which then ends with the others of the user. The
// unionid may be known from the record alone. No client has the token yet.
func (s *Service) storeLogin(ctx context.Context, l store.Login) (store.LoginResult, error) {
	c := s.cfg.Core
	for {
		ctx, end := c.storeCall(ctx, "login")
		res, err := c.store.Login(ctx, l)
		end(err)
		if c.asked(writing, err) == nil {
			if err = s.notBlocked(ctx, l.User, res.UnionID); err == nil {
				return res, nil
			}
		}
		if errors.Is(err, ErrBlocked) {
			_ = c.asked(writing, c.store.End(ctx, l.Digest, EndBlocked))
		}
		// The login may have taken effect all the same.
		c.cache.void(digestKey(l.Ends), userKey(l.User))
		if c.shared == nil || !errors.Is(err, ErrUnavailable) {
			return res, err
		}
		select {
		case <-time.After(retryFirst):
		case <-ctx.Done():
			return res, err
		case <-c.closing.Done():
			return res, err
		}
	}
}

// flights makes one exchange of all requests that carry the same code. The
// first use spends a code, and answers get lost on mobile networks: a client
// that asks again within moments gets the answer that it missed
// (docs/wechat.md#replay). Only the same client does, or a stolen code would be
// a way to steal the session.
type flights struct {
	mu sync.Mutex
	m  map[[32]byte]*flight
}

// flight is one login, under way until done is closed and replayed for a while
// after.
type flight struct {
	key    [32]byte
	client netip.Addr // that may get the answer
	given  int        // how often it was given
	lost   bool       // a client is gone without it; if none has it, the next one may
	done   chan struct{}

	login Login // valid when done is closed
	err   error
}

func flightKey(appID, code string) [32]byte { return sha256.Sum256([]byte(appID + "\x00" + code)) }

// join returns the flight of a code and whether the caller has to carry it out.
// ok is false when it belongs to another client.
func (fs *flights) join(key [32]byte, client netip.Addr) (f *flight, leads, ok bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.m[key]; f != nil {
		if f.lost && f.given == 0 && client.IsValid() {
			f.client, f.lost = client, false
		}
		return f, false, client.IsValid() && f.client == client
	}
	if fs.m == nil {
		fs.m = make(map[[32]byte]*flight)
	}
	f = &flight{key: key, client: client, done: make(chan struct{})}
	fs.m[key] = f
	return f, true, true
}

// finish publishes the outcome. A success is replayed for the time given. A
// failure is not, so that the next attempt is a new one.
func (fs *flights) finish(f *flight, out Login, err error, replay time.Duration) {
	f.login, f.err = out, err
	close(f.done)
	if err != nil || replay <= 0 {
		fs.forget(f)
		return
	}
	time.AfterFunc(replay, func() { fs.forget(f) })
}

// give counts an answer as delivered, until lose says otherwise.
func (fs *flights) give(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.given++
}

// lose takes back answers that were given, and opens a flight whose answer no
// client has to the next one.
func (fs *flights) lose(f *flight, given int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.given -= given
	f.lost = true
}

// len returns the number of flights under way or replayed.
func (fs *flights) len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.m)
}

func (fs *flights) forget(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.m, f.key)
}
