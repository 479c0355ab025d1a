package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// trouble is a symptom of the guide, by the anchor of its section.
type trouble struct {
	anchor string
	cause  func()
	more   func()   // again before each look
	env    []string // in place of the usual
	end    func()
}

var anyBlock = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

// symptoms returns the commands of each section of the guide, and the lines that it
// quotes of what they print.
func symptoms(t *testing.T, page string) (commands, lines map[string][]string) {
	t.Helper()
	commands, lines = make(map[string][]string), make(map[string][]string)
	for _, section := range strings.Split(page, `<a id="`)[1:] {
		anchor, text, _ := strings.Cut(section, `"`)
		for _, block := range anyBlock.FindAllStringSubmatch(text, -1) {
			switch block[1] {
			case "sh":
				commands[anchor] = append(commands[anchor], block[2])
			case "":
				quoted := strings.Split(strings.TrimSpace(block[2]), "\n")
				lines[anchor] = append(lines[anchor], quoted...)
			}
		}
	}
	return commands, lines
}

// oneBlank makes columns of any width the same.
func oneBlank(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestGuide_Troubleshooting_CommandsTell causes each trouble of the guide, runs the
// command of its section as it stands, and looks for the lines that the guide quotes.
func TestGuide_Troubleshooting_CommandsTell(t *testing.T) {
	slow(t)
	t.Parallel()
	need(t, "bash")
	need(t, "curl")
	const guide = "examples/operate/troubleshooting/"
	commands, lines := symptoms(t, manual(t, guide+"README.md"))
	_, chinese := symptoms(t, manual(t, guide+"README.zh-CN.md"))

	w := prepareWorld(t, setup{})
	host := "api.localhost:" + portOf(w.addr)
	writeProduct(t, w.home)
	config := w.write(t, "Caddyfile", strings.ReplaceAll(
		manual(t, guide+"Caddyfile"), "127.0.0.1:8080", freeAddr(t))) // the app is down
	w.env = []string{
		"WX_SECRET=" + secretOf(appA), "WX_API=" + w.wechat.URL, "ADMIN=" + w.admin,
		"SITE=http://" + host, diskEnv + "=" + w.database(),
	}
	w.run(t, "--config", config, "--adapter", "caddyfile")

	send := func(target, body string, headers ...string) reply {
		return raw(t, w.addr, request(host, "POST", target, body, headers...))
	}
	tryLogin := func(user string) reply {
		return send("/wx/login", codeBody(w.wechat.Code(appA, user)),
			"Content-Type: application/json")
	}
	token := tryLogin("ada").session(t).Token
	operate := func(args ...string) {
		t.Helper()
		args = slices.Concat([]string{"wechat"}, args,
			[]string{"--config", config, "--appid", appA, "--openid"})
		user := "ada"
		if args[1] == "block" {
			user = "bob"
		}
		if status, said := w.command(t, append(args, w.wechat.OpenID(appA, user))...); status != 0 {
			t.Fatalf("%q: %s", args, said)
		}
	}
	fails := func(f weixintest.Fault) {
		f.Path = exchangePath
		w.wechat.Inject(f)
		tryLogin("cat")
	}
	all := []trouble{
		{anchor: "first"},
		{anchor: "blank", env: []string{"SITE=http://" + w.addr}},
		{anchor: "app"},
		{anchor: "401", cause: func() { operate("revoke") }},
		{anchor: "ends"},
		{anchor: "400", cause: func() { send("/wx/login", "code", "Content-Type: text/plain") }},
		{anchor: "403", cause: func() {
			operate("block", "--reason", "spam")
			tryLogin("bob").problem(t, 403, "user_blocked")
		}},
		{anchor: "429", cause: func() {
			bearer := bearer(tryLogin("dan").session(t).Token)
			for range 11 {
				send("/wx/decrypt", `{"encryptedData":"AAAAAAAAAAAAAAAAAAAAAA==",`+
					`"iv":"AAAAAAAAAAAAAAAAAAAAAA=="}`, bearer, "Content-Type: application/json")
			}
		}},
		{anchor: "502", cause: func() {
			w.wechat.SetSecret(appA, "another")
			tryLogin("cat").problem(t, 502, "misconfigured")
		}, end: func() { w.wechat.SetSecret(appA, secretOf(appA)) }},
		{anchor: "cors"},
		{anchor: "header"},
		{anchor: "clock"},
		{anchor: "store", cause: func() {
			w.turn(t, "the disk is full")
			tryLogin("eve").problem(t, 503, "store_unavailable")
		}, end: func() {
			w.turn(t, "the disk has room")
			eventually(t, "logins work again", func() bool { return tryLogin("eve").status == 200 })
		}},
		{anchor: "partly", more: func() {
			fails(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1, Times: 2})
			tryLogin("cat")
		}},
		{anchor: "wechat", more: func() {
			for range 5 {
				fails(weixintest.Fault{Kind: weixintest.FaultHTML})
			}
		}, end: w.wechat.Reset},
		{anchor: "domain"},
		{anchor: "redis"},
		{anchor: "certificate"},
		{anchor: "start"},
		{anchor: "key", cause: func() {
			w.gate.kill()
			if err := os.Remove(w.database() + ".key"); err != nil {
				t.Fatal(err)
			}
		}},
	}
	var tried []string
	for _, c := range all {
		tried = append(tried, c.anchor)
		t.Run(c.anchor, func(t *testing.T) {
			if c.cause != nil {
				c.cause()
			}
			env := slices.Concat(w.env, []string{
				"PATH=" + w.home + ":" + os.Getenv("PATH"), "CONFIG=" + config, "TOKEN=" + token,
				"XDG_DATA_HOME=" + filepath.Join(w.home, "data"),
			}, c.env)
			script := "log() { cat gate.log; }\n" + strings.Join(commands[c.anchor], "") + "true\n"
			// A line may come after the answer that it is about.
			eventually(t, fmt.Sprintf("the commands print %q", lines[c.anchor]), func() bool {
				if c.more != nil {
					c.more()
				}
				w.write(t, "gate.log", w.out.String())
				printed := oneBlank(runShell(t, w.home, env, script))
				return !slices.ContainsFunc(lines[c.anchor], func(line string) bool {
					return !strings.Contains(printed, oneBlank(line))
				})
			})
			if !slices.Equal(lines[c.anchor], chinese[c.anchor]) {
				t.Errorf("the Chinese page quotes %q", chinese[c.anchor])
			}
			if c.end != nil {
				c.end()
			}
		})
	}
	for anchor := range commands {
		if !slices.Contains(tried, anchor) {
			t.Errorf("#%s is not tried", anchor)
		}
	}
}
