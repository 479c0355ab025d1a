package caddymodule

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
)

// modulePath is the Go module that this package belongs to.
const modulePath = "github.com/wxgate/wxgate"

// statusAnswer is what GET /wechat/status tells.
type statusAnswer struct {
	Version  versionStatus `json:"version"`
	Store    storeStatus   `json:"store"`
	Cache    cacheStatus   `json:"cache"`
	WeChat   wechatStatus  `json:"wechat"`
	Logins   loginStatus   `json:"logins"`
	Sessions sessionStatus `json:"sessions"`
	Apps     []string      `json:"apps"`
}

type versionStatus struct {
	WXGate string `json:"wxgate"`
	Caddy  string `json:"caddy"`
	Go     string `json:"go"`
}

type storeStatus struct {
	Name   string       `json:"name"` // kind and place
	Up     bool         `json:"up"`
	Heard  string       `json:"heard_ago,omitempty"` // of a store that gates share: how long ago
	Owed   int          `json:"pending_revocations"` // that it has not taken yet
	Counts *storeCounts `json:"counts,omitempty"`    // absent when the store does not answer
}

type storeCounts struct {
	Sessions  int64 `json:"sessions"` // including ended ones not yet removed
	Users     int64 `json:"users"`
	Bytes     int64 `json:"bytes"`
	FreeBytes int64 `json:"free_bytes"` // of Bytes
}

type cacheStatus struct {
	Sessions int64 `json:"sessions"`
	Max      int64 `json:"max"`
}

type wechatStatus struct {
	BaseURL      string `json:"base_url"`
	BreakerOpen  bool   `json:"breaker_open"`     // logins are answered in its stead
	CallsRefused bool   `json:"api_breaker_open"` // likewise calls for telephone numbers, keys and access tokens
}

type loginStatus struct {
	InFlight    int64  `json:"in_flight"`
	MaxInFlight int    `json:"max_in_flight"`
	PerClient   string `json:"per_client"`
	PerPrivate  string `json:"per_private_client"` // for addresses that are mostly a load balancer's
	Global      string `json:"global"`
}

type sessionStatus struct {
	TTL        string `json:"ttl"`
	Idle       string `json:"idle,omitempty"`
	MaxPerUser int    `json:"max_per_user"` // 0: no limit
}

// serveStatus answers also when the store does not: that is when it is asked.
func serveStatus(live *running, w http.ResponseWriter, r *http.Request) error {
	a := live.app
	stats, err := live.sessions.Stats(r.Context())
	answer := statusAnswer{
		Version: versions(),
		Store:   storeStatus{Name: a.opener.Identity(), Up: err == nil && !stats.StoreDown, Owed: stats.Pending},
		Cache:   cacheStatus{Sessions: stats.CacheEntries, Max: stats.CacheMax},
		WeChat:  wechatStatus{BaseURL: a.API.BaseURL, BreakerOpen: live.wechat.BreakerOpen(), CallsRefused: live.wechat.OtherBreakerOpen()},
		Logins: loginStatus{
			InFlight: metrics.loginsInFlight.Load(), MaxInFlight: a.limits.InFlight,
			PerClient: rateText(a.limits.PerClient), PerPrivate: rateText(a.limits.PerPrivateClient), Global: rateText(a.limits.Total),
		},
		Sessions: sessionStatus{TTL: time.Duration(a.Session.TTL).String(), MaxPerUser: max(a.Session.MaxPerUser, 0)},
	}
	if !stats.Heard.IsZero() {
		answer.Store.Heard = time.Since(stats.Heard).Round(time.Millisecond).String()
	}
	if err == nil {
		st := stats.Store
		answer.Store.Counts = &storeCounts{Sessions: st.Sessions, Users: st.Users, Bytes: st.Bytes, FreeBytes: st.FreeBytes}
	}
	if a.Session.Idle > 0 {
		answer.Sessions.Idle = time.Duration(a.Session.Idle).String()
	}
	for _, app := range a.apps {
		answer.Apps = append(answer.Apps, app.ID)
	}
	return answerAdmin(w, answer)
}

// versions tells what is running.
func versions() versionStatus {
	v := versionStatus{WXGate: "unknown", Go: runtime.Version()}
	v.Caddy, _ = caddy.Version()
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, m := range append(bi.Deps, &bi.Main) {
		if m.Path == modulePath && m.Version != "" {
			v.WXGate = m.Version
		}
	}
	return v
}

// rateText is parseRate the other way round.
func rateText(r limit.Rate) string {
	if r.Events <= 0 {
		return "off"
	}
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[r.Per]
	return fmt.Sprintf("%d/%s", r.Events, unit)
}
