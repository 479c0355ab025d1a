//go:build unix

package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExample_OpenData runs all of examples/wechat/open-data: the page outside
// of WeChat, the Caddyfile with other addresses, the app.
func TestExample_OpenData(t *testing.T) {
	t.Parallel()
	need(t, "node")
	example, err := filepath.Abs(filepath.Join(moduleRoot, "examples/wechat/open-data"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(example, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := adapt(string(text))
	if err != nil {
		t.Fatal(err)
	}
	w := prepareWorld(t, setup{})
	upstream := freeAddr(t)
	p := patch(t, config, w.addr, w.admin, upstream, w.wechat.URL)
	w.env = append(w.env, secretEnv(appA)+"="+secretOf(appA))
	spawn(t, t.TempDir(), []string{"PORT=" + portOf(upstream), "WECHAT=http://" + p.api},
		upstream, "node",
		filepath.Join(example, "app.js"))
	w.run(t, "--config", w.write(t, "caddy.json", string(p.json)))

	run := func(steps ...string) map[string]any {
		t.Helper()
		page := filepath.Join(example, "page.js")
		args := append([]string{script(t, "miniprogram.js"), page}, steps...)
		cmd := exec.Command("node", args...)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "GATE=http://" + w.addr, "SITE=" + p.sites[0].host,
			"SIM=" + w.wechat.URL, "APPID=" + appA, "USER=ada",
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v\n%s", steps, err, stderr.String())
		}
		var data map[string]any
		if err := json.Unmarshal(out, &data); err != nil {
			t.Fatalf("%q printed %s", steps, out)
		}
		return data
	}
	who := w.who(appA, "ada")
	phone := w.wechat.PhoneCode(appA, "13580006666")
	got := run("onLoad", "onSteps", "onPhone", fmt.Sprintf(`{"detail":{"code":%q}}`, phone),
		"onComment", `{"detail":{"value":"a fine day"}}`)
	for name, want := range map[string]any{
		"openid": who.openid, "unionid": who.unionid, "steps": 4711.0, "phoneNumber": "13580006666",
		"accepted": true,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	got = run("onPhone", `{"detail":{}}`, "onComment", `{"detail":{"value":"a risky one"}}`)
	if got["accepted"] != false || got["phoneNumber"] != nil {
		t.Errorf("after a no: %v", got)
	}
	// A session that has ended, and a session_key that has changed, cost the
	// user nothing.
	if got := run("forget", "onLoad", "rotate", "onSteps",
		"onClose"); got["openid"] != who.openid || got["steps"] != 4711.0 || got["closed"] != true {
		t.Errorf("after trouble: %v", got)
	}
	w.audited(t, "sessions revoked by the app", 1)
	if strings.Contains(w.out.String(), `"level":"error"`) {
		t.Errorf("the gate is not content:\n%s", tail(w.out.String(), 2000))
	}
}
