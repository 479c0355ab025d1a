package admin

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// TestOpenPlatform_SeveralAccounts_NamesOne: with several accounts a bare unionid is
// refused, and a name ends, forgets, blocks, counts and lists in its account alone.
// Sessions: 0 of the account brand, 1 without a name, 2 of a mini program that is not
// configured.
func TestOpenPlatform_SeveralAccounts_NamesOne(t *testing.T) {
	brand := apptest.InOpenPlatform("brand")
	for _, tt := range []struct {
		name     string
		options  []apptest.Option
		platform string
		gone     string // the session; "" with said: refused
		said     string
	}{
		{"bare", []apptest.Option{brand}, "", "", "name one with open_platform: brand, default"},
		{"named", []apptest.Option{brand}, "brand", "0", ""},
		{"default", []apptest.Option{brand}, "default", "1", ""},
		{"not configured", []apptest.Option{brand}, removedApp, "2", ""},
		{"unknown", []apptest.Option{brand}, "bran", "", "there is brand, default"},
		{
			"configured appid",
			[]apptest.Option{brand},
			caddytest.AppID, "",
			"no such Open Platform account",
		},
		{
			"bare beside merchants",
			[]apptest.Option{apptest.WithPlatform("")},
			"", "",
			"default, the appid of a merchant",
		},
		{"merchant", []apptest.Option{apptest.WithPlatform("")}, removedApp, "2", ""},
		{"beside merchants", []apptest.Option{apptest.WithPlatform("")}, "default", "01", ""},
		{"one account", nil, "", "012", ""},
		{"one account by name", nil, "default", "012", ""},
		{"unknown beside one", nil, "brand", "", "there is default"},
	} {
		for _, verb := range []string{"revoke", "forget", "block"} {
			t.Run(tt.name+" "+verb, func(t *testing.T) {
				w := apptest.Started(t, tt.options...)
				tokens := []string{
					loginKnown(w, caddytest.AppID, "ada"),
					loginKnown(w, caddytest.OtherAppID, "ada"),
					loginKnown(w, removedApp, "ada"),
				}
				s := adminServer(t)
				q, more := "?unionid=u-ada", ""
				if tt.platform != "" {
					q += "&open_platform=" + url.QueryEscape(tt.platform)
					more = fmt.Sprintf(`,"open_platform":%q`, tt.platform)
				}
				body := `{"unionid":"u-ada"` + more + `}`
				want := 200
				if tt.gone == "" {
					want = 400
				}
				ask := func(method, path, body string, n int) {
					t.Helper()
					status, said := adminDo(t, s, method, path, body, jsonHeader())
					if status != want || !strings.Contains(said, tt.said) ||
						want == 200 && n >= 0 && strings.Count(said, `"appid"`) != n {
						t.Errorf("%s %s: %d %s", path, body, status, said)
					}
				}
				ask("GET", "/wechat/sessions"+q, "", len(tt.gone))
				ask("GET", "/wechat/count"+q, "", -1)
				ask("POST", "/wechat/"+verb, body, -1)
				for i, token := range tokens {
					if alive(w, token) == strings.Contains(tt.gone, fmt.Sprint(i)) {
						t.Errorf("session %d lives: %v", i, alive(w, token))
					}
				}
				if verb == "block" && (want == 200 || tt.platform == "") {
					ask("POST", "/wechat/unblock", body, -1)
				}
			})
		}
	}
}

// TestOpenPlatform_FormerAccount_Unblocks: a block of an account that is no longer
// configured can be seen and removed.
func TestOpenPlatform_FormerAccount_Unblocks(t *testing.T) {
	w := apptest.Started(t)
	who := session.Person{UnionID: "u-ada", OpenPlatform: "gone"}
	_, err := w.Live().Sessions.Block(t.Context(), session.Block{
		Blocked: session.Blocked{Person: who},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := adminServer(t)
	_, list := adminDo(t, s, "GET", "/wechat/blocked", "", nil)
	if !strings.Contains(list, `"open_platform":"gone"`) {
		t.Errorf("blocked: %s", list)
	}
	for _, step := range []struct {
		body string
		want int
	}{
		{`{"unionid":"u-ada"}`, 404},
		{`{"unionid":"u-ada","open_platform":""}`, 400},
		{`{"appid":"wx0123456789abcdef","openid":"ada","open_platform":"gone"}`, 400},
		{`{"unionid":"u-ada","open_platform":"gone"}`, 200},
		{`{"unionid":"u-ada","open_platform":"gone"}`, 404},
	} {
		status, said := adminDo(t, s, "POST", "/wechat/unblock", step.body, jsonHeader())
		if status != step.want {
			t.Errorf("%s: %d %s", step.body, status, said)
		}
	}
}
