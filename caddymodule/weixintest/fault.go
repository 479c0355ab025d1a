package weixintest

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"
)

// FaultKind names a way in which a call goes wrong.
type FaultKind string

const (
	// FaultSlow answers properly after Delay.
	FaultSlow FaultKind = "slow"
	// FaultHang never answers: it ends when the client goes away or the
	// Simulator closes. The code is not spent.
	FaultHang FaultKind = "hang"
	// FaultReset breaks the connection (TCP RST) without doing anything. Like
	// FaultLost, it makes Go's http.Transport send a GET a second time if the
	// connection had been used before.
	FaultReset FaultKind = "reset"
	// FaultLost does the work (the code is spent), waits Delay and breaks the
	// connection (TCP RST) instead of answering.
	FaultLost FaultKind = "lost"
	// FaultTruncated does the work and answers with the first half of the JSON.
	FaultTruncated FaultKind = "truncated"
	// FaultCut does the work, announces the whole JSON and closes the connection
	// after its first half.
	FaultCut FaultKind = "cut"
	// FaultStatus answers with Status (502 if zero) and an HTML page.
	FaultStatus FaultKind = "status"
	// FaultHTML answers 200 with an HTML page.
	FaultHTML FaultKind = "html"
	// FaultEndless answers with JSON whose first string never ends.
	FaultEndless FaultKind = "endless"
	// FaultRedirect answers 302 to Location ("/redirected" if empty; a client
	// that follows is then seen in Calls).
	FaultRedirect FaultKind = "redirect"
	// FaultErrCode answers with ErrCode and ErrMsg (WeChat's text if empty).
	FaultErrCode FaultKind = "errcode"
	// FaultErrCodeString does the same with errcode as a JSON string
	// (docs/wechat.md#third-party).
	FaultErrCodeString FaultKind = "errcode_string"
	// FaultBody answers with Body as it is, under Status (200 if zero).
	FaultBody FaultKind = "body"
)

// Fault is what goes wrong with the next calls. Kinds that do not say "does the
// work" change nothing in the Simulator: no code is spent, no limit counted.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Path limits the fault to calls of one path; empty means any.
	Path string `json:"path"`
	// Times is the number of calls; zero means one, a negative number all calls
	// until Reset.
	Times int `json:"times"`
	// Every makes the fault apply to each Every-th of these calls only: with 2,
	// WeChat is right and wrong by turns. Zero means each call.
	Every int `json:"every"`
	// Delay passes first, whatever the kind (FaultLost: after the work).
	Delay time.Duration `json:"-"`

	Status   int    `json:"status"`
	ErrCode  int    `json:"errcode"`
	ErrMsg   string `json:"errmsg"`
	Body     string `json:"body"`
	Location string `json:"location"`

	passed int // calls since Every applied last
}

const htmlPage = "<html>\r\n<head><title>Bad Gateway</title></head>\r\n" +
	"<body><center><h1>Bad Gateway</h1></center></body>\r\n</html>\r\n"

// Inject queues a fault. Each call takes the first queued fault that fits its
// path. Inject panics when the kind is unknown or the status is not one that
// can be sent.
func (s *Simulator) Inject(f Fault) {
	if err := f.check(); err != nil {
		panic("weixintest: " + err.Error())
	}
	if f.Times == 0 {
		f.Times = 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

func (f Fault) check() error {
	switch f.Kind {
	case FaultSlow, FaultHang, FaultReset, FaultLost, FaultTruncated, FaultCut, FaultStatus,
		FaultHTML, FaultEndless, FaultRedirect, FaultErrCode, FaultErrCodeString, FaultBody:
	default:
		return fmt.Errorf("unknown fault kind %q", f.Kind)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return fmt.Errorf("status %d is not between 200 and 599", f.Status)
	}
	if f.Every < 0 {
		return fmt.Errorf("every %d is negative", f.Every)
	}
	return nil
}

// takeFault returns the fault due for a call, the zero Fault if none.
func (s *Simulator) takeFault(path string) Fault {
	for i, f := range s.faults {
		if f.Path != "" && f.Path != path {
			continue
		}
		if f.passed++; f.passed < f.Every {
			continue
		}
		f.passed = 0
		if f.Times--; f.Times == 0 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		}
		return *f
	}
	return Fault{}
}

// play answers a call as the fault wants it.
func (s *Simulator) play(
	w http.ResponseWriter, r *http.Request, f Fault, call *Call, work func() reply,
) {
	if f.Kind == FaultLost {
		work()
		s.wait(r, f.Delay)
		reset(w)
		return
	}
	if f.Delay > 0 && !s.wait(r, f.Delay) {
		panic(http.ErrAbortHandler)
	}
	switch f.Kind {
	case FaultHang:
		s.wait(r, -1)
		panic(http.ErrAbortHandler)
	case FaultReset:
		reset(w)
	case FaultTruncated:
		p := work()
		p.body = p.body[:len(p.body)/2]
		p.write(w)
	case FaultCut:
		p := work()
		w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
		_, _ = w.Write(p.body[:len(p.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case FaultStatus:
		reply{cmp.Or(f.Status, http.StatusBadGateway), "text/html", []byte(htmlPage)}.write(w)
	case FaultHTML:
		reply{http.StatusOK, "text/html", []byte(htmlPage)}.write(w)
	case FaultEndless:
		s.stream(w, r)
	case FaultRedirect:
		w.Header().Set("Location", cmp.Or(f.Location, "/redirected"))
		reply{http.StatusFound, "text/html", nil}.write(w)
	case FaultErrCode, FaultErrCodeString:
		s.refuse(f, call).write(w)
	case FaultBody:
		reply{cmp.Or(f.Status, http.StatusOK), "text/plain", []byte(f.Body)}.write(w)
	default:
		work().write(w)
	}
}

// refuse answers with the fault's errcode.
func (s *Simulator) refuse(f Fault, call *Call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.ErrCode = f.ErrCode
	code := any(f.ErrCode)
	if f.Kind == FaultErrCodeString {
		code = fmt.Sprint(f.ErrCode)
	}
	body := encode(s.failure(s.cfg.Now(), code, cmp.Or(f.ErrMsg, message(f.ErrCode))))
	return reply{http.StatusOK, "text/plain", body}
}

// wait lets d pass, for ever if negative, and reports whether it did: a client
// that went away or Close end it early.
func (s *Simulator) wait(r *http.Request, d time.Duration) bool {
	var elapsed <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		elapsed = t.C
	}
	select {
	case <-elapsed:
		return true
	case <-r.Context().Done():
	case <-s.done:
	}
	return false
}

// stream writes a body without end.
func (s *Simulator) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	next := append([]byte(`{"openid":"`), bytes.Repeat([]byte("a"), 32<<10)...)
	for {
		if _, err := w.Write(next); err != nil || r.Context().Err() != nil || s.closed() {
			panic(http.ErrAbortHandler)
		}
		next = next[len(next)-32<<10:]
	}
}

// reset breaks the connection with an RST. Where there is no TCP connection to
// take over (HTTP/2, a pipe), it is closed without an answer.
func reset(w http.ResponseWriter) {
	h, ok := w.(http.Hijacker)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := h.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0) // the close that follows says it all
	}
	_ = conn.Close()
}
