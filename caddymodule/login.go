package caddymodule

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// serveLogin answers POST /wx/login. The limits come before the body is read, so that a refused flood costs next to nothing (THREATS.md 26).
func (g *Gate) serveLogin(w http.ResponseWriter, r *http.Request, token string) error {
	out, err := g.login(w, r, token)
	if err != nil {
		p, ok := errors.AsType[problem](err)
		if !ok {
			p = loginProblem(err)
		}
		code, level := p.code, p.level()
		if r.Context().Err() != nil {
			code, level = "client_gone", zap.InfoLevel // nobody hears the answer, and nothing is wrong
		}
		metrics.logins.WithLabelValues(code).Inc()
		g.log.Log(level, "login refused", zap.String("code", code), zap.Error(cause(err)), zap.String("client_ip", clientIP(r)))
		return p
	}
	result := "ok"
	if out.Replayed {
		result = "replayed"
	}
	metrics.logins.WithLabelValues(result).Inc()
	g.log.Info("login", zap.String("appid", out.User.AppID), zap.String("openid", out.User.OpenID), zap.String("session", hex.EncodeToString(out.Digest[:4])), zap.Bool("replayed", out.Replayed), zap.String("client_ip", clientIP(r)))
	return answer(w, http.StatusOK, "application/json", sessionAnswer{ThirdSession: out.Token, ExpiresIn: secondsUntil(out.Expires), UnionIDBound: out.UnionIDBound})
}

func (g *Gate) login(w http.ResponseWriter, r *http.Request, token string) (session.Login, error) {
	live, err := g.app.enter(r.Context())
	if err != nil {
		return session.Login{}, err
	}
	defer live.lease.leave()

	client, _ := netip.ParseAddr(clientIP(r))
	if wait, ok := live.letIn(r.Context(), client); !ok {
		leaveBody(w, r)
		p := probLimited
		p.retryAfter = wait
		return session.Login{}, p
	}
	req, err := g.readLogin(w, r)
	if err != nil {
		return session.Login{}, err
	}
	req.Presented, req.Client, req.Begin = token, client, live.limiter.Begin
	return live.sessions.Login(r.Context(), req)
}

// letIn asks the limits of this gate, then, for the rate per client, those that it shares with the other gates of its store.
func (live *running) letIn(ctx context.Context, client netip.Addr) (wait time.Duration, ok bool) {
	if wait, ok = live.limiter.Allow(client); !ok || !live.core.Shared() {
		return wait, ok
	}
	name, r := live.limiter.Bucket(client)
	if r.Events <= 0 {
		return 0, true
	}
	return live.spend(ctx, name, r)
}

// spend takes one from a bucket that the gates of a store share, if there are others.
func (live *running) spend(ctx context.Context, name string, r limit.Rate) (wait time.Duration, ok bool) {
	wait = live.core.Spend(ctx, name, store.Rate{Every: max(1, r.Per/time.Duration(r.Events)), Burst: r.Events})
	return wait, wait <= 0
}

// readLogin reads and checks what the client sent.
func (g *Gate) readLogin(w http.ResponseWriter, r *http.Request) (req session.LoginRequest, err error) {
	body, err := readObject(w, r)
	if err != nil {
		return req, err
	}
	if req.Code, err = text(body, "code"); err != nil {
		return req, err
	}
	if err := checkCode(req.Code); err != nil {
		return req, err
	}
	if req.AppID, err = text(body, "appid"); err != nil {
		return req, err
	}
	if req.AppID == "" {
		if req.AppID, err = g.guessApp(r); err != nil {
			return req, err
		}
	}
	if !slices.Contains(g.apps, req.AppID) {
		return req, probOtherApp
	}
	return req, nil
}

// checkCode refuses what cannot be a code of wx.login.
func checkCode(code string) error {
	switch {
	case code == "the code is a mock one": // WECHAT.md 11.6
		return invalidRequest(http.StatusBadRequest, "this code comes from DevTools with a tourist AppID: set the mini program's own AppID in the project")
	case !codeShaped(code):
		return invalidRequest(http.StatusBadRequest, "code must be the string that wx.login gave")
	}
	return nil
}

// codeShaped reports whether a text can be a code of WeChat. Neither length nor alphabet is documented (WECHAT.md 1), so it is generous.
func codeShaped(code string) bool {
	return code != "" && len(code) <= 256 && !strings.ContainsFunc(code, func(c rune) bool { return c <= ' ' || c > '~' })
}

// guessApp tells which mini program a call without an appid means: the only one, or the one that WeChat names in the Referer (WECHAT.md 9.2). That is a hint from whoever sends it and
// decides nothing but whose secret is tried: a code of another mini program does not pass there.
func (g *Gate) guessApp(r *http.Request) (string, error) {
	if len(g.apps) == 1 {
		return g.apps[0], nil
	}
	if rest, ok := strings.CutPrefix(r.Header.Get("Referer"), "https://servicewechat.com/"); ok {
		if id, _, ok := strings.Cut(rest, "/"); ok && slices.Contains(g.apps, id) {
			return id, nil
		}
	}
	return "", invalidRequest(http.StatusBadRequest, "this site serves several mini programs: send appid beside code")
}

// loginProblem turns what happened into what the client is told.
func loginProblem(err error) problem {
	if e, ok := errors.AsType[*weixin.Error](err); ok {
		switch e.Class {
		case weixin.ClassCodeInvalid:
			return probCodeInvalid
		case weixin.ClassCodeUsed:
			return probCodeUsed
		case weixin.ClassUserBlocked:
			return probBlocked
		case weixin.ClassRateLimited:
			return probLimited
		case weixin.ClassMisconfigured, weixin.ClassRejected, weixin.ClassKeyStale, weixin.ClassOrderInvalid: // the last two are no answers to a login
			return probMisconfig
		}
		return probWeChatDown
	}
	switch {
	case errors.Is(err, session.ErrUnknownApp):
		return probOtherApp
	case errors.Is(err, session.ErrBusy):
		p := probLimited
		p.retryAfter = time.Second
		return p
	}
	return probStoreDown
}

// cause is what the operator reads. A problem is its own cause.
func cause(err error) error {
	if p, ok := errors.AsType[problem](err); ok {
		return errors.New(p.detail)
	}
	return err
}
