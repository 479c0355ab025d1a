package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// userDataCall is what an endpoint for data of the caller does once it is known who that is. It returns the body of the answer.
type userDataCall func(g *Gate, w http.ResponseWriter, r *http.Request, live *running, u store.UserID) (json.RawMessage, error)

// userData returns the endpoint for call.
func userData(name string, call userDataCall) func(g *Gate, w http.ResponseWriter, r *http.Request, token string) error {
	return func(g *Gate, w http.ResponseWriter, r *http.Request, token string) error {
		return g.serveUserData(w, r, name, token, call)
	}
}

// serveUserData answers POST /wx/decrypt and POST /wx/phone. The log line of a refusal is the only place that tells the reason.
func (g *Gate) serveUserData(w http.ResponseWriter, r *http.Request, name, token string, call userDataCall) error {
	if token == "" {
		return g.refuse(w, r, resultMissing, probMissing)
	}
	id, err := g.authenticate(r, token)
	if err != nil {
		return g.refuseToken(w, r, err)
	}
	metrics.decided(resultAccepted)
	u := store.UserID{AppID: id.AppID, OpenID: id.OpenID}
	body, err := g.callUserData(w, r, call, u)
	if err == nil {
		metrics.endpointCalls.WithLabelValues(name, "ok").Inc()
		return send(w, http.StatusOK, "application/json", body)
	}
	p := userDataProblem(err)
	code, level := p.code, p.level()
	if r.Context().Err() != nil {
		code, level = "client_gone", zap.InfoLevel // nobody hears the answer
	}
	metrics.endpointCalls.WithLabelValues(name, code).Inc()
	g.log.Log(level, name+" refused", zap.String("code", code), zap.Error(apiCause(err)), zap.String("appid", u.AppID), zap.String("openid", u.OpenID), zap.String("client_ip", clientIP(r)))
	return p
}

func (g *Gate) callUserData(w http.ResponseWriter, r *http.Request, call userDataCall, u store.UserID) (json.RawMessage, error) {
	live, err := g.app.enter(r.Context())
	if err != nil {
		return nil, err
	}
	defer live.lease.leave()
	return call(g, w, r, live, u)
}

// userDataProblem is userProblem for a client, who acts for itself alone.
func userDataProblem(err error) problem {
	if errors.Is(err, session.ErrUnknown) {
		return probInvalid // the user was forgotten between the check and the call
	}
	if e, ok := errors.AsType[*weixin.Error](err); ok && (e.Class == weixin.ClassKeyStale || e.Class == weixin.ClassOrderInvalid) {
		return userCallProblem(&weixin.Error{Class: weixin.ClassRejected}) // WeChat speaks of what these calls do not hold
	}
	return userProblem(err)
}

// auditUnionID writes the line that each unionid leaves in the log which came to light otherwise than by a login. What it is stays out of it.
func auditUnionID(u store.UserID, changed bool) {
	what := "unionid bound"
	if changed {
		what = "unionid changed"
	}
	liveLogger().Named("audit").Info(what, zap.String("appid", u.AppID), zap.String("openid", u.OpenID))
}
