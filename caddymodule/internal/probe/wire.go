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

// maxAnswer bounds how much of an answer's body is read.
const maxAnswer = 1 << 20

// wire reaches the gate. Every request has a connection of its own.
type wire struct {
	addr    string
	tls     *tls.Config // nil: plain TCP
	timeout time.Duration
}

// Answer is the answer of a server. A status of 0 means that it ended the connection
// without an answer.
type Answer struct {
	Status    int
	Header    http.Header
	Body      string
	Continued int   // interim answers before it
	Cut       bool  // the body ended before its end
	Reset     bool  // HTTP/2 ended the stream with an error
	Err       error // no connection, or nothing in time
}

func (a Answer) String() string {
	switch {
	case a.Err != nil:
		return a.Err.Error()
	case a.Reset:
		return "refused by an error of HTTP/2"
	case a.Status == 0:
		return "the connection was closed without an answer"
	}
	return fmt.Sprintf("answered %d", a.Status)
}

// dial connects. The connection closes when ctx ends or the time is over.
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
func (w *wire) send(ctx context.Context, request string) Answer {
	conn, release, err := w.dial(ctx)
	if err != nil {
		return Answer{Err: err}
	}
	written := make(chan struct{})
	go func() {
		// A server that has heard enough answers before all is sent.
		defer close(written)
		io.WriteString(conn, request)
	}()
	method, _, _ := strings.Cut(request, " ")
	a := ReadAnswer(bufio.NewReader(conn), method)
	release()
	<-written
	return a
}

// ReadAnswer reads the first final answer to a request with the method given.
func ReadAnswer(br *bufio.Reader, method string) (a Answer) {
	for {
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			a.Err = inTime(err)
			return a
		}
		status := resp.StatusCode
		if status/100 == 1 && status != http.StatusSwitchingProtocols {
			a.Continued++
			continue
		}
		a.Status, a.Header = status, resp.Header
		if status/100 == 1 || method == http.MethodConnect && status/100 == 2 {
			return a // and a tunnel behind it
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		a.Body, a.Err, a.Cut = string(body), inTime(err), err != nil
		return a
	}
}

// errSilent means that no answer, or half of one, came in time.
var errSilent = errors.New("no answer in time")

// inTime keeps the errors of a wait that was in vain: any other end of a
// connection is an answer.
func inTime(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return errSilent
	}
	return nil
}
