package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// TestP12_Fleet_Rotation_NoVerificationFails: proofs of either gate hold with the keys of
// either, from before a rotation and after it, and over the restart of a gate. The model
// in package assertion goes on to when the new key signs.
func TestP12_Fleet_Rotation_NoVerificationFails(t *testing.T) {
	slow(t)
	t.Parallel()
	f := newFleet(t, setup{
		auth: "\tassertion {\n\t\taudience orders\n\t\tissuer https://a.example.com\n\t}",
	})
	token := f.a.login(t, "ada")
	var sets []jose.JSONWebKeySet
	var proofs []string
	collect := func(keys int) {
		t.Helper()
		for _, w := range f.gates() {
			set, proof := w.keySet(t, keys), ""
			for _, line := range w.call(t, "GET", "/x", "", bearer(token)).received(t).Headers {
				name, value, _ := strings.Cut(line, ":")
				if strings.EqualFold(name, "X-WX-ASSERTION") {
					proof = strings.TrimSpace(value)
				}
			}
			sets, proofs = append(sets, set), append(proofs, proof)
		}
	}
	collect(1)
	f.a.operate(t, "keys", "rotate-assertion", "--yes")
	f.b.gate.stop(t) // a running gate asks once a minute
	f.b.start(t)
	f.b.takesLogins(t)
	collect(2)

	for i, proof := range proofs {
		parsed, err := jwt.ParseSigned(proof, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatalf("%q: %v", proof, err)
		}
		for j, set := range sets {
			var c jwt.Claims
			if err := parsed.Claims(set, &c); err != nil {
				t.Errorf("proof %d with keys %d: %v", i, j, err)
			}
			err := c.Validate(jwt.Expected{
				Issuer: "https://a.example.com", AnyAudience: jwt.Audience{"orders"},
				Subject: f.a.wechat.OpenID(appA, "ada"), Time: c.IssuedAt.Time().Add(time.Second),
			})
			if err != nil {
				t.Errorf("proof %d: %v", i, err)
			}
		}
	}
}

// keySet returns the published keys as soon as there are so many.
func (w *world) keySet(t *testing.T, keys int) (set jose.JSONWebKeySet) {
	t.Helper()
	eventually(t, "the keys are published", func() bool {
		r := w.call(t, "GET", "/wx/jwks.json", "")
		if r.status != 200 {
			r.problem(t, 503, "store_unavailable")
			return false
		}
		set = jose.JSONWebKeySet{}
		if err := json.Unmarshal([]byte(r.body), &set); err != nil {
			t.Fatal(err)
		}
		return len(set.Keys) == keys
	})
	return set
}
