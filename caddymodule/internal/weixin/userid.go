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

// Payment names a payment of the last 5 minutes: by TransactionID, or by MchID and OutTradeNo.
type Payment struct {
	OpenID        string // who paid
	TransactionID string // WeChat Pay's number of the order
	MchID         string // the merchant
	OutTradeNo    string // the merchant's number of the order
}

// PaidUnionID returns the unionid of a user who has just paid (WECHAT.md 7.1): 1 to 128 visible ASCII characters. Any error is an
// [*Error]; one of ClassOrderInvalid says that there is no such payment.
func (c *Client) PaidUnionID(ctx context.Context, app Credentials, p Payment) (string, error) {
	query, e := p.query()
	if e != nil {
		return "", e
	}
	var id string
	k := call{name: "getpaidunionid", op: opPaid, path: "wxa/getpaidunionid", query: query}
	err := c.authorized(ctx, app, k, func(a answer) (e *Error) {
		id, e = decodePaid(a)
		return e
	})
	return id, err
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
	return nil, &Error{Op: opPaid, Class: ClassOrderInvalid, Reason: "a payment has an openid and either a transaction_id or both mch_id and out_trade_no"}
}

func decodePaid(a answer) (string, *Error) {
	var r struct {
		envelope
		UnionID text `json:"unionid"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return "", e
	}
	if !isVisible(string(r.UnionID), maxID) {
		return "", a.nonsense("the answer holds no usable unionid")
	}
	return string(r.UnionID), nil
}

// PluginOpenPID exchanges a code of wx.pluginLogin for the id by which the plugin knows the user in the mini program that hosts it
// (WECHAT.md 7.2): 1 to 128 visible ASCII characters. app is the plugin. Any error is an [*Error].
func (c *Client) PluginOpenPID(ctx context.Context, app Credentials, code string) (string, error) {
	if e := checkCode(opPlugin, code, "wx.pluginLogin"); e != nil {
		return "", e
	}
	k := call{name: "getpluginopenpid", op: opPlugin, path: "wxa/getpluginopenpid"}
	k.body, _ = json.Marshal(map[string]string{"code": code}) // strings always marshal
	var id string
	err := c.authorized(ctx, app, k, func(a answer) (e *Error) {
		id, e = decodePlugin(a)
		return e
	})
	return id, err
}

func decodePlugin(a answer) (string, *Error) {
	var r struct {
		envelope
		OpenPID text `json:"openpid"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return "", e
	}
	if !isVisible(string(r.OpenPID), maxID) {
		return "", a.nonsense("the answer holds no usable openpid")
	}
	return string(r.OpenPID), nil
}
