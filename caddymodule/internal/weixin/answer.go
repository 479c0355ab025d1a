package weixin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// answer is one complete HTTP answer. A readable body decides, not the status
// or the content type (docs/wechat.md#code2session-response).
type answer struct {
	status int
	kind   string // Content-Type
	body   []byte
	date   time.Time // of WeChat's clock; zero when the answer does not say
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
		return a.unusable(a.insteadOfJSON(body))
	}
	if env.ErrCode == nil || *env.ErrCode == 0 {
		return nil
	}
	e := &Error{ErrCode: int(*env.ErrCode), RID: findRID(string(env.ErrMsg))}
	e.Class, e.Reason = explain(e.ErrCode)
	listed := e.ErrCode != ipNotListed && e.ErrCode != ipUnregistered
	if ip := findIP(string(env.ErrMsg)); !listed && ip.IsValid() {
		e.Reason += "; WeChat sees " + ip.String()
	}
	if e.Class == ClassRejected && a.status >= http.StatusInternalServerError {
		e.Class = ClassUnavailable
	}
	return e
}

// elsewhere is the hint for an answer that WeChat would not give.
const elsewhere = "; look for a proxy, a captive portal or a wrong base_url"

// unusable returns the error for an answer without meaning, such as
// "HTTP 200 text/html instead of JSON". A 5xx blames WeChat; any other status means
// that something else answered.
func (a answer) unusable(what string) *Error {
	class := ClassProtocol
	switch {
	case a.status >= http.StatusInternalServerError:
		class = ClassUnavailable
	case a.status == http.StatusProxyAuthRequired:
		what = "from a proxy"
	}
	return &Error{Class: class, Reason: fmt.Sprintf("HTTP %d %s", a.status, what)}
}

// insteadOfJSON describes a body that is no JSON object, in constant words: an
// answer may echo the request.
func (a answer) insteadOfJSON(body []byte) string {
	body = bytes.TrimSpace(body)
	switch media, _, _ := mime.ParseMediaType(a.kind); {
	case len(body) == 0:
		return "with an empty body"
	case body[0] == '{':
		return "with truncated or malformed JSON"
	case body[0] == '<' || media == "text/html":
		return "text/html instead of JSON" + elsewhere
	case media == "text/plain":
		return "text/plain instead of JSON" + elsewhere
	}
	return "with another type instead of JSON" + elsewhere
}

// requireVisible returns an error unless field's value is an identifier of
// WeChat: 1 to maxID visible ASCII characters.
func (a answer) requireVisible(field string, value text) *Error {
	if !isVisible(string(value), maxID) {
		return a.unusable("without a usable " + field)
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

// findIP returns the address in the errmsg of 40164
// ("invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist"), or the zero
// Addr.
func findIP(errmsg string) netip.Addr {
	for word := range strings.FieldsSeq(strings.ReplaceAll(errmsg, ",", " ")) {
		if ip, err := netip.ParseAddr(word); err == nil && ip.Zone() == "" {
			return ip.Unmap()
		}
	}
	return netip.Addr{}
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
