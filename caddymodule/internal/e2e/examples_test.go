package e2e_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// moduleRoot is seen from this package's folder, where its tests run.
const moduleRoot = "../../.."

// caddyfiles returns every Caddyfile of the repository that users may copy, by
// its path from the root.
func caddyfiles(tb testing.TB) map[string]string {
	tb.Helper()
	found := make(map[string]string)
	for _, pattern := range []string{
		"Caddyfile", "examples/*/Caddyfile*", "examples/*/*/Caddyfile*",
	} {
		names, err := filepath.Glob(filepath.Join(moduleRoot, pattern))
		if err != nil {
			tb.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				tb.Fatal(err)
			}
			from, err := filepath.Rel(moduleRoot, name)
			if err != nil {
				tb.Fatal(err)
			}
			found[from] = string(text)
		}
	}
	return found
}

// adapt turns a Caddyfile into JSON as `wxgate adapt` does.
func adapt(text string) (config []byte, err error) {
	config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text),
		map[string]any{"filename": "Caddyfile"})
	if err == nil && len(warnings) > 0 {
		err = fmt.Errorf("warnings: %v", warnings)
	}
	return config, err
}

func TestExamples_Adapt(t *testing.T) {
	all := caddyfiles(t)
	if len(all) < 4 {
		t.Errorf("found %d Caddyfiles, want the one at the top and some examples", len(all))
	}
	for name, text := range all {
		if _, err := adapt(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := string(caddyfile.Format([]byte(text))); got != text {
			t.Errorf("%s is not formatted as `wxgate fmt` does", name)
		}
	}
}

func keys[V any](m map[string]V) (names []string) {
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return names
}

// site is one guarded site of a configuration.
type site struct {
	addr string
	host string   // or the address, where any host will do
	path string   // of the app
	apps []string // mini programs that it accepts
}

// patched is a configuration moved onto this machine.
type patched struct {
	json  []byte
	apps  []string // mini programs
	sites []site
	api   string // address of the listener with a wechat_api, if there is one
}

// secretEnv names the variable with the secret of a mini program.
func secretEnv(appID string) string { return "WX_SECRET_OF_" + appID }

// patch changes the addresses of a configuration, and nothing else: the
// listener, without TLS; the upstreams; the API of WeChat; where secrets and
// sessions are; and how long a stop waits.
func patch(tb testing.TB, config []byte, listen, admin, upstream, wechat string) (p patched) {
	tb.Helper()
	var c struct {
		Admin map[string]any `json:"admin,omitempty"`
		Apps  struct {
			WeChat map[string]any `json:"wechat"`
			HTTP   map[string]any `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		tb.Fatal(err)
	}
	c.Admin = map[string]any{"listen": admin}
	api, _ := c.Apps.WeChat["api"].(map[string]any)
	if api == nil {
		api = make(map[string]any)
	}
	api["base_url"] = wechat
	c.Apps.WeChat["api"] = api
	if store, _ := c.Apps.WeChat["store"].(map[string]any); store != nil {
		delete(store, "path") // in the data folder
	}
	delete(c.Apps.HTTP, "shutdown_delay") // which the next configuration would wait for
	for i, a := range c.Apps.WeChat["apps"].([]any) {
		m := a.(map[string]any)
		id := m["appid"].(string)
		if strings.HasPrefix(id, "{") {
			id = fmt.Sprintf("wx%016d", i)
		}
		m["appid"], m["secret"] = id, "{env."+secretEnv(id)+"}"
		p.apps = append(p.apps, id)
	}
	guarding := 0
	for _, server := range c.Apps.HTTP["servers"].(map[string]any) {
		s := server.(map[string]any)
		if holdsHandler(s, "wechat_api") {
			p.api = freeAddr(tb)
			s["listen"] = []string{p.api}
			delete(s["routes"].([]any)[0].(map[string]any),
				"match") // the address, by which it is called here
			continue
		}
		if holdsHandler(s, "metrics") {
			s["listen"] = []string{freeAddr(tb)}
			continue
		}
		guarding++
		s["listen"] = []string{listen}
		s["automatic_https"] = map[string]any{"disable": true}
		delete(s, "tls_connection_policies")
		for _, r := range s["routes"].([]any) {
			route := r.(map[string]any)
			guarded := site{addr: listen, host: listen, path: "/hello", apps: p.apps}
			walkJSON(route, func(m map[string]any) {
				if required, ok := m["required"].([]any); ok && m["handler"] == "wechat_auth" {
					guarded.path = strings.TrimSuffix(required[0].(string), "/*") + guarded.path
				}
				switch {
				case m["handler"] == "wechat_auth" && m["apps"] != nil:
					guarded.apps = nil
					for _, id := range m["apps"].([]any) {
						guarded.apps = append(guarded.apps, id.(string))
					}
				case m["handler"] == "reverse_proxy":
					m["upstreams"] = []any{map[string]any{"dial": upstream}}
				}
			})
			if match, ok := route["match"].([]any); ok {
				guarded.host = match[0].(map[string]any)["host"].([]any)[0].(string)
			}
			p.sites = append(p.sites, guarded)
		}
	}
	if guarding != 1 {
		tb.Fatalf("the configuration has %d servers for clients, want one", guarding)
	}
	var err error
	if p.json, err = json.Marshal(c); err != nil {
		tb.Fatal(err)
	}
	return p
}

func holdsHandler(v any, name string) (found bool) {
	walkJSON(v, func(m map[string]any) { found = found || m["handler"] == name })
	return found
}

// walkJSON visits every object in v.
func walkJSON(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v)
		for _, inner := range v {
			walkJSON(inner, visit)
		}
	case []any:
		for _, inner := range v {
			walkJSON(inner, visit)
		}
	}
}

// TestExamples_Run loads each Caddyfile with other addresses, one after another
// into a gate for each kind of store. On every site a user of every mini program
// logs in and calls the app.
func TestExamples_Run(t *testing.T) {
	t.Parallel()
	configs := map[string]map[string][]byte{"bolt": {}, "redis": {}}
	for name, text := range caddyfiles(t) {
		if !strings.Contains(text, "wechat {") || !strings.Contains(text, "reverse_proxy") {
			continue // it asks a gate elsewhere, or answers another proxy
		}
		if strings.Contains(text, "\tcomponent ") {
			continue // it waits for a ticket: its guide runs it
		}
		config, err := adapt(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		store := "bolt"
		if strings.Contains(text, "store redis") {
			store = "redis"
		}
		configs[store][name] = config
	}
	for store, configs := range configs {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			w := exampleWorld(t, store, configs)
			for name, config := range configs {
				t.Run(name, func(t *testing.T) { runExample(t, w, config) })
			}
		})
	}
}

// exampleWorld starts a gate that knows the secrets of all mini programs of the
// configurations.
func exampleWorld(t *testing.T, store string, configs map[string][]byte) *world {
	t.Helper()
	env := []string{
		"WX_PUSH_TOKEN=demoToken", "WX_PUSH_KEY=abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
	}
	if store == "redis" {
		env = append(env,
			"REDIS_ADDR="+redistest.Start(t, redistest.Password(fleetPassword)).Addr,
			"REDIS_PASSWORD="+fleetPassword, "WX_SEAL_KEY="+fleetSealKey)
	}
	s := setup{env: env}
	for _, config := range configs {
		s.apps = append(s.apps, patch(t, config, "x:1", "x:2", "x:3", "http://x").apps...)
	}
	slices.Sort(s.apps)
	s.apps = slices.Compact(s.apps)
	for _, id := range s.apps {
		s.env = append(s.env, secretEnv(id)+"="+secretOf(id))
	}
	return newWorld(t, s)
}

// runExample visits the sites of one configuration.
func runExample(t *testing.T, w *world, config []byte) {
	p := patch(t, config, freeAddr(t), w.admin, w.app.addr, w.wechat.URL)
	if status, said := w.load(t, "application/json", string(p.json)); status != 200 {
		t.Fatalf("loading: status %d: %s", status, said)
	}
	if len(p.sites) == 0 {
		t.Fatal("no site")
	}
	for _, s := range p.sites {
		for _, id := range s.apps {
			s.try(t, w, id)
		}
		raw(t, s.addr, request(s.host, "GET", s.path, "")).problem(t, 401, "session_missing")
	}
	if p.api != "" {
		openid := w.wechat.OpenID(p.apps[0], "ada")
		body := map[string]any{"appid": p.apps[0], "openid": openid}
		r := userCall(t, p.api, "checksession", body).object(t)
		if r["valid"] != true {
			t.Errorf("the app's side answers %v", r)
		}
	}
}

// try logs a user in and calls the app.
func (s site) try(t *testing.T, w *world, appID string) {
	t.Helper()
	body := appBody(w.wechat.Code(appID, "ada"), appID)
	token := raw(t, s.addr, request(s.host, "POST", "/wx/login", body)).session(t).Token
	r := raw(t, s.addr, request(s.host, "GET", s.path, "", bearer(token)))
	if !r.fromApp() {
		t.Fatalf("%s: the call is answered with %s", s.host, r)
	}
	got := r.received(t)
	got.Headers = slices.DeleteFunc(got.Headers, func(line string) bool { // its own test checks it
		return strings.HasPrefix(strings.ToLower(line), "x-wx-assertion:")
	})
	got.check(t, w.who(appID, "ada"))
}

// TestExamples_AreAll holds that these tests read every Caddyfile in the
// repository.
func TestExamples_AreAll(t *testing.T) {
	known := caddyfiles(t)
	err := filepath.WalkDir(moduleRoot, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() &&
			(d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".." &&
				name != moduleRoot):
			return filepath.SkipDir
		case !d.IsDir() && strings.Contains(d.Name(), "Caddyfile"):
			from, err := filepath.Rel(moduleRoot, name)
			if _, ok := known[from]; !ok {
				t.Errorf("%s is not looked at", from)
			}
			return err
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
