package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
	t.Setenv("WX_SET", canary)
	t.Setenv("WX_BRACES", "a{env.WX_SET}b")
	t.Setenv("WX_SPACES", "  "+canary+"\n")
	for _, c := range []struct {
		name, value, want string
		fail              bool
	}{
		{name: "variable", value: "{env.WX_SET}", want: canary},
		{name: "variable with white space around", value: "{env.WX_SPACES}", want: canary},
		{name: "variable unset", value: "{env.WX_UNSET}"},
		{name: "variable that holds a placeholder", value: "{env.WX_BRACES}", want: "a{env.WX_SET}b"},
		{name: "file", value: file("plain", canary), want: canary},
		{name: "file with a newline", value: file("newline", canary+"\n"), want: canary},
		{name: "file with a Windows newline", value: file("crlf", canary+"\r\n"), want: canary},
		{name: "file with several newlines", value: file("newlines", canary+"\n\n"), want: canary},
		{name: "file with a space in its name", value: file("a name", canary), want: canary},
		{name: "file empty", value: file("empty", "")},
		{name: "file missing", value: "{file." + dir + "/nothing}"},
		{name: "file is a folder", value: "{file." + dir + "}"},
		{name: "literal", value: canary, fail: true},
		{name: "empty", value: "", fail: true},
		{name: "braces", value: "{" + canary + "}", fail: true},
		{name: "braces and a dot", value: "{a." + canary + "}", fail: true},
		{name: "not closed", value: "{env." + canary, fail: true},
		{name: "not opened", value: "env." + canary + "}", fail: true},
		{name: "two", value: "{env.WX_SET}" + canary + "{env.WX_SET}", fail: true},
		{name: "one in another", value: "{env.{env." + canary + "}}", fail: true},
		{name: "text before", value: canary + "{env.WX_SET}", fail: true},
		{name: "text behind", value: "{env.WX_SET}" + canary, fail: true},
		{name: "of Caddy but no secret", value: "{system.hostname}", fail: true},
		{name: "of a request", value: "{http.request.header.X-Secret}", fail: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ResolveSecret("the thing", c.value)
			if got != c.want || (err != nil) != c.fail {
				t.Errorf("got %q, %v; want %q, fail %v", got, err, c.want, c.fail)
			}
			if err != nil && (strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "the thing") || !strings.Contains(err.Error(), "{env.NAME}")) {
				t.Errorf("message %q", err)
			}
		})
	}
}
