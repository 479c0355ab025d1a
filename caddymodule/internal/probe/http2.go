package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// stream is a request over HTTP/2, sent as it is: fields in order, pseudo fields among them.
type stream struct {
	fields   [][2]string
	body     string
	trailers [][2]string
}

var errNotHTTP2 = errors.New("HTTP/2 is not spoken here")

// overHTTP2 returns the wire for HTTP/2: by ALPN over TLS, with prior knowledge without.
func (w wire) overHTTP2() *wire {
	if w.tls != nil {
		w.tls = w.tls.Clone()
		w.tls.NextProtos = []string{"h2"}
	}
	return &w
}

// sendStream sends one request on a connection of its own.
func (w *wire) sendStream(ctx context.Context, s stream) answer {
	conn, release, err := w.dial(ctx)
	if err != nil {
		return answer{err: err}
	}
	defer release()
	if secured, ok := conn.(*tls.Conn); ok && secured.ConnectionState().NegotiatedProtocol != "h2" {
		return answer{err: errNotHTTP2}
	}
	// All that is written fits into the buffers of a connection, so it need not be done beside the reading.
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return answer{err: inTime(err)}
	}
	framer := http2.NewFramer(conn, conn)
	framer.AllowIllegalWrites = true
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encode := func(fields [][2]string) []byte {
		block.Reset()
		for _, f := range fields {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return block.Bytes()
	}
	more := s.body != "" || s.trailers != nil
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(s.fields), EndHeaders: true, EndStream: !more})
	if more {
		framer.WriteData(1, s.trailers == nil, []byte(s.body))
	}
	if s.trailers != nil {
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(s.trailers), EndHeaders: true, EndStream: true})
	}
	return readStream(framer)
}

// readStream reads the answer on stream 1. An error of HTTP/2 is an answer: that of the next hop, since no app's gets here.
func readStream(framer *http2.Framer) (a answer) {
	for len(a.body) < maxAnswer {
		frame, err := framer.ReadFrame()
		if err != nil {
			a.err = inTime(err)
			return a
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			framer.WritePing(true, f.Data)
		case *http2.GoAwayFrame:
			a.reset = true
			return a
		case *http2.RSTStreamFrame:
			a.reset = a.status == 0
			return a
		case *http2.MetaHeadersFrame:
			if status, _ := strconv.Atoi(f.PseudoValue("status")); status >= 200 {
				a.status, a.header = status, make(http.Header)
				for _, field := range f.RegularFields() {
					a.header.Add(field.Name, field.Value)
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			a.body += string(f.Data())
			ended = f.StreamEnded()
		}
		if ended {
			return a
		}
	}
	return a
}
