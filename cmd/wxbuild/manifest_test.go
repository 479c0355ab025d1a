package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const goodManifest = `{
	"caddy_version": "v2.11.9",
	"plugins": [{"module_path": "example.org/gate/caddymodule"}],
	"replacements": [{"old": "example.org/gate", "new": "."}],
	"build_flags": "-trimpath"
}`

func TestDecodeManifest(t *testing.T) {
	m, err := decodeManifest("x.json", []byte(goodManifest))
	if err != nil {
		t.Fatal(err)
	}
	want := &manifest{
		CaddyVersion: "v2.11.9",
		Plugins:      []plugin{{Path: "example.org/gate/caddymodule"}},
		Replacements: []replacement{{Old: "example.org/gate", New: "."}},
		BuildFlags:   "-trimpath",
		file:         "x.json",
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func TestDecodeManifestRefuses(t *testing.T) {
	tests := []struct {
		name, text string
		want       string
	}{
		{"empty", ``, "x.json: is not JSON"},
		{"syntax names the line", "{\n\t\"os\": \"linux\",\n}", "x.json: is not JSON: line 3"},
		{"text after the object", `{} {}`, "x.json: is not JSON"},
		{"not an object", `[]`, "x.json: must be of type object, not array"},
		{"unknown key", `{"homepage": "x"}`, "x.json: homepage: unknown key; wxbuild honours os, arch"},
		{"key of xcaddy that is not honoured", `{"debug": true}`, "x.json: debug: unknown key"},
		{"key in another case", `{"Plugins": []}`, "x.json: Plugins: unknown key"},
		{"unknown key in a plugin", `{"plugins": [{"path": "x"}]}`, "x.json: plugins.path: unknown key; wxbuild honours module_path, version"},
		{"unknown key in a replacement", `{"replacements": [{"New": "x"}]}`, "x.json: replacements.New: unknown key"},
		{"repeated key", `{"os": "linux", "os": "windows"}`, "x.json: os: given twice"},
		{"repeated key written differently", "{\"os\": \"linux\", \"\\u006fs\": \"windows\"}", "x.json: os: given twice"},
		{"repeated list", `{"plugins": [], "plugins": []}`, "x.json: plugins: given twice"},
		{"repeated key in a plugin", `{"plugins": [{"version": "v1"}, {"version": "v1", "version": "v2"}]}`, "x.json: plugins.version: given twice"},
		{"plugin is null", `{"plugins": [null]}`, "x.json: plugins: must hold objects"},
		{"plugin is a string", `{"plugins": ["x"]}`, "x.json: plugins: must be of type object, not string"},
		{"plugins is no list", `{"plugins": {}}`, "x.json: plugins: must be of type array, not object"},
		{"wrong type", `{"caddy_version": 2}`, "x.json: caddy_version: must be of type string, not number"},
		{"wrong type in a plugin", `{"plugins": [{"version": 2}]}`, "x.json: plugins.version: must be of type string, not number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodeManifest("x.json", []byte(tt.text))
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q…", err, tt.want)
			}
		})
	}
}

// TestKnownKeysAreTheFields keeps the list of keys and the structs that hold them the same.
func TestKnownKeysAreTheFields(t *testing.T) {
	for place, typ := range map[string]reflect.Type{
		"":             reflect.TypeFor[manifest](),
		"plugins":      reflect.TypeFor[plugin](),
		"replacements": reflect.TypeFor[replacement](),
	} {
		var keys []string
		for f := range typ.Fields() {
			if f.IsExported() {
				keys = append(keys, f.Tag.Get("json"))
			}
		}
		if !slices.Equal(keys, knownKeys[place]) {
			t.Errorf("%s has fields %q, known keys %q", typ, keys, knownKeys[place])
		}
	}
}

func TestReadManifestNamesTheFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.json")
	if _, err := readManifest(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("got error %v, want one naming %s", err, missing)
	}
}

func FuzzDecodeManifest(f *testing.F) {
	for _, seed := range []string{goodManifest, `{}`, `[`, `null`, `{"plugins":[{"version":"v1"},{}]}`, `{"plugins":null}`, `{"replacements":[[]]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decodeManifest("x.json", data)
		if (m == nil) == (err == nil) {
			t.Fatalf("got manifest %v with error %v", m, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "x.json: ") {
			t.Errorf("error %q does not name the file", err)
		}
	})
}
