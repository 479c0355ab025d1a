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
)

func TestDefaults(t *testing.T) {
	s, err := provisioned(t, `{"addresses":["127.0.0.1:6379"]}`)
	if err != nil {
		t.Fatal(err)
	}
	c := s.cfg
	if c.Prefix != "wxgate:" || c.DialTimeout != time.Second || c.ReadTimeout != 80*time.Millisecond || c.WriteTimeout != 2*time.Second {
		t.Errorf("prefix %q, timeouts %v, %v, %v", c.Prefix, c.DialTimeout, c.ReadTimeout, c.WriteTimeout)
	}
	if c.DB != 0 || c.Cluster || c.TLS != nil || c.Sentinel != nil || c.Username != "" || c.Password != "" {
		t.Error("something is set that nobody asked for")
	}
}

// TestResolved: the engine gets what placeholders stand for, the module's own fields, which can be read back, do not.
func TestResolved(t *testing.T) {
	setEnvironment(t)
	s, err := provisioned(t, `{"addresses":["{env.REDIS_THIRD}"],"username":"gate","password":"{env.REDIS_PASSWORD}","db":2,
		"tls":{"ca":"{env.TLS_FILES}/ca.pem","cert":"{env.TLS_FILES}/cert.pem","key":"{env.TLS_FILES}/key.pem","server_name":"redis.internal"},
		"sentinel":{"master":"m","username":"watcher","password":"{env.SENTINEL_PASSWORD}"},"prefix":"p:","dial_timeout":10000000,"read_timeout":2000000000,"write_timeout":60000000000}`)
	if err != nil {
		t.Fatal(err)
	}
	c := s.cfg
	if c.Addresses[0] != "10.0.0.3:26379" || c.Username != "gate" || c.Password != canary || c.DB != 2 || c.Prefix != "p:" || c.DialTimeout != 10*time.Millisecond || c.ReadTimeout != 2*time.Second ||
		c.WriteTimeout != time.Minute {
		t.Error("it is not what was written")
	}
	if *c.Sentinel != (struct{ Master, Username, Password string }{"m", "watcher", canary}) {
		t.Error("the sentinel is another")
	}
	if c.TLS.RootCAs == nil || len(c.TLS.Certificates) != 1 || c.TLS.ServerName != "redis.internal" || c.TLS.InsecureSkipVerify {
		t.Error("TLS is another")
	}
	b, err := json.Marshal(s)
	if err != nil || strings.Contains(string(b), canary) || strings.Contains(s.Identity(), canary) {
		t.Errorf("a secret shows in %s or %s: %v", b, s.Identity(), err)
	}
}

func TestIdentity(t *testing.T) {
	setEnvironment(t)
	t.Setenv("PASSWORD_2", "another")
	id := func(text string) string {
		s, err := provisioned(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return s.Identity()
	}
	plain := id(`{"addresses":["a:1"]}`)
	for _, same := range []string{
		`{"addresses":["a:1"],"prefix":"wxgate:"}`, `{"addresses":["a:1"],"password":"{env.REDIS_PASSWORD}"}`, `{"addresses":["a:1"],"username":"u","password":"{env.PASSWORD_2}"}`,
		`{"addresses":["a:1"],"read_timeout":50000000}`, `{"addresses":["a:1"],"tls":{}}`,
	} {
		if got := id(same); got != plain {
			t.Errorf("%s is %s, want %s", same, got, plain)
		}
	}
	seen := map[string]string{plain: ""}
	for _, other := range []string{
		`{"addresses":["a:2"]}`, `{"addresses":["a:1"],"db":1}`, `{"addresses":["a:1"],"prefix":"b:"}`, `{"addresses":["a:1"],"sentinel":{"master":"m"}}`,
		`{"addresses":["a:1"],"sentinel":{"master":"n"}}`, `{"addresses":["a:1","b:1"],"cluster":true}`, `{"addresses":["/a"]}`,
	} {
		got := id(other)
		if before, ok := seen[got]; ok {
			t.Errorf("%s and %s are both %s", before, other, got)
		}
		seen[got] = other
	}
	if a, b := id(`{"addresses":["a:1","b:1"],"cluster":true}`), id(`{"addresses":["b:1","a:1"],"cluster":true}`); a != b {
		t.Errorf("the order of addresses makes %s and %s", a, b)
	}
}

// TestWrongJSON: a configuration that does not come from a Caddyfile is looked at as closely.
func TestWrongJSON(t *testing.T) {
	setEnvironment(t)
	t.Setenv("NO_ADDRESS", "localhost")
	dir := os.Getenv("TLS_FILES")
	if err := os.WriteFile(filepath.Join(dir, "junk.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	other := t.TempDir()
	writeCertificate(t, other)
	for text, want := range map[string]string{
		`{}`:                                 "where is the server",
		`{"addresses":["localhost"]}`:        "is not an address",
		`{"addresses":["{env.NO_ADDRESS}"]}`: "is not an address",
		`{"addresses":["a:1"],"password":"` + canary + `"}`:                                         "the password is written out",
		`{"addresses":["a:1"],"prefix":"{env.X}"}`:                                                  "is not a prefix",
		`{"addresses":["a:1"],"db":-1}`:                                                             "db -1 is negative",
		`{"addresses":["a:1"],"read_timeout":-1}`:                                                   "read_timeout takes a duration from 10ms to 2s, not -1ns",
		`{"addresses":["a:1"],"read_timeout":1}`:                                                    "read_timeout takes a duration from 10ms to 2s, not 1ns",
		`{"addresses":["a:1"],"write_timeout":60000000001}`:                                         "write_timeout takes a duration from 100ms to 1m0s",
		`{"addresses":["a:1"],"dial_timeout":9999999}`:                                              "dial_timeout takes a duration from 10ms to 1m0s",
		`{"addresses":["a:1"],"username":"{no.such}","password":"{env.A}"}`:                         "resolving username",
		`{"addresses":["a:1"],"tls":{"ca":"/nowhere/ca.pem"}}`:                                      "reading tls ca: open /nowhere/ca.pem",
		`{"addresses":["a:1"],"tls":{"ca":"` + dir + `/junk.pem"}}`:                                 "junk.pem holds no certificate in PEM",
		`{"addresses":["a:1"],"tls":{"cert":"` + dir + `/cert.pem","key":"/nowhere/key.pem"}}`:      "reading tls key: open /nowhere/key.pem",
		`{"addresses":["a:1"],"tls":{"cert":"` + dir + `/cert.pem","key":"` + other + `/key.pem"}}`: "private key does not match",
		`{"addresses":["a:1"],"tls":{"cert":"` + dir + `/junk.pem","key":"` + dir + `/key.pem"}}`:   "reading tls cert",
	} {
		_, err := provisioned(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// TestUnset: a configuration can be checked where its secrets are not, but nothing is opened with it.
func TestUnset(t *testing.T) {
	for text, want := range map[string]string{
		`{"addresses":["{env.NO_SUCH_A}"]}`:                                                   "address {env.NO_SUCH_A}",
		`{"addresses":["a:1"],"password":"{env.NO_SUCH_B}"}`:                                  "password {env.NO_SUCH_B}",
		`{"addresses":["a:1"],"sentinel":{"master":"m","password":"{file./nowhere/secret}"}}`: "password of sentinel {file./nowhere/secret}",
	} {
		s, err := provisioned(t, text)
		if err != nil {
			t.Fatal(err)
		}
		core, logs := observer.New(zap.WarnLevel)
		s.log = zap.New(core)
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		if e := logs.All(); len(e) != 1 || e[0].ContextMap()["placeholder"] != want {
			t.Errorf("%s: logged %v, want a warning of %s", text, e, want)
		}
		if st, err := s.Open(zap.NewNop()); err == nil || st != nil || !strings.Contains(err.Error(), want+" is empty") {
			t.Errorf("%s: opened with %v, %v", text, st, err)
		}
	}
}

func TestInsecureIsAWarning(t *testing.T) {
	s, err := provisioned(t, `{"addresses":["a:1"],"tls":{"insecure_skip_verify":true}}`)
	if err != nil || !s.cfg.TLS.InsecureSkipVerify {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.WarnLevel)
	s.log = zap.New(core)
	if err := s.Validate(); err != nil || logs.FilterMessageSnippet("insecure_skip_verify").Len() != 1 {
		t.Errorf("%v, logged %v", err, logs.All())
	}
}

// TestSealKeyIsRequired: gates that each made a key of their own would not know each other's tokens.
func TestSealKeyIsRequired(t *testing.T) {
	t.Setenv("WX_SECRET", canary)
	cfg := load(t, `{"apps":{"wechat":{"apps":[{"appid":"`+appID+`","secret":"{env.WX_SECRET}"}],"store":{"type":"redis","addresses":["a:1"]}}}}`)
	if err := caddy.Validate(cfg); err == nil || !strings.Contains(err.Error(), "seal_key {env.WX_SEAL_KEY}") {
		t.Errorf("got %v", err)
	}
}
