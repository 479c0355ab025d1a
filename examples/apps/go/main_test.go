package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// gate is the gate's wechat_api: it finds "risky" in texts, and notes whom it forgets.
type gate struct {
	*httptest.Server
	forgotten string
	down      bool
}

func newTest(t *testing.T) (app http.Handler, g *gate) {
	g = new(gate)
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		suggest := "pass"
		if strings.Contains(string(body), "risky") {
			suggest = "risky"
		}
		switch {
		case g.down:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/wx/user/forget":
			g.forgotten = string(body)
			w.WriteHeader(http.StatusNoContent)
		default:
			io.WriteString(w, `{"errcode":0,"result":{"suggest":"`+suggest+`"}}`)
		}
	}))
	t.Cleanup(g.Close)
	app, err := newApp(filepath.Join(t.TempDir(), "users.db"), g.URL)
	if err != nil {
		t.Fatal(err)
	}
	return app, g
}

// call is a request as the gate passes it on. This is all that a test has to do to be a
// logged-in user.
func call(t *testing.T, app http.Handler, method, body string, c caller) (int, user) {
	t.Helper()
	r := httptest.NewRequest(method, "/api/me", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range map[string]string{
		"X-WX-APPID": c.appID, "X-WX-OPENID": c.openID, "X-WX-UNIONID": c.unionID,
	} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	var u user
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
	}
	return w.Code, u
}

func TestMe_EachUser_HasOneRow(t *testing.T) {
	app, _ := newTest(t)
	ada := caller{appID: "wxA", openID: "oAda"}
	_, first := call(t, app, "GET", "", ada)
	if _, again := call(t, app, "GET", "", ada); first.OpenID != "oAda" || again != first {
		t.Errorf("the row is %+v, then %+v", first, again)
	}
	for _, other := range []caller{{appID: "wxA", openID: "oBob"}, {appID: "wxB", openID: "oAda"}} {
		if _, u := call(t, app, "GET", "", other); u.ID == first.ID {
			t.Errorf("%+v has the row of ada", other)
		}
	}
	if status, _ := call(t, app, "GET", "", caller{}); status != 401 {
		t.Errorf("without a user the status is %d", status)
	}
}

func TestMe_UnionIDComesLate_Stays(t *testing.T) {
	app, _ := newTest(t)
	for _, step := range []struct{ told, want string }{
		{"", ""}, {"uAda", "uAda"}, {"", "uAda"}, {"uNew", "uNew"},
	} {
		_, u := call(t, app, "GET", "", caller{"wxA", "oAda", step.told})
		if u.UnionID != step.want {
			t.Errorf("told %q, the row has %q", step.told, u.UnionID)
		}
	}
}

func TestPutMe_WeChatChecksTheNickname(t *testing.T) {
	app, _ := newTest(t)
	ada := caller{appID: "wxA", openID: "oAda"}
	for body, want := range map[string]int{
		"nickname=Ada": 200, "nickname=a+risky+one": 422, "nickname=": 400, "": 400,
	} {
		if status, _ := call(t, app, "PUT", body, ada); status != want {
			t.Errorf("%q: status %d, want %d", body, status, want)
		}
	}
	if _, u := call(t, app, "GET", "", ada); u.Nickname != "Ada" {
		t.Errorf("the nickname is %q", u.Nickname)
	}
}

func TestDeleteMe_GateForgetsFirst(t *testing.T) {
	app, g := newTest(t)
	ada := caller{appID: "wxA", openID: "oAda"}
	_, first := call(t, app, "GET", "", ada)
	g.down = true
	if status, _ := call(t, app, "DELETE", "", ada); status != 500 {
		t.Errorf("without the gate the status is %d", status)
	}
	if _, u := call(t, app, "GET", "", ada); u != first {
		t.Error("the row is gone, and the gate still knows the user")
	}
	g.down = false
	status, _ := call(t, app, "DELETE", "", ada)
	if want := `{"appid":"wxA","openid":"oAda"}`; status != 204 || g.forgotten != want {
		t.Errorf("status %d, the gate is sent %s", status, g.forgotten)
	}
	if _, u := call(t, app, "GET", "", ada); u.ID == first.ID {
		t.Error("the old row is still there")
	}
}
