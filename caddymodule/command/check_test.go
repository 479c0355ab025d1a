package command

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// checked runs `wechat check` on a configuration, and returns its exit status and the
// result of each check with its detail.
func checked(
	t *testing.T, weixin, upstream, secrets string,
) (status int, results map[string]string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "Caddyfile")
	text := fmt.Sprintf("{\n\tadmin 127.0.0.1:1\n\twechat {\n\t\tapp %s %s\n\t\tapi {\n"+
		"\t\t\tbase_url %s\n\t\t}\n\t\tstore bolt %s\n\t}\n}\n\n"+
		":80 {\n\twechat_auth\n\treverse_proxy %s\n}\n", caddytest.AppID, secrets, weixin,
		filepath.Join(dir, "s.db"), upstream)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, said := caddytest.RunCommand(t, checkCommand(),
		"--config", config, "--adapter", "caddyfile", "--json")
	var answer struct {
		OK     bool
		Checks []finding
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s %s", err, out, said)
	}
	if answer.OK != (status == 0) {
		t.Errorf("status %d: %s", status, out)
	}
	if strings.Contains(out+said, caddytest.Canary) {
		t.Errorf("a secret is shown: %s %s", out, said)
	}
	results = make(map[string]string)
	for _, f := range answer.Checks {
		results[f.Check] = string(f.Result) + " " + f.Detail
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("the command leaves %q", left)
	}
	return status, results
}

// TestCheck_Faults_AreNamed: each fault fails the check that it belongs to, and no
// other.
func TestCheck_Faults_AreNamed(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	t.Setenv("WX_OTHER", "another-secret")
	t.Setenv("WX_EMPTY", "")
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	type fault = weixintest.Fault
	const loginPath = "/sns/jscode2session"
	for _, tc := range []struct {
		name, secrets string
		fault         fault
		ahead         time.Duration
		upstream      string
		failed        string // the check that fails; empty: none
		said          string // of the check, or of the one in warns
		warns         string
	}{
		{name: "all well"},
		{name: "empty secret", secrets: "{env.WX_EMPTY}", failed: "secrets", said: "WX_EMPTY"},
		{name: "wrong secret", secrets: "{env.WX_OTHER}", failed: "login", said: "40125"},
		{
			name: "two secrets", secrets: "{env.WX_OTHER} {env.WX_SECRET}",
			warns: "login", said: "the other secret works: errcode 40125",
		},
		{
			name: "wrong AppID", fault: fault{Kind: weixintest.FaultErrCode, ErrCode: 40013},
			failed: "login", said: "appid invalid",
		},
		{
			name: "IP list", fault: fault{Kind: weixintest.FaultErrCode, ErrCode: 40164},
			failed: "login", said: "WeChat sees 203.0.113.7",
		},
		{
			name: "IP list of tokens",
			fault: fault{
				Kind: weixintest.FaultErrCode, ErrCode: 40164, Path: "/cgi-bin/stable_token",
			},
			warns: "access token", said: "203.0.113.7",
		},
		{
			name: "captive portal", fault: fault{Kind: weixintest.FaultHTML},
			failed: "login", said: "HTTP 200 text/html instead of JSON",
		},
		{name: "clock", ahead: time.Hour, failed: "clock", said: "set this machine's clock"},
		{name: "clock a little", ahead: 20 * time.Second, warns: "clock", said: "+20 s"},
		{name: "app down", upstream: "127.0.0.1:1", failed: "upstream", said: "refused"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sim := weixintest.NewServer(weixintest.Config{
				Apps: map[string]string{caddytest.AppID: caddytest.Canary},
				Now:  func() time.Time { return time.Now().Add(tc.ahead) },
			})
			defer sim.Close()
			if tc.fault.Kind != "" {
				if tc.fault.Times = -1; tc.fault.Path == "" {
					tc.fault.Path = loginPath
				}
				sim.Inject(tc.fault)
			}
			if tc.secrets == "" {
				tc.secrets = "{env.WX_SECRET}"
			}
			if tc.upstream == "" {
				tc.upstream = app.Addr().String()
			}
			status, results := checked(t, sim.URL, tc.upstream, tc.secrets)
			if (status != 0) != (tc.failed != "") {
				t.Errorf("exit status %d", status)
			}
			for check, result := range results {
				word := "ok"
				switch check {
				case tc.failed:
					word = string(checkedFailed)
				case tc.warns:
					word = string(checkedWarning)
				case "gate":
					word = string(checkedSkipped)
				}
				empty := tc.failed == "secrets" && check == "login"
				if !strings.HasPrefix(result, word) && !empty {
					t.Errorf("%s: %s, want %s", check, result, word)
				}
			}
			if about := tc.failed + tc.warns; !strings.Contains(results[about], tc.said) {
				t.Errorf("%s: %s, want %q", about, results[about], tc.said)
			}
			if results["store"] == "" || results["master key"] == "" || results["gate"] == "" {
				t.Errorf("checks are missing: %v", results)
			}
		})
	}
}

// TestCheck_NothingAnswers_Ends: whatever hangs is named.
func TestCheck_NothingAnswers_Ends(t *testing.T) {
	c := new(checks)
	c.begin("dns", "api.weixin.qq.com")
	c.stop()
	found := c.stop()
	if len(found) != 1 || found[0].Result != checkedFailed || found[0].Check != "dns" {
		t.Errorf("%+v", found)
	}
	c.end(checkedOK, "too late")
	if n := len(c.stop()); n != 1 {
		t.Errorf("%d findings after the end", n)
	}
	status, results := checked(t, "https://127.0.0.1:1", "127.0.0.1:1", "{env.WXGATE_NOT_SET}")
	if status != 1 || !strings.HasPrefix(results["connect"], "FAILED") {
		t.Errorf("%d %v", status, results)
	}
}

// TestCheck_Local_NoGate_Unreachable is the exit status of a HEALTHCHECK.
func TestCheck_Local_NoGate_Unreachable(t *testing.T) {
	status, out, _ := caddytest.RunCommand(t, checkCommand(), "--local", "--address", "127.0.0.1:1")
	if status != 2 || !strings.HasPrefix(out, "FAILED  gate  ") {
		t.Errorf("%d %s", status, out)
	}
}

// clockedStore is a store whose server has a clock.
type clockedStore struct {
	store.Store
	clock *store.Clock
}

func (c clockedStore) Clock() *store.Clock { return c.clock }

// TestCheck_ClockOfTheStore_IsJudged: gates go by that clock, so a difference fails.
func TestCheck_ClockOfTheStore_IsJudged(t *testing.T) {
	at := func(ahead time.Duration) *store.Clock {
		now := time.Now()
		return &store.Clock{Server: now.Round(0).Add(ahead), Local: now}
	}
	for _, tt := range []struct {
		clock *store.Clock
		want  []verdict
	}{
		{nil, nil}, // an ACL forbids TIME
		{at(0), []verdict{checkedOK}},
		{at(-20 * time.Second), []verdict{checkedWarning}},
		{at(87600 * time.Hour), []verdict{checkedFailed}},
	} {
		c := new(checks)
		checkStoreClock(c, "redis:x", clockedStore{clock: tt.clock})
		var got []verdict
		for _, f := range c.found {
			got = append(got, f.Result)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.clock, got, tt.want)
		}
	}
}
