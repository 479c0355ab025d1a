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

// echo is an app that remembers what it was sent. It reads requests off the socket by hand, so that nothing is normalised, joined or dropped before it is judged. Only the probe's own requests
// are kept.
type echo struct {
	listener net.Listener
	run      string
	done     sync.WaitGroup
	mu       sync.Mutex
	kept     []request
	conns    map[net.Conn]bool // nil: closed
}

// request is one request as it came over the wire: lines without their line ends, in order, duplicates kept.
type request struct {
	line              string
	headers, trailers []string
}

func (r request) lines() []string { return slices.Concat([]string{r.line}, r.headers, r.trailers) }

// target is the request target, byte for byte.
func (r request) target() string {
	_, rest, _ := strings.Cut(r.line, " ")
	return rest[:max(strings.LastIndexByte(rest, ' '), 0)]
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
func (e *echo) marked(mark string) (found []request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.kept {
		if strings.Contains(strings.Join(r.lines(), "\n"), mark) {
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
		r, err := readRequest(br, conn)
		if r.line != "" && strings.Contains(strings.Join(r.lines(), "\n"), e.run) {
			// Cut short or not, what is here got through the gate.
			e.mu.Lock()
			e.kept = append(e.kept, r)
			e.mu.Unlock()
		}
		if err != nil {
			return
		}
		if slices.ContainsFunc(r.values("upgrade"), func(v string) bool { return strings.EqualFold(v, "websocket") }) {
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			io.Copy(io.Discard, br)
			return
		}
		const said = "echo\n"
		answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", len(said))
		if !strings.HasPrefix(r.line, "HEAD ") {
			answer += said
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

// values returns the values of all headers of a name, given in lower case.
func (r request) values(name string) (values []string) {
	for _, line := range r.headers {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

var errMalformed = errors.New("malformed request")

// Bounds of a request, far above what the probe sends.
const (
	maxLines = 1000
	maxBody  = 1 << 20
)

func readRequest(br *bufio.Reader, w io.Writer) (r request, err error) {
	if r.line, err = readLine(br); err != nil {
		return r, err
	}
	if r.headers, err = readLines(br); err != nil {
		return r, err
	}
	if len(r.values("expect")) > 0 {
		io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
	}
	switch length := r.values("content-length"); {
	case len(r.values("transfer-encoding")) > 0:
		r.trailers, err = skipChunks(br)
	case len(length) > 0:
		n, convErr := strconv.ParseUint(length[0], 10, 31)
		if convErr != nil || n > maxBody {
			return r, errMalformed
		}
		_, err = io.CopyN(io.Discard, br, int64(n))
	}
	return r, err
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

func skipChunks(br *bufio.Reader) (trailers []string, err error) {
	for {
		line, err := readLine(br)
		if err != nil {
			return nil, err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil || n > maxBody {
			return nil, errMalformed
		}
		if n == 0 {
			return readLines(br)
		}
		if _, err := io.CopyN(io.Discard, br, int64(n)+2); err != nil {
			return nil, err
		}
	}
}
