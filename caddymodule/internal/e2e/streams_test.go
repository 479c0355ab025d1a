package e2e_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// streamApp is an app with an event stream at /events and a WebSocket at /socket, which
// both say "hello" and then nothing. gone gets the path when the gate lets go of one.
func streamApp(t *testing.T) (addr string, gone chan string) {
	t.Helper()
	gone = make(chan string, 16)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.URL.Path == "/socket" {
			conn, rw, err := rc.Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" +
				"Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" +
				"\x81\x05hello")
			rw.Flush()
			io.Copy(io.Discard, rw)
		} else {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: hello\n\n")
			rc.Flush()
			<-r.Context().Done()
		}
		gone <- r.URL.Path
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), gone
}

// TestP10_EndedSession_ClosesSocketsAndStreams: at the gate of the log-out and at the
// other one of a fleet, over HTTP/1.1 and HTTP/2; the app is let go, and the streams of
// other users go on.
func TestP10_EndedSession_ClosesSocketsAndStreams(t *testing.T) {
	t.Parallel()
	app, gone := streamApp(t)
	f := newFleet(t, setup{
		options: "\tservers {\n\t\tprotocols h1 h2c\n\t}",
		site:    "reverse_proxy /events " + app + "\nreverse_proxy /socket " + app,
	})
	token, other := f.a.login(t, "ada"), f.a.login(t, "bob")

	type open struct {
		name string
		body *bufio.Reader
	}
	var ends []open
	for _, w := range f.gates() {
		conn, br := dial(t, w.addr)
		io.WriteString(conn, handshake(w.addr, "Connection: Upgrade", "Upgrade: websocket",
			bearer(token)))
		if r, err := readReply(br, "GET"); err != nil ||
			r.status != http.StatusSwitchingProtocols {
			t.Fatalf("the handshake is answered with %s, %v", r, err)
		}
		ends = append(ends,
			open{"socket", br},
			open{"events over HTTP/1.1", events(t, w.addr, token, false)},
			open{"events over HTTP/2", events(t, w.addr, token, true)})
	}
	bystander := events(t, f.b.addr, other, false)
	for _, o := range ends {
		hello(t, o.name, o.body)
	}
	hello(t, "the bystander", bystander)
	// A sweep has seen them all.
	eventually(t, "all streams are counted", func() bool {
		return f.a.metrics(t)["caddy_wechat_streams"] == 3 &&
			f.b.metrics(t)["caddy_wechat_streams"] == 4
	})

	if r := f.a.post(t, "/wx/logout", "{}", bearer(token)); r.status != http.StatusNoContent {
		t.Fatalf("log-out: %s", r)
	}
	for _, o := range ends {
		rest, err := io.ReadAll(o.body)
		if o.name == "socket" && string(rest) != "\x88\x0f\x11\x31session ended" {
			t.Errorf("the socket gets %q, %v", rest, err)
		} else if o.name != "socket" && len(rest) > 0 {
			t.Errorf("%s: %q, %v", o.name, rest, err)
		}
	}
	for range ends {
		select {
		case <-gone:
		case <-time.After(patience):
			t.Fatal("the app still holds a stream")
		}
	}
	if n := f.b.metrics(t)["caddy_wechat_streams_ended_total"]; n != 3 {
		t.Errorf("%v streams are counted as ended", n)
	}
	if f.b.call(t, "GET", "/", "", bearer(other)); len(gone) > 0 {
		t.Errorf("%s of the bystander ended", <-gone)
	}
}

// events opens the event stream.
func events(t *testing.T, addr, token string, http2 bool) *bufio.Reader {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetUnencryptedHTTP2(http2)
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %s", resp.Status)
	}
	return bufio.NewReader(resp.Body)
}

func hello(t *testing.T, name string, r *bufio.Reader) {
	t.Helper()
	want := "data: hello\n\n"
	if name == "socket" {
		want = "\x81\x05hello"
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%s: %q, %v", name, got, err)
	}
}
