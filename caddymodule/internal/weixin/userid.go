package weixin

import (
	"context"
	"encoding/json"
	"net/url"
)

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
