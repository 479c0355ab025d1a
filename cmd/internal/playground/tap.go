package playground

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
)

// Tap looks at the requests of the page on their way, and at no other: they are known
// by the connection they came on, so the app sees no mark of it. A tap stands behind
// each gate, and before each reverse_proxy. There it asks Go's HTTP client which
// headers it writes, so that the page shows what is on the wire. It wraps no answer.
type Tap struct {
	App  bool `json:"app,omitempty"`  // before a reverse_proxy
	Wire bool `json:"wire,omitempty"` // its transport tells what it writes
}

// TapName is the name of the Tap among the handlers of Caddy.
const TapName = "wxgate_tap"

// AddTaps puts taps into a part of Caddy's configuration in JSON, which it changes:
// routes, or the whole.
func AddTaps(config any) {
	switch v := config.(type) {
	case []any:
		for _, e := range v {
			AddTaps(e)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			AddTaps(v[name])
		}
		if list, ok := v["handle"].([]any); ok {
			v["handle"] = tapped(list)
		}
	}
}

// tapped returns a list of handlers with taps at their places.
func tapped(list []any) (out []any) {
	for _, e := range list {
		h, _ := e.(map[string]any)
		if h["handler"] == "reverse_proxy" && h["rewrite"] == nil { // not a forward_auth
			transport, _ := h["transport"].(map[string]any)
			protocol, _ := transport["protocol"].(string)
			out = append(out, map[string]any{
				"handler": TapName, "app": true, "wire": protocol == "" || protocol == "http",
			})
		}
		out = append(out, e)
		if h["handler"] == "wechat_auth" {
			out = append(out, map[string]any{"handler": TapName})
		}
	}
	return out
}

// Look looks at a request and gives it to the next handler.
func (t Tap) Look(r *http.Request, next func(*http.Request) error) error {
	rec := inFlight.find(r)
	switch {
	case rec == nil:
		return next(r)
	case !t.App:
		rec.pass(r)
		return next(r)
	}
	rec.begin(r)
	if t.Wire {
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), rec.trace()))
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &heard{r.Body, rec}
	}
	err := next(r)
	if !t.Wire && err == nil {
		rec.met(true, true)
	}
	return err
}

// inFlight holds the records of the exchanges under way.
var inFlight records

// records finds a record by the two ends of its connection.
type records struct{ byConn sync.Map }

func (rs *records) find(r *http.Request) *record {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ String() string })
	if !ok {
		return nil
	}
	v, _ := rs.byConn.Load([2]string{r.RemoteAddr, local.String()})
	rec, _ := v.(*record)
	return rec
}

// record is what the taps saw of one request.
type record struct {
	mu        sync.Mutex
	passed    *Message // as the gate passed it on; nil when it did not
	app       *Message // as it went to the app; nil when it did not go there
	body      []byte   // the beginning of what the app read
	size      int
	delivered bool // the headers were sent
	answered  bool // the app began to answer
}

// pass notes the request that the gate passes on.
func (rec *record) pass(r *http.Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.passed = messageOf(r)
}

// begin notes the request that goes to the app. The wire, where it tells, replaces its
// headers.
func (rec *record) begin(r *http.Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.app = messageOf(r)
	rec.body, rec.size, rec.delivered, rec.answered = nil, 0, false, false
}

func (rec *record) met(delivered, answered bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.delivered, rec.answered = rec.delivered || delivered, rec.answered || answered
}

// trace collects what Go's HTTP client writes. Each attempt begins anew.
func (rec *record) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.app.Lines = nil
		},
		WroteHeaderField: func(name string, values []string) {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			for _, value := range values {
				rec.app.addWire(name, value)
			}
		},
		WroteHeaders:         func() { rec.met(true, false) },
		GotFirstResponseByte: func() { rec.met(true, true) },
	}
}

// addWire adds a header; of the pseudo headers of HTTP/2 only the host.
func (m *Message) addWire(name, value string) {
	if name == ":authority" {
		name = "Host"
	}
	if !strings.HasPrefix(name, ":") {
		m.Lines = append(m.Lines, Line{Name: name, Value: value})
	}
}

// heard is a request body of which the record keeps the beginning.
type heard struct {
	io.ReadCloser
	rec *record
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	h.rec.mu.Lock()
	defer h.rec.mu.Unlock()
	h.rec.size += n
	h.rec.body = append(h.rec.body, p[:min(n, maxBody-len(h.rec.body))]...)
	return n, err
}
