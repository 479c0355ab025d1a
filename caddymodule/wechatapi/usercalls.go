package wechatapi

import (
	"context"
	"encoding/json"
	"net/http"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// userPrefix begins the paths of the calls that the gate makes for a user. The last
// segment is WeChat's own, where WeChat has one.
const userPrefix = "/wx/user/"

// userCall is one call for a user.
type userCall struct {
	// changes is the text of the audit line; empty for a call that changes nothing,
	// or whose change the session layer reports.
	changes string

	// run makes the call. A nil answer becomes 204.
	run func(ctx context.Context, s *session.Service, u userRequest) (answer any, err error)
}

// userRequest is the body of a user call.
type userRequest struct {
	id   session.User
	body reply.Object
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

// userless is the one call about a code in place of a user.
const userless = "getpluginopenpid"

// serveUser answers a user call.
func (h *Handler) serveUser(w http.ResponseWriter, r *http.Request, c *apiCall, name string) error {
	call, ok := userCalls[name]
	if !ok {
		return reply.NotFound
	}
	c.name = userPrefix + name
	if r.Method != http.MethodPost {
		return reply.MethodNotAllowed(http.MethodPost,
			"send POST with a JSON body of type application/json")
	}
	live, err := h.app.Live(r.Context())
	if err != nil {
		return reply.Refused{Problem: reply.For(reply.ForUser, err), Err: err}
	}
	u, err := h.readUser(w, r, live, name)
	if err != nil {
		return err
	}

	result, err := call.run(r.Context(), live.Sessions, u)
	if call.changes != "" {
		wechatapp.Audit(r, call.changes, reply.Cause(err),
			zap.String("appid", u.id.AppID), zap.String("openid", u.id.OpenID))
	}
	switch {
	case err != nil:
		return reply.Refused{Problem: reply.For(reply.ForUser, err), Err: err}
	case result == nil:
		return reply.NoContent(w, r)
	}
	if object, ok := result.(json.RawMessage); ok {
		return reply.Raw(w, r, object) // byte for byte
	}
	return reply.JSON(w, r, result)
}

// readUser reads and checks what each user call holds.
func (h *Handler) readUser(
	w http.ResponseWriter, r *http.Request, live *wechatapp.Live, name string,
) (u userRequest, err error) {
	limit := int64(reply.MaxBody)
	if name == "decrypt" {
		limit = reply.MaxData
	}
	if u.body, err = reply.ReadJSON(w, r, limit); err != nil {
		return u, err
	}
	id, err := u.body.Text("appid")
	if err != nil {
		return u, err
	}
	app, err := h.appOf(r.Context(), live, id)
	if err != nil {
		return u, err
	}
	u.id.AppID = app.ID
	if name == userless {
		return u, nil
	}
	u.id.OpenID, err = u.body.ID("openid")
	return u, err
}

func decryptFor(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	d, err := u.body.SealedData()
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
	return nil, s.RevokeUser(ctx, u.id, session.EndByApp)
}

func forgetUserOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	return nil, s.Forget(ctx, u.id, session.EndForgotten)
}

func paidUnionIDOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	p := weixin.Payment{OpenID: u.id.OpenID}
	names := map[string]*string{"transaction_id": &p.TransactionID}
	if _, ok := u.body["transaction_id"]; !ok {
		names = map[string]*string{"mch_id": &p.MchID, "out_trade_no": &p.OutTradeNo}
	}
	for name, dst := range names {
		var err error
		if *dst, err = u.body.ID(name); err != nil {
			return nil, err
		}
	}
	unionID, err := s.PaidUnionID(ctx, u.id, p)
	return struct {
		UnionID string `json:"unionid"`
	}{unionID}, err
}

func pluginOpenPIDOf(ctx context.Context, s *session.Service, u userRequest) (any, error) {
	code, err := u.body.Code("wx.pluginLogin")
	if err != nil {
		return nil, err
	}
	id, err := s.PluginOpenPID(ctx, u.id.AppID, code)
	return struct {
		OpenPID string `json:"openpid"`
	}{id}, err
}

// userKey is a key of wx.getUserCryptoManager in the form of WeChat's own API
// (docs/wechat.md#user-keys).
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
		out.List = append(out.List, userKey{
			EncryptKey: k.Key[:], IV: string(k.IV[:]), Version: k.Version,
			ExpireIn: int64(k.ExpiresIn.Seconds()), CreateTime: k.Created.Unix(),
		})
	}
	return out, nil
}
