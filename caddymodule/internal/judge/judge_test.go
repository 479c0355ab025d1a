package judge_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/wxgate/wxgate/caddymodule"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/judge"
)

func TestMain(m *testing.M) { caddytest.MainProvisioning(m) }

// servers provisions the servers of a Caddyfile.
func servers(t *testing.T, text string) map[string]*caddyhttp.Server {
	t.Helper()
	caddytest.SetSecrets(t)
	out, _, err := caddytest.Adapt(text)
	if err != nil {
		t.Fatal(err)
	}
	cfg := caddytest.Load(t, string(out))
	cfg.Logging = caddytest.Quiet()
	ctx, err := caddy.ProvisionContext(cfg)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	return app.(*caddyhttp.App).Servers
}

const global = "{\n\tadmin off\n\tlog {\n\t\toutput discard\n\t}\n\twechat {\n\t\tapp " +
	caddytest.AppID + " {env.WX_SECRET}\n\t}\n}\n\n"

// TestThreat36_AroundTheGate holds what is refused, what is warned of, and that sane
// configurations are neither.
func TestThreat36_AroundTheGate(t *testing.T) {
	const app, other = "reverse_proxy 127.0.0.1:8080\n", "reverse_proxy 127.0.0.1:9090\n"
	for _, c := range []struct {
		name, sites string
		refused     string   // part of the one refusal; "" for none
		warned      []string // parts of the warnings, one each
	}{
		{name: "whole site", sites: ":80 {\nwechat_auth\n" + app + "}"},
		{name: "public files before the app", sites: ":80 {\nwechat_auth {\npublic /assets/*\n}\n" +
			"handle /assets/* {\nroot /srv\nfile_server\n}\nhandle {\n" + app + "}\n}"},
		{name: "another upstream without", sites: ":80 {\nwechat_auth\n" + app + "}\n" +
			":81 {\n" + other + "}"},
		{name: "two sites, each guarded", sites: ":80 {\nwechat_auth\n" + app + "}\n" +
			":81 {\nwechat_auth\n" + app + "}"},
		{name: "handles, each guarded", sites: ":80 {\n" +
			"handle /a/* {\nwechat_auth {\nendpoints /a/wx\n}\n" + app + "}\n" +
			"handle {\nwechat_auth\n" + app + "}\n}"},
		{name: "error route to the app", sites: ":80 {\nwechat_auth\n" + app +
			"handle_errors {\n" + app + "}\n}"},
		{name: "header inside the proxy", sites: ":80 {\nwechat_auth\n" +
			"reverse_proxy 127.0.0.1:8080 {\nheader_up X-User {http.auth.user.id}\n}\n}"},
		{name: "wechat_api alone", sites: "http://127.0.0.1:8081 {\nwechat_api\n}"},

		{
			name: "proxy first", refused: "stands behind reverse_proxy",
			sites: ":80 {\nroute {\n" + app + "wechat_auth\n}\n}",
		},
		{
			name: "files first", refused: "stands behind file_server",
			sites: ":80 {\nroute {\nfile_server\nwechat_auth\n}\n}",
		},
		{
			name: "twice", refused: "two wechat_auth on one path",
			sites: ":80 {\nwechat_auth\nroute {\nwechat_auth\n" + app + "}\n}",
		},
		{
			name: "nested", refused: "two wechat_auth on one path",
			sites: ":80 {\nwechat_auth\nhandle /api/* {\nroute {\nwechat_auth\n" + app + "}\n}\n}",
		},

		{name: "no gate", sites: ":80 {\n" + app + "}", warned: []string{"no site has a gate"}},
		{
			name: "beside", warned: []string{"requests reach 127.0.0.1:8080 without wechat_auth"},
			sites: ":80 {\nwechat_auth\n" + app + "}\n:81 {\n" + app + "}",
		},
		{
			name: "sibling handle", sites: ":80 {\nhandle /api/* {\nwechat_auth\n" + app +
				"}\nhandle {\n" + app + "}\n}",
			warned: []string{"requests reach 127.0.0.1:8080", "/wx/login does not reach"},
		},
		{
			name: "everything public", warned: []string{"public /* opens"},
			sites: ":80 {\nwechat_auth {\npublic /*\n}\n" + app + "}",
		},
		{
			name: "header before", warned: []string{"header uses {http.auth.user.*} before"},
			sites: ":80 {\nheader X-User {http.auth.user.id}\nwechat_auth\n" + app + "}",
		},
		{
			name: "templates", warned: []string{"templates runs over the answers"},
			sites: ":80 {\nwechat_auth\ntemplates\n" + app + "}",
		},
		{
			name: "cache before", warned: []string{"a shared cache before the gate"},
			sites: ":80 {\nroute {\ntest_cache\nwechat_auth\n" + app + "}\n}",
		},
		{
			name:  "cache behind",
			sites: ":80 {\nroute {\nwechat_auth\ntest_cache\n" + app + "}\n}",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var refused, warned []string
			for _, f := range judge.Servers(servers(t, global+c.sites+"\n")) {
				if f.Where == "" || f.Cure == "" {
					t.Errorf("no place or no cure: %+v", f)
				}
				if f.Refused {
					refused = append(refused, f.String())
				} else {
					warned = append(warned, f.String())
				}
			}
			if (len(refused) > 0) != (c.refused != "") ||
				!strings.Contains(strings.Join(refused, "\n"), c.refused) {
				t.Errorf("refused: %q, want %q", refused, c.refused)
			}
			if c.refused != "" {
				return
			}
			if len(warned) != len(c.warned) {
				t.Errorf("warned of %q, want %q", warned, c.warned)
			}
			for _, want := range c.warned {
				has := func(f string) bool { return strings.Contains(f, want) }
				if !slices.ContainsFunc(warned, has) {
					t.Errorf("no warning of %q: %q", want, warned)
				}
			}
		})
	}
}

// TestThreat39_Config_Warned holds the warnings about the admin endpoint, the log, the
// way to Redis and the grace period.
func TestThreat39_Config_Warned(t *testing.T) {
	const socket = `"admin":{"listen":"unix//s"}`
	const encoder, wrapped = `"encoder":{"format":"wechat"}`,
		`"encoder":{"format":"filter","wrap":{"format":"wechat"}}`
	quiet := func(encoder, store string) string {
		return `{` + socket + `,"logging":{"logs":{"default":{` + encoder + `}}},` +
			`"apps":{"http":{"grace_period":1},"wechat":{"store":` + store + `}}}`
	}
	t.Setenv("NEAR", "127.0.0.1:6379")
	for raw, want := range map[string]int{
		`{}`:                           3,
		`{"admin":{"disabled":true}}`:  2,
		`{"admin":{"listen":":2019"}}`: 3,

		`{` + socket + `,"logging":{"logs":{"default":{` + encoder + `}}}}`: 1,

		quiet(encoder, `null`): 0, quiet(wrapped, `null`): 0,
		quiet(`"encoder":{"format":"json"}`, `null`): 1,

		quiet(encoder, `{"type":"bolt"}`):                                           0,
		quiet(encoder, `{"type":"redis","addresses":["10.0.0.5:6379"]}`):            1,
		quiet(encoder, `{"type":"redis","addresses":["10.0.0.5:6379"],"tls":{}}`):   0,
		quiet(encoder, `{"type":"redis","addresses":["127.0.0.1:1","redis:6379"]}`): 1,
		quiet(encoder, `{"type":"redis","addresses":["localhost:6379","[::1]:1"]}`): 0,
		quiet(encoder, `{"type":"redis","addresses":["/run/redis.sock"]}`):          0,
		quiet(encoder, `{"type":"redis","addresses":["{env.NEAR}"]}`):               0,
		quiet(encoder, `{"type":"redis","addresses":["{env.WXGATE_NOT_SET}"]}`):     1,
	} {
		found, err := judge.Config([]byte(raw))
		if err != nil || len(found) != want {
			t.Errorf("%s: %v, %v; want %d", raw, found, err, want)
		}
	}
	if _, err := judge.Config([]byte("nonsense")); err == nil {
		t.Error("nonsense is judged")
	}
}

// testCache stands for a shared cache, which is no part of Caddy.
type testCache struct{}

func init() {
	caddy.RegisterModule(testCache{})
	httpcaddyfile.RegisterHandlerDirective("test_cache",
		func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return testCache{}, nil })
}

func (testCache) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "http.handlers.cache", New: func() caddy.Module { return new(testCache) },
	}
}

func (testCache) ServeHTTP(
	w http.ResponseWriter, r *http.Request, next caddyhttp.Handler,
) error {
	return next.ServeHTTP(w, r)
}
