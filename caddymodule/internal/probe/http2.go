package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is a request over HTTP/2, sent as it is: fields in order, pseudo fields
// among them.
type Stream struct {
	Fields   [][2]string
	Body     string
	Trailers [][2]string
}

// AsStream writes a request of HTTP/1 as one of HTTP/2.
func AsStream(request, scheme string) (s Stream) {
	head, body, _ := strings.Cut(request, "\r\n\r\n")
	line, lines, _ := strings.Cut(head, "\r\n")
	method, target, _ := strings.Cut(line, " ")
	target = target[:max(strings.LastIndexByte(target, ' '), 0)]
	s = Stream{Fields: [][2]string{{":method", method}, {":scheme", scheme}}, Body: body}
	var fields [][2]string
	for line := range strings.SplitSeq(lines, "\r\n") {
		switch f := asField(line); f[0] {
		case "host":
			s.Fields = append(s.Fields, [2]string{":authority", f[1]})
		case "transfer-encoding":
			chunk, trailers, _ := strings.Cut(body, "\r\n0\r\n")
			_, s.Body, _ = strings.Cut(chunk, "\r\n")
			for line := range strings.Lines(strings.TrimSuffix(trailers, "\r\n")) {
				s.Trailers = append(s.Trailers, asField(line))
			}
		default:
			fields = append(fields, f)
		}
	}
	s.Fields = append(append(s.Fields, [2]string{":path", target}), fields...)
	return s
}

func asField(line string) [2]string {
	name, value, _ := strings.Cut(line, ":")
	return [2]string{strings.ToLower(name), strings.TrimSpace(value)}
}

// Conn is a connection of HTTP/2 whose frames are made by hand. It is for one
// goroutine.
type Conn struct {
	net.Conn
	// Broken means that the server ends the connection or has ended it.
	Broken bool

	// out makes the frames of a request leave together: the server may answer,
	// and close the stream, after the first.
	out     *bufio.Writer
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32
	tunnels map[uint32]bool // streams of CONNECT, whose answer has no end
}

// NewConn begins HTTP/2 on a connection.
func NewConn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, next: 1, tunnels: make(map[uint32]bool)}
	c.out = bufio.NewWriterSize(conn, 1<<16)
	c.framer = http2.NewFramer(c.out, conn)
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	io.WriteString(c.out, http2.ClientPreface)
	c.framer.WriteSettings()
	return c
}

// Open writes a request into the buffer and returns the number of its stream.
func (c *Conn) Open(s Stream) uint32 {
	more := s.Body != "" || s.Trailers != nil
	id := c.begin(s, !more)
	if more {
		c.framer.WriteData(id, s.Trailers == nil, []byte(s.Body))
	}
	if s.Trailers != nil {
		c.writeFields(id, s.Trailers, true)
	}
	return id
}

// Begin is Open for a request whose body never comes.
func (c *Conn) Begin(s Stream) uint32 { return c.begin(s, false) }

// Cancel resets a stream.
func (c *Conn) Cancel(id uint32) { c.framer.WriteRSTStream(id, http2.ErrCodeCancel) }

// Flush sends the buffer.
func (c *Conn) Flush() error {
	err := c.out.Flush()
	c.Broken = c.Broken || err != nil
	return err
}

func (c *Conn) begin(s Stream, end bool) uint32 {
	id := c.next
	c.next += 2
	for _, f := range s.Fields {
		if f == [2]string{":method", http.MethodConnect} {
			c.tunnels[id] = true
		}
	}
	c.writeFields(id, s.Fields, end)
	return id
}

func (c *Conn) writeFields(id uint32, fields [][2]string, end bool) {
	c.block.Reset()
	for _, f := range fields {
		c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	c.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end,
	})
}

// Answers reads until each of the streams has ended. A stream that the server
// resets, or cuts off with the connection, has status 0 if no status came.
func (c *Conn) Answers(ids ...uint32) (map[uint32]Answer, error) {
	answers, waiting := make(map[uint32]Answer), make(map[uint32]bool)
	for _, id := range ids {
		waiting[id] = true
	}
	for len(waiting) > 0 {
		c.Flush() // what a server said before it closed is still read
		frame, err := c.framer.ReadFrame()
		if err != nil {
			c.Broken = true
			return answers, inTime(err)
		}
		id := frame.Header().StreamID
		a, ended := answers[id], false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			c.framer.WritePing(true, f.Data)
		case *http2.GoAwayFrame:
			c.Broken = true
			if f.ErrCode == http2.ErrCodeNo {
				continue
			}
			for id := range waiting {
				a := answers[id]
				a.Reset = a.Status == 0
				answers[id] = a
			}
			return answers, nil
		case *http2.RSTStreamFrame:
			a.Reset, ended = a.Status == 0, true
		case *http2.MetaHeadersFrame:
			if status, _ := strconv.Atoi(f.PseudoValue("status")); status >= 200 {
				a.Status, a.Header = status, make(http.Header)
				for _, field := range f.RegularFields() {
					a.Header.Add(field.Name, field.Value)
				}
			}
			ended = f.StreamEnded() || c.tunnels[id] && a.Status/100 == 2
		case *http2.DataFrame:
			a.Body += string(f.Data())
			if n := uint32(len(f.Data())); n > 0 {
				c.framer.WriteWindowUpdate(0, n)
			}
			ended = f.StreamEnded()
		}
		if id != 0 {
			answers[id] = a
		}
		if ended {
			delete(waiting, id)
		}
	}
	return answers, nil
}

var errNotHTTP2 = errors.New("HTTP/2 is not spoken here")

// overHTTP2 returns the wire for HTTP/2: by ALPN over TLS, with prior knowledge
// without.
func (w wire) overHTTP2() *wire {
	if w.tls != nil {
		w.tls = w.tls.Clone()
		w.tls.NextProtos = []string{"h2"}
	}
	return &w
}

// sendStream sends one request on a connection of its own.
func (w *wire) sendStream(ctx context.Context, s Stream) Answer {
	conn, release, err := w.dial(ctx)
	if err != nil {
		return Answer{Err: err}
	}
	defer release()
	if secured, ok := conn.(*tls.Conn); ok && secured.ConnectionState().NegotiatedProtocol != "h2" {
		return Answer{Err: errNotHTTP2}
	}
	c := NewConn(conn)
	id := c.Open(s)
	answers, err := c.Answers(id)
	a := answers[id]
	a.Err = err
	return a
}
