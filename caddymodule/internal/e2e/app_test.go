package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// app is an app that knows nothing of WeChat. It reads requests off the socket by hand, so that nothing is normalised, joined or dropped before a test sees it, and answers with what it was
// sent. `?status=` chooses another status than 200. A WebSocket handshake is accepted: the first line sent back is what was received, then everything is echoed.
type app struct {
	addr string
	mu   sync.Mutex
	seen []received
}

// received is one request as it came over the wire: lines without their line ends, in order, duplicates kept.
type received struct {
	Line     string   `json:"line"`
	Headers  []string `json:"headers"`
	Trailers []string `json:"trailers"`
	Body     string   `json:"body"`
}

func newApp(tb testing.TB) *app {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	a := &app{addr: l.Addr().String()}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	return a
}

// take returns the requests seen since the last call.
func (a *app) take() []received {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.seen = nil }()
	return a.seen
}

func (a *app) serve(conn net.Conn) {
	defer conn.Close()
	br := bufio.NewReader(conn)
	for {
		r, err := readRequest(br, conn)
		if err != nil {
			return
		}
		a.mu.Lock()
		a.seen = append(a.seen, r)
		a.mu.Unlock()
		said, _ := json.Marshal(r)
		if slices.ContainsFunc(r.values("upgrade"), func(v string) bool { return strings.EqualFold(v, "websocket") }) {
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-App: echo\r\n\r\n%s\n", said)
			io.Copy(conn, br)
			return
		}
		status := 200
		if u, err := url.Parse(r.target()); err == nil && u.Query().Get("status") != "" {
			status, _ = strconv.Atoi(u.Query().Get("status"))
		}
		head := fmt.Sprintf("HTTP/1.1 %d Status\r\nX-App: echo\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", status, len(said))
		if strings.HasPrefix(r.Line, "HEAD ") {
			said = nil
		}
		if _, err := conn.Write(append([]byte(head), said...)); err != nil {
			return
		}
	}
}

var errBadRequest = errors.New("malformed request")

func readRequest(br *bufio.Reader, w io.Writer) (r received, err error) {
	if r.Line, err = readLine(br); err != nil {
		return r, err
	}
	if r.Headers, err = readLines(br); err != nil {
		return r, err
	}
	if len(r.values("expect")) > 0 {
		io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	var body []byte
	switch length := r.values("content-length"); {
	case len(r.values("transfer-encoding")) > 0:
		body, r.Trailers, err = readChunked(br)
	case len(length) > 0:
		n, convErr := strconv.Atoi(length[0])
		if convErr != nil {
			return r, errBadRequest
		}
		body = make([]byte, n)
		_, err = io.ReadFull(br, body)
	}
	r.Body = string(body)
	return r, err
}

func readLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadString('\n')
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

// readLines reads up to and including an empty line.
func readLines(br *bufio.Reader) (lines []string, err error) {
	for {
		line, err := readLine(br)
		if err != nil || line == "" {
			return lines, err
		}
		lines = append(lines, line)
	}
}

func readChunked(br *bufio.Reader) (body []byte, trailers []string, err error) {
	for {
		size, err := readLine(br)
		if err != nil {
			return nil, nil, err
		}
		n, err := strconv.ParseInt(size, 16, 32)
		if err != nil {
			return nil, nil, errBadRequest
		}
		if n == 0 {
			trailers, err = readLines(br)
			return body, trailers, err
		}
		chunk := make([]byte, n+2)
		if _, err := io.ReadFull(br, chunk); err != nil {
			return nil, nil, err
		}
		body = append(body, chunk[:n]...)
	}
}

// target is the request target, byte for byte.
func (r received) target() string {
	_, rest, _ := strings.Cut(r.Line, " ")
	return rest[:max(strings.LastIndexByte(rest, ' '), 0)]
}

// values returns the values of all headers of a name, given in lower case.
func (r received) values(name string) (values []string) {
	for _, line := range r.Headers {
		n, v, _ := strings.Cut(line, ":")
		if strings.ToLower(n) == name {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// identity is what the app is told about a caller.
type identity struct{ openid, unionid, appid, phone string }

func (id *identity) lines() (lines []string) {
	if id == nil {
		return nil
	}
	lines = []string{"x-wx-appid: " + id.appid, "x-wx-openid: " + id.openid}
	if id.phone != "" {
		lines = append(lines, "x-wx-phone: "+id.phone)
	}
	lines = append(lines, "x-wx-source: wx_client")
	if id.unionid != "" {
		lines = append(lines, "x-wx-unionid: "+id.unionid)
	}
	return lines
}

// owned returns, sorted, the header and trailer lines whose names any server could read as one of ours (THREATS.md, owned name), the name in lower case.
func (r received) owned() (lines []string) {
	for _, line := range slices.Concat(r.Headers, r.Trailers) {
		name, value, _ := strings.Cut(line, ":")
		folded := strings.Map(func(c rune) rune {
			if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
				return c
			}
			return '-'
		}, strings.ToLower(name))
		if strings.HasPrefix(folded, "x-wx-") {
			lines = append(lines, strings.ToLower(name)+": "+strings.TrimSpace(value))
		}
	}
	slices.Sort(lines)
	return lines
}

// check demands that the app was told exactly the identity, or nothing when it is nil, and nothing of any token (DESIGN.md P1).
func (r received) check(tb testing.TB, want *identity) {
	tb.Helper()
	if got := r.owned(); !slices.Equal(got, want.lines()) {
		tb.Errorf("the app is told %q, want %q", got, want.lines())
	}
	if all := strings.Join(slices.Concat([]string{r.Line}, r.Headers, r.Trailers), "\n"); strings.Contains(all, "wxs_") {
		tb.Errorf("the app sees a token:\n%s", all)
	}
}
