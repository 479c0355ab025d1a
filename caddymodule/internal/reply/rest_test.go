package reply

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// refusing is a server that refuses each request without a look at its body.
func refusing(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) { SessionInvalid.Write(w, r) },
	))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// talk opens a connection to a server and sends the head of a POST.
func talk(
	t *testing.T, s *httptest.Server, version string, lines ...string,
) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(conn, "POST /x HTTP/%s\r\nHost: x\r\n%s\r\n\r\n",
		version, strings.Join(lines, "\r\n"))
	return conn, bufio.NewReader(conn)
}

// refused wants one whole refusal, which says whether the connection goes on.
func refused(t *testing.T, br *bufio.Reader, closes bool) {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 401 || !strings.Contains(string(body), "session_invalid") {
		t.Errorf("got %d %q, %v", resp.StatusCode, body, err)
	}
	if resp.Close != closes {
		t.Errorf("the answer closes: %v, want %v", resp.Close, closes)
	}
}

// TestThreat47_BodyNeverComes_RefusedWithoutIt: the client sends nothing behind its
// header before it has the answer.
func TestThreat47_BodyNeverComes_RefusedWithoutIt(t *testing.T) {
	t.Parallel()
	s := refusing(t)
	const long, short = "Content-Length: 1048576", "Content-Length: 5"
	const chunked, expect = "Transfer-Encoding: chunked", "Expect: 100-continue"
	for _, version := range []string{"1.1", "1.0"} {
		for _, lines := range [][]string{
			{long},
			{short},
			{chunked},
			{long, expect},
			{short, expect},
			{chunked, expect},
			{short, "Connection: close"},
			{short, "Connection: keep-alive"},
		} {
			if version == "1.0" && lines[0] == chunked {
				continue // no framing of HTTP/1.0
			}
			t.Run(version+" "+strings.Join(lines, ", "), func(t *testing.T) {
				t.Parallel()
				conn, br := talk(t, s, version, lines...)
				refused(t, br, true)
				if strings.HasSuffix(lines[0], "5") {
					io.WriteString(conn, "hello") // net/http must not take fright at a late body
				} else {
					conn.(*net.TCPConn).CloseWrite()
				}
				if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
					t.Errorf("behind the answer: %q, %v", rest, err)
				}
			})
		}
	}
}

// TestThreat47_WritesAllBeforeItReads_Refused: 4 MB at about 2 MB a second.
func TestThreat47_WritesAllBeforeItReads_Refused(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("uploads for two seconds")
	}
	s := refusing(t)
	const size, piece = 4 << 20, 32 << 10
	length := fmt.Sprint("Content-Length: ", size)
	for _, c := range []struct{ version, line string }{
		{"1.1", length}, {"1.0", length}, {"1.1", "Transfer-Encoding: chunked"},
	} {
		t.Run(c.version+" "+c.line, func(t *testing.T) {
			t.Parallel()
			conn, br := talk(t, s, c.version, c.line)
			part, end := strings.Repeat("x", piece), ""
			if c.line != length {
				part, end = fmt.Sprintf("%x\r\n%s\r\n", piece, part), "0\r\n\r\n"
			}
			for range size / piece {
				if _, err := io.WriteString(conn, part); err != nil {
					t.Fatalf("writing: %v", err)
				}
				time.Sleep(time.Second * piece / (2 << 20))
			}
			if _, err := io.WriteString(conn, end); err != nil {
				t.Fatalf("writing: %v", err)
			}
			refused(t, br, true)
			if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
				t.Errorf("behind the answer: %q, %v", rest, err)
			}
		})
	}
}

// TestThreat47_BodyHasArrived_ConnectionGoesOn: a short body costs no connection.
func TestThreat47_BodyHasArrived_ConnectionGoesOn(t *testing.T) {
	t.Parallel()
	conn, br := talk(t, refusing(t), "1.1", "Content-Length: 0")
	refused(t, br, false)
	for _, n := range []int{0, 1, 4000} {
		fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
			n, strings.Repeat("x", n))
		refused(t, br, false)
	}
}

// TestThreat47_HTTP2_Refused: the stream ends behind the answer, the connection not.
func TestThreat47_HTTP2_Refused(t *testing.T) {
	t.Parallel()
	s := refusing(t)
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	pr, pw := io.Pipe() // a body that never comes
	defer pw.Close()
	for name, body := range map[string]io.Reader{
		"4 MB": strings.NewReader(strings.Repeat("x", 4<<20)), "nothing": pr,
	} {
		resp, err := (&http.Client{Transport: tr}).Post(s.URL, "text/plain", body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 401 || resp.ProtoMajor != 2 || len(text) == 0 {
			t.Errorf("%s: %s %s %q, %v", name, resp.Proto, resp.Status, text, err)
		}
	}
}
