package playground

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Limits of one exchange. What is more is cut, and the page says so.
const (
	maxBody    = 64 << 10
	maxHeaders = 256 << 10 // of the answer, and each 1xx answer before it
	maxLines   = 64
	patience   = 15 * time.Second // for an answer
	streamTime = 2 * time.Second  // of an answer that is a stream of events
)

// request is what the page sends to a gate.
type request struct {
	Site    int         `json:"site"`
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Headers [][2]string `json:"headers"`
	Body    string      `json:"body"`
}

// exchange is one request on all its way.
type exchange struct {
	Sent    *Message `json:"sent"`
	Explain []Row    `json:"explain"`
	// Passed is the request behind the gate, nil when the gate did not pass it on.
	Passed *Message `json:"passed"`
	// App is the request that the app received, nil when none went there.
	App    *Message `json:"app"`
	Answer *answer  `json:"answer"`
	// By names who answered: "gate", "app", or "caddy".
	By    string   `json:"by"`
	Error *mistake `json:"failed,omitempty"` // in place of the answer
}

type answer struct {
	Status int `json:"status"`
	*Message
	Cut string `json:"cut,omitempty"` // "size" or "time": the end is missing
}

// exchange sends one request to a gate, on a connection of its own, and tells what
// became of it.
func (s *Server) exchange(r *http.Request, in request) (any, error) {
	raw, sent, err := s.compose(in)
	if err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	site := s.cfg.Sites[in.Site]
	x := &exchange{Sent: sent, Explain: s.explain(site, in)}
	rec := new(record)
	x.Answer, err = roundTrip(r.Context(), site.addr(), in.Method, raw, rec)
	var m mistake
	if errors.As(err, &m) {
		x.Error = &m
	} else if err != nil {
		return nil, err
	}
	x.settle(rec)
	return x, nil
}

// explain returns the rows of wxgate wechat explain for a request.
func (s *Server) explain(site Site, in request) []Row {
	headers := make([]string, len(in.Headers))
	for i, h := range in.Headers {
		headers[i] = h[0] + ": " + h[1]
	}
	rows, err := s.cfg.Explain(in.Method, site.URL+escape(in.Path), headers)
	if err != nil {
		return []Row{{Name: "decision", Text: err.Error()}}
	}
	return rows
}

// compose checks a request and writes it as a client would. The headers are sent in the
// spelling and order of the page, since odd spellings are what people try here.
func (s *Server) compose(in request) (raw []byte, sent *Message, err error) {
	if in.Site < 0 || in.Site >= len(s.cfg.Sites) {
		return nil, nil, mistake{"bad_site", fmt.Sprint(in.Site)}
	}
	if !isToken(in.Method) || len(in.Method) > 64 {
		return nil, nil, mistake{"bad_method", in.Method}
	}
	path := escape(in.Path)
	if !strings.HasPrefix(path, "/") || len(path) > 8<<10 {
		return nil, nil, mistake{"bad_path", in.Path}
	}
	if len(in.Body) > maxBody || len(in.Headers) > maxLines {
		return nil, nil, mistake{"too_large", ""}
	}
	sent = &Message{
		Start: in.Method + " " + path + " HTTP/1.1",
		Lines: []Line{{Name: "Host", Value: s.cfg.Sites[in.Site].addr()}},
		Body:  bodyOf([]byte(in.Body), len(in.Body)),
	}
	for _, h := range in.Headers {
		switch name := strings.ToLower(h[0]); {
		case !isToken(h[0]) || strings.ContainsAny(h[1], "\r\n\x00") || len(h[1]) > 8<<10:
			return nil, nil, mistake{"bad_header", h[0]}
		case name == "host", name == "content-length", name == "transfer-encoding":
			// These frame the request; the page's own must be right.
			return nil, nil, mistake{"framing_header", h[0]}
		}
		sent.Lines = append(sent.Lines, Line{Name: h[0], Value: h[1]})
	}
	if in.Body != "" || in.Method == http.MethodPost || in.Method == http.MethodPut {
		sent.Lines = append(
			sent.Lines,
			Line{Name: "Content-Length", Value: fmt.Sprint(len(in.Body))},
		)
	}
	var b bytes.Buffer
	b.WriteString(sent.Start + "\r\n")
	for _, l := range sent.Lines {
		b.WriteString(l.Name + ": " + l.Value + "\r\n")
	}
	b.WriteString("\r\n" + in.Body)
	return b.Bytes(), sent, nil
}

// roundTrip sends raw over a new connection to addr. While it waits, the taps write to
// rec. An error that is no mistake comes from the page that went away.
func roundTrip(
	ctx context.Context, addr, method string, raw []byte, rec *record,
) (*answer, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, mistake{"no_gate", err.Error()}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	key := [2]string{conn.LocalAddr().String(), conn.RemoteAddr().String()}
	inFlight.byConn.Store(key, rec)
	defer inFlight.byConn.Delete(key)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, mistake{"no_gate", err.Error()}
	}
	if _, err := conn.Write(raw); err != nil {
		return nil, mistake{"no_gate", err.Error()}
	}
	limited := &io.LimitedReader{R: conn, N: maxHeaders}
	reader := bufio.NewReader(limited)
	resp, err := finalResponse(reader, method)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, mistake{"no_answer", ""}
		}
		return nil, mistake{"bad_answer", err.Error()}
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		_ = conn.SetReadDeadline(time.Now().Add(streamTime))
	}
	limited.N = 2 * maxBody // chunks have lines of their own
	return readAnswer(resp), nil
}

// finalResponse reads past 1xx answers, of which 101 is a final one.
func finalResponse(reader *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 ||
			resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
}

// readAnswer reads as much of the body as the page shows.
func readAnswer(resp *http.Response) *answer {
	a := &answer{Status: resp.StatusCode, Message: &Message{
		Start: resp.Proto + " " + resp.Status, Lines: linesOf(resp.Header),
	}}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a // what follows is no HTTP
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case len(body) > maxBody:
		body, a.Cut = body[:maxBody], "size"
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.Cut = "time"
	case err != nil:
		a.Cut = "broken"
	}
	a.Body = bodyOf(body, len(body))
	return a
}

// settle adds what the taps saw and compares the three requests.
func (x *exchange) settle(rec *record) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	x.Passed = rec.passed.clone()
	if rec.app != nil && rec.delivered {
		x.App = rec.app.clone()
		x.App.Body = bodyOf(rec.body, rec.size)
	}
	switch {
	case x.Answer == nil:
	case rec.app != nil && rec.answered:
		x.By = "app"
	case rec.passed == nil && x.Answer.has("X-Wxgate"):
		x.By = "gate"
	default:
		x.By = "caddy"
	}
	x.mark()
}

// mark says who added and who removed each header.
func (x *exchange) mark() {
	last := cmp.Or(x.App, x.Passed)
	if last == nil {
		return
	}
	passed := cmp.Or(x.Passed, x.App)
	for i := range x.Sent.Lines {
		l := &x.Sent.Lines[i]
		switch {
		case l.frames():
		case !passed.holds(*l):
			l.By = "gate"
		case !last.holds(*l):
			l.By = "proxy"
		}
	}
	for i := range last.Lines {
		l := &last.Lines[i]
		switch {
		case l.frames() || x.Sent.holds(*l):
		case passed.holds(*l):
			l.By = "gate"
		default:
			l.By = "proxy"
		}
	}
}
