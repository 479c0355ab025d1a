package probe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Request is a request of HTTP/1 as it came over the wire: lines without their
// line ends, in order, duplicates kept.
type Request struct {
	Line              string
	Headers, Trailers []string
	Body              string
}

// Lines returns all lines but those of the body.
func (r Request) Lines() []string {
	return slices.Concat([]string{r.Line}, r.Headers, r.Trailers)
}

// Target is the request target, byte for byte.
func (r Request) Target() string {
	_, rest, _ := strings.Cut(r.Line, " ")
	return rest[:max(strings.LastIndexByte(rest, ' '), 0)]
}

// Values returns the values of all headers of a name.
func (r Request) Values(name string) (values []string) {
	for _, line := range r.Headers {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// WebSocket reports whether the request asks for a WebSocket.
func (r Request) WebSocket() bool {
	return slices.ContainsFunc(r.Values("Upgrade"),
		func(v string) bool { return strings.EqualFold(v, "websocket") })
}

var errMalformed = errors.New("malformed request")

// Bounds of a request, far above what the probe sends.
const (
	maxLines = 1000
	maxBody  = 1 << 20
)

// ReadRequest reads a request off a socket by hand, so that nothing normalises,
// joins or drops a line. It answers an expectation to w. With an error it returns
// what came until then.
func ReadRequest(br *bufio.Reader, w io.Writer) (r Request, err error) {
	if r.Line, err = readLine(br); err != nil {
		return r, err
	}
	if r.Headers, err = readLines(br); err != nil {
		return r, err
	}
	if len(r.Values("Expect")) > 0 {
		io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	switch length := r.Values("Content-Length"); {
	case len(r.Values("Transfer-Encoding")) > 0:
		err = r.readChunks(br)
	case len(length) > 0:
		err = r.readBody(br, length[0], 10, 0)
	}
	return r, err
}

func (r *Request) readChunks(br *bufio.Reader) error {
	for {
		line, err := readLine(br)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(line, ";")
		if err := r.readBody(br, size, 16, len("\r\n")); err != nil {
			return err
		}
		if strings.Trim(size, "0") == "" {
			r.Trailers, err = readLines(br)
			return err
		}
	}
}

// readBody appends as many bytes as size says, and drops some behind them.
func (r *Request) readBody(br *bufio.Reader, size string, base, behind int) error {
	n, err := strconv.ParseUint(size, base, 31)
	if err != nil || int(n)+len(r.Body) > maxBody {
		return errMalformed
	}
	if n == 0 {
		return nil
	}
	b := make([]byte, int(n)+behind)
	_, err = io.ReadFull(br, b)
	r.Body += string(b[:n])
	return err
}

func readLine(br *bufio.Reader) (string, error) {
	line, err := br.ReadSlice('\n')
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), err
}

// readLines reads up to and including an empty line.
func readLines(br *bufio.Reader) (lines []string, err error) {
	for range maxLines {
		line, err := readLine(br)
		if err != nil || line == "" {
			return lines, err
		}
		lines = append(lines, line)
	}
	return lines, errMalformed
}

// echo is an app that remembers the probe's requests.
type echo struct {
	listener net.Listener
	run      string
	done     sync.WaitGroup
	mu       sync.Mutex
	kept     []Request
	conns    map[net.Conn]bool // nil: closed
}

func newEcho(l net.Listener, run string) *echo {
	e := &echo{listener: l, run: run, conns: make(map[net.Conn]bool)}
	e.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if !e.track(conn) {
				conn.Close()
				return
			}
			e.done.Go(func() { e.serve(conn) })
		}
	})
	return e
}

func (e *echo) track(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[conn] = true
	return true
}

func (e *echo) close() {
	e.listener.Close()
	e.mu.Lock()
	for conn := range e.conns {
		conn.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.done.Wait()
}

// marked returns the requests that carry a mark.
func (e *echo) marked(mark string) (found []Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.kept {
		if strings.Contains(strings.Join(r.Lines(), "\n"), mark) {
			found = append(found, r)
		}
	}
	return found
}

// idle is how long a gate may keep a connection open without a request.
const idle = 30 * time.Second

func (e *echo) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		e.mu.Lock()
		delete(e.conns, conn)
		e.mu.Unlock()
	}()
	br := bufio.NewReaderSize(conn, 64<<10)
	for {
		conn.SetDeadline(time.Now().Add(idle))
		r, err := ReadRequest(br, conn)
		if r.Line != "" && strings.Contains(strings.Join(r.Lines(), "\n"), e.run) {
			// Cut short or not, this request got through the gate.
			e.mu.Lock()
			e.kept = append(e.kept, r)
			e.mu.Unlock()
		}
		if err != nil {
			return
		}
		if r.WebSocket() {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"+
				"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(io.Discard, br)
			return
		}
		const said = "echo\n"
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"+
			"Content-Length: %d\r\n\r\n", len(said))
		if !strings.HasPrefix(r.Line, "HEAD ") {
			answer += said
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}
