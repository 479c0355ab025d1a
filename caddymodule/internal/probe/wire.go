package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer's body.
const maxAnswer = 1 << 20

// wire reaches the gate. Every request has a connection of its own.
type wire struct {
	addr    string
	tls     *tls.Config // nil: plain TCP
	timeout time.Duration
}

// answer is what the gate said. A status of 0 means that it ended the connection without an answer.
type answer struct {
	status int
	header http.Header
	body   string
	reset  bool  // HTTP/2 ended the stream with an error
	err    error // no connection, or nothing in time
}

func (a answer) String() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.reset:
		return "refused by an error of HTTP/2"
	case a.status == 0:
		return "the connection was closed without an answer"
	}
	return fmt.Sprintf("answered %d", a.status)
}

// dial connects, and lets go when ctx ends or the time is over.
func (w *wire) dial(ctx context.Context) (conn net.Conn, release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	deadline, _ := ctx.Deadline()
	conn, err = new(net.Dialer).DialContext(ctx, "tcp", w.addr)
	if err == nil && w.tls != nil {
		raw := conn
		secured := tls.Client(raw, w.tls)
		if err = secured.HandshakeContext(ctx); err != nil {
			raw.Close()
		}
		conn = secured
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("connecting: %w", err)
	}
	conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); cancel(); conn.Close() }, nil
}

// send writes bytes as they are and reads the first final answer.
func (w *wire) send(ctx context.Context, request string) answer {
	conn, release, err := w.dial(ctx)
	if err != nil {
		return answer{err: err}
	}
	written := make(chan struct{})
	go func() {
		// Beside the reading: a server that has heard enough answers before all is sent.
		defer close(written)
		io.WriteString(conn, request)
	}()
	method, _, _ := strings.Cut(request, " ")
	a := readAnswer(bufio.NewReader(conn), method)
	release()
	<-written
	return a
}

func readAnswer(br *bufio.Reader, method string) answer {
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return answer{err: inTime(err)}
		}
		a := answer{status: resp.StatusCode, header: resp.Header}
		if a.status == http.StatusSwitchingProtocols || method == http.MethodConnect && a.status/100 == 2 {
			return a
		}
		if a.status/100 == 1 {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		a.body, a.err = string(body), inTime(err)
		return a
	}
}

// errSilent is no answer, or half of one, when the time was over.
var errSilent = errors.New("no answer in time")

// inTime makes an error of a wait that was in vain. Any other end of a connection is an answer, too.
func inTime(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return errSilent
	}
	return nil
}
