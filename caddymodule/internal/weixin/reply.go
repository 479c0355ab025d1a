package weixin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// answer is one complete HTTP answer. Neither its status nor its content type decides anything while the body makes sense
// (WECHAT.md 2.2).
type answer struct {
	status int
	body   []byte
}

// envelope is what the answers of all API calls share.
type envelope struct {
	ErrCode *integer `json:"errcode"` // nil when absent: success, where the call has another proof of it
	ErrMsg  text     `json:"errmsg"`
}

// decode reads the answer into v and judges its envelope, which is a part of v.
func (a answer) decode(v any, env *envelope) *Error {
	body := bytes.TrimPrefix(a.body, []byte("\ufeff"))
	if json.Unmarshal(body, v) != nil {
		return a.nonsense("the answer is not a JSON object of this API")
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

// nonsense is the error for an answer without meaning: the fault of a server that owns up to it with a 5xx, else of something that is
// not WeChat.
func (a answer) nonsense(reason string) *Error {
	class := ClassProtocol
	if a.status >= http.StatusInternalServerError {
		class = ClassUnavailable
	}
	return &Error{Class: class, Reason: fmt.Sprintf("%s (HTTP status %d)", reason, a.status)}
}

// integer reads a number, a number in a string (seen in third-party-platform samples) or null. Anything else makes the whole answer
// nonsense: it might have been a refusal.
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

// text reads a string, and takes a value of any other type for an empty one: its reader decides whether that matters.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

// findRID returns the request id at the tail of an errmsg ("…, rid: 61…-…-…"), or nothing.
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

// isRID demands groups of at most 8 hex digits joined by 2 to 4 dashes. WeChat sends 8-8-8. The dashes are the point: an AppSecret is 32
// hex digits, a code 32 alphanumerics and a session_key base64, so none of them passes for a rid when an errmsg echoes it.
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
