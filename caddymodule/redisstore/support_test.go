package redisstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/logging" // of caddytest.Quiet

	_ "github.com/wxgate/wxgate/caddymodule" // the app that stores belong to
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// setEnvironment sets every variable that the Caddyfiles of the tests name, and
// writes the files.
func setEnvironment(t testing.TB) {
	t.Helper()
	caddytest.SetSecrets(t)
	dir := t.TempDir()
	writeCertificate(t, dir)
	t.Setenv("REDIS_PASSWORD", caddytest.Canary)
	t.Setenv("SENTINEL_PASSWORD", caddytest.Canary)
	t.Setenv("REDIS_THIRD", "10.0.0.3:26379")
	t.Setenv("TLS_FILES", dir)
}

// writeCertificate writes ca.pem, cert.pem and key.pem: one certificate that signs
// itself.
func writeCertificate(t testing.TB, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"redis.internal"},
		NotAfter:     time.Now().Add(time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	for name, b := range map[string]pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: cert},
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: der},
	} {
		must(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&b), 0o600))
	}
}

// provisioned decodes and provisions a Store as Caddy does, short of Validate.
func provisioned(t testing.TB, text string) (*Store, error) {
	t.Helper()
	s := new(Store)
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(s); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	t.Cleanup(cancel)
	return s, s.Provision(ctx)
}

func mustProvision(t testing.TB, text string) *Store {
	t.Helper()
	s, err := provisioned(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
