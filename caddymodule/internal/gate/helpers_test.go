package gate_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// endpointNames are those of the handler.
var endpointNames = []string{
	"login", "logout", "session", "sessions", "sessions/", "decrypt", "phone",
}

func newGate(t testing.TB, c gate.Config) *gate.Rules {
	t.Helper()
	c.EndpointNames = endpointNames
	g, err := gate.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// request returns a GET with raw header keys, as an earlier handler could leave them.
func request(header http.Header) *http.Request {
	return &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: "/"},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: http.NoBody,
	}
}

// lines returns the headers of a text with raw names, one "Name: value" a line.
func lines(text string) http.Header {
	h := make(http.Header)
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		h[name] = append(h[name], value)
	}
	return h
}

// slowFold is the definition of docs/threats.md#t2, written anew.
func slowFold(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		switch {
		case strings.IndexByte("abcdefghijklmnopqrstuvwxyz0123456789", c) >= 0:
			b.WriteByte(c)
		case strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", c) >= 0:
			b.WriteByte(c + 32)
		default:
			b.WriteByte('-')
		}
	}
	return b.String()
}

// splitList splits a comma-separated header value as the proxy does.
func splitList(line string) []string {
	var words []string
	for word := range strings.SplitSeq(line, ",") {
		if word = strings.TrimSpace(word); word != "" {
			words = append(words, word)
		}
	}
	return words
}
