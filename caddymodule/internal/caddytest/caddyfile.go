package caddytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// Wrong is a name, a Caddyfile that must be refused on the line that ends in
// "# here", and parts of the message.
type Wrong []string

// RunWrong holds that each Caddyfile is refused on its line, with a message that
// tells the cure and no secret (threat 7).
func RunWrong(t *testing.T, cases []Wrong) {
	t.Setenv("CANARY_SECRET", Canary)
	for _, c := range cases {
		t.Run(c[0], func(t *testing.T) {
			line := 0
			for i, l := range strings.Split(c[1], "\n") {
				if strings.Contains(l, "# here") {
					line = i + 1
				}
			}
			out, _, err := Adapt(c[1])
			if err == nil {
				t.Fatalf("accepted as %s", out)
			}
			for _, want := range append(c[2:], fmt.Sprintf("Caddyfile:%d", line)) {
				if !strings.Contains(err.Error()+"\n", want) {
					t.Errorf("message lacks %q:\n%s", want, err)
				}
			}
			if strings.Contains(err.Error(), Canary) {
				t.Errorf("message shows the secret: %s", err)
			}
		})
	}
}

const head = "{\n\twechat {\n\t\tapp " + AppID + " {env.WX_SECRET}\n"

// Option is a Caddyfile whose global option holds lines beside a good app.
func Option(lines string) string {
	return head + lines + "\n\t}\n}\n\n:80 {\n\twechat_auth\n\treverse_proxy 127.0.0.1:8080\n}\n"
}

// OptionEnd is Option for a mistake that only the whole block shows: the message
// names its end.
func OptionEnd(lines string) string {
	return strings.Replace(Option(lines), "\n\t}", "\n\t} # here", 1)
}

// Apps is a Caddyfile whose global option holds nothing but lines.
func Apps(lines string) string {
	return "{\n\twechat {\n" + lines + "\n\t}\n}\n\n:80 {\n\twechat_auth\n}\n"
}

// Directive is a Caddyfile whose site holds lines.
func Directive(lines string) string {
	return head + "\t}\n}\n\n:80 {\n" + lines + "\n}\n"
}

// Site is a Caddyfile whose wechat_auth holds lines.
func Site(lines string) string {
	return Directive("\twechat_auth {\n" + lines + "\n\t}\n\treverse_proxy 127.0.0.1:8080")
}

const tenDashes = "\n----------\n"

// RunGolden holds what each Caddyfile of testdata becomes, and that Caddy accepts
// it. With WXGATE_UPDATE set it writes the files.
func RunGolden(t *testing.T) {
	SetSecrets(t)
	names, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".caddyfiletest"), func(t *testing.T) {
			runGolden(t, name)
		})
	}
}

func runGolden(t *testing.T, name string) {
	text, want := ReadGolden(t, name)
	out, warnings, err := Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings {
		t.Error(w)
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, out, "", "\t"); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	if os.Getenv("WXGATE_UPDATE") != "" {
		content := text[:len(text)-1] + tenDashes + pretty.String()
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := pretty.String(); got != want {
		t.Errorf("adapted to\n%s\nwant\n%s", got, want)
	}
	for _, secret := range []string{Canary, SealKey, PushToken, PushKey} {
		if strings.Contains(pretty.String(), secret) {
			t.Error("a secret is written out")
		}
	}
	cfg := Load(t, pretty.String())
	cfg.Logging = Quiet()
	if err := caddy.Validate(cfg); err != nil {
		t.Errorf("refused by Validate: %v", err)
	}
}

// ReadGolden returns the Caddyfile of a golden file and the JSON that it becomes.
func ReadGolden(t testing.TB, name string) (text, want string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text, want, ok := strings.Cut(string(b), tenDashes)
	if !ok {
		t.Fatal("no line of ten dashes")
	}
	return text + "\n", want
}

// Reachable holds that the golden file all_options sets every field of a module.
// Name is the app's name, or that of a handler; except names fields that the file
// cannot set beside the others.
func Reachable(t *testing.T, name string, module any, except ...string) {
	t.Helper()
	text, _ := ReadGolden(t, "testdata/all_options.caddyfiletest")
	out, _, err := Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	var cfg any
	if err := json.Unmarshal(out, &cfg); err != nil {
		t.Fatal(err)
	}
	got := find(cfg, name)
	if got == nil {
		t.Fatalf("all_options has no %s", name)
	}
	for _, field := range except {
		got[field] = true
	}
	missing(t, name, got, jsonFields(module))
}

// find returns the first handler or app of a name in a configuration.
func find(v any, name string) map[string]any {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if h := find(e, name); h != nil {
				return h
			}
		}
	case map[string]any:
		if v["handler"] == name {
			return v
		}
		for key, e := range v {
			if h, ok := e.(map[string]any); ok && key == name {
				return h
			}
			if h := find(e, name); h != nil {
				return h
			}
		}
	}
	return nil
}

// jsonFields returns the JSON names of a struct's fields, those of structs inside
// it as maps.
func jsonFields(v any) map[string]any {
	names := make(map[string]any)
	for f := range reflect.TypeOf(v).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		names[name] = nil
		if f.Type.Kind() == reflect.Struct {
			names[name] = jsonFields(reflect.Zero(f.Type).Interface())
		}
	}
	return names
}

// missing reports the fields that got lacks.
func missing(t *testing.T, what string, got map[string]any, fields map[string]any) {
	t.Helper()
	for name, inner := range fields {
		v, ok := got[name]
		if !ok {
			t.Errorf("%s: nothing in the Caddyfile sets %q", what, name)
		}
		if inner, ok := inner.(map[string]any); ok {
			sub, _ := v.(map[string]any)
			missing(t, what+"."+name, sub, inner)
		}
	}
}
