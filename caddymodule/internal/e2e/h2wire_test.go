package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is a request over HTTP/2 as it goes over the wire: fields in order, pseudo fields among them, each written "name: value".
type stream struct {
	fields   []string
	body     string
	trailers []string
}

// h2conn is a connection of HTTP/2 whose frames are made by hand. It is for one goroutine.
type h2conn struct {
	net.Conn
	out     *bufio.Writer // so that the frames of a request leave together: the server may answer, and close the stream, after the first
	framer  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	next    uint32 // stream to open
	broken  bool   // the server ends it or has ended it
}

// dialH2 opens a connection: by ALPN over TLS when a configuration is given, else with prior knowledge.
func dialH2(addr string, config *tls.Config) (*h2conn, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	if config != nil {
		secured := tls.Client(conn, config)
		if err := secured.Handshake(); err != nil {
			conn.Close()
			return nil, err
		}
		conn = secured
	}
	c := &h2conn{Conn: conn, out: bufio.NewWriterSize(conn, 1<<16), next: 1}
	c.framer = http2.NewFramer(c.out, conn)
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	io.WriteString(c.out, http2.ClientPreface)
	c.framer.WriteSettings()
	if err := c.out.Flush(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// mustDialH2 opens a connection that ends with the test.
func mustDialH2(tb testing.TB, addr string, config *tls.Config) *h2conn {
	tb.Helper()
	c, err := dialH2(addr, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func (c *h2conn) encode(fields []string) []byte {
	c.block.Reset()
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		c.encoder.WriteField(hpack.HeaderField{Name: name, Value: value})
	}
	return c.block.Bytes()
}

// open writes all of a request into the buffer and returns the number of its stream.
func (c *h2conn) open(s stream) uint32 {
	id := c.next
	c.next += 2
	more := s.body != "" || s.trailers != nil
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(s.fields), EndHeaders: true, EndStream: !more})
	if more {
		c.framer.WriteData(id, s.trailers == nil, []byte(s.body))
	}
	if s.trailers != nil {
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(s.trailers), EndHeaders: true, EndStream: true})
	}
	return id
}

// begin sends the head of a request whose body never comes and returns the number of its stream.
func (c *h2conn) begin(fields ...string) uint32 {
	id := c.next
	c.next += 2
	c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields), EndHeaders: true})
	return id
}

// answers reads until each of the streams has ended. One that was reset, or cut off with the connection, has status 0 if no status came.
func (c *h2conn) answers(ids ...uint32) (map[uint32]reply, error) {
	c.SetDeadline(time.Now().Add(patience))
	replies := make(map[uint32]reply)
	waiting := make(map[uint32]bool)
	for _, id := range ids {
		waiting[id] = true
	}
	for len(waiting) > 0 {
		c.out.Flush() // a server that has had enough closes while we write; what it said is still read
		frame, err := c.framer.ReadFrame()
		if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
			c.broken = true
			return replies, fmt.Errorf("no answer in %s", patience)
		}
		if err != nil {
			c.broken = true
			return replies, nil
		}
		id := frame.Header().StreamID
		r, ended := replies[id], false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			c.framer.WritePing(true, f.Data)
		case *http2.GoAwayFrame:
			c.broken = true
		case *http2.RSTStreamFrame:
			ended = true
		case *http2.MetaHeadersFrame:
			if status, _ := strconv.Atoi(f.PseudoValue("status")); status >= 200 {
				r.status, r.header = status, make(http.Header)
				for _, field := range f.RegularFields() {
					r.header.Add(field.Name, field.Value)
				}
			}
			// A tunnel has no end: what the app said of the handshake is the first line in it.
			ended = f.StreamEnded()
		case *http2.DataFrame:
			r.body += string(f.Data())
			if n := uint32(len(f.Data())); n > 0 {
				c.framer.WriteWindowUpdate(0, n)
			}
			ended = f.StreamEnded() || strings.HasSuffix(r.body, "}\n")
		}
		if id != 0 {
			replies[id] = r
		}
		if ended {
			delete(waiting, id)
		}
	}
	return replies, nil
}

// ask sends one request and returns its answer.
func (c *h2conn) ask(tb testing.TB, s stream) reply {
	tb.Helper()
	id := c.open(s)
	replies, err := c.answers(id)
	if err != nil {
		tb.Fatal(err)
	}
	return replies[id]
}

// field is a header line of HTTP/1 as a field of HTTP/2.
func field(line string) string {
	name, value, _ := strings.Cut(line, ":")
	return strings.ToLower(name) + ": " + strings.TrimSpace(value)
}
