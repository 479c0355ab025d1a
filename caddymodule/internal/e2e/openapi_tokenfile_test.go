package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenAPI_TokenFile reads a token that another program fetches, asks WeChat
// for none, and takes a new one from the file at once.
func TestOpenAPI_TokenFile(t *testing.T) {
	t.Parallel()
	for word, parameter := range map[string]string{
		"token_file": "access_token", "cloud_token_file": "cloudbase_access_token",
	} {
		t.Run(word, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			put := func(token string) {
				t.Helper()
				if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			put("canary-file-1")
			const other = "wx00000000000000f1"
			_, base, wechat := standInWorld(t, setup{
				wechat: "\t\tapp " + other + " {env.WX_SECRET_OTHER} {\n\t\t\t" + word + " " +
					file + "\n\t\t}",
				env: []string{"WX_SECRET_OTHER=canary-secret-of-the-other"},
			}, "\t\tapp "+other, ok)
			for _, want := range []string{"canary-file-1", "canary-file-2"} {
				put(want)
				if r := ask(t, base, "POST", "/cgi-bin/message/subscribe/send", "{}",
					"Content-Type: application/json"); r.status != 200 {
					t.Fatalf("answered with %s", r)
				}
				seen := wechat.take()
				if len(seen) != 1 || seen[0].URL.Query().Get(parameter) != want ||
					strings.Count(seen[0].URL.RawQuery, "access_token") != 1 {
					t.Fatalf("WeChat saw %d calls", len(seen))
				}
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			// The last token goes on for ten seconds, but not in a gate that
			// never had one.
			fresh := freeAddr(t)
			w := newWorld(t, setup{
				base: wechat.URL, sites: apiSite(fresh, "\t\tapp "+other),
				wechat: "\t\tapp " + other + " {env.WX_SECRET_OTHER} {\n\t\t\t" + word + " " +
					file + "\n\t\t}",
				env: []string{"WX_SECRET_OTHER=canary-secret-of-the-other"},
			})
			ask(t, fresh, "POST", "/cgi-bin/message/subscribe/send",
				"{}").problem(t, 502, "misconfigured")
			w.gate.printed(t, 0, `"error":"getting access token: `)
			if strings.Contains(w.out.String(), "reverseproxy.") {
				t.Error("the log tells a place in Caddy's source")
			}

			wechat.mu.Lock()
			defer wechat.mu.Unlock()
			if wechat.tokens != 0 {
				t.Errorf("%d tokens were asked for", wechat.tokens)
			}
		})
	}
}
