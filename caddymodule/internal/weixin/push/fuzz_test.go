package push_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
)

// FuzzOpen: no signed ciphertext panics, and what opens is what was sealed.
func FuzzOpen(f *testing.F) {
	for _, v := range vectors {
		f.Add(v.Encrypt, []byte(v.Message))
	}
	key := find("P1").Key
	r, err := push.New(otherApp, "AAAAA", key)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, encrypt string, message []byte) {
		if encrypt == "" {
			t.Skip("Sign takes it for a push in plain mode")
		}
		const stamp, nonce = "1714112445", "415670741"
		q := push.Query{Timestamp: stamp, Nonce: nonce}
		q.MsgSignature = r.Sign(encrypt, nonce, q.Time()).Get("msg_signature")
		got, _, err := r.Open(q, encrypt)
		if err != nil && (got != nil ||
			!errors.Is(err, push.ErrSealed) && !errors.Is(err, push.ErrReceiver)) {
			t.Fatalf("%q, %v", got, err)
		}
		encrypt = r.Seal(message, 0)
		q.MsgSignature = r.Sign(encrypt, nonce, q.Time()).Get("msg_signature")
		if got, _, err := r.Open(q, encrypt); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%q came back as %q, %v", message, got, err)
		}
	})
}

// FuzzReadMessage: no body panics, and names that are accepted fit into a header.
func FuzzReadMessage(f *testing.F) {
	for _, v := range vectors {
		f.Add([]byte(v.Message))
	}
	for _, body := range refusedBodies {
		f.Add([]byte(body[:min(len(body), 1000)]))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := push.ReadMessage(body)
		if err != nil {
			if !errors.Is(err, push.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		for _, id := range []string{m.OpenID, m.UnionID, m.AppID, m.Kind(), m.AuthorizerAppID} {
			if len(id) > 128 || strings.ContainsFunc(id, func(c rune) bool {
				return c <= ' ' || c > '~'
			}) {
				t.Fatalf("accepted %q", id)
			}
		}
		if m.In == push.JSON && !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
	})
}
