package push_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
)

func TestReadMessage_Vectors(t *testing.T) {
	for name, want := range map[string]push.Message{
		"G2": {
			In: push.JSON, Type: "event", Event: "debug_demo",
			CreateTime: time.Unix(1714112445, 0), From: "o9AgO5Kd5ggOC-bXrbNODIiE3bGY",
		},
		"U1": {
			In: push.JSON, Type: "event", Event: push.UserRevoked,
			CreateTime: time.Unix(1627359464, 0), From: "oaKk346BaWE-eIn4oSRWbaM9vR7s",
			OpenID: "oaKk343WOktAaT2ygsX138BGblrg", AppID: "wx13974bf780d3dc89",
			RevokeInfo: []string{push.RevokedPhone},
		},
		"T1": {
			In: push.XML, InfoType: push.VerifyTicket, AppID: "wx134c8103faa5a59e",
			CreateTime: time.Unix(1413192605, 0), ComponentVerifyTicket: "some_verify_ticket",
		},
		"T2": {
			In: push.XML, InfoType: push.Unauthorized, AppID: "wx134c8103faa5a59e",
			CreateTime: time.Unix(1413192760, 0), AuthorizerAppID: "wxba5fad812f8e6fb9",
		},
	} {
		got, err := push.ReadMessage([]byte(find(name).Message))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %#v, %v", name, fields(got), err)
		}
	}
}

// fields prints a message with its members, which Format hides.
func fields(m push.Message) any {
	type open push.Message
	return open(m)
}

const notPrinted = "ticket@@@secret"

func TestReadMessage_FormsOfMembers(t *testing.T) {
	revoked := func(m push.Message) string { return strings.Join(m.RevokeInfo, ",") }
	openid := func(m push.Message) string { return m.OpenID }
	for _, tt := range []struct {
		body, want string
		get        func(push.Message) string
	}{
		{`{" OpenID":"o1"}`, "o1", openid}, // as WeChat's documents have it
		{`{"OpenID ":" o1 "}`, "o1", openid},
		{`{"FromUserName":"o1"}`, "", openid},
		{`{"openid":"o1"}`, "", openid},
		{`{"OpenID":"o1","ToUserName":{"OpenID":"o2"}}`, "o1", openid},
		{`{"OpenID":null}`, "", openid},
		{`{"OpenID":"o1","other":1,"other":2}`, "o1", openid},
		{` <xml> <OpenID>o1</OpenID> </xml> `, "o1", openid},
		{
			`<?xml version="1.0" encoding="utf-8"?><xml><OpenID><![CDATA[o1]]></OpenID></xml>`,
			"o1", openid,
		},
		{`<xml><a><OpenID>o2</OpenID></a></xml>`, "", openid},
		{`<xml/>`, "", openid},
		{`{}`, "", openid},
		{`{"RevokeInfo":"8"}`, "8", revoked},
		{`{"RevokeInfo":8}`, "8", revoked},
		{`{"RevokeInfo":"6,8, 999"}`, "6,8,999", revoked},
		{`{"RevokeInfo":["6",8,["x"]]}`, "6,8,x", revoked},
		{`{"RevokeInfo":""}`, "", revoked},
		{`<xml><RevokeInfo>6|8</RevokeInfo></xml>`, "6,8", revoked},
		{`<xml><RevokeInfo><item>6</item> <item>8</item></RevokeInfo></xml>`, "6,8", revoked},
		{
			`{"CreateTime":"1627359464"}`, "1627359464",
			func(m push.Message) string { return fmt.Sprint(m.CreateTime.Unix()) },
		},
		{
			`{"MsgId":6054768590064713728}`, "6054768590064713728",
			func(m push.Message) string { return m.MsgID },
		},
		{
			`{"CreateTime":"soon"}`, "true",
			func(m push.Message) string { return fmt.Sprint(m.CreateTime.IsZero()) },
		},
		{
			`{"InfoType":"component_verify_ticket","ComponentVerifyTicket":"` + notPrinted + `"}`,
			"Message{component_verify_ticket}",
			func(m push.Message) string { return fmt.Sprintf("%+v", m) },
		},
	} {
		m, err := push.ReadMessage([]byte(tt.body))
		if got := tt.get(m); err != nil || got != tt.want {
			t.Errorf("%s: %q, want %q (%v)", tt.body, got, tt.want, err)
		}
	}
}

// refusedBodies are no bodies that WeChat sends, and decoders disagree about them.
var refusedBodies = []string{
	"", "[]", `"x"`, "null", "{", `{"OpenID":"o1",}`, `{} {}`,
	`{"OpenID":"o1","OpenID":"o2"}`, `{"OpenID":"o1"," OpenID":"o2"}`,
	"{\"OpenID\":\"\xff\"}", `{"OpenID":"a b"}`, `{"OpenID":"\u0000"}`, `{"Event":"a\r\nb"}`,
	`{"OpenID":"` + strings.Repeat("o", 129) + `"}`,
	`{"x":"` + strings.Repeat("x", push.MaxBody) + `"}`,
	"<", "<xml>", "<html></html>", "<xml></xml><xml></xml>", "<xml></xml>x", "x<xml></xml>",
	`<!DOCTYPE xml [<!ENTITY e SYSTEM "file:///etc/passwd">]><xml><OpenID>&e;</OpenID></xml>`,
	`<!DOCTYPE xml><xml></xml>`, `<xml><OpenID>&e;</OpenID></xml>`,
	`<xml><OpenID>o1</OpenID><OpenID>o2</OpenID></xml>`,
	`<xml><OpenID>o<!-- -->1</OpenID></xml>`, `<xml>x</xml>`,
	`<xml><a:OpenID>o1</a:OpenID></xml>`, `<xml xmlns="a"><OpenID>o1</OpenID></xml>`,
	`<xml><?php x ?></xml>`, `<?xml version="1.0" encoding="gbk"?><xml></xml>`,
	`<xml><OpenID>o1</OpenID>`, `<xml><OpenID>o1</xml>`, `<XML></XML>`,
}

func TestRead_OddBody_Refused(t *testing.T) {
	for _, body := range refusedBodies {
		shown := body[:min(len(body), 80)]
		if m, err := push.ReadMessage([]byte(body)); !errors.Is(err, push.ErrMalformed) {
			t.Errorf("message %q: %+v, %v", shown, fields(m), err)
		}
		if e, err := push.ReadEnvelope([]byte(body)); !errors.Is(err, push.ErrMalformed) {
			t.Errorf("envelope %q: %+v, %v", shown, e, err)
		}
	}
}

func TestReadEnvelope(t *testing.T) {
	for _, tt := range []struct {
		body string
		want push.Envelope
	}{
		{`{"ToUserName":"gh_1","Encrypt":"QQ=="}`, push.Envelope{push.JSON, "QQ==", "gh_1"}},
		{
			`<xml><AppId><![CDATA[wx1]]></AppId><Encrypt><![CDATA[QQ==]]></Encrypt></xml>`,
			push.Envelope{push.XML, "QQ==", "wx1"},
		},
		{
			`<xml><ToUserName>gh_1</ToUserName><Event>x</Event><Encrypt>QQ==</Encrypt></xml>`,
			push.Envelope{push.XML, "QQ==", "gh_1"},
		}, // compatible mode
	} {
		got, err := push.ReadEnvelope([]byte(tt.body))
		if err != nil || got != tt.want {
			t.Errorf("%s: %+v, %v", tt.body, got, err)
		}
	}
	if _, err := push.ReadEnvelope([]byte(`{"Event":"x"}`)); !errors.Is(err, push.ErrMalformed) {
		t.Errorf("plain mode: %v", err)
	}
	for _, e := range []push.Envelope{
		{push.JSON, "QQ+/", "gh_1"}, {push.XML, "QQ+/", "gh_1"}, {push.XML, "QQ+/", "a]]>&<b"},
	} {
		for _, notice := range []bool{false, true} {
			got, err := push.ReadEnvelope(e.Body(notice))
			if err != nil || got != e {
				t.Errorf("%s: %+v, %v", e.Body(notice), got, err)
			}
		}
	}
}

// A retry has the digest of the first attempt; another message, or another receiver of
// the same words, has not.
func TestDigest(t *testing.T) {
	a, b := receiver(t, otherApp, "AAAAA"), receiver(t, "wx1111111111111111", "AAAAA")
	same := a.Digest([]byte("{}"))
	if a.Digest([]byte("{}")) != same || a.Digest([]byte("{ }")) == same ||
		b.Digest([]byte("{}")) == same {
		t.Error("digests")
	}
}
