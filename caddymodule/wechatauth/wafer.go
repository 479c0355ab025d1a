package wechatauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// dialectWafer serves the client packages of Tencent's Wafer, 1 and 2, as they are: they
// send the login and the token in headers of their own
// (docs/wechat.md#wafer).
const dialectWafer = "wafer"

// The headers of Wafer's clients. All names of their family are owned, so Clean removes
// them.
const (
	waferCode = "X-Wx-Code"
	waferData = "X-Wx-Encrypted-Data"
	waferIV   = "X-Wx-Iv"
	waferSkey = "X-Wx-Skey"
)

// errDialect refuses a dialect that no client speaks.
var errDialect = errors.New("dialect is wafer, the only one, and not together with cloudrun")

func (h *Handler) checkDialect() error {
	if h.Dialect != "" && (h.Dialect != dialectWafer || h.Cloudrun) {
		return errDialect
	}
	return nil
}

// waferLogin is what a Wafer client sends to log in. It is a variable of the request,
// which neither a client nor the handler `vars` can make.
type waferLogin struct{ code, data, iv string }

const waferVar = "wechat_auth.wafer"

// takeWafer reads what Wafer's clients send, before Clean. The token becomes one of the
// token header, so that all rules for tokens hold.
func (h *Handler) takeWafer(r *http.Request) {
	if tokens := r.Header[waferSkey]; len(tokens) > 0 {
		names := h.rules.TokenHeaders()
		name := names[len(names)-1]
		r.Header[name] = slices.Concat(r.Header[name], tokens)
		delete(r.Header, waferSkey)
	}
	if codes := r.Header[waferCode]; len(codes) == 1 {
		caddyhttp.SetVar(r.Context(), waferVar,
			waferLogin{codes[0], r.Header.Get(waferData), r.Header.Get(waferIV)})
	}
}

// asWafer returns the login of a Wafer client. It comes by any method.
func asWafer(r *http.Request) (waferLogin, bool) {
	l, ok := caddyhttp.GetVar(r.Context(), waferVar).(waferLogin)
	return l, ok
}

// object returns the login as if it had come in a body.
func (l waferLogin) object() reply.Object { return reply.Object{"code": l.code} }

// waferAnswer is the answer to a login that both packages take: Wafer 2 reads code and
// data, Wafer 1 the mark and session.
type waferAnswer struct {
	sessionAnswer
	Code    int          `json:"code"` // 0: no error
	Data    waferUser    `json:"data"`
	Mark    int          `json:"F2C224D4-2BCE-4C64-AF9F-A6D872000D1A"`
	Session waferSession `json:"session"`
}

type waferUser struct {
	Skey     string          `json:"skey"`
	UserInfo json.RawMessage `json:"userinfo"`
}

type waferSession struct {
	ID   string `json:"id"` // comes back in X-WX-Id, which nothing reads
	Skey string `json:"skey"`
}

// waferAnswer turns the answer to a login into Wafer's. Sealed data that comes along is
// opened as by the endpoint decrypt; data that does not open costs no login.
func (h *Handler) waferAnswer(
	r *http.Request, l waferLogin, a sessionAnswer, u session.User,
) waferAnswer {
	info := json.RawMessage("{}")
	live, err := h.app.Live(r.Context())
	if err == nil && l.data != "" {
		if _, ok := live.AllowDecrypt(u); ok {
			sealed := session.SealedData{EncryptedData: l.data, IV: l.iv}
			opened, err := live.Sessions.OpenData(r.Context(), u, sealed)
			live.DecryptSettled(u, err)
			if err == nil {
				info = opened
			}
		}
	}
	return waferAnswer{
		sessionAnswer: a, Data: waferUser{a.ThirdSession, info}, Mark: 1,
		Session: waferSession{"wxgate", a.ThirdSession},
	}
}
