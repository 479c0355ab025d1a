package wechatauth

import (
	"encoding/json"
	"net/http"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// ownDataCall returns data of the user, as the body of an answer.
type ownDataCall func(
	h *Handler, w http.ResponseWriter, r *http.Request, live *wechatapp.Live, u session.User,
) (json.RawMessage, error)

// ownData serves a call of a user for the user's own data. The log line of a
// refusal is the only place that tells the reason.
func ownData(
	name string, call ownDataCall,
) func(*Handler, http.ResponseWriter, *http.Request, string) error {
	return func(h *Handler, w http.ResponseWriter, r *http.Request, token string) error {
		return h.checked(w, r, token, func(id session.Identity) error {
			u := id.User()
			body, err := h.callOwnData(w, r, call, u)
			if err == nil {
				metrics.called(name, "ok")
				return reply.Raw(w, r, body)
			}
			p := reply.For(reply.OwnData, err)
			p.ID = reply.NewID()
			code, level := outcome(r, p)
			metrics.called(name, code)
			h.refusals.Log(level, name+" refused", code, zap.String("code", code),
				zap.Error(reply.Cause(err)), zap.String("appid", u.AppID),
				zap.String("openid", u.OpenID), zap.String("client_ip", clientIP(r)),
				wechatapp.ProblemID(p.ID))
			return p
		})
	}
}

func (h *Handler) callOwnData(
	w http.ResponseWriter, r *http.Request, call ownDataCall, u session.User,
) (json.RawMessage, error) {
	live, err := h.app.Live(r.Context())
	if err != nil {
		return nil, err
	}
	return call(h, w, r, live, u)
}

// outcome returns how metric and log tell a problem. A client that is gone reads no
// answer, and nothing is wrong.
func outcome(r *http.Request, p reply.Problem) (code string, level zapcore.Level) {
	if r.Context().Err() != nil {
		return "client_gone", zap.InfoLevel
	}
	return p.Code, p.Level()
}

// decrypt opens data that WeChat has sealed for the user.
func (h *Handler) decrypt(
	w http.ResponseWriter, r *http.Request, live *wechatapp.Live, u session.User,
) (object json.RawMessage, err error) {
	if wait, ok := live.AllowDecrypt(u); !ok {
		return nil, reply.TooMany(wait)
	}
	defer func() { live.DecryptSettled(u, err) }()
	body, err := reply.ReadObject(w, r, reply.MaxData)
	if err != nil {
		return nil, err
	}
	d, err := body.SealedData()
	if err != nil {
		return nil, err
	}
	return live.Sessions.OpenData(r.Context(), u, d)
}

// phoneAnswer has WeChat's own names (docs/wechat.md#phone-code).
type phoneAnswer struct {
	PhoneNumber     string `json:"phoneNumber"`
	PurePhoneNumber string `json:"purePhoneNumber"`
	CountryCode     string `json:"countryCode"`
}

// phone exchanges a code for the telephone number of the user. A number costs
// money, so the rate limit counts the calls of WeChat and nothing else.
func (h *Handler) phone(
	w http.ResponseWriter, r *http.Request, live *wechatapp.Live, u session.User,
) (json.RawMessage, error) {
	body, err := reply.ReadObject(w, r, reply.MaxBody)
	if err != nil {
		return nil, err
	}
	code, err := body.Code("the getPhoneNumber button")
	if err != nil {
		return nil, err
	}
	if wait, ok := live.AllowPhone(r.Context(), u); !ok {
		return nil, reply.TooMany(wait)
	}
	p, err := live.Sessions.Phone(r.Context(), u, code)
	if err != nil {
		return nil, err
	}
	wechatapp.Logger("audit").Info("phone number given",
		zap.String("appid", u.AppID), zap.String("openid", u.OpenID),
		zap.String("client_ip", clientIP(r)))
	return json.Marshal(phoneAnswer{p.Number, p.PureNumber, p.CountryCode})
}
