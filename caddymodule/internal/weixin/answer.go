package weixin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// answer is one complete HTTP answer. A readable body decides, not the status
// or the content type (docs/wechat.md#code2session-response).
type answer struct {
	status int
	body   []byte
}

// envelope holds the fields that the answers of all API calls share.
type envelope struct {
	ErrCode *integer `json:"errcode"` // nil when absent: success, if other fields prove it
	ErrMsg  text     `json:"errmsg"`
}

// decode reads the answer into v and judges its envelope, which is a part of v.
func (a answer) decode(v any, env *envelope) *Error {
	body := bytes.TrimPrefix(a.body, []byte("\ufeff"))
	if json.Unmarshal(body, v) != nil {
		return a.unusable("the answer is not a JSON object of this API")
	}
	if env.ErrCode == nil || *env.ErrCode == 0 {
		return nil
	}
	e := &Error{ErrCode: int(*env.ErrCode), RID: findRID(string(env.ErrMsg))}
	e.Class, e.Reason = explain(e.ErrCode)
	if e.Class == ClassRejected && a.status >= http.StatusInternalServerError {
		e.Class = ClassUnavailable
	}
	return e
}

// unusable returns the error for an answer without meaning. A 5xx blames
// WeChat; any other status means that something else answered.
func (a answer) unusable(reason string) *Error {
	class := ClassProtocol
	if a.status >= http.StatusInternalServerError {
		class = ClassUnavailable
	}
	return &Error{Class: class, Reason: fmt.Sprintf("%s (HTTP status %d)", reason, a.status)}
}

// requireVisible returns an error unless field's value is an identifier of
// WeChat: 1 to maxID visible ASCII characters.
func (a answer) requireVisible(field string, value text) *Error {
	if !isVisible(string(value), maxID) {
		return a.unusable("the answer holds no usable " + field)
	}
	return nil
}

// integer reads a number, a number in a string (as samples for third-party
// platforms show) or null. Any other value is an error, since it might be a
// refusal.
type integer int64

func (n *integer) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	s := string(b)
	if b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := strconv.ParseInt(s, 10, 64)
	*n = integer(v)
	return err
}

// text reads a string, and any other type as an empty string: the reader of the
// field decides whether it needs one.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// findRID returns the request id at the end of an errmsg ("…, rid: 61…-…-…"),
// or "".
func findRID(errmsg string) string {
	for _, label := range []string{"rid:", "req_id:"} {
		i := strings.LastIndex(errmsg, label)
		if i < 0 {
			continue
		}
		s := strings.TrimLeft(errmsg[i+len(label):], " ")
		if end := strings.IndexAny(s, " ,]"); end >= 0 {
			s = s[:end]
		}
		if isRID(s) {
			return s
		}
	}
	return ""
}

// isRID demands 3 to 5 groups of at most 8 hex digits, joined by dashes; WeChat
// sends 8-8-8. An AppSecret, a code and a session_key have no such dashes, so
// none of them passes for a rid when an errmsg echoes it.
func isRID(s string) bool {
	groups := strings.Split(s, "-")
	if len(groups) < 3 || len(groups) > 5 {
		return false
	}
	for _, g := range groups {
		if g == "" || len(g) > 8 || strings.Trim(g, "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}
