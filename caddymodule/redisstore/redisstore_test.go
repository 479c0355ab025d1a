package redisstore

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestStore_Provisioned_ResolvesPlaceholders (P6): the engine gets the values of
// placeholders. The module's own fields, which the admin API shows, do not.
func TestStore_Provisioned_ResolvesPlaceholders(t *testing.T) {
	setEnvironment(t)
	s := mustProvision(t, `{"addresses":["{env.REDIS_THIRD}"],"username":"gate",
		"password":"{env.REDIS_PASSWORD}","db":2,"prefix":"p:","dial_timeout":10000000,
		"read_timeout":2000000000,"write_timeout":60000000000,
		"tls":{"ca":"{env.TLS_FILES}/ca.pem","cert":"{env.TLS_FILES}/cert.pem",
			"key":"{env.TLS_FILES}/key.pem","server_name":"redis.internal"},
		"sentinel":{"master":"m","username":"watcher","password":"{env.SENTINEL_PASSWORD}"}}`)
	c := s.cfg
	if c.Addresses[0] != "10.0.0.3:26379" || c.Username != "gate" ||
		c.DB != 2 || c.Prefix != "p:" ||
		c.Password != caddytest.Canary || c.DialTimeout != 10*time.Millisecond ||
		c.ReadTimeout != 2*time.Second || c.WriteTimeout != time.Minute {
		t.Errorf("the engine gets %+v", c)
	}
	want := struct{ Master, Username, Password string }{"m", "watcher", caddytest.Canary}
	if *c.Sentinel != want {
		t.Errorf("sentinel %+v", c.Sentinel)
	}
	if c.TLS.RootCAs == nil || len(c.TLS.Certificates) != 1 ||
		c.TLS.ServerName != "redis.internal" || c.TLS.InsecureSkipVerify {
		t.Error("TLS is another")
	}
	b, err := json.Marshal(s)
	if err != nil || strings.Contains(string(b)+s.Identity(), caddytest.Canary) {
		t.Errorf("a secret shows in %s or %s: %v", b, s.Identity(), err)
	}
}

func TestIdentity_OtherPlace_IsOther(t *testing.T) {
	setEnvironment(t)
	t.Setenv("PASSWORD_2", "another")
	id := func(text string) string {
		return mustProvision(t, `{"addresses":["a:1"]`+text+`}`).Identity()
	}
	plain := id("")
	for _, same := range []string{
		`,"prefix":"wxgate:"`, `,"password":"{env.REDIS_PASSWORD}"`,
		`,"username":"u","password":"{env.PASSWORD_2}"`, `,"read_timeout":50000000`, `,"tls":{}`,
	} {
		if got := id(same); got != plain {
			t.Errorf("%s is %s, want %s", same, got, plain)
		}
	}
	const both = `,"addresses":["a:1","b:1"],"cluster":true`
	seen := map[string]string{plain: ""}
	for _, other := range []string{
		`,"addresses":["a:2"]`, `,"db":1`, `,"prefix":"b:"`, `,"sentinel":{"master":"m"}`,
		`,"sentinel":{"master":"n"}`, both, `,"addresses":["/a"]`,
	} {
		got := id(other)
		if before, ok := seen[got]; ok {
			t.Errorf("%s and %s are both %s", before, other, got)
		}
		seen[got] = other
	}
	if a, b := id(both), id(`,"addresses":["b:1","a:1"],"cluster":true`); a != b {
		t.Errorf("the order of addresses makes %s and %s", a, b)
	}
}

// TestProvision_WrongJSON_IsRefused: JSON gets the same checks as a Caddyfile.
func TestProvision_WrongJSON_IsRefused(t *testing.T) {
	setEnvironment(t)
	t.Setenv("NO_ADDRESS", "localhost")
	dir, other := os.Getenv("TLS_FILES"), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "junk.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, other)
	const cert, junk = `"cert":"{env.TLS_FILES}/cert.pem"`, `{env.TLS_FILES}/junk.pem"`
	with := func(text string) string { return `{"addresses":["a:1"],` + text + `}` }
	for _, c := range [][2]string{
		{`{}`, "where is the server"},
		{`{"addresses":["localhost"]}`, "is not an address"},
		{`{"addresses":["{env.NO_ADDRESS}"]}`, "is not an address"},
		{with(`"password":"` + caddytest.Canary + `"`), "the password is written out"},
		{with(`"username":"{no.such}","password":"{env.A}"`), "resolving username"},
		{with(`"prefix":"{env.X}"`), "is not a prefix"},
		{with(`"db":-1`), "db -1 is negative"},
		{with(`"read_timeout":-1`), "read_timeout takes a duration from 10ms to 2s, not -1ns"},
		{with(`"read_timeout":1`), "read_timeout takes a duration from 10ms to 2s, not 1ns"},
		{with(`"write_timeout":60000000001`), "write_timeout takes a duration from 100ms to 1m0s"},
		{with(`"dial_timeout":9999999`), "dial_timeout takes a duration from 10ms to 1m0s"},
		{with(`"tls":{"ca":"/no/ca.pem"}`), "reading tls ca: open /no/ca.pem"},
		{with(`"tls":{"ca":"` + junk + `}`), "junk.pem holds no certificate in PEM"},
		{with(`"tls":{` + cert + `,"key":"/no/key.pem"}`), "reading tls key: open /no/key.pem"},
		{with(`"tls":{` + cert + `,"key":"` + other + `/key.pem"}`), "private key does not match"},
		{with(`"tls":{"cert":"` + junk + `,"key":"{env.TLS_FILES}/key.pem"}`), "reading tls cert"},
	} {
		text, want := c[0], c[1]
		_, err := provisioned(t, text)
		if err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), caddytest.Canary) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestStore_PlaceholderEmpty_WarnsAndDoesNotOpen: a configuration can be checked on a
// machine without its secrets, but the store does not open there.
func TestStore_PlaceholderEmpty_WarnsAndDoesNotOpen(t *testing.T) {
	for text, want := range map[string]string{
		`["{env.NO_SUCH_A}"]`:                                     "address {env.NO_SUCH_A}",
		`["a:1"],"password":"{env.NO_SUCH_B}"`:                    "password {env.NO_SUCH_B}",
		`["a:1"],"sentinel":{"master":"m","password":"{file.x}"}`: "password of sentinel {file.x}",
	} {
		s := mustProvision(t, `{"addresses":`+text+`}`)
		logs := validate(t, s)
		if e := logs.All(); len(e) != 1 || e[0].ContextMap()["placeholder"] != want {
			t.Errorf("%s: logged %v, want a warning of %s", text, e, want)
		}
		st, err := s.Open(zap.NewNop())
		if err == nil || st != nil || !strings.Contains(err.Error(), want+" is empty") {
			t.Errorf("%s: opened with %v, %v", text, st, err)
		}
	}
}

func TestStore_InsecureSkipVerify_Warns(t *testing.T) {
	s := mustProvision(t, `{"addresses":["a:1"],"tls":{"insecure_skip_verify":true}}`)
	logs := validate(t, s).FilterMessageSnippet("insecure_skip_verify")
	if !s.cfg.TLS.InsecureSkipVerify || logs.Len() != 1 {
		t.Errorf("insecure: %v, %d lines", s.cfg.TLS.InsecureSkipVerify, logs.Len())
	}
}

func validate(t *testing.T, s *Store) *observer.ObservedLogs {
	t.Helper()
	core, logs := observer.New(zap.WarnLevel)
	s.log = zap.New(core)
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	return logs
}

// TestStore_NoSealKey_IsRefused: gates with a key of their own each would refuse each
// other's tokens.
func TestStore_NoSealKey_IsRefused(t *testing.T) {
	caddytest.SetSecrets(t)
	cfg := caddytest.Load(t, `{"apps":{"wechat":`+
		caddytest.AppJSON(`"store":{"type":"redis","addresses":["a:1"]}`)+`}}`)
	cfg.Logging = caddytest.Quiet()
	err := caddy.Validate(cfg)
	if err == nil || !strings.Contains(err.Error(), "seal_key {env.WX_SEAL_KEY}") {
		t.Errorf("got %v", err)
	}
}
