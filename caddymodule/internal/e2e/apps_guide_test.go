//go:build unix

package e2e_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// guideApps are the apps of examples/apps: the programs that they need, their own tests,
// and how they start. A command runs in the app's folder; {dir} is a folder of the test,
// {addr} the app's address.
var guideApps = map[string]struct {
	needs              []string
	build, unit, start []string
}{
	"php": {
		needs: []string{"php"},
		unit:  []string{"php", "app_test.php"},
		start: []string{"php", "-S", "{addr}", "app.php"},
	},
	"python": {
		needs: []string{"python3", "gunicorn"},
		unit:  []string{"python3", "test_app.py"},
		start: []string{
			"gunicorn", "--bind", "{addr}", "--workers", "2", "--threads", "4", "app:create()",
		},
	},
	"node": {
		needs: []string{"node"},
		unit:  []string{"node", "--test"},
		start: []string{"node", "app.mjs"},
	},
	"java": {
		needs: []string{"java", "javac"},
		build: []string{"javac", "-d", "{dir}", "App.java", "AppTest.java"},
		unit:  []string{"java", "-cp", "{dir}", "AppTest"},
		start: []string{"java", "-cp", "{dir}", "App"},
	},
	// go test ./... runs its own tests.
	"go": {
		build: []string{"go", "build", "-o", "{dir}/app", "."},
		start: []string{"{dir}/app"},
	},
}

// needGuideApp looks for what an app of examples/apps needs.
func needGuideApp(tb testing.TB, name string) {
	tb.Helper()
	for _, program := range guideApps[name].needs {
		need(tb, program)
	}
	if name == "php" && exec.Command("php", "-r", "new PDO('sqlite::memory:');").Run() != nil {
		lacks(tb, "php has no SQLite (php-sqlite3)")
	}
}

// TestExample_Apps runs the app of each language behind one gate: two users and a forged
// header, parallel first requests, a late unionid, a call of WeChat, the end of an account.
func TestExample_Apps(t *testing.T) {
	slow(t)
	t.Parallel()
	api := freeAddr(t)
	sites := siteAt(api, "\twechat_api")
	addrs := map[string][2]string{}
	for name := range guideApps {
		gate, upstream := freeAddr(t), freeAddr(t)
		addrs[name] = [2]string{gate, upstream}
		text, err := os.ReadFile(filepath.Join(moduleRoot, "examples/apps", name, "Caddyfile"))
		if err != nil {
			t.Fatal(err)
		}
		_, lines, _ := strings.Cut(string(text), "\napi.example.com {\n")
		lines, _, found := strings.Cut(lines, "\n}\n")
		if !found {
			t.Fatalf("%s has no site api.example.com", name)
		}
		sites += siteAt(gate, strings.ReplaceAll(lines, "127.0.0.1:8080", upstream))
	}
	w := newWorld(t, setup{sites: sites})
	for name, app := range guideApps {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needGuideApp(t, name)
			dir, gate, upstream := t.TempDir(), addrs[name][0], addrs[name][1]
			folder, err := filepath.Abs(filepath.Join(moduleRoot, "examples/apps", name))
			if err != nil {
				t.Fatal(err)
			}
			known := strings.NewReplacer("{dir}", dir, "{addr}", upstream)
			fill := func(command []string) (filled []string) {
				for _, word := range command {
					filled = append(filled, known.Replace(word))
				}
				return filled
			}
			for _, command := range [][]string{app.build, app.unit} {
				if len(command) == 0 {
					continue
				}
				command = fill(command)
				cmd := exec.Command(command[0], command[1:]...)
				cmd.Dir = folder
				cmd.Env = append(cmd.Environ(), "PYTHONDONTWRITEBYTECODE=1", "no_proxy=*")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%q: %v\n%s", command, err, out)
				}
			}
			start := fill(app.start)
			spawn(t, folder, []string{
				"PORT=" + portOf(upstream), "DATABASE=" + filepath.Join(dir, "users"),
				"WECHAT=http://" + api, "PHP_CLI_SERVER_WORKERS=4",
			}, upstream, start[0], start[1:]...)
			visitGuideApp(t, w, name, gate, api)
		})
	}
}

// guideUser is a row of an app of examples/apps. An unknown unionid is null or empty.
type guideUser struct{ ID, OpenID, UnionID, Nickname string }

// visitGuideApp lives the life of two users of an app.
func visitGuideApp(t *testing.T, w *world, name, gate, api string) {
	ada, bob := name+"-ada", name+"-bob"
	w.wechat.SetUser(appA, ada, weixintest.UserOptions{NoUnionID: true})
	who := w.who(appA, ada)
	row := func(r reply) (u guideUser) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.body), &u); err != nil || r.status != http.StatusOK {
			t.Fatalf("the app answers %s", r)
		}
		return u
	}
	call := func(method, body, token string) reply {
		t.Helper()
		return ask(t, gate, method, "/api/me", body, bearer(token),
			"Content-Type: application/x-www-form-urlencoded")
	}

	token := w.login(t, ada)
	var first guideUser
	for i, r := range together(t, 20, func(int) (addr, text string) {
		return gate, request(gate, "GET", "/api/me", "", bearer(token), "X-WX-OPENID: "+victim)
	})() {
		switch u := row(r); {
		case i == 0:
			first = u
		case u != first:
			t.Errorf("one user has the rows %+v and %+v", first, u)
		}
	}
	if first.ID == "" || first.OpenID != who.openid || first.UnionID != "" {
		t.Errorf("the row of ada is %+v, her openid is %s", first, who.openid)
	}
	ask(t, gate, "GET", "/api/me", "", "X-WX-OPENID: "+who.openid).
		problem(t, 401, "session_missing")
	bobs := w.login(t, bob)
	other := row(call("GET", "", bobs))
	if other.ID == first.ID || other.OpenID != w.who(appA, bob).openid ||
		other.UnionID != w.who(appA, bob).unionid {
		t.Errorf("the row of bob is %+v", other)
	}

	sealed := w.openData(t, appA, ada, w.userinfo(ada, "u-"+name))
	w.post(t, "/wx/decrypt", sealed, bearer(token)).made(t, 200)
	if u := row(call("GET", "", token)); u.ID != first.ID || u.UnionID != "u-"+name {
		t.Errorf("with a unionid the row is %+v, before it was %+v", u, first)
	}
	if u := row(call("PUT", "nickname=Ada+%C3%A9+%22L%22", token)); u.Nickname != `Ada é "L"` {
		t.Errorf("with a nickname the row is %+v", u)
	}
	if r := call("PUT", "nickname=a+risky+one", token); r.status != http.StatusUnprocessableEntity {
		t.Errorf("the answer to what WeChat refuses is %s", r)
	}
	if u := row(call("GET", "", token)); u.Nickname != `Ada é "L"` {
		t.Errorf("after a refused nickname the row is %+v", u)
	}

	// The account ends, at the gate and in the app. On a machine that is slow beyond measure
	// the gate may break off the answer, since the session has ended.
	if r, _ := exchange(gate, request(gate, "DELETE", "/api/me", "",
		bearer(token))); r.status != http.StatusNoContent && r.status != 0 {
		t.Errorf("the end of an account is answered with %s", r)
	}
	call("GET", "", token).problem(t, 401, "session_invalid")
	userCall(t, api, "checksession", map[string]any{"openid": who.openid}).
		problem(t, 404, "user_unknown")
	again := w.login(t, ada)
	var second guideUser
	eventually(t, "the next login makes a new row", func() bool {
		second = row(call("GET", "", again))
		return second.ID != first.ID
	})
	if second != (guideUser{ID: second.ID, OpenID: who.openid}) {
		t.Errorf("the row of the next login is %+v", second)
	}
	if u := row(call("GET", "", bobs)); u != other {
		t.Errorf("the row of bob is %+v, it was %+v", u, other)
	}
}
