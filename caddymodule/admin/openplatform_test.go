package admin

import (
	"fmt"
	"net/http/httptest"
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
	type row struct {
		name, platform string
		gone           string // the sessions; "" with said: refused
		said           string
	}
	for _, group := range []struct {
		options []apptest.Option
		rows    []row
	}{
		{[]apptest.Option{apptest.InOpenPlatform("brand")}, []row{
			{"bare", "", "", "name one with open_platform: brand, default"},
			{"named", "brand", "0", ""},
			{"default", "default", "1", ""},
			{"not configured", removedApp, "2", ""},
			{"unknown", "bran", "", "there is brand, default"},
			{"configured appid", caddytest.AppID, "", "no such Open Platform account"},
		}},
		{[]apptest.Option{apptest.WithPlatform("")}, []row{
			{"bare beside merchants", "", "", "default, the appid of a merchant"},
			{"merchant", removedApp, "2", ""},
			{"beside merchants", "default", "01", ""},
		}},
		{nil, []row{
			{"one account", "", "012", ""},
			{"one account by name", "default", "012", ""},
			{"unknown beside one", "brand", "", "there is default"},
		}},
	} {
		w := apptest.Started(t, group.options...)
		s := adminServer(t)
		for _, tt := range group.rows {
			for _, verb := range []string{"revoke", "forget", "block"} {
				t.Run(tt.name+" "+verb, func(t *testing.T) {
					checkAccount(t, w, s, verb, tt.platform, tt.gone, tt.said)
				})
			}
		}
	}
}

// checkAccount runs a verb on the unionid of a user of three mini programs, in an account.
// It ends the sessions whose numbers are in gone, or is refused with said.
func checkAccount(
	t *testing.T, w *apptest.World, s *httptest.Server, verb, platform, gone, said string,
) {
	tokens := logInAnew(w, s, [][2]string{
		{caddytest.AppID, "ada"}, {caddytest.OtherAppID, "ada"}, {removedApp, "ada"},
	})
	q, more := "?unionid=u-ada", ""
	if platform != "" {
		q += "&open_platform=" + url.QueryEscape(platform)
		more = fmt.Sprintf(`,"open_platform":%q`, platform)
	}
	body := `{"unionid":"u-ada"` + more + `}`
	want := 200
	if gone == "" {
		want = 400
	}
	ask := func(method, path, body string, n int) {
		t.Helper()
		status, answer := adminDo(t, s, method, path, body, jsonHeader())
		if status != want || !strings.Contains(answer, said) ||
			want == 200 && n >= 0 && strings.Count(answer, `"appid"`) != n {
			t.Errorf("%s %s: %d %s", path, body, status, answer)
		}
	}
	ask("GET", "/wechat/sessions"+q, "", len(gone))
	ask("GET", "/wechat/count"+q, "", -1)
	ask("POST", "/wechat/"+verb, body, -1)
	for i, token := range tokens {
		if alive(w, token) == strings.Contains(gone, fmt.Sprint(i)) {
			t.Errorf("session %d lives: %v", i, alive(w, token))
		}
	}
	if verb == "block" && (want == 200 || platform == "") {
		ask("POST", "/wechat/unblock", body, -1)
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
