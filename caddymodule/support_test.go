package caddymodule

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy" // what the Caddyfiles of the tests end in
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

const (
	appID      = "wx0123456789abcdef"
	otherAppID = "wxfedcba9876543210"
	canary     = "canary5ecret0123456789abcdef0123"
)

// adapt runs a Caddyfile through Caddy's own adapter.
func adapt(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
}

// load reads a JSON configuration as Caddy does.
func load(t testing.TB, text string) *caddy.Config {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	cfg := new(caddy.Config)
	if err := dec.Decode(cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// files lists everything under a folder.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if path != dir {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// sealKey is a good master key.
const sealKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// setSecrets sets every variable that the Caddyfiles of the tests name.
func setSecrets(t testing.TB) {
	t.Helper()
	for name, value := range map[string]string{
		"WX_SECRET": canary, "WX_SECRET_3": canary, "WX_APPID": "wxaaaaaaaaaaaaaaaa", "WX_SEAL_KEY": sealKey,
	} {
		t.Setenv(name, value)
	}
}

// jsonFields returns the JSON names of a struct's fields, those of structs inside it as maps.
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

// findHandler returns the first handler of a kind in adapted routes.
func findHandler(v any, name string) map[string]any {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if h := findHandler(e, name); h != nil {
				return h
			}
		}
	case map[string]any:
		if v["handler"] == name {
			return v
		}
		for _, e := range v {
			if h := findHandler(e, name); h != nil {
				return h
			}
		}
	}
	return nil
}

func readCloser(body string) io.ReadCloser { return io.NopCloser(strings.NewReader(body)) }

// count returns the sum of what a counter has counted under all labels. (The testutil of client_golang would bring a dependency of its own.)
func count(c prometheus.Collector) float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		panic(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// newMasters returns master keys that may be in one ring: one pair in 64 may not.
func newMasters(n int) (masters []string) {
	for len(masters) < n {
		k := keyring.NewMasterKey()
		if _, err := keyring.Parse(strings.Join(append(masters, k), ",")); err == nil {
			masters = append(masters, k)
		}
	}
	return masters
}
