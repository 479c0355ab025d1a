package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOpenAPI_TokenFile reads tokens that another program fetches, asks WeChat for none,
// and takes a new one from the file at once.
func TestOpenAPI_TokenFile(t *testing.T) {
	t.Parallel()
	const target = "/cgi-bin/message/subscribe/send"
	wechat, dir := newStandIn(t, ok), t.TempDir()
	s := setup{base: wechat.URL, env: []string{"WX_SECRET_OTHER=canary-secret-of-the-other"}}
	type source struct{ word, parameter, file, addr string }
	var sources []source
	for i, src := range []source{
		{word: "token_file", parameter: "access_token", file: "token"},
		{word: "cloud_token_file", parameter: "cloudbase_access_token", file: "cloud"},
		{word: "token_file", file: "none"},
		{word: "cloud_token_file", file: "none, either"},
	} {
		src.file, src.addr = filepath.Join(dir, src.file), freeAddr(t)
		app := fmt.Sprintf("wx00000000000000f%d", i)
		s.wechat += fmt.Sprintf("\t\tapp %s {env.WX_SECRET_OTHER} {\n\t\t\t%s %q\n\t\t}\n",
			app, src.word, src.file)
		s.sites += apiSite(src.addr, "\t\tapp "+app)
		sources = append(sources, src)
	}
	w := newWorld(t, s)
	for _, src := range sources {
		if src.parameter == "" { // there never was a token
			ask(t, src.addr, "POST", target, "{}").problem(t, 502, "misconfigured")
			continue
		}
		for _, want := range []string{"canary-file-1", "canary-file-2"} {
			if err := os.WriteFile(src.file, []byte(want+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if r := ask(t, src.addr, "POST", target, "{}",
				"Content-Type: application/json"); r.status != 200 {
				t.Fatalf("%s: answered with %s", src.word, r)
			}
			seen := wechat.take()
			if len(seen) != 1 || seen[0].URL.Query().Get(src.parameter) != want ||
				strings.Count(seen[0].URL.RawQuery, "access_token") != 1 {
				t.Fatalf("%s: WeChat saw %d calls", src.word, len(seen))
			}
		}
	}
	w.gate.logs(t, 0, map[string]int{`"error":"getting access token: `: 2})
	if strings.Contains(w.out.String(), "reverseproxy.") {
		t.Error("the log tells a place in Caddy's source")
	}
	wechat.mu.Lock()
	defer wechat.mu.Unlock()
	if wechat.tokens != 0 {
		t.Errorf("%d tokens were asked for", wechat.tokens)
	}
}
