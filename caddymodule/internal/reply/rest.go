package reply

import (
	"context"
	"net/http"
	"time"
)

// Bounds of what the gate reads and drops behind an answer. An upload of dropRate
// or more goes on beyond dropPause.
const (
	dropSize  = 32 << 20
	dropPause = 5 * time.Second
	dropTime  = 30 * time.Second
	dropRate  = 16 << 10 // bytes a second
)

// An answer waits for a short body that comes with its header, so that the
// connection can go on.
const (
	arrivalTime = 50 * time.Millisecond
	arrivalSize = 256 << 10
)

// whileDropping sends an answer without a wait for the rest of the request's body,
// which it reads and drops meanwhile. If the gate closed the connection over it, a
// reset would overtake the answer, and a proxy make a 502 of it (RFC 9112, 9.6).
//
// The answer says Connection: close. Without it net/http reads the body before it
// sends an answer; with EnableFullDuplex it panics when that body comes late. With
// HTTP/2 it ends the stream and never the connection (RFC 9113, 8.1).
func whileDropping(w http.ResponseWriter, r *http.Request, answer func()) {
	// Caddy wraps http.NoBody, too.
	if r.ProtoMajor != 1 || r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		answer()
		return
	}
	rc := http.NewResponseController(w)
	if rc.SetReadDeadline(time.Time{}) != nil {
		answer() // no connection to care for
		return
	}
	var dropped chan struct{}
	begin := func() {
		dropped = make(chan struct{})
		go func() {
			defer close(dropped)
			dropBody(rc, r)
		}()
	}
	// Before the answer, reading would ask for the body with 100 Continue.
	if !closes(w.Header()) && r.Header.Get("Expect") == "" && r.ContentLength <= arrivalSize {
		begin()
		select {
		case <-dropped:
			answer()
			return
		case <-time.After(arrivalTime):
		}
	}
	w.Header()["Connection"] = connectionClose
	answer()
	rc.Flush() // an error: the answer goes when the body has ended
	if dropped == nil {
		begin()
	}
	<-dropped
}

var connectionClose = []string{"close"}

// NoWait makes the coming answer to r go without any wait for a body, at the price of
// the connection. It is for callers that announce a body and send none.
func NoWait(h http.Header, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		h["Connection"] = connectionClose
	}
}

func closes(h http.Header) bool { return len(h["Connection"]) > 0 }

// exiting ends when the process exits; connections then end without patience.
var exiting, stopDropping = context.WithCancel(context.Background())

// StopDropping ends the reading of bodies that no one needs, for good: the process
// exits.
func StopDropping() { stopDropping() }

// dropBody reads the rest of a body within the bounds. A deadline ends the body for
// good: Caddy's reader remembers it.
func dropBody(rc *http.ResponseController, r *http.Request) {
	stop := context.AfterFunc(exiting, func() { rc.SetReadDeadline(time.Now()) })
	defer stop()
	began, buf := time.Now(), make([]byte, 16<<10)
	for n := 0; n < dropSize; {
		patience := dropPause + time.Duration(n)*time.Second/dropRate
		rc.SetReadDeadline(began.Add(min(patience, dropTime)))
		if exiting.Err() != nil { // perhaps before this deadline
			break
		}
		k, err := r.Body.Read(buf)
		if exiting.Err() != nil {
			break
		}
		if n += k; err != nil {
			rc.SetReadDeadline(time.Time{})
			return
		}
	}
	rc.SetReadDeadline(time.Now()) // net/http, too, reads no more of it
}
