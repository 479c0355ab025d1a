package weixintest

import (
	"encoding/base64"
	"strings"
	"time"
)

// Life of an access_token and limits of force_refresh
// (docs/wechat.md#stable-token).
const (
	tokenTTL      = 2 * time.Hour
	tokenRenewal  = 5 * time.Minute
	forcedPerDay  = 20
	forcedSpacing = 30 * time.Second
)

const (
	tokenPrefix = "96_"
	tokenBytes  = 99
)

// token is one access_token of a mini program.
type token struct {
	app     *app
	expires time.Time
	dead    bool // ended by force_refresh
	value   string

	merchant bool // that of a third-party platform
}

// stableToken is POST /cgi-bin/stable_token (docs/wechat.md#stable-token).
func (s *Simulator) stableToken(q *query) (any, int) {
	var in struct {
		GrantType    string `json:"grant_type"`
		AppID        string `json:"appid"`
		Secret       string `json:"secret"`
		ForceRefresh bool   `json:"force_refresh"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	switch {
	case in.AppID == "":
		return nil, 41002
	case in.Secret == "":
		return nil, 41004
	case in.GrantType != "client_credential":
		return nil, 40002
	}
	a := s.apps[in.AppID]
	if a == nil {
		return nil, 40013
	}
	q.call.AppID = a.id
	if in.Secret != a.secret {
		return nil, 40125
	}
	if in.ForceRefresh {
		if code := s.forceRefresh(a, q.now); code != 0 {
			return nil, code
		}
	}
	// The old token keeps its last minutes, so both are valid for a while.
	if a.current == nil || a.current.expires.Sub(q.now) <= tokenRenewal {
		a.current = &token{app: a, expires: q.now.Add(tokenTTL), value: newToken()}
		s.tokens[a.current.value] = a.current
	}
	return struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}{a.current.value, int(a.current.expires.Sub(q.now) / time.Second)}, 0
}

// forceRefresh ends all tokens of a. The errcodes beyond its limits are not
// documented; 45011 and 45009 are the general ones for "too fast" and "too
// often".
func (s *Simulator) forceRefresh(a *app, now time.Time) int {
	for len(a.forced) > 0 && now.Sub(a.forced[0]) >= 24*time.Hour {
		a.forced = a.forced[1:]
	}
	switch n := len(a.forced); {
	case n > 0 && now.Sub(a.forced[n-1]) < forcedSpacing:
		return 45011
	case n >= forcedPerDay:
		return 45009
	}
	a.forced = append(a.forced, now)
	a.current = nil
	for _, t := range s.tokens {
		t.dead = t.dead || t.app == a && !t.merchant
	}
	return 0
}

// authorize returns the mini program that an access_token belongs to, or an
// errcode of docs/wechat.md#token-refused.
func (s *Simulator) authorize(value string, now time.Time) (*app, int) {
	if value == "" {
		return nil, 41001
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(value, tokenPrefix))
	if err != nil || len(raw) != tokenBytes {
		return nil, 40014
	}
	t := s.tokens[value]
	switch {
	case t == nil || t.dead:
		return nil, 40001
	case !now.Before(t.expires):
		return nil, 42001
	}
	return t.app, 0
}

func newToken() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(randomBytes(tokenBytes))
}
