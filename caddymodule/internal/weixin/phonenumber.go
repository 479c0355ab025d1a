package weixin

import (
	"context"
	"encoding/json"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const opPhone = "getting phone number"

// PhoneNumber exchanges the code of a getPhoneNumber button for the number (WECHAT.md 6.1). openid names the user whose number it is meant
// to be; WeChat takes it as a hint, and "" for none. The answer names no user: whose it is, the caller has to know. Any error is an
// [*Error].
//
// Each number costs money, so the code is sent once. It is sent again, once, only if it provably was not sent before or WeChat refused the
// access token; not even after errcode -1.
func (c *Client) PhoneNumber(ctx context.Context, app Credentials, code, openid string) (opendata.Phone, error) {
	if e := checkCode(opPhone, code, "getPhoneNumber"); e != nil {
		return opendata.Phone{}, e
	}
	k := call{name: "getuserphonenumber", op: opPhone, path: "wxa/business/getuserphonenumber", once: true}
	k.body, _ = json.Marshal(struct { // strings always marshal
		Code   string `json:"code"`
		OpenID string `json:"openid,omitempty"`
	}{code, openid})
	var p opendata.Phone
	err := c.authorized(ctx, app, k, func(a answer) (e *Error) {
		p, e = decodePhone(a, app.ID)
		return e
	})
	return p, err
}

type phoneReply struct {
	envelope
	Info json.RawMessage `json:"phone_info"`
}

// decodePhone accepts a whole number with the watermark of the mini program. Nothing is said of its time: the answer is fresh.
func decodePhone(a answer, appID string) (opendata.Phone, *Error) {
	var r phoneReply
	if e := a.decode(&r, &r.envelope); e != nil {
		return opendata.Phone{}, e
	}
	d, err := opendata.Opener{AppID: appID}.Read(r.Info)
	if err != nil || d.Phone == (opendata.Phone{}) {
		return opendata.Phone{}, a.nonsense("the answer holds no usable phone number of this mini program")
	}
	return d.Phone, nil
}
