package caddymodule

import (
	"encoding/json"
	"net/http"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// phoneAnswer is what a client gets for a code of getPhoneNumber, under WeChat's own names (WECHAT.md 6.1).
type phoneAnswer struct {
	PhoneNumber     string `json:"phoneNumber"`
	PurePhoneNumber string `json:"purePhoneNumber"`
	CountryCode     string `json:"countryCode"`
}

// phone exchanges a code for the telephone number of the caller. Each number costs money, so the limit counts what is about to be asked of WeChat and nothing else.
func (g *Gate) phone(w http.ResponseWriter, r *http.Request, live *running, u store.UserID) (json.RawMessage, error) {
	body, err := readObject(w, r)
	if err != nil {
		return nil, err
	}
	code, err := text(body, "code")
	if err != nil {
		return nil, err
	}
	if !codeShaped(code) {
		return nil, invalidRequest(http.StatusBadRequest, "code must be the string that the getPhoneNumber button gave")
	}
	if wait, ok := live.letPhone(r.Context(), u); !ok {
		return nil, tooMany(wait)
	}
	p, err := live.sessions.Phone(r.Context(), u, code)
	if err != nil {
		return nil, err
	}
	liveLogger().Named("audit").Info("phone number given", zap.String("appid", u.AppID), zap.String("openid", u.OpenID), zap.String("client_ip", clientIP(r)))
	return json.Marshal(phoneAnswer{p.Number, p.PureNumber, p.CountryCode})
}
