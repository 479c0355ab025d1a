package wechatauth

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// FuzzUserData sends any body to the endpoints for data of the caller, with a
// good session. What encoding/json, asked by itself, takes as a call is
// answered as one, everything else as malformed; nothing but a well-formed code
// reaches WeChat, and no body binds anything.
func FuzzUserData(f *testing.F) {
	shared := newDataWorld(f, "")
	shared.gate.log, shared.gate.refusals = zap.NewNop(), wechatapp.NewRefusalLog(zap.NewNop())
	token := shared.login("ada")
	good := shared.seal("ada", shared.watermarked(`"nickName":"Band"`))
	for _, s := range []string{
		body(
			good,
		), whole(
			good,
		), strings.Replace(
			body(good), "A", " ", 1,
		), strings.Replace(whole(good), `"rawData":"`, `"rawData":"x`, 1),
		userDataEndpoints["/wx/decrypt"], userDataEndpoints["/wx/phone"],
		`{"iv":"AA=="}`, `{"encryptedData":1,"iv":"AA=="}`, `{"encryptedData":null,"iv":"AA=="}`,
		`{"encryptedData":"AA==","iv":["AA=="]}`, `{"encryptedData":"AA==","iv":"AA=="}{}`,
		`{"encryptedData":"AA==","iv":"AA==","rawData":{"nickName":"x"},"signature":"s"}`,
		`{"encryptedData":"AA==","iv":"AA==","rawData":"{}","signature":true}`,
		`{"encryptedData":"AA==","iv":"AA==","signature":"s"}`,
		`{"encryptedData":"AA==","iv":"AA==","\u0069v":"AA=="}`,
		`{"encryptedData":"AA==","iv":"AA==","x":` + strings.Repeat("[", 9000),
		`{"encryptedData":"` + strings.Repeat("A", 64<<10),
		`{"code":1}`, `{"code":null}`, `{"code":"a b"}`, `{"code":"码"}`, `{"code":{"code":"a"}}`,
		`{"code":"` + strings.Repeat("a", 256) + `"}`,
		`{"code":"` + strings.Repeat("a", 257) + `"}`,
		`{"code":"` + strings.Repeat("a", 4<<10),
		``, `{}`, `null`, `[]`, `{"code":""}`, `{"code":"a\u0000"}`, `{"code":"a","code":"b"}`,
		`{"code":["a"]}`, `{"code":"x&access_token=y"}`,
		`{"encryptedData":"","iv":""}`, `{"encryptedData":"AAAA","iv":"AAAA","rawData":"{}"}`,
		`{"encryptedData":"\ud800","iv":"\u0000"}`, `{"encryptedData":"====","iv":"="}`,
		strings.Repeat(`{"iv":`, 100),
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, phone bool) {
		own := *shared.world
		own.World = &apptest.World{}
		*own.World = *shared.World
		own.T = t
		w := &dataWorld{&own, shared.wechat}
		*w.Live().Users = *wechatapp.NewUserLimits()
		w.wechat.Reset()
		target, limit := "/wx/decrypt", reply.MaxData
		if phone {
			target, limit = "/wx/phone", reply.MaxBody
		}
		rec := w.post(target, token, string(b))
		var got struct{ Code string }
		if !json.Valid(rec.Body.Bytes()) {
			t.Fatalf("%d %q", rec.Code, rec.Body)
		}
		if rec.Code != 200 {
			_ = json.Unmarshal(rec.Body.Bytes(), &got)
		}
		called := w.wechat.Count(phonePath) > 0
		switch rec.Code {
		case 413:
			if len(b) <= limit {
				t.Errorf("%d bytes are too long", len(b))
			}
		case 400:
			if said := members(b); len(b) <= limit && wellFormed(said, phone) {
				t.Errorf("%q is refused: %s", b, rec.Body)
			}
		default:
			if said := members(b); !wellFormed(said, phone) {
				t.Errorf("%q is answered %d", b, rec.Code)
			}
			if phone && (rec.Code != 422 || got.Code != "code_invalid" || !called) ||
				!phone && rec.Code != 200 && (rec.Code != 422 || got.Code != "data_invalid") {
				t.Errorf("%q: %d %s", b, rec.Code, rec.Body)
			}
		}
		if called && (!phone || rec.Code == 400 || rec.Code == 413) {
			t.Errorf("%q reached WeChat", b)
		}
		if h := w.sees(token); h.Get("X-Wx-Phone") != "" ||
			h.Get("X-Wx-Unionid") != w.wechat.UnionID("ada") {
			t.Errorf("%q changed what the app is told: %v", b, h)
		}
	})
}

// members reads a flat object of distinct names by the standard library alone;
// nil when b is none.
func members(b []byte) map[string]any {
	decoder := func() *json.Decoder {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber() // one may be beyond float64
		return dec
	}
	var m map[string]any
	if !json.Valid(b) || decoder().Decode(&m) != nil || m == nil {
		return nil
	}
	tokens := 0
	for dec := decoder(); ; tokens++ {
		if _, err := dec.Token(); err != nil {
			break
		}
	}
	if tokens != len("{}")+2*len(m) { // a name comes twice, or a value is nested
		return nil
	}
	return m
}

// wellFormed says in its own words what the endpoints take.
func wellFormed(m map[string]any, phone bool) bool {
	get := func(name string) (s string, ok bool) {
		v, there := m[name]
		s, isText := v.(string)
		return s, isText || !there
	}
	if phone {
		code, ok := get("code")
		return ok && len(code) >= 1 && len(code) <= 256 && !strings.ContainsFunc(
			code, func(c rune) bool { return !strings.ContainsRune(visible, c) },
		)
	}
	var texts [4]string
	for i, name := range []string{"encryptedData", "iv", "rawData", "signature"} {
		s, ok := get(name)
		if !ok {
			return false
		}
		texts[i] = s
	}
	return texts[0] != "" && texts[1] != "" && (texts[2] == "") == (texts[3] == "")
}

const visible = "!\"#$%&'()*+,-./0123456789:;<=>?@" +
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"
