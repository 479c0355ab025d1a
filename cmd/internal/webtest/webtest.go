// Package webtest owns the request that the tests of the commands send.
//
// It must not know what answers.
package webtest

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Ask sends one request, with headers of the form 'Name: value', and returns the status,
// headers and body of the answer. An empty value removes a header that Go would send.
func Ask(
	t testing.TB, method, url, body string, headers ...string,
) (status int, header http.Header, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		} else {
			req.Header.Add(name, value)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}
