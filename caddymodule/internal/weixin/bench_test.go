package weixin_test

import (
	"net/http/httptest"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func BenchmarkCode2Session(b *testing.B) {
	srv := httptest.NewServer(reply(200, goodBody))
	defer srv.Close()
	c := newClient(b, weixin.Config{BaseURL: srv.URL})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := exchange(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkToken(b *testing.B) {
	srv := httptest.NewServer(reply(200, `{"access_token":"t","expires_in":7200}`))
	defer srv.Close()
	c := newClient(b, weixin.Config{BaseURL: srv.URL})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Tokens().Token(b.Context(), testApp); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeSession(b *testing.B) {
	body := []byte(goodBody)
	b.ReportAllocs()
	for b.Loop() {
		if _, e := weixin.Decoders["code2session"](200, body); e != nil {
			b.Fatal(e)
		}
	}
}
