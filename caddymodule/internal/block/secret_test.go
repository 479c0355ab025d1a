package block

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

func TestResolveSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + path + "}"
	}
	t.Setenv("WX_SET", caddytest.Canary)
	t.Setenv("WX_BRACES", "a{env.WX_SET}b")
	t.Setenv("WX_SPACES", "  "+caddytest.Canary+"\n")
	for _, c := range []struct {
		name, value, want string
		fail              bool
	}{
		{name: "variable", value: "{env.WX_SET}", want: caddytest.Canary},
		{name: "variable with white space around", value: "{env.WX_SPACES}", want: caddytest.Canary},
		{name: "variable unset", value: "{env.WX_UNSET}"},
		{name: "variable that holds a placeholder", value: "{env.WX_BRACES}", want: "a{env.WX_SET}b"},
		{name: "file", value: file("plain", caddytest.Canary), want: caddytest.Canary},
		{name: "file with a newline", value: file("newline", caddytest.Canary+"\n"), want: caddytest.Canary},
		{name: "file with a Windows newline", value: file("crlf", caddytest.Canary+"\r\n"), want: caddytest.Canary},
		{name: "file with several newlines", value: file("newlines", caddytest.Canary+"\n\n"), want: caddytest.Canary},
		{name: "file with a space in its name", value: file("a name", caddytest.Canary), want: caddytest.Canary},
		{name: "file empty", value: file("empty", "")},
		{name: "file missing", value: "{file." + dir + "/nothing}"},
		{name: "file is a folder", value: "{file." + dir + "}"},
		{name: "literal", value: caddytest.Canary, fail: true},
		{name: "empty", value: "", fail: true},
		{name: "braces", value: "{" + caddytest.Canary + "}", fail: true},
		{name: "braces and a dot", value: "{a." + caddytest.Canary + "}", fail: true},
		{name: "not closed", value: "{env." + caddytest.Canary, fail: true},
		{name: "not opened", value: "env." + caddytest.Canary + "}", fail: true},
		{name: "two", value: "{env.WX_SET}" + caddytest.Canary + "{env.WX_SET}", fail: true},
		{name: "one in another", value: "{env.{env." + caddytest.Canary + "}}", fail: true},
		{name: "text before", value: caddytest.Canary + "{env.WX_SET}", fail: true},
		{name: "text behind", value: "{env.WX_SET}" + caddytest.Canary, fail: true},
		{name: "of Caddy but no secret", value: "{system.hostname}", fail: true},
		{name: "of a request", value: "{http.request.header.X-Secret}", fail: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ResolveSecret("the thing", c.value)
			if got != c.want || (err != nil) != c.fail {
				t.Errorf("got %q, %v; want %q, fail %v", got, err, c.want, c.fail)
			}
			if err != nil &&
				(strings.Contains(err.Error(), caddytest.Canary) || !strings.Contains(err.Error(), "the thing") || !strings.Contains(err.Error(), "{env.NAME}")) {
				t.Errorf("message %q", err)
			}
		})
	}
}
