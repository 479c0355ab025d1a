//go:build unix

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TestP12_Samples_RefuseWhatIsWrong: each sample in examples/apps/assertion takes a right
// proof, and no proof with a wrong audience, issuer, key, time or algorithm.
func TestP12_Samples_RefuseWhatIsWrong(t *testing.T) {
	slow(t)
	t.Parallel()
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	right := newKey()
	sign := func(key any, alg jose.SignatureAlgorithm, edit func(map[string]any)) string {
		signer, err := jose.NewSigner(
			jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}},
			(&jose.SignerOptions{}).WithType("JWT"))
		if err != nil {
			t.Fatal(err)
		}
		claims := map[string]any{
			"iss": "https://a.example.com", "aud": "orders", "sub": "oAlice", "appid": appA,
			"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		}
		edit(claims)
		token, err := jwt.Signed(signer).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	set := func(name string, v any) func(map[string]any) {
		return func(c map[string]any) { c[name] = v }
	}
	good := sign(right, jose.ES256, func(map[string]any) {})
	_, rest, _ := strings.Cut(good, ".")
	payload, _, _ := strings.Cut(rest, ".")
	tokens := map[string]string{
		"good": good,
		"aud":  sign(right, jose.ES256, set("aud", "payments")),
		"iss":  sign(right, jose.ES256, set("iss", "https://b.example.com")),
		"key":  sign(newKey(), jose.ES256, func(map[string]any) {}),
		"over": sign(right, jose.ES256, set("exp", time.Now().Add(-time.Hour).Unix())),
		"iat":  sign(right, jose.ES256, set("iat", time.Now().Add(time.Hour).Unix())),
		"HS256": sign([]byte("a shared secret of some 32 bytes"), jose.HS256,
			func(map[string]any) {}),
		"none": "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ." + payload + ".",
		"cut":  good[:len(good)-3], "text": "x",
	}
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
			Key: right.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig",
		}}})
	}))
	defer jwks.Close()
	goProgram := filepath.Join(t.TempDir(), "verify")
	if out, err := exec.Command("go", "build", "-o", goProgram,
		moduleRoot+"/examples/apps/assertion/verify.go").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, run := range [][]string{
		{goProgram},
		{"node", "verify.mjs"},
		{"php", "verify.php"},
		{"/usr/bin/python3", "verify.py"},
	} {
		t.Run(filepath.Base(run[len(run)-1]), func(t *testing.T) {
			need(t, run[0])
			if strings.Contains(run[0], "python") &&
				exec.Command(run[0], "-c", "import jwt, cryptography").Run() != nil {
				need(t, "python3-jwt and python3-cryptography")
			}
			for name, token := range tokens {
				cmd := exec.Command(run[0], append(run[1:], token)...)
				cmd.Dir = moduleRoot + "/examples/apps/assertion"
				cmd.Env = append(os.Environ(), "JWKS="+jwks.URL,
					"ISSUER=https://a.example.com", "AUDIENCE=orders", "no_proxy=*")
				out, err := cmd.CombinedOutput()
				if name == "good" && (err != nil || strings.TrimSpace(string(out)) != "oAlice") ||
					name != "good" && (err == nil || strings.Contains(string(out), "oAlice")) {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			}
		})
	}
}
