package gate

import (
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
)

// declaresReserved returns a reserved name that Trailer lines announce, or "". On a
// chunked request net/http moves them into the keys of r.Trailer; on all others
// the header stays.
func (g *Rules) declaresReserved(lines []string) string {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); g.names.reserved(name) {
				return name
			}
		}
	}
	return ""
}

// scrubTrailer deletes reserved names and returns one of them, or "". It does not
// write to a map without them, which another goroutine may be reading.
func (g *Rules) scrubTrailer(trailer http.Header) (found string) {
	for name := range trailer {
		if g.names.reserved(name) {
			delete(trailer, name)
			found = name
		}
	}
	return found
}

// guardTrailer wraps the body of a request that may still bring trailers.
func (g *Rules) guardTrailer(r *http.Request) {
	noTrailer := r.ContentLength >= 0 && len(r.Trailer) == 0
	if r.Body == nil || r.Body == http.NoBody || noTrailer {
		return
	}
	r.Body = &trailerGuard{ReadCloser: r.Body, gate: g, request: r}
}

// trailerGuard deletes reserved trailers as soon as they arrive. net/http merges
// the trailers of HTTP/1.1, declared or not, into r.Trailer inside the Read that
// returns io.EOF, or inside a Close that reads to the end; the proxy copies them
// right after that Read.
type trailerGuard struct {
	io.ReadCloser
	gate    *Rules
	request *http.Request
	mu      sync.Mutex // a transport may close the body while another goroutine reads it
}

func (b *trailerGuard) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.scrub()
	}
	return n, err
}

func (b *trailerGuard) Close() error {
	err := b.ReadCloser.Close()
	b.scrub()
	return err
}

func (b *trailerGuard) scrub() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate.scrubTrailer(b.request.Trailer)
}
