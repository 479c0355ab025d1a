package block

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
	const secret = "canary5ecret0123456789abcdef0123"
	t.Setenv("WX_SET", secret)
	t.Setenv("WX_BRACES", "a{env.WX_SET}b")
	t.Setenv("WX_SPACES", "  "+secret+"\n")
	crlf, newlines := file("crlf", secret+"\r\n"), file("newlines", secret+"\n\n")
	for _, c := range []struct {
		name, value, want string
		fail              bool
	}{
		{name: "variable", value: "{env.WX_SET}", want: secret},
		{name: "variable with white space around", value: "{env.WX_SPACES}", want: secret},
		{name: "variable unset", value: "{env.WX_UNSET}"},
		{name: "variable with a placeholder", value: "{env.WX_BRACES}", want: "a{env.WX_SET}b"},
		{name: "file", value: file("plain", secret), want: secret},
		{name: "file with a newline", value: file("newline", secret+"\n"), want: secret},
		{name: "file with a Windows newline", value: crlf, want: secret},
		{name: "file with several newlines", value: newlines, want: secret},
		{name: "file with a space in its name", value: file("a name", secret), want: secret},
		{name: "file empty", value: file("empty", "")},
		{name: "file missing", value: "{file." + dir + "/nothing}"},
		{name: "file is a folder", value: "{file." + dir + "}"},
		{name: "literal", value: secret, fail: true},
		{name: "empty", value: "", fail: true},
		{name: "braces", value: "{" + secret + "}", fail: true},
		{name: "braces and a dot", value: "{a." + secret + "}", fail: true},
		{name: "not closed", value: "{env." + secret, fail: true},
		{name: "not opened", value: "env." + secret + "}", fail: true},
		{name: "two", value: "{env.WX_SET}" + secret + "{env.WX_SET}", fail: true},
		{name: "one in another", value: "{env.{env." + secret + "}}", fail: true},
		{name: "text before", value: secret + "{env.WX_SET}", fail: true},
		{name: "text behind", value: "{env.WX_SET}" + secret, fail: true},
		{name: "of Caddy but no secret", value: "{system.hostname}", fail: true},
		{name: "of a request", value: "{http.request.header.X-Secret}", fail: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ResolveSecret("the thing", c.value)
			if got != c.want || (err != nil) != c.fail {
				t.Errorf("got %q, %v; want %q, fail %v", got, err, c.want, c.fail)
			}
			if err == nil {
				return
			}
			text := err.Error()
			if strings.Contains(text, secret) || !strings.Contains(text, "the thing") ||
				!strings.Contains(text, "{env.NAME}") {
				t.Errorf("message %q", text)
			}
		})
	}
}
