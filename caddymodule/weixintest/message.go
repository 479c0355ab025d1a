package weixintest

import "encoding/json"

// sendMessage is POST /cgi-bin/message/subscribe/send and
// /cgi-bin/message/custom/send. The simulator keeps no message: Calls tells
// whom it was for.
func (s *Simulator) sendMessage(q *query) (any, int) {
	var in struct {
		ToUser     string          `json:"touser"`
		TemplateID string          `json:"template_id"`
		Data       json.RawMessage `json:"data"`
		MsgType    string          `json:"msgtype"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	u := q.app.openids[in.ToUser]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	if in.TemplateID == "" && in.MsgType == "" {
		return nil, 40037
	}
	return succeeded(), 0
}

// checkText is POST /wxa/msg_sec_check. A text that holds "risky" is found so;
// everything else passes.
func (s *Simulator) checkText(q *query) (any, int) {
	var in struct {
		Content string `json:"content"`
		OpenID  string `json:"openid"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	u := q.app.openids[in.OpenID]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	type result struct {
		Suggest string `json:"suggest"`
		Label   int    `json:"label"`
	}
	found := result{"pass", 100}
	if isRisky(in.Content) {
		found = result{"risky", 20001}
	}
	return struct {
		outcome
		Result result `json:"result"`
	}{succeeded(), found}, 0
}
