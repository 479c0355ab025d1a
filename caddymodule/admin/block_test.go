package admin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestBlock_Target_IsLoggedOut: a block ends the sessions of whom it names and is listed;
// a body that is no block changes nothing.
func TestBlock_Target_IsLoggedOut(t *testing.T) {
	w := apptest.Started(t)
	s := adminServer(t)
	const ada = `"appid":"` + caddytest.AppID + `","openid":"ada"`
	for _, tt := range []struct {
		body   string
		status int
		said   string
		gone   string // numbers of the tokens
	}{
		{`{` + ada + `}`, 200, `{"target":"user","ended":{"users":1,"sessions":1}}`, "0"},
		{`{` + ada + `,"for":"72h","reason":"卖票"}`, 200, `"until":"`, "0"},
		{`{"unionid":"u-ada","for":"30d"}`, 200, `"ended":{"users":2,"sessions":2}`, "02"},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"new","reason":""}`, 200,
			`"ended":{"users":0,"sessions":0}`, "",
		},
		{`{"appid":"wxaaaaaaaaaaaaaaaa","openid":"ada"}`, 404, "no such mini program", ""},
		{`{}`, 400, "one target", ""},
		{`{"for":"1h"}`, 400, "one target", ""},
		{`{"all":true}`, 400, "one target", ""},
		{`{"appid":"` + caddytest.AppID + `"}`, 400, "one target", ""},
		{`{` + ada + `,"unionid":"u-ada"}`, 400, "one target", ""},
		{`{` + ada + `,"session":"0123456789"}`, 400, "one target", ""},
		{`{` + ada + `,"fro":"1h"}`, 400, "one target", ""},
		{`{` + ada + `,"for":""}`, 400, "for is no time", ""},
		{`{` + ada + `,"for":"-1h"}`, 400, "for is no time", ""},
		{`{` + ada + `,"for":"1ms"}`, 400, "for is no time", ""},
		{`{` + ada + `,"for":72}`, 400, "for must be a string", ""},
		{`{` + ada + `,"reason":"a\nb"}`, 400, "reason", ""},
		{`{` + ada + `,"reason":"` + strings.Repeat("x", 201) + `"}`, 400, "reason", ""},
		{`{"unionid":""}`, 400, "unionid is empty", ""},
	} {
		tokens := logInAnew(w, s, [][2]string{
			{caddytest.AppID, "ada"}, {caddytest.AppID, "bob"}, {caddytest.OtherAppID, "ada"},
		})
		status, said := adminDo(t, s, "POST", "/wechat/block", tt.body, jsonHeader())
		if status != tt.status || !strings.Contains(said, tt.said) {
			t.Errorf("%s: %d %s, want %d %s", tt.body, status, said, tt.status, tt.said)
		}
		for i, token := range tokens {
			if alive(w, token) == strings.Contains(tt.gone, fmt.Sprint(i)) {
				t.Errorf("%s: session %d lives: %v", tt.body, i, alive(w, token))
			}
		}
		list := read[blockedAnswer](t,
			second(adminDo(t, s, "GET", "/wechat/blocked", "", nil))).Blocked
		if (len(list) == 1) != (status == 200) {
			t.Fatalf("%s: blocked %+v", tt.body, list)
		}
		for _, b := range list {
			long := !b.Until.IsZero() && time.Until(b.Until) < 71*time.Hour
			if time.Since(b.Since) > time.Hour || long ||
				b.Until.IsZero() == strings.Contains(tt.body, `"for"`) {
				t.Errorf("%s: %+v", tt.body, b)
			}
		}
		for _, want := range []int{200, 404} { // a second time there is none
			if status != 200 {
				break
			}
			got, said := adminDo(t, s, "POST", "/wechat/unblock", strip(tt.body), jsonHeader())
			if got != want {
				t.Errorf("unblocking %s: %d %s", tt.body, got, said)
			}
		}
		if status, said := adminDo(t, s, "GET", "/wechat/blocked", "", nil); status != 200 ||
			strings.TrimSpace(said) != `{"blocked":[]}` {
			t.Errorf("%d %s", status, said)
		}
	}
}

// strip leaves the target of a body.
func strip(body string) string {
	for _, name := range []string{`,"for"`, `,"reason"`} {
		if target, _, ok := strings.Cut(body, name); ok {
			body = target + "}"
		}
	}
	return body
}
