package caddymodule

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// endpointLogin is the one endpoint that also answers a request with two tokens.
const endpointLogin = "login"

// endpoint is one of the gate's own endpoints.
type endpoint struct {
	method string
	serve  func(g *Gate, w http.ResponseWriter, r *http.Request, token string) error
}

// endpoints holds all of them by name.
var endpoints = map[string]endpoint{
	endpointLogin: {http.MethodPost, (*Gate).serveLogin},
	"logout":      {http.MethodPost, (*Gate).serveLogout},
	"session":     {http.MethodGet, (*Gate).serveSession},
	"decrypt":     {http.MethodPost, userData("decrypt", (*Gate).decrypt)},
	"phone":       {http.MethodPost, userData("phone", (*Gate).phone)},
}

func endpointNames() []string { return slices.Sorted(maps.Keys(endpoints)) }

// serveEndpoint answers one of the gate's own endpoints (DESIGN.md 3). A problem, wherever it comes from, ends the call.
func (g *Gate) serveEndpoint(w http.ResponseWriter, r *http.Request, name, token string) error {
	e := endpoints[name]
	if r.Method != e.method {
		p := invalidRequest(http.StatusMethodNotAllowed, "call it with "+e.method)
		p.allow = e.method
		return p.write(w)
	}
	err := e.serve(g, w, r, token)
	if p, ok := errors.AsType[problem](err); ok {
		return p.write(w)
	}
	return err
}

// sessionAnswer tells a client about a session without telling who it is.
type sessionAnswer struct {
	ThirdSession string `json:"3rd_session,omitempty"`
	ExpiresIn    int64  `json:"expires_in"` // seconds
	UnionIDBound bool   `json:"unionid_bound"`
}

func secondsUntil(t time.Time) int64 {
	return max(int64(time.Until(t).Round(time.Second)/time.Second), 0)
}

// serveSession tells whether the presented session holds.
func (g *Gate) serveSession(w http.ResponseWriter, r *http.Request, token string) error {
	if token == "" {
		return g.refuse(w, r, resultMissing, probMissing)
	}
	id, err := g.authenticate(r, token)
	if err != nil {
		return g.refuseToken(w, r, err)
	}
	metrics.decided(resultAccepted)
	return answer(w, http.StatusOK, "application/json", sessionAnswer{ExpiresIn: secondsUntil(id.Expires), UnionIDBound: id.UnionID != ""})
}

// serveLogout ends the presented session, or all of its user.
func (g *Gate) serveLogout(w http.ResponseWriter, r *http.Request, token string) error {
	if token == "" {
		return g.refuse(w, r, resultMissing, probMissing)
	}
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	all, err := flag(body, "all")
	if err != nil {
		return err
	}
	if err := g.logout(r, token, all); err != nil {
		return g.refuseToken(w, r, err)
	}
	g.log.Info("logout", zap.Bool("all", all), zap.String("client_ip", clientIP(r)))
	mark(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (g *Gate) logout(r *http.Request, token string, all bool) error {
	if !all {
		live, err := g.app.enter(r.Context())
		if err != nil {
			return err
		}
		defer live.lease.leave()
		return live.sessions.Logout(r.Context(), token)
	}
	// Ending every session of a user is for those who may act for the user here.
	id, err := g.authenticate(r, token)
	if err != nil {
		return err
	}
	live, err := g.app.enter(r.Context())
	if err != nil {
		return err
	}
	defer live.lease.leave()
	return live.sessions.RevokeUser(r.Context(), store.UserID{AppID: id.AppID, OpenID: id.OpenID})
}
