package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// adminServer serves the admin API as Caddy does.
func adminServer(t testing.TB) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for _, route := range new(API).Routes() {
		mux.HandleFunc(route.Pattern, func(w http.ResponseWriter, r *http.Request) {
			err := route.Handler.ServeHTTP(w, r)
			if err == nil {
				return
			}
			e, ok := errors.AsType[caddy.APIError](err)
			if !ok {
				t.Errorf("%s: the error is no APIError: %v", r.URL, err)
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(e.HTTPStatus)
			json.NewEncoder(w).Encode(e)
		})
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// adminDo makes a call and returns its status and body.
func adminDo(
	t testing.TB, s *httptest.Server, method, uri, body string, header http.Header,
) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+uri, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(r.Header, header)
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s %s: Cache-Control %q", method, uri, got)
	}
	return resp.StatusCode, string(b)
}

func jsonHeader() http.Header { return http.Header{"Content-Type": {"application/json"}} }

// alive reports whether a token opens anything.
func alive(w *apptest.World, token string) bool {
	w.T.Helper()
	_, err := w.Live().Sessions.Authenticate(w.T.Context(), token)
	if err != nil && !errors.Is(err, session.ErrInvalid) {
		w.T.Fatal(err)
	}
	return err == nil
}

// TestThreat31_CrossSite: what a browser would send on behalf of another site
// is refused, whatever it asks for, and changes nothing.
func TestThreat31_CrossSite(t *testing.T) {
	w := apptest.Started(t)
	token := w.Token(caddytest.AppID, "ada")
	s := adminServer(t)
	host := strings.TrimPrefix(s.URL, "http://")
	calls := []struct{ method, uri, body string }{
		{"GET", "/wechat/status", ""},
		{"GET", "/wechat/sessions?unionid=u", ""},
		{"GET", "/wechat/keys", ""},
		{"POST", "/wechat/revoke", `{"all":true}`},
		{"POST", "/wechat/forget", `{"unionid":"u"}`},
		{"POST", "/wechat/block", `{"unionid":"u"}`},
		{"POST", "/wechat/unblock", `{"unionid":"u"}`},
		{"GET", "/wechat/blocked", ""},
	}
	for _, tt := range []struct {
		name    string
		header  http.Header
		allowed bool // but for the backup, when it is a browser's
		browser bool
	}{
		{"nothing", http.Header{}, true, false},
		{"the command line", http.Header{"Origin": {s.URL}}, true, false},
		{
			"the command line, other case",
			http.Header{"Origin": {strings.ToUpper(s.URL)}},
			true,
			false,
		},
		{"another site", http.Header{"Origin": {"http://evil.example"}}, false, true},
		{"another port", http.Header{"Origin": {s.URL + "1"}}, false, true},
		{"another scheme", http.Header{"Origin": {"https://" + host}}, false, true},
		{"a suffix", http.Header{"Origin": {s.URL + ".evil.example"}}, false, true},
		{"no origin in it", http.Header{"Origin": {""}}, false, true},
		{"null", http.Header{"Origin": {"null"}}, false, true},
		{"two", http.Header{"Origin": {s.URL, "http://evil.example"}}, false, true},
		{"cross-site", http.Header{"Sec-Fetch-Site": {"cross-site"}}, false, true},
		{"same-site", http.Header{"Sec-Fetch-Site": {"same-site"}}, false, true},
		{"two sites", http.Header{"Sec-Fetch-Site": {"none", "cross-site"}}, false, true},
		{"own page", http.Header{"Origin": {s.URL}, "Sec-Fetch-Site": {"same-origin"}}, true, true},
		{
			"the address bar",
			http.Header{"Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}},
			true, true,
		},
		{"a browser without Site", http.Header{"Sec-Fetch-Dest": {"document"}}, true, true},
	} {
		for _, c := range calls {
			header := tt.header.Clone()
			if c.method == "POST" {
				header.Set("Content-Type", "application/json")
			}
			allowed := tt.allowed && (c.uri != "/wechat/backup" || !tt.browser)
			if allowed && c.method == "POST" {
				continue // or all would be over
			}
			status, said := adminDo(t, s, c.method, c.uri, c.body, header)
			if (status != http.StatusForbidden) != allowed {
				t.Errorf("%s: %s %s: %d %s", tt.name, c.method, c.uri, status, said)
			}
		}
	}
	if !alive(w, token) {
		t.Error("a refused call ended a session")
	}
}

// TestThreat31_MethodsAndTypes: nothing changes but by a POST of JSON, and no bare GET
// fetches a backup (threat 39).
func TestThreat31_MethodsAndTypes(t *testing.T) {
	w := apptest.Started(t)
	token := w.Token(caddytest.AppID, "ada")
	s := adminServer(t)
	for _, uri := range []string{
		"/wechat/status", "/wechat/sessions?unionid=u", "/wechat/keys", "/wechat/backup",
		"/wechat/revoke", "/wechat/forget", "/wechat/keys/rotate-assertion",
		"/wechat/block", "/wechat/unblock", "/wechat/blocked",
	} {
		for _, method := range []string{
			"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS",
		} {
			if (method == "POST") == slices.Contains(
				[]string{
					"/wechat/revoke", "/wechat/forget", "/wechat/backup",
					"/wechat/keys/rotate-assertion", "/wechat/block", "/wechat/unblock",
				}, uri,
			) && (method == "GET" || method == "POST") {
				continue
			}
			status, said := adminDo(t, s, method, uri, `{"all":true}`, jsonHeader())
			if status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d %s", method, uri, status, said)
			}
		}
	}
	for _, ct := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
		"application/jsonp", "text/plain; application/json", "application/json;;",
		"application/ld+json",
	} {
		if status, said := adminDo(t, s, "POST", "/wechat/revoke", `{"all":true}`, http.Header{
			"Content-Type": {ct},
		}); status != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %d %s", ct, status, said)
		}
	}
	if status, _ := adminDo(t, s, "POST", "/wechat/revoke", `{"all":true}`, http.Header{
		"Content-Type": {"application/json"}, "Content-Encoding": {"gzip"},
	}); status != http.StatusUnsupportedMediaType {
		t.Errorf("compressed: %d", status)
	}
	if !alive(w, token) {
		t.Error("a refused call ended a session")
	}
}

// TestAdminRevoke: each target ends its sessions and no other, and what is not
// exactly one target ends none.
func TestAdminRevoke(t *testing.T) {
	w := apptest.Started(t)
	s := adminServer(t)
	for _, tt := range []struct {
		body   string // %s: the id of the first session
		status int
		said   string
		ended  string // numbers of the tokens
	}{
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","session":"%s"}`, 200,
			`{"target":"session","ended":{"users":1,"sessions":1}}`, "0",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada"}`, 200,
			`{"target":"user","ended":{"users":1,"sessions":2}}`, "01",
		},
		{
			`{"openid":"ada","appid":"` + caddytest.OtherAppID + `"}`, 200,
			`{"target":"user","ended":{"users":1,"sessions":1}}`, "3",
		},
		{
			`{"unionid":"u-ada"}`, 200, `{"target":"unionid","ended":{"users":2,"sessions":3}}`,
			"013",
		},
		{`{"appid":"` + caddytest.AppID + `"}`, 200, `{"target":"app","ended":{"users":`, "012"},
		{`{"all":true}`, 200, `{"target":"all","ended":{"users":`, "01234"},

		{
			`{"appid":"` + caddytest.AppID + `","openid":"nobody"}`, 200,
			`{"target":"user","ended":{"users":0,"sessions":0}}`, "",
		},
		{`{"unionid":"nobody"}`, 200, `{"target":"unionid","ended":{"users":0,"sessions":0}}`, ""},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"bob","session":"%s"}`, 404,
			"no such session", "",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","session":"0000000000000000"}`, 404,
			"no such session", "",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","session":"0"}`, 400,
			"8 to 64 hex digits", "",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada",` +
				`"session":"` + caddytest.Canary + `"}`,
			400, "8 to 64 hex digits", "",
		},
		{`{"appid":"` + removedApp + `"}`, 200, `{"target":"app","ended":{"users":`, "4"},
		{
			`{"appid":"` + removedApp + `","openid":"cy"}`, 200,
			`{"target":"user","ended":{"users":1,"sessions":1}}`, "4",
		},
		{`{"appid":"wxaaaaaaaaaaaaaaaa"}`, 404, "no such mini program", ""},
		{`{"appid":"wxaaaaaaaaaaaaaaaa","openid":"ada"}`, 404, "no such mini program", ""},

		{``, 400, "one target", ""},
		{`{}`, 400, "one target", ""},
		{`{"all":false}`, 400, "one target", ""},
		{`{"all":"true"}`, 400, "true or false", ""},
		{`{"all":1}`, 400, "true or false", ""},
		{`{"all":true,"all":true}`, 400, "stands twice", ""},
		{`{"All":true}`, 400, "one target", ""},
		{`{"all":true,"appid":"` + caddytest.AppID + `"}`, 400, "one target", ""},
		{`{"all":true,"dry_run":true}`, 400, "one target", ""},
		{`{"appid":"` + caddytest.AppID + `","all":false}`, 400, "one target", ""},
		{`{"appid":"` + caddytest.AppID + `","openid":""}`, 400, "openid is empty", ""},
		{`{"appid":""}`, 400, "appid is empty", ""},
		{`{"unionid":""}`, 400, "unionid is empty", ""},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","unionid":"u-ada"}`, 400,
			"one target", "",
		},
		{`{"openid":"ada"}`, 400, "one target", ""},
		{`{"session":"%s"}`, 400, "one target", ""},
		{`{"appid":"` + caddytest.AppID + `","session":"%s"}`, 400, "one target", ""},
		{`{"appid":["` + caddytest.AppID + `"]}`, 400, "must be a string", ""},
		{`{"appid":7}`, 400, "must be a string", ""},
		{`{"all":true} {"all":true}`, 400, "not a JSON object", ""},
		{`[{"all":true}]`, 400, "not a JSON object", ""},
		{`{"unionid":"` + strings.Repeat("u", reply.MaxBody) + `"}`, 413, "longer than", ""},
	} {
		tokens := logInAnew(w, s, [][2]string{
			{caddytest.AppID, "ada"},
			{caddytest.AppID, "ada"},
			{caddytest.AppID, "bob"},
			{caddytest.OtherAppID, "ada"},
			{removedApp, "cy"},
		})
		body := strings.ReplaceAll(tt.body, "%s", sessionID(tokens[0]))
		status, said := adminDo(t, s, "POST", "/wechat/revoke", body, jsonHeader())
		if status != tt.status || !strings.Contains(said, tt.said) {
			t.Errorf("%s: %d %s, want %d %s", body, status, said, tt.status, tt.said)
		}
		for i, token := range tokens {
			if ended := strings.Contains(tt.ended, fmt.Sprint(i)); alive(w, token) == ended {
				t.Errorf("%s: session %d: ended %v, want %v", body, i, !ended, ended)
			}
		}
	}
}

// TestAdminForget: who is named is unknown from then on and logged out, nobody
// else is, and what names not one person forgets nobody.
func TestAdminForget(t *testing.T) {
	w := apptest.Started(t)
	s := adminServer(t)
	for _, tt := range []struct {
		body   string
		status int
		said   string
		gone   string // numbers of the tokens
	}{
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada"}`, 200,
			`{"target":"user","forgotten":{"users":1,"sessions":2}}`, "01",
		},
		{
			`{"unionid":"u-ada"}`, 200, `{"target":"unionid","forgotten":{"users":2,"sessions":3}}`,
			"013",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"nobody"}`, 200,
			`{"target":"user","forgotten":{"users":0,"sessions":0}}`, "",
		},
		// of a mini program that is no longer configured
		{`{"appid":"wxaaaaaaaaaaaaaaaa","openid":"ada"}`, 200, `"users":0`, ""},
		{`{"unionid":"nobody"}`, 200, `"users":0`, ""},

		{`{}`, 400, "name one target and nothing else: appid + openid, or unionid", ""},
		{`{"appid":"` + caddytest.AppID + `"}`, 400, "one target", ""},
		{`{"all":true}`, 400, "one target", ""},
		{`{"openid":"ada"}`, 400, "one target", ""},
		{`{"appid":"` + caddytest.AppID + `","openid":""}`, 400, "openid is empty", ""},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","session":"0123456789"}`, 400,
			"one target", "",
		},
		{
			`{"appid":"` + caddytest.AppID + `","openid":"ada","unionid":"u-ada"}`, 400,
			"one target", "",
		},
	} {
		tokens := logInAnew(w, s, [][2]string{
			{caddytest.AppID, "ada"},
			{caddytest.AppID, "ada"},
			{caddytest.AppID, "bob"},
			{caddytest.OtherAppID, "ada"},
		})
		for again := range 2 {
			status, said := adminDo(t, s, "POST", "/wechat/forget", tt.body, jsonHeader())
			if status != tt.status || again == 0 && !strings.Contains(said, tt.said) ||
				again == 1 && status == 200 && !strings.Contains(said, `"users":0`) {
				t.Errorf("%s: %d %s, want %d %s", tt.body, status, said, tt.status, tt.said)
			}
		}
		for i, id := range []string{
			caddytest.AppID + "&openid=ada", caddytest.AppID + "&openid=ada",
			caddytest.AppID + "&openid=bob", caddytest.OtherAppID + "&openid=ada",
		} {
			gone := strings.Contains(tt.gone, fmt.Sprint(i))
			known := read[sessionsAnswer](
				t, second(adminDo(t, s, "GET", "/wechat/sessions?appid="+id, "", nil)),
			).Users
			if alive(w, tokens[i]) == gone || (len(known) == 0) != gone {
				t.Errorf(
					"%s: session %d lives: %v, its user is known as %+v", tt.body, i,
					alive(w, tokens[i]), known,
				)
			}
		}
	}
}

// telling is WeChat with unionids.
type telling struct{ caddytest.Exchanger }

func (e telling) Code2Session(
	ctx context.Context, app weixin.Credentials, code string,
) (weixin.Session, error) {
	s, err := e.Exchanger.Code2Session(ctx, app, code)
	s.UnionID = "u-" + s.OpenID
	return s, err
}

// logInAnew ends all sessions, and logs users in whose unionid is known, given as AppID
// and openid each.
func logInAnew(w *apptest.World, s *httptest.Server, users [][2]string) (tokens []string) {
	w.T.Helper()
	status, said := adminDo(w.T, s, "POST", "/wechat/revoke", `{"all":true}`, jsonHeader())
	if status != http.StatusOK {
		w.T.Fatalf("revoking all: %d %s", status, said)
	}
	for _, u := range users {
		tokens = append(tokens, loginKnown(w, u[0], u[1]))
	}
	for _, token := range tokens {
		if !alive(w, token) {
			w.T.Fatal("a token is dead before")
		}
	}
	return tokens
}

// loginKnown logs in a user whose unionid is known.
func loginKnown(w *apptest.World, appid, openid string) string {
	w.T.Helper()
	s := session.New(
		session.Config{
			Core:   w.Live().Core,
			WeChat: telling{},
			Apps:   append(w.App.MiniPrograms(), weixin.Credentials{ID: removedApp}),
			Keys:   w.App.KeyRing(),
			TTL:    time.Hour,
		},
	)
	out, err := s.Login(
		w.T.Context(), session.LoginRequest{AppID: appid, Code: caddytest.NewCode(openid)},
	)
	if err != nil {
		w.T.Fatal(err)
	}
	return out.Token
}

// removedApp is a mini program with users that the configuration no longer has.
const removedApp = "wx9999999999999999"

// sessionID is how operators call the session of a token.
func sessionID(token string) string {
	d := sha256.Sum256([]byte(token))
	return hex.EncodeToString(d[:8])
}

// read decodes an answer strictly.
func read[T any](t testing.TB, text string) (v T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

func TestAdminSessions(t *testing.T) {
	w := apptest.Started(t)
	tokens := []string{
		loginKnown(w, caddytest.AppID, "ada"),
		loginKnown(w, caddytest.AppID, "ada"),
		loginKnown(w, caddytest.OtherAppID, "ada"),
		w.Token(caddytest.AppID, "bob"),
	}
	s := adminServer(t)
	ask := func(query string) []userAnswer {
		t.Helper()
		status, said := adminDo(t, s, "GET", "/wechat/sessions?"+query, "", nil)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, status, said)
		}
		for _, token := range tokens {
			if d := sha256.Sum256([]byte(token)); strings.Contains(said, token) ||
				strings.Contains(said, hex.EncodeToString(d[:9])) {
				t.Errorf("%s shows a token or its digest: %s", query, said)
			}
		}
		return read[sessionsAnswer](t, said).Users
	}
	ada := ask("appid=" + caddytest.AppID + "&openid=ada")
	if len(ada) != 1 || ada[0].AppID != caddytest.AppID || ada[0].OpenID != "ada" ||
		ada[0].UnionID != "u-ada" || ada[0].LastLogin.IsZero() || len(ada[0].Sessions) != 2 {
		t.Fatalf("ada is %+v", ada)
	}
	for i, row := range ada[0].Sessions {
		if row.ID != sessionID(tokens[i]) || row.State != session.StateLive ||
			row.Expires.Sub(row.Created).Round(time.Minute) != time.Hour || row.LastSeen.IsZero() {
			t.Errorf("session %d is %+v", i, row)
		}
	}
	if both := ask("unionid=u-ada"); len(both) != 2 || both[0].AppID == both[1].AppID {
		t.Errorf("by unionid: %+v", both)
	}
	if bob := ask("appid=" + caddytest.AppID + "&openid=bob"); len(bob) != 1 ||
		bob[0].UnionID != "" {
		t.Errorf("bob is %+v", bob)
	}
	for _, query := range []string{
		"appid=" + caddytest.AppID + "&openid=nobody", "unionid=nobody",
		"appid=" + caddytest.OtherAppID + "&openid=bob",
	} {
		if got := ask(query); got == nil || len(got) != 0 {
			t.Errorf("%s: %+v, want an empty list", query, got)
		}
	}
	for _, query := range []string{
		"", "appid=" + caddytest.AppID, "openid=ada", "unionid=", "appid=&openid=ada",
		"unionid=u-ada&appid=" + caddytest.AppID, "unionid=a&unionid=b", "unionid=u-ada&x=1",
		"unionid=%zz", "unionid=a;b",
	} {
		status, said := adminDo(t, s, "GET", "/wechat/sessions?"+query, "", nil)
		if status != http.StatusBadRequest {
			t.Errorf("%q: %d %s", query, status, said)
		}
	}
	body := `{"appid":"` + caddytest.AppID + `","openid":"ada"}`
	status, said := adminDo(t, s, "POST", "/wechat/revoke", body, jsonHeader())
	if status != http.StatusOK {
		t.Fatal(status, said)
	}
	for _, row := range ask("appid=" + caddytest.AppID + "&openid=ada")[0].Sessions {
		if row.State == session.StateLive {
			t.Errorf("a revoked session is listed as %+v", row)
		}
	}
}

func TestAdminStatus(t *testing.T) {
	w := apptest.Started(t)
	w.Token(caddytest.AppID, "ada")
	w.Token(caddytest.AppID, "bob")
	s := adminServer(t)
	leave, _, by := w.Live().BeginLogin(t.Context(), netip.Addr{})
	if by != "" {
		t.Fatal("refused")
	}
	status, said := adminDo(t, s, "GET", "/wechat/status", "", nil)
	got := read[statusAnswer](t, said)
	leave(nil)
	leave(nil)
	if status != http.StatusOK || !got.Store.Up || got.Store.Counts == nil ||
		got.Store.Counts.Sessions != 2 || got.Store.Counts.Users != 2 ||
		got.Store.Counts.Bytes == 0 {
		t.Errorf("%d, store %s", status, said)
	}
	if got.Store.Name != w.App.Opener().Identity() || got.Cache.Max != 1_000_000 ||
		got.WeChat.BaseURL != "http://127.0.0.1:1" || got.WeChat.BreakerOpen ||
		!slices.Equal(got.Apps, []string{caddytest.AppID, caddytest.OtherAppID}) {
		t.Errorf("%s", said)
	}
	if want := (loginStatus{
		InFlight: 1, MaxInFlight: 512, PerClient: "600/m", PerPrivate: "off", Global: "60000/m",
	}); got.Logins != want {
		t.Errorf("logins %+v, want %+v", got.Logins, want)
	}
	if want := (sessionStatus{TTL: "48h0m0s", MaxPerUser: 10}); got.Sessions != want {
		t.Errorf("sessions %+v, want %+v", got.Sessions, want)
	}
	if got.Version.Caddy == "" || got.Version.Go == "" || got.Version.WXGate == "" {
		t.Errorf("versions %+v", got.Version)
	}
	_, said = adminDo(t, s, "GET", "/wechat/status", "", nil)
	if got := read[statusAnswer](t, said).Logins.InFlight; got != 0 {
		t.Errorf("%d logins are under way after the last", got)
	}
	for range 8 { // what opens the breaker
		w.Live().WeChat.Code2Session(
			t.Context(), weixin.Credentials{ID: caddytest.AppID, Secret: caddytest.Canary}, "code",
		)
	}
	if !read[statusAnswer](
		t, second(adminDo(t, s, "GET", "/wechat/status", "", nil)),
	).WeChat.BreakerOpen {
		t.Error("the breaker is open and it is not told")
	}
}

func second(_ int, text string) string { return text }

// TestP4_AdminStoreDown: the status is told all the same; what the store would
// have to answer is 503.
func TestP4_AdminStoreDown(t *testing.T) {
	apptest.Started(t)
	caddytest.Break(t)
	s := adminServer(t)
	got := read[statusAnswer](t, second(adminDo(t, s, "GET", "/wechat/status", "", nil)))
	if got.Store.Up || got.Store.Counts != nil || got.Cache.Max == 0 || len(got.Apps) != 2 {
		t.Errorf("status %+v", got)
	}
	for _, c := range []struct{ method, uri, body string }{
		{"GET", "/wechat/sessions?unionid=u", ""},
		{"GET", "/wechat/sessions?openid=o&appid=" + caddytest.AppID, ""},
		{"GET", "/wechat/keys", ""},
		{"POST", "/wechat/revoke", `{"all":true}`},
		{"POST", "/wechat/revoke", `{"unionid":"u"}`},
		{"POST", "/wechat/revoke", `{"appid":"` + caddytest.AppID + `"}`},
		{"POST", "/wechat/revoke", `{"openid":"o","appid":"` + caddytest.AppID + `"}`},
		{"POST", "/wechat/forget", `{"openid":"o","appid":"` + caddytest.AppID + `"}`},
		{"POST", "/wechat/forget", `{"unionid":"u"}`},
		{"POST", "/wechat/block", `{"unionid":"u"}`},
		{"POST", "/wechat/unblock", `{"unionid":"u"}`},
		{"GET", "/wechat/blocked", ""},
		{
			"POST", "/wechat/revoke",
			`{"session":"0123456789","openid":"o","appid":"` + caddytest.AppID + `"}`,
		},
	} {
		status, said := adminDo(t, s, c.method, c.uri, c.body, jsonHeader())
		if status != http.StatusServiceUnavailable ||
			!strings.Contains(said, "the session store does not answer") ||
			strings.Contains(said, "closed") {
			t.Errorf("%s %s %s: %d %s", c.method, c.uri, c.body, status, said)
		}
	}
}

// TestAdmin_NoGate_404: a Caddy without a gate, or with one that has ended, says so.
func TestAdmin_NoGate_404(t *testing.T) {
	s := adminServer(t)
	apptest.Started(t).Stop()
	status, said := adminDo(t, s, "GET", "/wechat/status", "", nil)
	if status != http.StatusNotFound ||
		!strings.Contains(said, "no gate with sessions is running") {
		t.Errorf("%d %s", status, said)
	}
}

// TestAdminKeys: names and times, in the order of the ring.
func TestAdminKeys(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	masters := caddytest.NewMasterKeys(3)
	older, newest, never := masters[0], masters[1], masters[2]
	path := filepath.Join(t.TempDir(), "s.db")
	start := func(ring string) *apptest.World {
		t.Helper()
		t.Setenv("WX_SEAL_KEY", ring)
		return apptest.Started(t, apptest.OnFile(path),
			apptest.WithFields(`"seal_key":"{env.WX_SEAL_KEY}","session":{"ttl":"1h"}`))
	}
	first := start(older)
	first.Token(caddytest.AppID, "ada")
	first.Stop()
	start(newest + "\n" + older + " , " + never)
	status, said := adminDo(t, adminServer(t), "GET", "/wechat/keys", "", nil)
	got := read[keysAnswer](t, said).Keys
	if status != http.StatusOK || len(got) != 3 || got[0].State != keySigns ||
		got[1].State != keyNeeded || got[2].State != keySpare {
		t.Fatalf("%d %s", status, said)
	}
	if left := time.Until(got[1].NeededUntil); left < 50*time.Minute || left > 70*time.Minute ||
		!got[0].NeededUntil.IsZero() || !got[2].NeededUntil.IsZero() {
		t.Errorf("needed until: %s", said)
	}
	for i, key := range []string{newest, older, never} {
		ring, err := keyring.Parse(key)
		if err != nil {
			t.Fatal(err)
		}
		if got[i].ID != ring.Signer().String() || strings.Contains(said, key) {
			t.Errorf("key %d is %+v", i, got[i])
		}
	}
}

// TestP12_AdminRotateAssertion: a new key is published and signs later; asking twice
// makes one.
func TestP12_AdminRotateAssertion(t *testing.T) {
	const uri = "/wechat/keys/rotate-assertion"
	w := apptest.New(t)
	w.App.UseAssertions()
	w.Start()
	s := adminServer(t)
	rows := func() []assertionRow {
		t.Helper()
		_, said := adminDo(t, s, "GET", "/wechat/keys", "", nil)
		return read[keysAnswer](t, said).Assertion
	}
	if got := rows(); len(got) != 1 || got[0].State != keySigns || !got[0].From.IsZero() {
		t.Fatalf("%+v", got)
	}
	if status, said := adminDo(t, s, "POST", uri, "", nil); status != 415 || len(rows()) != 1 {
		t.Errorf("not JSON: %d %s", status, said)
	}
	for range 2 {
		status, said := adminDo(t, s, "POST", uri, "{}", jsonHeader())
		made := read[assertionRow](t, said)
		if got := rows(); status != 200 || len(got) != 2 || got[1] != made ||
			made.State != keyPublished || time.Until(made.From) < 9*time.Minute {
			t.Fatalf("%d %s, then %+v", status, said, got)
		}
	}
	status, out, said := caddytest.RunCommand(t, keysCommand(), "rotate-assertion", "--yes",
		"--address", address(s))
	if status != 0 || !strings.Contains(out, rows()[1].ID+" is published, and signs from ") {
		t.Errorf("%d %s %s", status, out, said)
	}
	_, out, _ = caddytest.RunCommand(t, keysCommand(), "--address", address(s))
	if !strings.Contains(out, "ASSERTION KEY") || !strings.Contains(out, keyPublished) {
		t.Errorf("%s", out)
	}
	w.Stop()
	apptest.Started(t)
	if status, said := adminDo(t, s, "POST", uri, "{}", jsonHeader()); status != 404 ||
		!strings.Contains(said, "no site") {
		t.Errorf("without the word: %d %s", status, said)
	}
}

// TestAdminBackup: the stream is a database that has what was there; the store
// that cannot be copied says so.
func TestAdminBackup(t *testing.T) {
	dir := t.TempDir()
	w := apptest.Started(t, apptest.OnBolt())
	token := w.Token(caddytest.AppID, "ada")
	s := adminServer(t)
	status, said := adminDo(t, s, "POST", "/wechat/backup", "", nil)
	if status != http.StatusOK {
		t.Fatal(status, said)
	}
	copied := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(copied, []byte(said), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := bolt.Check(copied); err != nil || r.Stats.Sessions != 1 || r.Damaged != 0 ||
		strings.Contains(said, token) {
		t.Errorf("%+v, %v", r, err)
	}
	w.Stop()

	apptest.Started(t) // its store is no Backuper
	status, said = adminDo(t, s, "POST", "/wechat/backup", "", nil)
	if status != http.StatusNotImplemented ||
		!strings.Contains(said, "its own tools") {
		t.Errorf("%d %s", status, said)
	}
}

// backupOf is what serveBackup answers over a store.
func backupOf(t *testing.T, st store.Store) (status int, said []byte, err error) {
	t.Helper()
	core, err := session.NewCore(session.CoreConfig{Store: st, MaxSessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close() })
	live := &wechatapp.Live{Sessions: session.New(session.Config{Core: core, TTL: time.Hour})}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := serveBackup(live, w, r)
		if refused, ok := errors.AsType[caddy.APIError](err); ok {
			w.WriteHeader(refused.HTTPStatus)
			io.WriteString(w, refused.Message)
		} else {
			t.Errorf("it passes for whole: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err = io.ReadAll(resp.Body)
	return resp.StatusCode, said, err
}

// TestAdminBackupBroken: a backup that breaks off on the way does not pass for
// a whole one.
func TestAdminBackupBroken(t *testing.T) {
	if _, said, err := backupOf(t, breaking{
		n: 1 << 20, err: errors.New("the disk is gone"),
	}); err == nil ||
		len(said) == 0 {
		t.Errorf("read %d bytes, %v", len(said), err)
	}
}

// TestAdminBackupRefused: what stands in the way of a backup is told to whoever
// asked for it.
func TestAdminBackupRefused(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		said   string
	}{
		bolt.ErrBusy:                {http.StatusConflict, "another backup"},
		bolt.ErrRoom:                {http.StatusInsufficientStorage, "too little room"},
		store.ErrUnavailable:        {http.StatusServiceUnavailable, "does not answer"},
		errors.New("something odd"): {http.StatusInternalServerError, "the log has the reason"},
	} {
		status, said, _ := backupOf(t, breaking{err: fmt.Errorf("copying: %w", err)})
		if status != want.status || !strings.Contains(string(said), want.said) ||
			strings.Contains(string(said), "odd") {
			t.Errorf("%v: %d %s", err, status, said)
		}
	}
}

// breaking is a store whose backups break off after n bytes.
type breaking struct {
	store.Store
	n   int
	err error
}

func (b breaking) Backup(_ context.Context, w io.Writer) (int64, error) {
	if b.n > 0 {
		_, _ = w.Write(bytes.Repeat([]byte("x"), b.n))
	}
	return int64(b.n), b.err
}

func (breaking) Close() error { return nil }
