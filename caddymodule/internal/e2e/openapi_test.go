package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// apiWorld is a world with a listener for the app beside its site: a wechat_api
// with the lines given. base is the address of that listener.
func apiWorld(tb testing.TB, s setup, lines string) (w *world, base string) {
	tb.Helper()
	addr := freeAddr(tb)
	s.sites += apiSite(addr, lines)
	return newWorld(tb, s), addr
}

func apiSite(addr, lines string) string {
	return siteAt(addr, "\twechat_api {\n"+lines+"\n\t}")
}

// ask sends one request of an app.
func ask(tb testing.TB, addr, method, target, body string, headers ...string) reply {
	tb.Helper()
	return raw(tb, addr, request(addr, method, target, body, headers...))
}

// errCode reads an answer of WeChat.
func (r reply) errCode(tb testing.TB) int {
	tb.Helper()
	var env struct{ ErrCode int }
	if err := json.Unmarshal([]byte(r.body), &env); err != nil || r.status != 200 || r.fromGate() {
		tb.Fatalf("not an answer of WeChat: %s", r)
	}
	return env.ErrCode
}

// standIn is WeChat as a test scripts it. It gives out the access tokens
// canary-token-1, canary-token-2 and so on.
type standIn struct {
	*httptest.Server
	mu     sync.Mutex
	tokens int
	seen   []relayed
	answer http.HandlerFunc
}

// script changes how calls are answered from now on.
func (s *standIn) script(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// relayed is one call as it came to WeChat.
type relayed struct {
	*http.Request
	body string
}

func newStandIn(tb testing.TB, answer http.HandlerFunc) *standIn {
	s := &standIn{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cgi-bin/stable_token" {
			s.mu.Lock()
			s.tokens++
			n := s.tokens
			s.mu.Unlock()
			fmt.Fprintf(w, `{"access_token":"canary-token-%d","expires_in":7200}`, n)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // a call that was given up
		}
		s.mu.Lock()
		s.seen = append(s.seen, relayed{r, string(body)})
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	tb.Cleanup(s.Close)
	return s
}

// take returns the calls since the last time.
func (s *standIn) take() []relayed {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.seen = nil }()
	return s.seen
}

// standInWorld is apiWorld in front of a scripted WeChat.
func standInWorld(tb testing.TB, s setup, lines string,
	answer http.HandlerFunc,
) (w *world, base string, wechat *standIn) {
	tb.Helper()
	wechat = newStandIn(tb, answer)
	base = freeAddr(tb)
	s.sites += apiSite(base, lines)
	s.base = wechat.URL
	return newWorld(tb, s), base, wechat
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"errcode":0,"errmsg":"ok"}`) }

func readToken(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.AccessToken == "" {
		tb.Fatalf("no access token: %v", err)
	}
	return got.AccessToken
}
