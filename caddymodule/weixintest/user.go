package weixintest

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"
)

// DefaultKeyRefresh is how long a session_key stays the same over repeated
// logins. WeChat keeps the real period to itself.
const DefaultKeyRefresh = 5 * time.Minute

// keyTTL is the life of a session_key: "three days, absolute"
// (docs/wechat.md#session-key).
const keyTTL = 72 * time.Hour

// UserOptions says how a user differs from the usual one in one mini program.
type UserOptions struct {
	// OpenID and UnionID replace the computed ones.
	OpenID  string `json:"openid"`
	UnionID string `json:"unionid"`
	// NoUnionID leaves the unionid out, as for a mini program that is not bound
	// to an Open Platform account (docs/wechat.md#unionid).
	NoUnionID bool `json:"no_unionid"`
	// Blocked refuses logins with 40226.
	Blocked bool `json:"blocked"`
	// SessionKey becomes the current session_key, until it is renewed.
	SessionKey string `json:"session_key"`
	// KeyRefresh replaces Config.KeyRefresh.
	KeyRefresh time.Duration `json:"-"`
}

// user is one person in one mini program.
type user struct {
	name, openid string
	opts         UserOptions

	key                 string
	keyMade, keyExpires time.Time

	minute    time.Time
	exchanges int

	encryptKeys []encryptKey
	payments    []payment
}

// OpenID returns the user's openid in a mini program: 28 characters
// [A-Za-z0-9_-], always the same for the same appid and name unless SetUser
// changed it.
func (s *Simulator) OpenID(appid, user string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[appid]; a != nil && a.users[user] != nil {
		return a.users[user].openid
	}
	return computeID("openid", appid, user)
}

// UnionID returns the user's unionid, the same in every mini program where
// SetUser does not say otherwise.
func (s *Simulator) UnionID(user string) string { return computeID("unionid", user) }

// OpenPID returns the id that a plugin knows the user by while it runs in the
// host mini program (docs/wechat.md#plugin-openpid).
func OpenPID(plugin, host, user string) string { return computeID("openpid", plugin, host, user) }

// SetUser replaces all options of a user in one mini program. It does nothing
// when the appid is not in Config.Apps.
func (s *Simulator) SetUser(appid, user string, o UserOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return
	}
	u := a.user(user)
	delete(a.openids, u.openid)
	u.opts = o
	u.openid = cmp.Or(o.OpenID, computeID("openid", appid, user))
	a.openids[u.openid] = u
	if o.SessionKey != "" {
		u.setKey(o.SessionKey, s.cfg.Now())
	}
}

// SessionKey returns the user's current session_key, 24 characters of base64,
// and makes one for a user who has none. It is empty for an unknown appid.
func (s *Simulator) SessionKey(appid, name string) (key string) {
	s.onUser(appid, name, func(u *user) { key = s.key(u) })
	return key
}

// RotateKey gives the user another session_key at once and returns it; the old
// one is dead. It returns "" for an unknown appid.
func (s *Simulator) RotateKey(appid, name string) (key string) {
	s.onUser(appid, name, func(u *user) {
		u.setKey(newKey(), s.cfg.Now())
		key = u.key
	})
	return key
}

// onUser runs f on a user of a mini program, under the lock. It does nothing when the
// appid is unknown.
func (s *Simulator) onUser(appid, name string, f func(*user)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[appid]; a != nil {
		f(a.user(name))
	}
}

// user returns the named user and makes the user known to WeChat.
func (a *app) user(name string) *user {
	u := a.users[name]
	if u == nil {
		u = &user{name: name, openid: computeID("openid", a.id, name)}
		a.users[name] = u
		a.openids[u.openid] = u
	}
	return u
}

// unionID returns the user's unionid in this mini program, "" for none.
func (u *user) unionID() string {
	if u.opts.NoUnionID {
		return ""
	}
	return cmp.Or(u.opts.UnionID, computeID("unionid", u.name))
}

// login renews the session_key when it is old enough. It belongs to making a
// code, not to exchanging it (docs/wechat.md#session-key).
func (s *Simulator) login(u *user, now time.Time) {
	period := cmp.Or(u.opts.KeyRefresh, s.cfg.KeyRefresh)
	if u.key == "" || now.Sub(u.keyMade) >= period || !now.Before(u.keyExpires) {
		u.setKey(newKey(), now)
	}
}

// key returns the current session_key, made at first need.
func (s *Simulator) key(u *user) string {
	if u.key == "" {
		u.setKey(newKey(), s.cfg.Now())
	}
	return u.key
}

func (u *user) setKey(key string, now time.Time) {
	u.key, u.keyMade, u.keyExpires = key, now, now.Add(keyTTL)
}

func newKey() string { return base64.StdEncoding.EncodeToString(randomBytes(16)) }

// computeID derives an id of WeChat's shape: "o" and 27 characters
// [A-Za-z0-9_-].
func computeID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "o" + base64.RawURLEncoding.EncodeToString(sum[:])[:27]
}

// paymentTTL is how long a payment opens getPaidUnionId
// (docs/wechat.md#paid-unionid).
const paymentTTL = 5 * time.Minute

// Payment names one payment in the two ways that getPaidUnionId takes.
type Payment struct {
	TransactionID string `json:"transaction_id"`
	MchID         string `json:"mch_id"`
	OutTradeNo    string `json:"out_trade_no"`
}

type payment struct {
	Payment
	made time.Time
}

// Pay lets the user pay in a mini program, which opens getPaidUnionId for 5
// minutes. It returns the zero Payment for an unknown appid.
func (s *Simulator) Pay(appid, name string) (p Payment) {
	s.onUser(appid, name, func(u *user) {
		const digits = "0123456789"
		p = Payment{
			TransactionID: "42000" + randomText(23, digits),
			MchID:         "1900000109",
			OutTradeNo:    randomText(20, digits),
		}
		u.payments = append(u.payments, payment{p, s.cfg.Now()})
	})
	return p
}

// paidUnionID is GET /wxa/getpaidunionid.
func (s *Simulator) paidUnionID(q *query) (any, int) {
	u := q.app.openids[q.Get("openid")]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	if !u.paid(Payment{q.Get("transaction_id"), q.Get("mch_id"), q.Get("out_trade_no")}, q.now) {
		return nil, 89300
	}
	if u.unionID() == "" {
		return nil, 89002
	}
	return struct {
		UnionID string `json:"unionid"`
		outcome
	}{u.unionID(), succeeded()}, 0
}

// paid reports whether the order, named in either way, was paid a short while
// ago.
func (u *user) paid(o Payment, now time.Time) bool {
	for _, p := range u.payments {
		named := o.TransactionID == p.TransactionID ||
			o.TransactionID == "" && o.MchID == p.MchID && o.OutTradeNo == p.OutTradeNo
		if named && now.Sub(p.made) < paymentTTL {
			return true
		}
	}
	return false
}
