package weixintest

import "strings"

// watermark tells whom and of when data is (docs/wechat.md#decryption).
type watermark struct {
	Timestamp int64  `json:"timestamp"`
	AppID     string `json:"appid"`
}

// exchange spends the code of a JSON body {"code": ...}. Anything but a fresh
// code of the right kind and mini program earns the errcode bad.
func (s *Simulator) exchange(q *query, kind codeKind, bad int) (*code, int) {
	var in struct {
		Code string `json:"code"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	if in.Code == "" {
		return nil, 41008
	}
	q.call.noteCode(in.Code)
	c := s.find(in.Code, kind, q.now)
	if c == nil || c.app != q.app || c.used {
		return nil, bad
	}
	c.used = true
	return c, 0
}

// phoneNumber is POST /wxa/business/getuserphonenumber
// (docs/wechat.md#phone-code).
func (s *Simulator) phoneNumber(q *query) (any, int) {
	c, code := s.exchange(q, phoneCode, 40029)
	if code != 0 {
		return nil, code
	}
	type phoneInfo struct {
		PhoneNumber     string    `json:"phoneNumber"`
		PurePhoneNumber string    `json:"purePhoneNumber"`
		CountryCode     string    `json:"countryCode"`
		Watermark       watermark `json:"watermark"`
	}
	info := phoneInfo{c.phone, c.phone, "86", watermark{q.now.Unix(), q.app.id}}
	if country, pure, foreign := strings.Cut(c.phone, "-"); foreign {
		info.PhoneNumber, info.PurePhoneNumber, info.CountryCode = country+pure, pure, country
	}
	return struct {
		outcome
		PhoneInfo phoneInfo `json:"phone_info"`
	}{succeeded(), info}, 0
}

// pluginOpenPID is POST /wxa/getpluginopenpid. Codes that are wrong in any way
// are answered alike (docs/wechat.md#plugin-openpid).
func (s *Simulator) pluginOpenPID(q *query) (any, int) {
	c, code := s.exchange(q, pluginCode, 1007)
	if code != 0 {
		return nil, code
	}
	return struct {
		outcome
		OpenPID string `json:"openpid"`
	}{succeeded(), c.openpid}, 0
}
