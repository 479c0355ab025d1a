package redisstore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	_ "github.com/wxgate/wxgate/caddymodule" // the app and the directives of the tests

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/logging" // what quiet names
)

const (
	appID   = "wx0123456789abcdef"
	canary  = "canary5ecret0123456789abcdef0123"
	sealKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
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
	cfg.Logging = &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}}}}
	return cfg
}

// setEnvironment sets every variable that the Caddyfiles of the tests name, and writes the files.
func setEnvironment(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, dir)
	for name, value := range map[string]string{
		"WX_SECRET": canary, "WX_SEAL_KEY": sealKey, "REDIS_PASSWORD": canary, "SENTINEL_PASSWORD": canary, "REDIS_THIRD": "10.0.0.3:26379", "TLS_FILES": dir,
	} {
		t.Setenv(name, value)
	}
}

// writeCertificate writes ca.pem, cert.pem and key.pem: one certificate that vouches for itself.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"redis.internal"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.pem", "CERTIFICATE", cert)
	write("cert.pem", "CERTIFICATE", cert)
	write("key.pem", "PRIVATE KEY", der)
}

// provisioned decodes and provisions a Store as Caddy does, short of Validate.
func provisioned(t testing.TB, text string) (*Store, error) {
	t.Helper()
	s := new(Store)
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	return s, s.Provision(ctx)
}
