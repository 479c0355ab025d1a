package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// sampleApp stands for an app that was never changed: it knows its users by a header. It answers with what it received.
func sampleApp(w http.ResponseWriter, r *http.Request) {
	seen := map[string]any{"path": r.URL.Path}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "X-Wx-") || name == "Authorization" {
			seen[name] = strings.Join(values, " | ")
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"the app received": seen})
}

// walk goes through the life of a session, printing each request and its answer, and checks each of them.
type walk struct {
	out    io.Writer
	gate   string
	client *http.Client
	code   func() string // what wx.login gives the mini program
	openID string        // whom the app must see
}

// reply is an answer as the walk judges it.
type reply struct {
	status int
	body   string
}

func (w *walk) run(ctx context.Context) error {
	code := w.code()
	login, err := w.call(ctx, "1. The mini program sends the code of wx.login", "POST", "/wx/login", fmt.Sprintf(`{"code":"%s"}`, code))
	if err != nil {
		return err
	}
	var session struct {
		Token string `json:"3rd_session"`
	}
	if err := json.Unmarshal([]byte(login.body), &session); err != nil || login.status != http.StatusOK || session.Token == "" {
		return fmt.Errorf("step 1: no session in the answer")
	}
	bearer := "Authorization: Bearer " + session.Token
	steps := []struct {
		title, method, path string
		headers             []string
		held                func(reply) bool
	}{
		{"2. It calls the app with the token: the app sees who it is, and never the token", "GET", "/hello", []string{bearer}, w.sees},
		{"3. Somebody without a token claims to be a user: refused, the app is not asked", "GET", "/hello", []string{"X-WX-OPENID: " + w.openID}, problem(http.StatusUnauthorized, "session_missing")},
		{"4. A user claims to be somebody else: the app still sees the truth", "GET", "/hello", []string{bearer, "X-WX-OPENID: somebody-else", "X-WX-UNIONID: somebody-else"}, w.sees},
		{"5. A public route: no session needed, and a forged header is removed all the same", "GET", "/healthz", []string{"X-WX-OPENID: somebody-else"}, anonymous},
		{"6. The user logs out", "POST", "/wx/logout", []string{bearer}, func(r reply) bool { return r.status == http.StatusNoContent }},
		{"7. The token opens nothing any more", "GET", "/hello", []string{bearer}, problem(http.StatusUnauthorized, "session_invalid")},
	}
	for i, s := range steps {
		got, err := w.call(ctx, s.title, s.method, s.path, "", s.headers...)
		if err != nil {
			return err
		}
		if !s.held(got) {
			return fmt.Errorf("step %d did not come out as it should", i+2)
		}
	}
	return nil
}

// call sends one request and prints both sides.
func (w *walk) call(ctx context.Context, title, method, path, body string, headers ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.gate+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	fmt.Fprintf(w.out, "%s\n\n    > %s %s\n", title, method, path)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
		fmt.Fprintf(w.out, "    > %s\n", h)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		fmt.Fprintf(w.out, "    > %s\n", body)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, err
	}
	fmt.Fprintf(w.out, "    < %s\n", resp.Status)
	if len(b) > 0 {
		fmt.Fprintf(w.out, "    < %s\n", pretty(b))
	}
	fmt.Fprintln(w.out)
	return reply{resp.StatusCode, string(b)}, nil
}

// sees reports whether the app was told the truth and nothing of the token.
func (w *walk) sees(r reply) bool {
	return r.status == http.StatusOK && strings.Contains(r.body, `"X-Wx-Openid":"`+w.openID+`"`) && !strings.Contains(r.body, "wxs_") && !strings.Contains(r.body, "somebody-else")
}

// anonymous reports whether the app answered and was told nothing of anybody.
func anonymous(r reply) bool { return r.status == http.StatusOK && !strings.Contains(r.body, "X-Wx-") }

// problem reports whether the gate refused with a certain status and code.
func problem(status int, code string) func(reply) bool {
	return func(r reply) bool { return r.status == status && strings.Contains(r.body, `"code":"`+code+`"`) }
}

// pretty lays out JSON to be read; anything else is left as it is.
func pretty(b []byte) string {
	var buf bytes.Buffer
	if json.Indent(&buf, bytes.TrimSpace(b), "    < ", "  ") != nil {
		return string(b)
	}
	return buf.String()
}

// indent sets a text off from what is around it.
func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(strings.ReplaceAll(text, "\t", "  ")), "\n", "\n    ") + "\n"
}
