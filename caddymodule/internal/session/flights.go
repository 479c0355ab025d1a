package session

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

// flights makes one exchange of all requests that carry the same code. A code is spent by its first use, and answers get lost on mobile networks: a client that asks again within moments
// is given the answer it missed instead of code_used (WECHAT.md 2.4, 12.2). Only the same client: a replayed code would otherwise be a way to steal a session.
type flights struct {
	mu sync.Mutex
	m  map[[32]byte]*flight
}

// flight is one login, under way until done is closed and remembered for a while after.
type flight struct {
	key    [32]byte
	client netip.Addr
	done   chan struct{}

	login Login // valid when done is closed
	err   error
}

func flightKey(appID, code string) [32]byte { return sha256.Sum256([]byte(appID + "\x00" + code)) }

// join returns the flight of a code and whether the caller is the one to carry it out. ok is false when it belongs to another client.
func (fs *flights) join(key [32]byte, client netip.Addr) (f *flight, leads, ok bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.m[key]; f != nil {
		return f, false, client.IsValid() && f.client == client
	}
	if fs.m == nil {
		fs.m = make(map[[32]byte]*flight)
	}
	f = &flight{key: key, client: client, done: make(chan struct{})}
	fs.m[key] = f
	return f, true, true
}

// finish publishes the outcome. A success is remembered for the time given; a failure is not, so that the next attempt is a new one.
func (fs *flights) finish(f *flight, out Login, err error, remember time.Duration) {
	f.login, f.err = out, err
	close(f.done)
	if err != nil || remember <= 0 {
		fs.forget(f)
		return
	}
	time.AfterFunc(remember, func() { fs.forget(f) })
}

// len returns the number of flights under way or remembered.
func (fs *flights) len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.m)
}

func (fs *flights) forget(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.m, f.key)
}
