package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// sampleApp answers with the path and headers that it received, as an unchanged app
// sees them.
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

// walk sends the requests of one session, prints and checks their answers.
type walk struct {
	out    io.Writer
	gate   string // base URL
	code   string // from wx.login
	openID string // of the user that logs in
}

// step is one request of a walk and the check of its answer.
type step struct {
	title   string
	request string // method and path
	headers []string
	ok      func(answer) bool
}

// answer is the answer to one request.
type answer struct {
	status int
	body   string
}

// run takes all steps. It ends with the first wrong answer and names the step.
func (w *walk) run(ctx context.Context) error {
	first := step{title: "1. The mini program sends its login code", request: "POST /wx/login"}
	login, err := w.call(ctx, first, fmt.Sprintf(`{"code":"%s"}`, w.code))
	if err != nil {
		return err
	}
	var session struct {
		Token string `json:"3rd_session"`
	}
	err = json.Unmarshal([]byte(login.body), &session)
	if err != nil || login.status != http.StatusOK || session.Token == "" {
		return errors.New("step 1: no session in the answer")
	}
	for i, s := range w.steps("Authorization: Bearer " + session.Token) {
		got, err := w.call(ctx, s, "")
		if err != nil {
			return err
		}
		if !s.ok(got) {
			return fmt.Errorf("step %d: wrong answer; it is printed above", i+2)
		}
	}
	return nil
}

// steps returns the steps after the login.
func (w *walk) steps(bearer string) []step {
	token := []string{bearer}
	guest := []string{"X-WX-OPENID: " + w.openID}
	forged := []string{"X-WX-OPENID: somebody-else", "X-WX-UNIONID: somebody-else"}
	both := append(token, forged...)
	missing, invalid := problem("session_missing"), problem("session_invalid")
	return []step{
		{"2. The app sees the user, and never the token", "GET /hello", token, w.namesUser},
		{"3. A forged header without a token: refused", "GET /hello", guest, missing},
		{"4. Forged headers beside the token: replaced", "GET /hello", both, w.namesUser},
		{"5. Forged headers on a public path: removed", "GET /healthz", forged, namesNoUser},
		{"6. The user logs out", "POST /wx/logout", token, loggedOut},
		{"7. The token opens nothing any more", "GET /hello", token, invalid},
	}
}

// call sends one request and prints it with its answer.
func (w *walk) call(ctx context.Context, s step, body string) (answer, error) {
	method, path, _ := strings.Cut(s.request, " ")
	req, err := http.NewRequestWithContext(ctx, method, w.gate+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	fmt.Fprintf(w.out, "%s\n\n    > %s\n", s.title, s.request)
	for _, h := range s.headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
		fmt.Fprintf(w.out, "    > %s\n", h)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		fmt.Fprintf(w.out, "    > %s\n", body)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	fmt.Fprintf(w.out, "    < %s\n", resp.Status)
	if len(b) > 0 {
		fmt.Fprintf(w.out, "    < %s\n", pretty(b))
	}
	fmt.Fprintln(w.out)
	return answer{resp.StatusCode, string(b)}, nil
}

// namesUser reports whether the app saw the user, and neither token nor forgery.
func (w *walk) namesUser(a answer) bool {
	return a.status == http.StatusOK &&
		strings.Contains(a.body, `"X-Wx-Openid":"`+w.openID+`"`) &&
		!strings.Contains(a.body, "wxs_") && !strings.Contains(a.body, "somebody-else")
}

// namesNoUser reports whether the app answered and saw no identity header.
func namesNoUser(a answer) bool {
	return a.status == http.StatusOK && !strings.Contains(a.body, "X-Wx-")
}

// loggedOut reports whether the gate ended the session.
func loggedOut(a answer) bool { return a.status == http.StatusNoContent }

// problem returns a check for a 401 of the gate with a code.
func problem(code string) func(answer) bool {
	return func(a answer) bool {
		return a.status == http.StatusUnauthorized && strings.Contains(a.body, `"code":"`+code+`"`)
	}
}

// pretty indents JSON and returns other text unchanged.
func pretty(b []byte) string {
	var buf bytes.Buffer
	if json.Indent(&buf, bytes.TrimSpace(b), "    < ", "  ") != nil {
		return string(b)
	}
	return buf.String()
}

// indent indents each line by four blanks and turns tabs into two.
func indent(text string) string {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\t", "  "))
	return "    " + strings.ReplaceAll(text, "\n", "\n    ") + "\n"
}
