package wechatauth

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// checkOrigin reports why s is no origin as a browser writes it (RFC 6454, 6.2).
func checkOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" ||
		s != u.Scheme+"://"+strings.ToLower(u.Host) || strings.Contains(u.Host, "*") {
		return fmt.Errorf("cors %q: an origin is https://host or https://host:port, in lower "+
			"case and without a path; write one each", s)
	}
	return nil
}

// The headers of cross-origin answers that the gate writes.
const (
	allowOrigin   = "Access-Control-Allow-Origin"
	exposeHeaders = "Access-Control-Expose-Headers"
	requestMethod = "Access-Control-Request-Method"
	requestHeader = "Access-Control-Request-Headers"
)

// cors lets pages of the configured origins read the answers to their requests. It
// answers a preflight itself, before anything asks for the token that a preflight
// never has, and returns nil then.
func (h *Handler) cors(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	vary(w.Header(), []string{"Origin"})
	origins := r.Header["Origin"]
	if len(origins) != 1 || !slices.Contains(h.Cors, origins[0]) {
		return w
	}
	if r.Method == http.MethodOptions && r.Header[requestMethod] != nil {
		header := w.Header()
		header[allowOrigin] = origins
		vary(header, []string{requestMethod, requestHeader})
		header["Access-Control-Allow-Methods"] = lists(r.Header[requestMethod])
		if names := lists(r.Header[requestHeader]); names != nil {
			header["Access-Control-Allow-Headers"] = names
		}
		header["Access-Control-Max-Age"] = []string{"7200"} // the longest that Chrome keeps
		metrics.decided(Preflight)
		_ = reply.NoContent(w, r) // only when the client is gone
		return nil
	}
	cw := &corsWriter{
		ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w},
		origin:                origins[0],
	}
	cw.allow()
	return cw
}

// lists returns the values of a header that a preflight asks for, or nil when they
// are no list of names.
func lists(values []string) []string {
	for _, v := range values {
		for i := range len(v) {
			c := v[i]
			if c <= ' ' && c != ' ' || c >= 0x7f || strings.IndexByte(`"(){}[]<>@;:\/?=`, c) >= 0 {
				return nil
			}
		}
	}
	return values
}

// corsWriter writes the gate's own cross-origin headers in place of the app's, since
// browsers refuse an answer with two.
type corsWriter struct {
	*caddyhttp.ResponseWriterWrapper
	origin  string
	written bool
}

// allow sets the headers, and keeps the names that the app exposes.
func (w *corsWriter) allow() {
	h := w.Header()
	h[allowOrigin] = []string{w.origin}
	exposed := slices.DeleteFunc(slices.Clone(h[exposeHeaders]), func(v string) bool {
		return v == gateExposes
	})
	h[exposeHeaders] = append(exposed, gateExposes)
}

const gateExposes = "X-Wxgate, Retry-After"

// WriteHeader implements http.ResponseWriter.
func (w *corsWriter) WriteHeader(status int) {
	if !w.written {
		w.written = status >= 200
		w.allow()
	}
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *corsWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriterWrapper.Write(b)
}

// ReadFrom implements io.ReaderFrom.
func (w *corsWriter) ReadFrom(from io.Reader) (int64, error) {
	w.begin()
	return w.ResponseWriterWrapper.ReadFrom(from)
}

func (w *corsWriter) begin() {
	if !w.written {
		w.WriteHeader(http.StatusOK)
	}
}
