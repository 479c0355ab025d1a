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

// message returns WeChat's text for an errcode (docs/wechat.md#errcodes,
// #check-session-key, #stable-token, #other-ids).
func message(code int) string {
	switch code {
	case -1:
		return "system error"
	case 1007:
		return "openpid not exist"
	case 40001:
		return "invalid credential, access_token is invalid or not latest"
	case 40002:
		return "invalid grant_type"
	case 40003:
		return "invalid openid"
	case 40007:
		return "invalid media_id"
	case 40013:
		return "invalid appid"
	case 40014:
		return "invalid access_token"
	case 40029:
		return "invalid code"
	case 40037:
		return "invalid template_id"
	case 40066:
		return "invalid url"
	case 40097:
		return "invalid args"
	case 40125:
		return "invalid appsecret, view more at http://t.cn/RAEkdVq"
	case 40164:
		return "invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist"
	case 40163:
		return "code been used"
	case 40169:
		return "invalid scene"
	case 40226:
		return "code blocked"
	case 41001:
		return "access_token missing"
	case 41002:
		return "appid missing"
	case 41004:
		return "appsecret missing"
	case 41005:
		return "media data missing"
	case 41008:
		return "missing code"
	case 42001:
		return "access_token expired"
	case 43001:
		return "require GET method"
	case 43002:
		return "require POST method"
	case 44002:
		return "empty post data"
	case 45009:
		return "reach max api daily quota limit"
	case 45011:
		return "api minute-quota reach limit  mustslower  retry next minute"
	case 47001:
		return "data format error"
	case 40094:
		return "invalid component credential"
	case 40170:
		return "args count exceed count limit"
	case 41018:
		return "component_appid missing"
	case 41021:
		return "component_access_token missing"
	case 61003:
		return "component is not authorized by this account"
	case 61004:
		return "access clientip is not registered requestIP: 203.0.113.7"
	case 61005:
		return "component ticket is expired"
	case 61006:
		return "component ticket is invalid"
	case 61009:
		return "code is invalid"
	case 61010:
		return "code is expired"
	case 61011:
		return "invalid component"
	case 61023:
		return "refresh_token is invalid"
	case 87009:
		return "invalid signature"
	case 89002:
		return "open not exists"
	case 89300:
		return "invalid order"
	}
	return "errcode " + strconv.Itoa(code)
}
