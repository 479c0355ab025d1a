package gate

import (
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
)

// declaresReserved reports whether Trailer lines announce a name that no trailer may have. net/http consumes the
// header on chunked requests (the names are then the keys of r.Trailer) and leaves it in place on all others.
func (g *Rules) declaresReserved(lines []string) bool {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if g.names.reserved(textproto.TrimString(name)) {
				return true
			}
		}
	}
	return false
}

// scrubTrailer deletes reserved names and reports whether there were any. A map without them is only read, so
// that it may run beside another reader.
func (g *Rules) scrubTrailer(trailer http.Header) (found bool) {
	for name := range trailer {
		if g.names.reserved(name) {
			delete(trailer, name)
			found = true
		}
	}
	return found
}

// guardTrailer wraps the body of a request that may still bring trailers.
func (g *Rules) guardTrailer(r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength >= 0 && len(r.Trailer) == 0 {
		return
	}
	r.Body = &trailerGuard{ReadCloser: r.Body, gate: g, request: r}
}

// trailerGuard deletes reserved trailers as soon as they can be there. On HTTP/1.1 net/http merges whatever
// trailers the wire brings, declared or not, into r.Trailer inside the Read that reports io.EOF, or inside a Close
// that reads on to the end; the proxy copies them right after that Read.
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
