package assertion

import (
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
)

// User is whom an assertion is about.
type User struct{ OpenID, AppID, UnionID string }

// Signer makes the assertions of one site. It is safe for concurrent use.
type Signer struct {
	issuer, audience string
	shards           [shards]shard
}

// NewSigner returns a signer of a site.
func NewSigner(issuer, audience string) *Signer {
	return &Signer{issuer: issuer, audience: audience}
}

// An assertion serves a user for half of its life. A shard forgets the older half of
// what it holds when it is full, so memory is bounded: about 40 MB when 65,536 users
// come within that time.
const (
	serves      = Life / 2
	shards      = 64
	usersInHalf = 512
)

type shard struct {
	mu         sync.RWMutex
	young, old map[User]made
}

// made is an assertion and when it was made, by the wall clock.
type made struct {
	at    int64 // Unix milliseconds
	token string
}

// Token returns an assertion about a user that holds for half of Life at least, and
// for Life at most by the wall clock, also after that was set back. It signs once in
// half of Life for a user, and allocates nothing else. The error is ErrNoKey.
func (s *Signer) Token(keys *Keys, u User) (string, error) {
	now := time.Now()
	set, err := keys.current(now)
	if err != nil {
		return "", err
	}
	sh := &s.shards[shardOf(u.OpenID)]
	if m, ok := sh.get(u); ok {
		if age := now.UnixMilli() - m.at; age >= 0 && age < serves.Milliseconds() {
			return m.token, nil
		}
	}
	token, err := s.sign(set, u, now, nil)
	if err == nil {
		sh.put(u, made{now.UnixMilli(), token})
	}
	return token, err
}

// claims are in the order of docs/design.md#assertion.
type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	AppID    string `json:"appid"`
	UnionID  string `json:"unionid,omitempty"`
	IssuedAt int64  `json:"iat"`
	Expiry   int64  `json:"exp"`
	*eventClaims
}

// eventClaims are those of a proof that an event is the gate's, which an identity has not.
type eventClaims struct {
	ID     string `json:"jti"`
	Event  string `json:"event"`
	Digest string `json:"body_sha256"` // base64url
}

// sign serializes an assertion, of an event unless e is nil.
func (s *Signer) sign(set *set, u User, now time.Time, e *eventClaims) (string, error) {
	return jwt.Signed(set.signs(now).signer).Claims(claims{
		Issuer: s.issuer, Audience: s.audience,
		Subject: u.OpenID, AppID: u.AppID, UnionID: u.UnionID,
		IssuedAt: now.Unix(), Expiry: now.Add(Life).Unix(), eventClaims: e,
	}).Serialize()
}

// Event returns the proof that a message about a user, which body holds, is the gate's.
// id is the same at each attempt to deliver it. The error is ErrNoKey.
func (s *Signer) Event(keys *Keys, u User, event, id string, body []byte) (string, error) {
	now := time.Now()
	set, err := keys.current(now)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	return s.sign(set, u, now, &eventClaims{
		ID: id, Event: event, Digest: base64.RawURLEncoding.EncodeToString(sum[:]),
	})
}

// shardOf spreads users by their openids, which end at random (FNV-1a).
func shardOf(openID string) int {
	h := uint32(2166136261)
	for i := range len(openID) {
		h = (h ^ uint32(openID[i])) * 16777619
	}
	return int(h % shards)
}

func (s *shard) get(u User) (made, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	m, ok := s.young[u]
	if !ok {
		m, ok = s.old[u]
	}
	return m, ok
}

func (s *shard) put(u User, m made) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil || len(s.young) >= usersInHalf {
		s.old, s.young = s.young, make(map[User]made)
	}
	s.young[u] = m
}
