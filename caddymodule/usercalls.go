package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// userPrefix begins the paths of the calls that the gate makes for an app in the name of a user. Their last segment is WeChat's own, where WeChat has one.
const userPrefix = "/wx/user/"

// userCall is one of them.
type userCall struct {
	changes string // what the audit line says was done; empty for a call that changes nothing, or whose change the session layer tells of

	// run makes the call. An answer of nil becomes 204.
	run func(ctx context.Context, s *session.Service, u userRequest) (answer any, err error)
}

// userRequest is what the body of a user call says.
type userRequest struct {
	id   store.UserID
	body map[string]any
}

var userCalls = map[string]userCall{
	"decrypt":             {run: decryptFor},
	"checksession":        {run: checkSessionOf},
	"resetusersessionkey": {run: resetKeyOf, changes: "session_key reset"},
	"getpaidunionid":      {run: paidUnionIDOf},
	"getuserencryptkey":   {run: encryptKeysOf},
	"getpluginopenpid":    {run: pluginOpenPIDOf},
	"revoke":              {run: revokeUserOf, changes: "sessions revoked by the app"},
	"forget":              {run: forgetUserOf, changes: "user forgotten by the app"},
}

// userless is the one call that concerns a code and nobody known.
const userless = "getpluginopenpid"

// serveUser answers a user call.
func (a *WeChatAPI) serveUser(w http.ResponseWriter, r *http.Request, c *apiCall, name string) error {
	call, ok := userCalls[name]
	if !ok {
		return probNotFound
	}
	c.name = userPrefix + name
	if r.Method != http.MethodPost {
		p := invalidRequest(http.StatusMethodNotAllowed, "call it with POST")
		p.allow = http.MethodPost
		return p
	}
	u, err := a.readUser(w, r, name)
	if err != nil {
		return err
	}
	live, err := a.app.enter(r.Context())
	if err != nil {
		return refusedUser{userProblem(err), err}
	}
	defer live.lease.leave()
	result, err := call.run(r.Context(), live.sessions, u)
	if call.changes != "" {
		audit(r, call.changes, apiCause(err), zap.String("appid", u.id.AppID), zap.String("openid", u.id.OpenID))
	}
	switch {
	case err != nil:
		return refusedUser{userProblem(err), err}
	case result == nil:
		mark(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if object, ok := result.(json.RawMessage); ok {
		return send(w, http.StatusOK, "application/json", object) // byte for byte
	}
	return answer(w, http.StatusOK, "application/json", result)
}

// refusedUser is a problem that has not lost its cause.
type refusedUser struct {
	problem
	err error
}

// Unwrap returns the problem and its cause.
func (e refusedUser) Unwrap() []error { return []error{e.problem, e.err} }

// apiCause is what the operator reads of an error of a call of an app.
func apiCause(err error) error {
	if e, ok := errors.AsType[refusedUser](err); ok {
		err = e.err
	}
	if e, ok := errors.AsType[caddyhttp.HandlerError](err); ok && e.Err != nil {
		err = e.Err // without a status and a place in Caddy's source that explain nothing
	}
	if e, ok := errors.AsType[*session.DataError](err); ok {
		return fmt.Errorf("%w: %s", e, e.Reason)
	}
	return cause(err)
}

// readUser reads and checks what every user call says.
func (a *WeChatAPI) readUser(w http.ResponseWriter, r *http.Request, name string) (u userRequest, err error) {
	limit := int64(maxBody)
	if name == "decrypt" {
		limit = maxData
	}
	if u.body, err = readObjectUpTo(w, r, limit); err != nil {
		return u, err
	}
	id, err := text(u.body, "appid")
	if err != nil {
		return u, err
	}
	app, err := a.appOf(id)
	if err != nil {
		return u, err
	}
	u.id.AppID = app.ID
	if name == userless {
		return u, nil
	}
	u.id.OpenID, err = u.required("openid")
	return u, err
}

// maxName bounds what names something: WeChat's ids have some 30 characters and no promised length (WECHAT.md 2.2).
const maxName = 128

// required returns a member that must be a string of visible ASCII.
func (u userRequest) required(name string) (string, error) {
	s, err := text(u.body, name)
	if err == nil && !nameable(s) {
		err = invalidRequest(http.StatusBadRequest, name+" must be a string of 1 to 128 visible ASCII characters")
	}
	return s, err
}

func nameable(s string) bool {
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

func decryptFor(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	d, err := sealedData(u.body)
	if err != nil {
		return nil, err
	}
	object, err := s.OpenData(ctx, u.id, d)
	return json.RawMessage(object), err
}

func checkSessionOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	valid, err := s.CheckSessionKey(ctx, u.id)
	return struct {
		Valid bool `json:"valid"`
	}{valid}, err
}

func resetKeyOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	return nil, s.ResetSessionKey(ctx, u.id)
}

func revokeUserOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	return nil, s.RevokeUser(ctx, u.id)
}

func forgetUserOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	return nil, s.Forget(ctx, u.id)
}

func paidUnionIDOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	p := weixin.Payment{OpenID: u.id.OpenID}
	names := map[string]*string{"transaction_id": &p.TransactionID}
	if _, ok := u.body["transaction_id"]; !ok {
		names = map[string]*string{"mch_id": &p.MchID, "out_trade_no": &p.OutTradeNo}
	}
	for name, dst := range names {
		var err error
		if *dst, err = u.required(name); err != nil {
			return nil, err
		}
	}
	unionID, err := s.PaidUnionID(ctx, u.id, p)
	return struct {
		UnionID string `json:"unionid"`
	}{unionID}, err
}

func pluginOpenPIDOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	code, err := text(u.body, "code")
	if err != nil {
		return nil, err
	}
	if !codeShaped(code) {
		return nil, invalidRequest(http.StatusBadRequest, "code must be the string that wx.pluginLogin gave")
	}
	id, err := s.PluginOpenPID(ctx, u.id.AppID, code)
	return struct {
		OpenPID string `json:"openpid"`
	}{id}, err
}

// userKey is a key of wx.getUserCryptoManager as WeChat's own API shows it (WECHAT.md 7.3).
type userKey struct {
	EncryptKey []byte `json:"encrypt_key"` // base64
	IV         string `json:"iv"`
	Version    int    `json:"version"`
	ExpireIn   int64  `json:"expire_in"` // seconds
	CreateTime int64  `json:"create_time"`
}

func encryptKeysOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	keys, err := s.EncryptKeys(ctx, u.id)
	if err != nil {
		return nil, err
	}
	var out struct {
		List []userKey `json:"key_info_list"`
	}
	for _, k := range keys {
		out.List = append(out.List, userKey{EncryptKey: k.Key[:], IV: string(k.IV[:]), Version: k.Version, ExpireIn: int64(k.ExpiresIn.Seconds()), CreateTime: k.Created.Unix()})
	}
	return out, nil
}

// The problems of user calls.
var (
	probNoUser   = problem{status: 404, code: "user_unknown", detail: "nobody with this openid has logged in to this mini program here"}
	probKeyStale = problem{status: 409, code: "session_key_stale", detail: "the session_key of this user is no longer WeChat's: the user has to log in again", loginAgain: true}
	probOrder    = problem{status: 422, code: "order_invalid", detail: "WeChat knows no such payment of this user within the last 5 minutes"}
)

// userProblem turns what kept a user call from its answer into what the app is told.
func userProblem(err error) problem {
	if p, ok := errors.AsType[problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*session.DataError](err); ok {
		p := probData
		p.loginAgain = e.LoginAgain
		return p
	}
	if e, ok := errors.AsType[*weixin.Error](err); ok {
		return userCallProblem(e)
	}
	switch {
	case errors.Is(err, session.ErrUnknownApp):
		return probOtherApp
	case errors.Is(err, session.ErrUnknown):
		return probNoUser
	}
	return probStoreDown
}

func userCallProblem(e *weixin.Error) problem {
	switch e.Class {
	case weixin.ClassKeyStale:
		return probKeyStale
	case weixin.ClassOrderInvalid:
		return probOrder
	case weixin.ClassCodeInvalid, weixin.ClassCodeUsed:
		return problem{status: http.StatusUnprocessableEntity, code: probCodeInvalid.code, detail: "WeChat does not accept the code: it is wrong, used, older than 5 minutes or of another kind"}
	case weixin.ClassUserBlocked:
		return probBlocked
	case weixin.ClassRateLimited:
		p := probLimited
		p.detail = "WeChat takes no more of these calls for now"
		return p
	case weixin.ClassMisconfigured, weixin.ClassRejected:
		p := probMisconfig
		p.detail = "WeChat refuses the call; the operator has been told why"
		return p
	}
	return probWeChatDown
}
