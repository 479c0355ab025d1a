package weixintest

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"time"
)

// maxCalls is how many calls the log keeps; the counts go on.
const maxCalls = 10000

// Call is one call of the simulated API. It holds no secret, code, session_key
// or token.
type Call struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	// AppID is the mini program, when it is one of Config.Apps.
	AppID string `json:"appid,omitempty"`
	// User and OpenID are set once the call has named a known user.
	User   string `json:"user,omitempty"`
	OpenID string `json:"openid,omitempty"`
	// Code is the start of the hex SHA-256 of the presented code: enough to
	// tell whether two calls carried the same one.
	Code string `json:"code,omitempty"`
	// ErrCode is the errcode answered, or the one that the work came to before
	// a fault spoilt the answer. Zero is success, and also a call still held
	// up.
	ErrCode int `json:"errcode"`
	// Fault is the fault that was applied, empty for none.
	Fault FaultKind `json:"fault,omitempty"`
}

func (c *Call) noteCode(value string) {
	if value != "" {
		sum := sha256.Sum256([]byte(value))
		c.Code = hex.EncodeToString(sum[:2])
	}
}

func (c *Call) noteUser(u *user) { c.User, c.OpenID = u.name, u.openid }

// Calls returns the calls so far (the last 10,000 of them), oldest first. A
// call is listed as soon as it has arrived.
func (s *Simulator) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Call, len(s.calls))
	for i, c := range s.calls {
		out[i] = *c
	}
	return out
}

// Count returns how many calls of path have arrived.
func (s *Simulator) Count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[path]
}

// Reset forgets the calls, their counts and all pending faults. Users, codes
// and tokens stay as they are.
func (s *Simulator) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls, s.faults = nil, nil
	clear(s.counts)
}

// arrive logs a call, counts it busy and takes the fault that is due for it.
func (s *Simulator) arrive(r *http.Request) (*Call, Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed() {
		panic(http.ErrAbortHandler)
	}
	s.busy.Add(1)
	f := s.takeFault(r.URL.Path)
	c := &Call{Time: s.cfg.Now(), Method: r.Method, Path: r.URL.Path, Fault: f.Kind}
	if len(s.calls) == maxCalls {
		s.calls = s.calls[1:]
	}
	s.calls = append(s.calls, c)
	s.counts[c.Path]++
	return c, f
}

func (s *Simulator) snapshot(c *Call) Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *c
}

func (s *Simulator) allCounts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}
