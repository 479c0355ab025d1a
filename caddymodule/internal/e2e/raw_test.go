package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

// reply is an answer as it came over the wire. A status of 0 means that the
// connection ended without one.
type reply struct {
	status    int
	header    http.Header
	body      string
	continued int // answers 100 that came before
}

// raw sends bytes as they are and returns the first final answer.
func raw(tb testing.TB, addr, request string) reply {
	tb.Helper()
	r, err := exchange(addr, request)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// exchange is raw for goroutines that may not end the test.
func exchange(addr, request string) (reply, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	// Beside the reading: a server that has heard enough answers before all is sent.
	go io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	return readReply(bufio.NewReader(conn), method)
}

// readReply reads one answer to a method.
func readReply(br *bufio.Reader, method string) (reply, error) {
	a := probe.ReadAnswer(br, method)
	r := replyOf(a)
	switch {
	case a.Err != nil:
		return r, fmt.Errorf("after %s: %w", patience, a.Err)
	case a.Cut:
		return r, fmt.Errorf("the body of %s breaks off", r)
	}
	return r, nil
}

func replyOf(a probe.Answer) reply {
	return reply{status: a.Status, header: a.Header, body: a.Body, continued: a.Continued}
}

func (r reply) String() string {
	return fmt.Sprintf("%d %v %s", r.status, r.header, tail(r.body, 600))
}

// fromGate reports whether the gate, not the app, made the answer.
func (r reply) fromGate() bool { return r.header.Get("X-Wxgate") == "1" }

// fromApp reports whether the app made it.
func (r reply) fromApp() bool { return r.header.Get("X-App") != "" }

// made demands the headers of every answer that the gate makes.
func (r reply) made(tb testing.TB, status int) {
	tb.Helper()
	if r.status != status {
		tb.Fatalf("status %d, want %d: %s", r.status, status, r)
	}
	for name, want := range map[string]string{"X-Wxgate": "1", "Cache-Control": "no-store"} {
		if got := r.header.Values(name); len(got) != 1 || got[0] != want {
			tb.Errorf("%s is %q, want %q once", name, got, want)
		}
	}
	if r.fromApp() {
		tb.Error("the answer is the app's")
	}
}

// problem demands an RFC 9457 answer with a stable code, in the form that
// docs/design.md#wire gives it.
func (r reply) problem(tb testing.TB, status int, code string) {
	tb.Helper()
	r.made(tb, status)
	if got := r.header.Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("Content-Type is %q, want application/problem+json", got)
	}
	var p struct {
		Type, Title, Code, Detail string
		Status                    int
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		tb.Fatalf("the body is no JSON: %s", r)
	}
	if p.Code != code || p.Status != status || p.Type != "about:blank" ||
		p.Title != http.StatusText(status) || p.Detail == "" {
		tb.Errorf("the problem is %+v, want code %s and status %d", p, code, status)
	}
	challenge := r.header.Get("WWW-Authenticate")
	if (status == 401) != strings.HasPrefix(challenge, "Bearer ") {
		tb.Errorf("WWW-Authenticate is %q with status %d", challenge, status)
	}
	if waiting := status == 429 || status == 503; waiting != (r.header.Get("Retry-After") != "") {
		tb.Errorf("Retry-After is %q with status %d", r.header.Get("Retry-After"), status)
	}
}

// session demands the answer of a good login.
func (r reply) session(tb testing.TB) session {
	tb.Helper()
	r.made(tb, 200)
	if got := r.header.Get("Content-Type"); got != "application/json" {
		tb.Errorf("Content-Type is %q, want application/json", got)
	}
	var s session
	dec := json.NewDecoder(strings.NewReader(r.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil || len(s.Token) != 45 ||
		!strings.HasPrefix(s.Token, "wxs_") {
		tb.Fatalf("no session in the answer: %v: %s", err, r)
	}
	return s
}

// received returns the request as the app got it.
func (r reply) received(tb testing.TB) received {
	tb.Helper()
	var got received
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		tb.Fatalf("the answer is not the app's: %s", r)
	}
	return got
}
