package wechatauth

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// dataWorld is a world whose WeChat answers, and whose limits have nothing on them yet.
type dataWorld struct {
	*world
	wechat *weixintest.Server
}

func newDataWorld(t testing.TB, fields string) *dataWorld {
	t.Helper()
	wechat := weixintest.NewServer(weixintest.Config{Apps: map[string]string{
		caddytest.AppID: caddytest.Canary, caddytest.OtherAppID: caddytest.Canary,
	}})
	t.Cleanup(wechat.Close)
	w := &dataWorld{again(t, wechat, "", fields), wechat}
	*w.Live().Users = *wechatapp.NewUserLimits()
	return w
}

// again starts what a reload of the same configuration starts.
func again(t testing.TB, wechat *weixintest.Server, path, fields string) *world {
	t.Helper()
	options := []apptest.Option{apptest.WithWeChat(wechat.URL), apptest.OnFile(path)}
	if fields != "" {
		options = append(options, apptest.WithFields(fields))
	}
	return newWorld(t, &Handler{}, options...).start()
}

// login logs a user of caddytest.AppID in through the gate.
func (w *dataWorld) login(user string) (token string) {
	w.T.Helper()
	rec := w.post(
		"/wx/login",
		"",
		fmt.Sprintf(
			`{"code":%q,"appid":%q}`, w.wechat.Code(caddytest.AppID, user), caddytest.AppID,
		),
	)
	var out struct {
		Token string `json:"3rd_session"`
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || out.Token == "" {
		w.T.Fatalf("login of %s: %d %s", user, rec.Code, rec.Body)
	}
	return out.Token
}

func (w *dataWorld) post(target, token, body string) *httptest.ResponseRecorder {
	w.T.Helper()
	return serve(w.T, w.gate, target, token, strings.NewReader(body))
}

func serve(
	t testing.TB, g *Handler, target, token string, body io.Reader,
) *httptest.ResponseRecorder {
	t.Helper()
	r, rec := caddytest.Request("POST", target, token)
	r.Body = io.NopCloser(body)
	if err := g.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		t.Fatal(err)
	}
	return rec
}

// seal makes the body of a decrypt call of what WeChat seals for a user.
func (w *dataWorld) seal(user, object string) weixintest.OpenData {
	w.T.Helper()
	d, err := w.wechat.Encrypt(caddytest.AppID, user, json.RawMessage(object))
	if err != nil {
		w.T.Fatal(err)
	}
	return d
}

// body is what a client sends of open data, without the part that userinfo alone has.
func body(d weixintest.OpenData) string {
	return fmt.Sprintf(`{"encryptedData":%q,"iv":%q}`, d.EncryptedData, d.IV)
}

func whole(d weixintest.OpenData) string {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (w *dataWorld) watermarked(rest string) string {
	return fmt.Sprintf(
		`{%s,"watermark":{"timestamp":%d,"appid":%q}}`, rest, time.Now().Unix(), caddytest.AppID,
	)
}

// sees returns the headers that the app gets with a call.
func (w *dataWorld) sees(token string) http.Header {
	w.T.Helper()
	r, rec := caddytest.Request("GET", "/", token)
	var n caddytest.Next
	if err := w.gate.ServeHTTP(rec, r, &n); err != nil || !n.Called {
		w.T.Fatal(err, rec.Code, rec.Body)
	}
	return r.Header
}

// TestDecrypt: what WeChat has sealed comes back byte for byte, with and
// without a signature, whatever kind of data it is.
func TestDecrypt(t *testing.T) {
	w := newDataWorld(t, "")
	token := w.login("ada")
	before := caddytest.Count(metrics.endpointCalls)
	for name, object := range map[string]string{
		"userinfo": w.watermarked(
			`"nickName":"<Band> & \u00e9 爱","gender":1,"openId":"` +
				w.wechat.OpenID(caddytest.AppID, "ada") + `"`,
		),
		"phone": w.watermarked(
			`"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":"86"`,
		),
		"werun": w.watermarked(
			`"stepInfoList":[{"timestamp":1445866601,"step":100},` +
				`{"timestamp":1445876601,"step":1.20e2}]`,
		),
		"group": w.watermarked(`"openGId":"G_x","z":"{env.WX_SECRET}","a":null`),
	} {
		for form, text := range map[string]string{
			"bare": body(w.seal("ada", object)), "signed": whole(w.seal("ada", object)),
		} {
			rec := w.post("/wx/decrypt", token, text)
			if rec.Code != 200 || rec.Body.String() != object {
				t.Errorf("%s, %s: %d %s, want %s", name, form, rec.Code, rec.Body, object)
			}
			for header, want := range map[string]string{
				"Content-Type": "application/json", "Cache-Control": "no-store", "X-Wxgate": "1",
				"Content-Length": fmt.Sprint(len(object)),
			} {
				if got := strings.Join(rec.Header().Values(header), "|"); got != want {
					t.Errorf("%s, %s: %s %q, want %q", name, form, header, got, want)
				}
			}
		}
	}
	if got := caddytest.Count(metrics.endpointCalls) - before; got != 8 {
		t.Errorf("%v calls counted, want 8", got)
	}
	if lines := caddytest.Lines(w.Logs); strings.Contains(lines, "13580006666") ||
		strings.Contains(lines, "Band") {
		t.Errorf("the log holds data: %s", lines)
	}
}

// TestDecryptBindsUnionID: with the next request of every session of the user.
func TestDecryptBindsUnionID(t *testing.T) {
	w := newDataWorld(t, "")
	w.wechat.SetUser(caddytest.AppID, "ada", weixintest.UserOptions{NoUnionID: true})
	first, second := w.login("ada"), w.login("ada")
	if got := w.sees(first)["X-Wx-Unionid"]; got != nil {
		t.Fatalf("unionid %q to begin with", got)
	}
	object := w.watermarked(
		fmt.Sprintf(`"openId":%q,"unionId":"u-of-ada"`, w.wechat.OpenID(caddytest.AppID, "ada")),
	)
	if rec := w.post("/wx/decrypt", first, whole(w.seal("ada", object))); rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	for _, token := range []string{first, second, w.login("ada")} {
		if got := w.sees(token)["X-Wx-Unionid"]; len(got) != 1 || got[0] != "u-of-ada" {
			t.Errorf("unionid %q", got)
		}
	}
}

// TestThreat29_OneAnswer holds that the client learns no more of wrong open data
// than whether a new login helps, that the operator reads the reason, and that
// nothing changes. TestThreat29_OpenData_Wrong_SameErrorForAll has every reason.
func TestThreat29_OneAnswer(t *testing.T) {
	w := newDataWorld(t, "")
	w.wechat.SetUser(caddytest.AppID, "ada", weixintest.UserOptions{NoUnionID: true})
	token := w.login("ada")
	w.login("bob")
	ada := fmt.Sprintf(
		`"openId":%q,"unionId":"evil-unionid"`, w.wechat.OpenID(caddytest.AppID, "ada"),
	)
	good := w.seal("ada", w.watermarked(ada))
	with := func(edit func(*weixintest.OpenData)) string {
		d := good
		edit(&d)
		return whole(d)
	}
	iv := func(s string) string { return with(func(d *weixintest.OpenData) { d.IV = s }) }
	data := func(
		s string,
	) string {
		return with(func(d *weixintest.OpenData) { d.EncryptedData = s })
	}
	elsewhere, err := w.wechat.Encrypt(
		caddytest.OtherAppID, "ada", json.RawMessage(`{"unionId":"evil-unionid"}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	answers := map[bool]string{}
	for _, c := range []struct {
		name, body string
		again      bool
		reason     string
	}{
		{"no base64", data("!"), false, "encrypted_data"},
		{"another iv", iv("AAAAAAAAAAAAAAAAAAAAAA=="), true, "object"},
		{"data of another user", whole(w.seal("bob", w.watermarked(ada))), true, "signature"},
		{"data of another mini program", body(elsewhere), true, "padding"},
		{
			"no time",
			body(w.seal("ada", fmt.Sprintf(`{%s,"watermark":{"appid":%q}}`, ada, caddytest.AppID))),
			false, "watermark_timestamp",
		},
		{
			"openId of another user",
			body(w.seal("ada", w.watermarked(`"openId":"o-of-bob","unionId":"evil-unionid"`))),
			false, "openid",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			*w.Live().Users = *wechatapp.NewUserLimits()
			w.gate.refusals = wechatapp.NewRefusalLog(w.gate.log)
			w.Logs.TakeAll()
			rec := w.post("/wx/decrypt", token, c.body)
			var p struct {
				Code       string
				LoginAgain bool `json:"login_again"`
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != 422 ||
				p.Code != "data_invalid" || p.LoginAgain != c.again {
				t.Errorf("%d %s, want login_again %v", rec.Code, rec.Body, c.again)
			}
			got := caddytest.Answer(t, rec)
			if answers[c.again] == "" {
				answers[c.again] = got
			}
			if got != answers[c.again] {
				t.Errorf("%s\ndiffers from\n%s", got, answers[c.again])
			}
			refused := w.Logs.FilterMessage("decrypt refused").All()
			reasons := []string{c.reason}
			if c.reason == "padding" { // one wrong key in 256 leaves a padding that is right
				reasons = append(reasons, "object")
			}
			logged := func(reason string) bool {
				return len(refused) == 1 &&
					refused[0].ContextMap()["error"] == "open data is invalid: "+reason
			}
			if !slices.ContainsFunc(reasons, logged) || refused[0].Level != zapcore.InfoLevel ||
				refused[0].ContextMap()["openid"] != w.wechat.OpenID(caddytest.AppID, "ada") {
				t.Errorf("logged %s, want the reason %s", caddytest.Lines(w.Logs), c.reason)
			}
			if strings.Contains(caddytest.Lines(w.Logs), "evil") {
				t.Errorf("the log holds data: %s", caddytest.Lines(w.Logs))
			}
			if got := w.sees(token)["X-Wx-Unionid"]; got != nil {
				t.Errorf("bound to unionid %q", got)
			}
		})
	}
	if rec := w.post("/wx/decrypt", token, whole(good)); rec.Code != 200 ||
		w.sees(token).Get("X-Wx-Unionid") != "evil-unionid" {
		t.Error(
			"what the failures were made of does not pass either: this test shows little", rec.Code,
			rec.Body,
		)
	}
}

// userDataEndpoints are the endpoints for data of the caller and a body that
// each takes.
var userDataEndpoints = map[string]string{
	"/wx/decrypt": `{"encryptedData":"AAAAAAAAAAAAAAAAAAAAAA==","iv":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
	"/wx/phone":   `{"code":"abc"}`,
}

// TestUserDataNeedsASession: nothing is read, let alone asked of WeChat, for
// whoever is not logged in here.
func TestUserDataNeedsASession(t *testing.T) {
	w := newDataWorld(t, "")
	token := w.login("ada")
	gone := w.login("bob")
	if err := w.Live().Sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	other := w.newGate(&Handler{Apps: []string{caddytest.OtherAppID}})
	w.wechat.Reset()
	for target, body := range userDataEndpoints {
		for _, c := range []struct {
			name, token string
			gate        *Handler
			result      Result
			status      int
			code        string
		}{
			{"no token", "", w.gate, Missing, 401, "session_missing"},
			{"malformed", "wxs_short", w.gate, Malformed, 401, "session_invalid"},
			{"forged", caddytest.MadeUp, w.gate, Forged, 401, "session_invalid"},
			{"ended", gone, w.gate, Unknown, 401, "session_invalid"},
			{"of another mini program", token, other, OtherApp, 403, "app_not_allowed"},
		} {
			before := decisions()
			rec := serve(t, c.gate, target, c.token, strings.NewReader(body))
			if got := caddytest.Code(t, rec); rec.Code != c.status || got != c.code {
				t.Errorf("%s, %s: %d %s", target, c.name, rec.Code, got)
			}
			if before[c.result]++; !maps.Equal(before, decisions()) {
				t.Errorf("%s, %s: not counted as %s", target, c.name, c.result)
			}
		}
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			r, rec := caddytest.Request(method, target, token)
			r.Body = caddytest.Body(body)
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
			if got := caddytest.Code(t, rec); rec.Code != 405 ||
				rec.Header().Get("Allow") != "POST" || got != "invalid_request" {
				t.Errorf("%s %s: %d %s", method, target, rec.Code, got)
			}
		}
	}
	if calls := w.wechat.Calls(); len(calls) != 0 {
		t.Errorf("WeChat was called: %+v", calls)
	}
}

// TestThreat24_UserDataBodies holds that a malformed call never reaches WeChat and
// takes nothing of a user's limits. FuzzUserData has the malformed bodies.
func TestThreat24_UserDataBodies(t *testing.T) {
	w := newDataWorld(t, "")
	token := w.login("ada")
	w.wechat.Reset()
	for target, good := range userDataEndpoints {
		for _, c := range []struct {
			header, value, body string
			status              int
		}{
			{"Content-Type", "application/json", `{}`, 400},
			{"Content-Type", "application/json", `{"code":"` + strings.Repeat("a", 64<<10), 413},
			{"Content-Type", "text/plain", good, 415},
			{"Content-Encoding", "gzip", good, 415},
		} {
			for range 11 { // a user has ten numbers an hour
				r, rec := caddytest.Request("POST", target, token)
				r.Body = caddytest.Body(c.body)
				r.Header.Set(c.header, c.value)
				if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
					t.Fatal(err)
				}
				if got := caddytest.Code(t, rec); rec.Code != c.status || got != "invalid_request" {
					t.Fatalf("%s, %s: %d %s, want %d", target, c.value, rec.Code, got, c.status)
				}
			}
		}
	}
	if calls := w.wechat.Calls(); len(calls) != 0 {
		t.Errorf("WeChat was called: %+v", calls)
	}
}

// TestP4_UserDataStoreOutage: no log-out, and no code is spent that could not
// be answered for.
func TestP4_UserDataStoreOutage(t *testing.T) {
	w := newDataWorld(t, `"phone":{"remember":true}`)
	token := w.login("ada")
	w.warm(token)
	w.wechat.Reset()
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	for target, body := range userDataEndpoints {
		rec := w.post(target, token, body)
		if got := caddytest.Code(t, rec); rec.Code != 503 || got != "store_unavailable" ||
			rec.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", target, rec.Code, got)
		}
	}
	if calls := w.wechat.Calls(); len(calls) != 0 {
		t.Errorf("WeChat was called: %+v", calls)
	}
}
