package weixintest

import "time"

// paymentTTL is how long a payment opens getPaidUnionId
// (docs/wechat.md#paid-unionid).
const paymentTTL = 5 * time.Minute

// Payment names one payment in the two ways that getPaidUnionId takes.
type Payment struct {
	TransactionID string `json:"transaction_id"`
	MchID         string `json:"mch_id"`
	OutTradeNo    string `json:"out_trade_no"`
}

type payment struct {
	Payment
	made time.Time
}

// Pay lets the user pay in a mini program, which opens getPaidUnionId for 5
// minutes. It returns the zero Payment for an unknown appid.
func (s *Simulator) Pay(appid, user string) Payment {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return Payment{}
	}
	const digits = "0123456789"
	p := Payment{
		TransactionID: "42000" + randomText(23, digits),
		MchID:         "1900000109",
		OutTradeNo:    randomText(20, digits),
	}
	u := a.user(user)
	u.payments = append(u.payments, payment{p, s.cfg.Now()})
	return p
}

// paidUnionID is GET /wxa/getpaidunionid.
func (s *Simulator) paidUnionID(q *query) (any, int) {
	u := q.app.openids[q.Get("openid")]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	if !u.paid(Payment{q.Get("transaction_id"), q.Get("mch_id"), q.Get("out_trade_no")}, q.now) {
		return nil, 89300
	}
	if u.unionID() == "" {
		return nil, 89002
	}
	return struct {
		UnionID string `json:"unionid"`
		outcome
	}{u.unionID(), succeeded()}, 0
}

// paid reports whether the order, named in either way, was paid a short while
// ago.
func (u *user) paid(o Payment, now time.Time) bool {
	for _, p := range u.payments {
		named := o.TransactionID == p.TransactionID ||
			o.TransactionID == "" && o.MchID == p.MchID && o.OutTradeNo == p.OutTradeNo
		if named && now.Sub(p.made) < paymentTTL {
			return true
		}
	}
	return false
}
