package wechatauth

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// serveLogin answers POST /wx/login.
func (h *Handler) serveLogin(w http.ResponseWriter, r *http.Request, token string) error {
	began := time.Now()
	out, undelivered, err := h.login(w, r, token)
	if err != nil {
		p := reply.For(reply.Login, err)
		p.ID = reply.NewID()
		code, level := outcome(r, p)
		metrics.logins.WithLabelValues(code).Inc()
		if by, ok := errors.AsType[errLimit](err); ok && code == p.Code {
			metrics.loginLimits.WithLabelValues(string(by)).Inc()
		}
		h.refusals.Log(level, "login refused", code, zap.String("code", code),
			zap.Error(reply.Cause(err)), zap.String("client_ip", clientIP(r)),
			wechatapp.ProblemID(p.ID))
		return p
	}
	result := "ok"
	if out.Replayed {
		result = "replayed"
	}
	metrics.logins.WithLabelValues(result).Inc()
	metrics.loginDuration.Observe(time.Since(began).Seconds())
	h.log.Info("login",
		zap.String("appid", out.User.AppID), zap.String("openid", out.User.OpenID),
		zap.Stringer("session", out.Digest.ID()),
		zap.Bool("replayed", out.Replayed), zap.String("client_ip", clientIP(r)))
	var answer any = sessionAnswer{
		ThirdSession: out.Token, ExpiresIn: secondsUntil(out.Expires),
		UnionIDBound: out.UnionIDBound,
	}
	if l, ok := asWafer(r); ok {
		answer = h.waferAnswer(r, l, answer.(sessionAnswer), out.User)
	}
	err = reply.JSON(w, r, answer)
	if err == nil {
		// Without Flush a dead connection stays unnoticed.
		err = http.NewResponseController(w).Flush()
	}
	if errors.Is(err, http.ErrNotSupported) {
		err = nil
	}
	if err != nil || r.Context().Err() != nil {
		undelivered()
	}
	return err
}

// login asks the rate limits before it reads the body, so that a refused flood
// costs next to nothing (docs/threats.md#t26).
func (h *Handler) login(
	w http.ResponseWriter, r *http.Request, token string,
) (out session.Login, undelivered func(), err error) {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return out, nil, err
	}
	client, _ := netip.ParseAddr(clientIP(r))
	if wait, by := live.AllowLogin(r.Context(), client); by != "" {
		return out, nil, cmp.Or(live.NoRoom(false), limited(wait, by))
	}
	req, err := h.readLogin(w, r)
	if err != nil {
		return out, nil, err
	}
	if !slices.Contains(h.app.AppIDs(), req.AppID) {
		if wait, ok := live.AllowMerchant(req.AppID); !ok {
			return out, nil, limited(wait, limit.OfMerchant)
		}
	}
	req.Presented, req.Client = token, client
	req.Begin = func() (func(error), error) {
		end, wait, by := live.BeginLogin(r.Context(), client)
		if by != "" {
			return nil, cmp.Or(live.NoRoom(true), limited(wait, by))
		}
		return end, nil
	}
	out, err = live.Sessions.Login(r.Context(), req)
	if errors.Is(err, session.ErrUnknownApp) {
		err = reply.NotServed(req.AppID)
	}
	return out, func() { live.Sessions.Undelivered(req) }, err
}

// errLimit is the cause of a login that a limit of the gate refuses.
type errLimit limit.Limit

func (e errLimit) Error() string { return "the gate's limit of logins is reached: " + string(e) }

func limited(wait time.Duration, by limit.Limit) error {
	p := reply.RateLimited
	p.RetryAfter = wait
	return reply.Refused{Problem: p, Err: errLimit(by)}
}

// readLogin reads and checks the body of a login.
func (h *Handler) readLogin(
	w http.ResponseWriter, r *http.Request,
) (req session.LoginRequest, err error) {
	body, err := h.loginBody(w, r)
	if err != nil {
		return req, err
	}
	if body["code"] == touristCode {
		return req, reply.Invalid(http.StatusBadRequest,
			"this code comes from DevTools with a tourist AppID: "+
				"set the mini program's own AppID in the project")
	}
	if req.Code, err = body.Code("wx.login"); err != nil {
		return req, err
	}
	if req.AppID, err = body.Text("appid"); err != nil {
		return req, err
	}
	if req.AppID == "" {
		if req.AppID, err = h.guessApp(r); err != nil {
			return req, err
		}
	}
	switch wellFormed := wechatapp.CheckAppID(req.AppID) == nil; {
	case slices.Contains(h.apps, req.AppID), h.merchants && wellFormed:
		return req, nil // of a merchant, session.Login knows more
	case !wellFormed:
		return req, reply.OtherApp
	}
	return req, reply.NotServed(req.AppID)
}

// loginBody returns what a login says, with the code under its usual name.
func (h *Handler) loginBody(w http.ResponseWriter, r *http.Request) (reply.Object, error) {
	if l, ok := asWafer(r); ok {
		return l.object(), nil
	}
	body, err := reply.ReadObject(w, r, reply.MaxBody)
	if err != nil || len(h.LoginFields) == 0 {
		return body, err
	}
	var found []any
	for _, name := range h.LoginFields {
		if v, ok := body[name]; ok {
			found = append(found, v)
		}
	}
	delete(body, "code")
	switch len(found) {
	case 0:
	case 1:
		body["code"] = found[0]
	default:
		return nil, reply.Invalid(http.StatusBadRequest,
			"the body is ambiguous: it holds more than one of "+strings.Join(h.LoginFields, ", "))
	}
	return body, nil
}

// loginField is the form of a name in login_fields.
var loginField = regexp.MustCompile(`^[A-Za-z0-9_]{1,32}$`)

func checkLoginField(name string) error {
	if !loginField.MatchString(name) || name == "appid" {
		return fmt.Errorf("login_fields: %q: a name has 1 to 32 letters, digits and _, "+
			"and is not appid", name)
	}
	return nil
}

// touristCode is the code of DevTools without an AppID.
const touristCode = "the code is a mock one"

// guessApp returns the mini program of a login without an appid: the only one,
// or the one in WeChat's Referer (docs/wechat.md#network). A client can forge
// that hint, and gains nothing: a code of another mini program does not pass
// there.
func (h *Handler) guessApp(r *http.Request) (string, error) {
	if len(h.apps) == 1 && !h.merchants {
		return h.apps[0], nil
	}
	if rest, ok := strings.CutPrefix(r.Header.Get("Referer"), "https://servicewechat.com/"); ok {
		id, _, ok := strings.Cut(rest, "/")
		if ok && (h.merchants || slices.Contains(h.apps, id)) {
			return id, nil
		}
	}
	return "", reply.Invalid(http.StatusBadRequest,
		"this site serves several mini programs: send appid beside code")
}
