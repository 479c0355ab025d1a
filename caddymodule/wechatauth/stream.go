package wechatauth

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// stream is a request that the app answers. When its session ends before it does, its
// connection is closed (docs/design.md#p10).
type stream struct {
	session.Stream
	w    http.ResponseWriter
	open bool
}

var streamPool = sync.Pool{New: func() any {
	s := new(stream)
	s.End = s.end
	return s
}}

// newStream returns a stream for an answer, and what the app writes to: w itself,
// unless the request may open a WebSocket.
func newStream(w http.ResponseWriter, r *http.Request) (*stream, http.ResponseWriter) {
	if len(r.Header["Upgrade"]) > 0 && strings.EqualFold(r.Header["Upgrade"][0], "websocket") {
		w = &socketWriter{
			ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		}
	}
	s := streamPool.Get().(*stream)
	s.w, s.open = w, false
	return s, w
}

// done gives the stream back.
func (s *stream) done() {
	if s.open {
		s.Done()
	}
	s.w = nil
	streamPool.Put(s)
}

// end closes the WebSocket, or breaks off the answer. The proxy lets go of the app.
func (s *stream) end() {
	if sw, ok := s.w.(*socketWriter); ok && sw.end() {
		return
	}
	breakOff(s.w)
}

// breakOff lets a request fail, from another goroutine, before its handler is done. With
// HTTP/1 the read deadline ends the request's context, with HTTP/2 the write deadline
// resets the stream. It asks the server's own writer: those that Caddy puts around it
// serve one goroutine, and move deadlines.
func breakOff(w http.ResponseWriter) {
	for {
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = outer.Unwrap()
	}
	rc, past := http.NewResponseController(w), time.Unix(1, 0)
	_ = rc.SetReadDeadline(past)
	_ = rc.SetWriteDeadline(past)
}

// socketWriter keeps the connection of a WebSocket when the proxy takes it over.
type socketWriter struct {
	*caddyhttp.ResponseWriterWrapper
	mu   sync.Mutex
	conn *socketConn
}

// Hijack implements http.Hijacker.
func (w *socketWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffer, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = &socketConn{Conn: conn}
	return w.conn, buffer, nil
}

// end begins to close the WebSocket, if it is open.
func (w *socketWriter) end() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		go w.conn.end()
	}
	return w.conn != nil
}

// closeFrame tells the client that the session has ended: code 4401, with a reason.
var closeFrame = append([]byte{0x88, byte(2 + len(closeReason)), 4401 >> 8, 4401 & 0xff},
	closeReason...)

const closeReason = "session ended"

// closeWait is what a WebSocket has to finish the frame that it is in the middle of, and
// then the client to answer the close frame.
const closeWait = time.Second

// socketConn is the client's end of a WebSocket. It follows the frames that the app
// sends, since a close frame may only stand between two of them.
type socketConn struct {
	net.Conn
	mu     sync.Mutex
	frames frames
	ending bool // waits for the end of a frame
	closed bool // the close frame is sent: nothing may follow it
}

// Write implements net.Conn.
func (c *socketConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return len(p), nil
	}
	now := p
	if c.ending { // up to the end of the frame
		now = p[:c.frames.rest(p)]
	}
	n, err := c.Conn.Write(now)
	c.frames.pass(now[:n])
	if err != nil {
		return n, err
	}
	if c.ending && c.frames.between() {
		c.sendClose()
	}
	return len(p), nil
}

// end sends the close frame as soon as it may stand, and closes the connection when the
// client has had time to answer.
func (c *socketConn) end() {
	// A client that does not read must not keep Write, and with it the lock.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(closeWait))
	c.mu.Lock()
	c.ending = true
	if c.frames.between() {
		c.sendClose()
	}
	c.mu.Unlock()
	time.Sleep(closeWait)
	c.Conn.Close()
}

func (c *socketConn) sendClose() {
	c.closed = true
	_, _ = c.Conn.Write(closeFrame)
}

// frames follows the frames of a WebSocket (RFC 6455, 5.2).
type frames struct {
	header []byte // of a frame whose header is incomplete
	left   uint64 // bytes of payload to come
}

// between reports whether a frame has just ended.
func (f *frames) between() bool { return f.left == 0 && len(f.header) == 0 }

// pass notes what is sent.
func (f *frames) pass(p []byte) {
	for len(p) > 0 {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)))
			f.left -= n
			p = p[n:]
			continue
		}
		f.header = append(f.header, p[0])
		p = p[1:]
		if size, ok := payload(f.header); ok {
			f.left, f.header = size, f.header[:0]
		}
	}
}

// rest returns how much of p belongs to the frame that has begun.
func (f *frames) rest(p []byte) (n int) {
	g := frames{header: append([]byte(nil), f.header...), left: f.left}
	for n < len(p) && !g.between() {
		step := max(1, int(min(g.left, uint64(len(p)-n))))
		g.pass(p[n : n+step])
		n += step
	}
	return n
}

// payload returns what follows a whole header: the payload, and the mask before it.
func payload(h []byte) (size uint64, ok bool) {
	if len(h) < 2 {
		return 0, false
	}
	size, extended := uint64(h[1]&0x7f), 0
	switch size {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	if len(h) < 2+extended {
		return 0, false
	}
	if extended > 0 {
		size = 0
		for _, b := range h[2:] {
			size = size<<8 | uint64(b)
		}
	}
	if h[1]&0x80 != 0 {
		size += 4
	}
	return size, true
}
