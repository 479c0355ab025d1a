package weixin

import (
	"context"
	"encoding/json"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const opPhone = "getting phone number"

// PhoneNumber exchanges the code of a getPhoneNumber button for the number
// (docs/wechat.md#phone-code). openid, or "", is a hint to WeChat; the answer
// names no user. Any error is an [*Error].
//
// Each number costs money, so the code is sent a second time only if the first
// request did not leave this process, or WeChat refused the access token.
func (c *Client) PhoneNumber(
	ctx context.Context, app Credentials, code, openid string,
) (opendata.Phone, error) {
	if e := checkCode(opPhone, code, "getPhoneNumber"); e != nil {
		return opendata.Phone{}, e
	}
	const path = "wxa/business/getuserphonenumber"
	k := call{name: "getuserphonenumber", op: opPhone, path: path, once: true, odd: isOdd(code)}
	k.body, _ = json.Marshal(struct { // strings always marshal
		Code   string `json:"code"`
		OpenID string `json:"openid,omitempty"`
	}{code, openid})
	return authorized(ctx, c, app, k, func(a answer) (opendata.Phone, *Error) {
		return decodePhone(a, app.ID)
	})
}

// decodePhone accepts a complete number with the watermark of the mini program.
// It does not judge the watermark's time, since the answer is new.
func decodePhone(a answer, appID string) (opendata.Phone, *Error) {
	var r struct {
		envelope
		Info json.RawMessage `json:"phone_info"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return opendata.Phone{}, e
	}
	d, err := opendata.Opener{AppID: appID}.Read(r.Info)
	if err != nil || d.Phone == (opendata.Phone{}) {
		return opendata.Phone{},
			a.unusable("without a usable phone number of this mini program")
	}
	return d.Phone, nil
}
