package weixintest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	appA, secretA = "wx0123456789abcdef", "test-secret-a"
	appB, secretB = "wxfedcba9876543210", "test-secret-b"
)

func config() weixintest.Config {
	return weixintest.Config{Apps: map[string]string{appA: secretA, appB: secretB}}
}

// answer is one decoded answer with what the decoding loses.
type answer struct {
	status int
	mime   string
	raw    string
	fields map[string]any
}

func (a answer) text(name string) string { v, _ := a.fields[name].(string); return v }

func (a answer) errcode() int {
	n, ok := a.fields["errcode"].(float64)
	if !ok {
		return 0
	}
	return int(n)
}

// call sends one request straight to the handler.
func call(t *testing.T, h http.Handler, method, target, body string) answer {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return read(t, w.Result())
}

func read(t *testing.T, r *http.Response) answer {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	a := answer{status: r.StatusCode, mime: r.Header.Get("Content-Type"), raw: string(b)}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &a.fields); err != nil {
			t.Fatalf("answer is not a JSON object: %v: %q", err, b)
		}
	}
	return a
}

func loginQuery(appid, secret, code string) url.Values {
	return url.Values{
		"appid": {appid}, "secret": {secret}, "js_code": {code},
		"grant_type": {"authorization_code"},
	}
}

func loginTarget(appid, secret, code string) string {
	return loginPath + "?" + loginQuery(appid, secret, code).Encode()
}

const loginPath = "/sns/jscode2session"

func login(t *testing.T, h http.Handler, code string) answer {
	t.Helper()
	return call(t, h, "GET", loginTarget(appA, secretA, code), "")
}

// token returns an access_token of appA.
func token(t *testing.T, h http.Handler) string {
	t.Helper()
	a := call(t, h, "POST", tokenPath, tokenBody("client_credential", appA, secretA, "false"))
	if a.text("access_token") == "" {
		t.Fatalf("no access_token: %s", a.raw)
	}
	return a.text("access_token")
}

func wantErrCode(t *testing.T, a answer, want int) {
	t.Helper()
	if a.errcode() != want {
		t.Fatalf("errcode %d, want %d: %s", a.errcode(), want, a.raw)
	}
}
