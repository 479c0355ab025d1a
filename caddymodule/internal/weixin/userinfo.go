package weixin

import (
	"context"
	"encoding/json"
	"net/url"

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

const (
	opPaid   = "getting unionid after a payment"
	opPlugin = "exchanging plugin code"
)

// Payment names a payment of the last 5 minutes: by TransactionID, or by MchID
// and OutTradeNo.
type Payment struct {
	OpenID        string // the user who paid
	TransactionID string // WeChat Pay's number of the order
	MchID         string // the merchant
	OutTradeNo    string // the merchant's number of the order
}

// PaidUnionID returns the unionid of a user who has just paid, 1 to 128 visible
// ASCII characters (docs/wechat.md#paid-unionid). Any error is an [*Error];
// ClassOrderInvalid says that there is no such payment.
func (c *Client) PaidUnionID(ctx context.Context, app Credentials, p Payment) (string, error) {
	query, e := p.query()
	if e != nil {
		return "", e
	}
	k := call{name: "getpaidunionid", op: opPaid, path: "wxa/getpaidunionid", query: query}
	return authorized(ctx, c, app, k, decodeID("unionid"))
}

func (p Payment) query() (url.Values, *Error) {
	q := url.Values{"openid": {p.OpenID}}
	switch {
	case !isVisible(p.OpenID, maxID):
	case isVisible(p.TransactionID, maxID):
		q.Set("transaction_id", p.TransactionID)
		return q, nil
	case p.TransactionID == "" && isVisible(p.MchID, maxID) && isVisible(p.OutTradeNo, maxID):
		q.Set("mch_id", p.MchID)
		q.Set("out_trade_no", p.OutTradeNo)
		return q, nil
	}
	return nil, &Error{Op: opPaid, Class: ClassOrderInvalid, Reason: "a payment has an openid " +
		"and either a transaction_id or both mch_id and out_trade_no"}
}

// PluginOpenPID exchanges a code of wx.pluginLogin for the plugin's id of the
// user, 1 to 128 visible ASCII characters (docs/wechat.md#plugin-openpid). app
// is the plugin. Any error is an [*Error].
func (c *Client) PluginOpenPID(ctx context.Context, app Credentials, code string) (string, error) {
	if e := checkCode(opPlugin, code, "wx.pluginLogin"); e != nil {
		return "", e
	}
	k := call{name: "getpluginopenpid", op: opPlugin, path: "wxa/getpluginopenpid"}
	k.body, _ = json.Marshal(map[string]string{"code": code}) // strings always marshal
	return authorized(ctx, c, app, k, decodeID("openpid"))
}

// decodeID returns a decoder of the answers that hold one id, in field.
func decodeID(field string) func(answer) (string, *Error) {
	return func(a answer) (string, *Error) {
		var r struct {
			envelope
			UnionID text `json:"unionid"`
			OpenPID text `json:"openpid"`
		}
		e := a.decode(&r, &r.envelope)
		id := map[string]text{"unionid": r.UnionID, "openpid": r.OpenPID}[field]
		if e == nil {
			e = a.requireVisible(field, id)
		}
		if e != nil {
			return "", e
		}
		return string(id), nil
	}
}
