package probe_test

import (
	"path"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// FuzzEcho holds that the echo invents no line of a request.
func FuzzEcho(f *testing.F) {
	f.Add("GET /x HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n")
	f.Add("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nX-T: 1\r\n\r\n" +
		"GET / HTTP/1.0\n\n")
	f.Add("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n")
	f.Add("\r\n: \r\n\r\n")
	f.Fuzz(func(t *testing.T, bytes string) {
		for _, line := range probe.ReadEcho(bytes) {
			if !strings.Contains(bytes, line) {
				t.Errorf("%q reads as the line %q", bytes, line)
			}
		}
	})
}

// FuzzReflectedValue: a value is in the text, and is one word.
func FuzzReflectedValue(f *testing.F) {
	f.Add(`{"X-Wx-Openid": ["oAda"]}`)
	f.Add("<td>X-Wx-Openid</td><td>oAda</td>")
	f.Add("[HTTP_X_WX_OPENID] => oAda\n")
	f.Add("X-Wx-Openid<")
	f.Add("\u212a\u0130 x-wx-openid: o")
	f.Fuzz(func(t *testing.T, text string) {
		value := probe.ReflectedValue(text, "X-WX-OPENID")
		if !strings.Contains(text, value) || strings.ContainsAny(value, " \t\r\n\"'<>") {
			t.Errorf("%q has the value %q", text, value)
		}
	})
}

// FuzzChanged: a changed credential is another one in the same header.
func FuzzChanged(f *testing.F) {
	f.Add("Authorization: Bearer wxs_abc")
	f.Add("Cookie: a=b; session=0123456789")
	f.Add("X-3rd-Session: -")
	f.Fuzz(func(t *testing.T, text string) {
		name, value, ok := strings.Cut(text, ": ")
		if !ok || strings.Contains(name,
			":") || strings.TrimSpace(value) == "" || strings.EqualFold(name,
			"Cookie") && !strings.Contains(value, "=") {
			return
		}
		got := probe.Changed(text)
		if newName, newValue, _ := strings.Cut(got,
			": "); newName != name || newValue == strings.TrimSpace(value) {
			t.Errorf("%q is changed to %q", text, got)
		}
	})
}

// FuzzCanonical: what is plain stays what it is when it is cleaned.
func FuzzCanonical(f *testing.F) {
	for _, p := range []string{
		"/", "/public/x", "/public/", "/public//x", "/a/../b", "/a%2e", "x", "/a;b", "/a\\b",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if probe.Canonical(p) && path.Clean(p) != p && path.Clean(p)+"/" != p {
			t.Errorf("%q is said to be plain, but cleans to %q", p, path.Clean(p))
		}
	})
}
