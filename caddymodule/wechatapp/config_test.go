package wechatapp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// unmarshalApp decodes strictly, as Caddy does.
func unmarshalApp(t testing.TB, text string) *App {
	t.Helper()
	a := new(App)
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(a); err != nil {
		t.Fatal(err)
	}
	return a
}

// provisionAlone provisions an App and leaves Validate to the caller; logs go
// to the observer.
func provisionAlone(t testing.TB, text string) (*App, *observer.ObservedLogs, error) {
	t.Helper()
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	a := unmarshalApp(t, text)
	err := a.Provision(ctx)
	core, logs := observer.New(zapcore.DebugLevel)
	a.log = zap.New(core)
	return a, logs, err
}

// provision provisions and validates an App in a configuration of its own.
func provision(t testing.TB, app string) (*App, caddy.Context) {
	t.Helper()
	a, ctx := caddytest.ProvisionApp(t, app)
	return a.(*App), ctx
}

// provisionf provisions an App with fields in JSON, given as a format.
func provisionf(t testing.TB, fields string, args ...any) *App {
	t.Helper()
	a, _ := provision(t, caddytest.AppJSON(fmt.Sprintf(fields, args...)))
	return a
}

// TestJSONRoundTrip holds that an App writes the JSON that it has read, without
// fields that were absent.
func TestJSONRoundTrip(t *testing.T) {
	for _, text := range []string{
		`{"apps":[{"appid":"wx0123456789abcdef","secret":"{env.WX_SECRET}"}]}`,
		`{"apps":[{"appid":"wx0123456789abcdef","secret":"{env.WX_SECRET}"}],` +
			`"api":{"base_url":"http://127.0.0.1:8750","timeout":3000000000},` +
			`"session":{"ttl":172800000000000,"idle":86400000000000,` +
			`"max_per_user":-1,"replay":-1},` +
			`"store":{"path":"/s.db","type":"bolt"},"cache":{"max_sessions":7},` +
			`"max_staleness":20000000000,"seal_key":"{env.WX_SEAL_KEY}",` +
			`"login_rate":{"per_client":"30/m","global":"1000/s","in_flight":64},` +
			`"phone":{"remember":true},"decrypt":{"max_age":86400000000000}}`,
	} {
		got, err := json.Marshal(unmarshalApp(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, []byte(text)) {
			t.Errorf("got  %s\nwant %s", got, text)
		}
	}
}

func TestDefaults(t *testing.T) {
	caddytest.SetSecrets(t)
	a, _, err := provisionAlone(t, caddytest.AppJSON(""))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(
		a.API, a.Session, a.Cache, time.Duration(a.MaxStaleness), string(a.StoreRaw), a.limits,
	)
	want := fmt.Sprint(
		API{BaseURL: "https://api.weixin.qq.com", Timeout: caddy.Duration(5 * time.Second)},
		SessionLimits{
			TTL:        caddy.Duration(48 * time.Hour),
			MaxPerUser: 10,
			Replay:     caddy.Duration(10 * time.Second),
		},
		Cache{MaxSessions: 1_000_000},
		30*time.Second,
		"",
		"{{600 1m0s} {30 1m0s} {0 0s} {0 0s} {60000 1m0s} 512}",
	)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !strings.HasSuffix(a.opener.Identity(), "/wxgate/sessions.db") {
		t.Errorf("store %s", a.opener.Identity())
	}
}

// appsJSON returns a configuration of mini programs, given as pairs of AppID and
// AppSecret.
func appsJSON(pairs ...string) string {
	var apps []string
	for p := range slices.Chunk(pairs, 2) {
		apps = append(apps, `{"appid":"`+p[0]+`","secret":"`+p[1]+`"}`)
	}
	return `{"apps":[` + strings.Join(apps, ",") + `]}`
}

// TestWrongJSON holds that the gate refuses wrong JSON that a Caddyfile cannot
// express, and that no message shows a secret.
func TestWrongJSON(t *testing.T) {
	caddytest.SetSecrets(t)
	t.Setenv("WX_BAD", caddytest.Canary)
	const appID, secret, given = caddytest.AppID, caddytest.Canary, "{env.WX_SECRET}"
	config := caddytest.AppJSON
	for _, c := range []struct{ name, app, want string }{
		{"unknown field", config(`"sesion":{}`), `unknown field "sesion"`},
		{"unknown field inside", config(`"session":{"tttl":"1h"}`), `unknown field "tttl"`},
		{"no app", `{}`, "no mini program is configured"},
		{"app twice", appsJSON(appID, given, appID, given), appID + " is configured twice"},
		{
			"app twice by placeholder",
			appsJSON("{env.WX_APPID}", given, "wxaaaaaaaaaaaaaaaa", given), "is configured twice",
		},
		{"appid bad", appsJSON("wx1", given), `"wx1" is not an AppID`},
		{"appid is a secret", appsJSON("{env.WX_BAD}", given), "this is not an AppID"},
		{"appid placeholder unknown", appsJSON("{nothing}", given), "resolving appid"},
		{
			"secret literal", appsJSON(appID, secret),
			"secret of mini program " + appID + " is written out",
		},
		{
			"secret missing", `{"apps":[{"appid":"` + appID + `"}]}`,
			"secret of mini program " + appID + " is written out",
		},
		{"secret half literal", appsJSON(appID, secret+given), "is written out"},
		{"secret in braces", appsJSON(appID, "{"+secret+"}"), "is written out"},
		{
			"secret of two placeholders", appsJSON(appID, "{env.A}"+secret+"{env.B}"),
			"is written out",
		},
		{
			"seal_key literal", config(`"seal_key":"` + caddytest.SealKey + `"`),
			"seal_key is written out",
		},
		{
			"seal_key no key", config(`"seal_key":"{env.WX_BAD}"`),
			"reading seal_key: parsing key ring: key 1 of 1 is not 32 bytes in base64",
		},
		{"ttl short", config(`"session":{"ttl":"1ms"}`), "session ttl 1ms is too short"},
		{"ttl negative", config(`"session":{"ttl":"-1h"}`), "session ttl -1h0m0s is too short"},
		{"idle short", config(`"session":{"idle":"1ms"}`), "session idle 1ms is too short"},
		{"idle negative", config(`"session":{"idle":"-1h"}`), "session idle -1h0m0s is too short"},
		{"idle longer than ttl", config(`"session":{"idle":"49h"}`), "would never apply"},
		{"timeout negative", config(`"api":{"timeout":-1}`), "api timeout -1ns is too short"},
		{"timeout in wrong unit", config(`"api":{"timeout":5}`), "api timeout 5ns is too short"},
		{
			"base_url", config(`"api":{"base_url":"ftp://x"}`),
			"base URL: the scheme must be http or https",
		},
		{
			"base_url with a password", config(`"api":{"base_url":"https://u:` + secret + `@x"}`),
			"no user name or password",
		},
		{"max_staleness negative", config(`"max_staleness":-1`), "max_staleness is negative"},
		{
			"max_sessions negative", config(`"cache":{"max_sessions":-1}`),
			"cache max_sessions -1 is too small",
		},
		{
			"rate", config(`"login_rate":{"per_client":"many"}`),
			`login_rate: "many" is not a rate`,
		},
		{
			"rate of all", config(`"login_rate":{"global":"many"}`),
			`login_rate global: "many" is not a rate`,
		},
		{
			"in_flight negative", config(`"login_rate":{"in_flight":-1}`),
			"login_rate in_flight -1 is negative",
		},
		{"store unknown", config(`"store":{"type":"nothing"}`), "loading session store"},
		{
			"store path is empty", config(`"store":{"type":"bolt","path":"{env.WX_NOTHING}"}`),
			"resolving path of bolt store",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := caddy.Validate(&caddy.Config{
				Logging: caddytest.Quiet(),
				AppsRaw: caddy.ModuleMap{"wechat": json.RawMessage(c.app)},
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), caddytest.Canary) ||
				strings.Contains(err.Error(), caddytest.SealKey) {
				t.Errorf("message shows the secret: %v", err)
			}
		})
	}
}

// TestTTLWarning holds that a TTL beyond the life of a session_key logs a warning.
func TestTTLWarning(t *testing.T) {
	caddytest.SetSecrets(t)
	for ttl, want := range map[string]int{"72h": 0, "73h": 1} {
		a, logs, err := provisionAlone(t, caddytest.AppJSON(`"session":{"ttl":"`+ttl+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		if got := logs.FilterLevelExact(zapcore.WarnLevel).Len(); got != want {
			t.Errorf("ttl %s: %d warnings, want %d:\n%s", ttl, got, want, caddytest.Lines(logs))
		}
	}
}

// TestClearWarning holds that plain HTTP to a public address logs a warning, and to a
// private one does not.
func TestClearWarning(t *testing.T) {
	caddytest.SetSecrets(t)
	for base, want := range map[string]int{
		"https://api.weixin.qq.com": 0,
		"http://127.0.0.1:1":        0,
		"http://[::1]:1":            0,
		"http://10.1.2.3":           0,
		"http://wechat-relay":       0,
		"http://localhost:1":        0,
		"http://api.weixin.qq.com":  1,
		"http://203.0.113.7":        1,
	} {
		a, logs, err := provisionAlone(t, caddytest.AppJSON(`"api":{"base_url":"`+base+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Validate(); err != nil {
			t.Fatal(err)
		}
		if got := logs.FilterLevelExact(zapcore.WarnLevel).Len(); got != want {
			t.Errorf("base_url %s: %d warnings, want %d:\n%s",
				base, got, want, caddytest.Lines(logs))
		}
	}
}

// TestUnsetPlaceholders: a Caddyfile can be validated where its secrets are
// not, but not started.
func TestUnsetPlaceholders(t *testing.T) {
	const appID = caddytest.AppID
	for _, c := range []struct{ name, app, want string }{
		{
			"secret", appsJSON(appID, "{env.WX_UNSET}"),
			"secret {env.WX_UNSET} of mini program " + appID,
		},
		{
			"secret in a file", appsJSON(appID, "{file./nowhere/wx}"),
			"secret {file./nowhere/wx} of mini program " + appID,
		},
		{"appid", appsJSON("{env.WX_UNSET}", "{env.WX_SECRET}"), "appid {env.WX_UNSET}"},
		{"seal_key", caddytest.AppJSON(`"seal_key":"{env.WX_UNSET}"`), "seal_key {env.WX_UNSET}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("WX_SECRET", caddytest.Canary)
			a, logs, err := provisionAlone(t, c.app)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Validate(); err != nil {
				t.Fatal(err)
			}
			warned := logs.FilterLevelExact(zapcore.WarnLevel).All()
			if len(warned) != 1 || warned[0].ContextMap()["placeholder"] != c.want {
				t.Errorf("logged %s", caddytest.Lines(logs))
			}
			err = a.Start()
			const cure = "set the environment variable or write the file that it names"
			if err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), cure) {
				t.Errorf("Start: %v", err)
			}
			if len(a.held.keys) > 0 {
				t.Error("Start took something before it refused")
			}
			if strings.Contains(err.Error()+caddytest.Lines(logs), caddytest.Canary) {
				t.Error("the secret is shown")
			}
		})
	}
}

// TestTwoUnsetAppIDs: they are the same empty text, and not one mini program twice.
func TestTwoUnsetAppIDs(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	const secret = "{env.WX_SECRET}"
	app := appsJSON("{env.WX_UNSET1}", secret, "{env.WX_UNSET2}", secret)
	if _, _, err := provisionAlone(t, app); err != nil {
		t.Error(err)
	}
}

// TestThreat28_SecretsStayOut holds that Caddy never shows a resolved secret.
func TestThreat28_SecretsStayOut(t *testing.T) {
	caddytest.SetSecrets(t)
	a, _, err := provisionAlone(t, caddytest.AppJSON(`"seal_key":"{env.WX_SEAL_KEY}"`))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{caddytest.Canary, caddytest.SealKey} {
		if strings.Contains(string(shown), secret) {
			t.Errorf("shown by /config: %s", shown)
		}
	}
	if a.apps[0].Secret != caddytest.Canary {
		t.Error("the secret was not resolved: this test shows nothing")
	}
}

// TestAppFaultIsTold holds that the error names the fault of the app, and not its
// absence, also where Caddy provisions the handler first. Caddy's order is random.
func TestAppFaultIsTold(t *testing.T) {
	caddytest.SetSecrets(t)
	for range 16 {
		var cfg caddy.Config
		text := `{"admin":{"disabled":true},"apps":{
			"wechat":` + caddytest.AppJSON(`"session":{"idle":"49h"}`) + `,
			"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[
				{"handle":[{"handler":"wechat_auth"},{"handler":"wechat_api"}]}
			]}}}}}`
		if err := json.Unmarshal([]byte(text), &cfg); err != nil {
			t.Fatal(err)
		}
		cfg.Logging = caddytest.Quiet()
		if err := caddy.Validate(&cfg); err == nil ||
			!strings.Contains(err.Error(), "would never apply") ||
			strings.Contains(err.Error(), "is missing") {
			t.Fatalf("got %v", err)
		}
	}
}
