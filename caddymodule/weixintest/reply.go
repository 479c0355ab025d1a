package weixintest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// reply is a complete answer. WeChat sends status 200 whatever happens
// (docs/wechat.md#code2session-response).
type reply struct {
	status int
	mime   string
	body   []byte
}

func (p reply) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", p.mime)
	w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
	w.WriteHeader(p.status)
	// An error means that the client has gone.
	_, _ = w.Write(p.body)
}

// outcome heads the answer of every path but jscode2session, which leaves
// errcode out on success (docs/wechat.md#code2session-response).
type outcome struct {
	ErrCode any    `json:"errcode"`
	ErrMsg  string `json:"errmsg"`
}

func succeeded() outcome { return outcome{ErrCode: 0, ErrMsg: "ok"} }

// failure words an error as WeChat does, with a tail that takes two forms and
// is never the same (docs/wechat.md#code2session-response). The caller holds
// the lock.
func (s *Simulator) failure(now time.Time, code any, msg string) outcome {
	s.replies++
	if s.replies%2 == 0 {
		return outcome{code, msg + ", hints: [ req_id: " + randomText(8, alphanumeric) + " ]"}
	}
	rid := fmt.Sprintf("%08x-%08x-%08x", uint32(now.Unix()), rand.Uint32(), rand.Uint32())
	return outcome{code, msg + ", rid: " + rid}
}

// encode renders v as WeChat's encoder does: no HTML escapes, but every slash
// escaped. A slash can stand only inside a JSON string, so the replacement is
// always valid.
func encode(v any) []byte {
	return bytes.ReplaceAll(mustJSON(v), []byte("/"), []byte(`\/`))
}

func mustJSON(v any) []byte {
	b, err := marshal(v)
	if err != nil {
		panic(err) // only values of this package come here
	}
	return b
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// decode reads a JSON request body into v and returns the errcode that a bad
// body earns, or 0.
func (q *query) decode(v any) int {
	if len(bytes.TrimSpace(q.body)) == 0 {
		return 44002
	}
	if json.Unmarshal(q.body, v) != nil {
		return 47001
	}
	return 0
}

// messages are WeChat's texts for errcodes (docs/wechat.md#errcodes,
// #check-session-key, #stable-token, #other-ids).
var messages = map[int]string{
	-1:    "system error",
	1007:  "openpid not exist",
	40001: "invalid credential, access_token is invalid or not latest",
	40002: "invalid grant_type",
	40003: "invalid openid",
	40007: "invalid media_id",
	40013: "invalid appid",
	40014: "invalid access_token",
	40029: "invalid code",
	40037: "invalid template_id",
	40066: "invalid url",
	40094: "invalid component credential",
	40097: "invalid args",
	40125: "invalid appsecret, view more at http://t.cn/RAEkdVq",
	40163: "code been used",
	40164: "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist",
	40169: "invalid scene",
	40170: "args count exceed count limit",
	40226: "code blocked",
	41001: "access_token missing",
	41002: "appid missing",
	41004: "appsecret missing",
	41005: "media data missing",
	41008: "missing code",
	41018: "component_appid missing",
	41021: "component_access_token missing",
	42001: "access_token expired",
	43001: "require GET method",
	43002: "require POST method",
	44002: "empty post data",
	45009: "reach max api daily quota limit",
	45011: "api minute-quota reach limit  mustslower  retry next minute",
	47001: "data format error",
	61003: "component is not authorized by this account",
	61004: "access clientip is not registered requestIP: 203.0.113.7",
	61005: "component ticket is expired",
	61006: "component ticket is invalid",
	61009: "code is invalid",
	61010: "code is expired",
	61011: "invalid component",
	61023: "refresh_token is invalid",
	87009: "invalid signature",
	89002: "open not exists",
	89300: "invalid order",
}

func message(code int) string {
	if text, known := messages[code]; known {
		return text
	}
	return "errcode " + strconv.Itoa(code)
}
