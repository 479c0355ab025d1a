package weixin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// fails makes n calls and expects each to end in class.
func fails(t *testing.T, c *weixin.Client, n int, class weixin.Class) {
	t.Helper()
	for range n {
		_, err := exchange(c)
		wantClass(t, err, class)
	}
}

func TestP5_BreakerOpensAndProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var classes []weixin.Class
		var requests atomic.Int32
		cfg := weixin.Config{Observe: func(k weixin.Call) { classes = append(classes, k.Class) }}
		down := true
		release := make(chan struct{})
		c, p := servePipe(t, cfg, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			<-release
			reply(200, goodBody)(w, r)
		})
		dials := 0
		c.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; down {
				return nil, syscall.ECONNREFUSED
			}
			return p.dial(ctx, network, addr)
		})

		fails(t, c, 7, weixin.ClassUnavailable)
		if c.BreakerOpen() {
			t.Fatal("open after 7 failures")
		}
		fails(t, c, 1, weixin.ClassUnavailable)
		if !c.BreakerOpen() || dials != 16 {
			t.Fatalf("open %v after 8 failures, %d dials", c.BreakerOpen(), dials)
		}
		start := time.Now()
		_, err := exchange(c)
		wantClass(t, err, weixin.ClassUnavailable)
		if !strings.Contains(err.Error(), "breaker") || dials != 16 || time.Since(start) != 0 {
			t.Errorf("%v, %d dials, %v", err, dials, time.Since(start))
		}
		if len(classes) != 9 || classes[8] != weixin.ClassUnavailable {
			t.Errorf("observed %v", classes)
		}

		time.Sleep(2*time.Second - time.Nanosecond)
		if !c.BreakerOpen() {
			t.Error("closed before its time")
		}
		time.Sleep(2 * time.Nanosecond)
		if c.BreakerOpen() {
			t.Error("still refusing after 2 s")
		}
		fails(t, c, 1, weixin.ClassUnavailable) // the probe fails
		if !c.BreakerOpen() {
			t.Error("not open again after a failed probe")
		}

		time.Sleep(2*time.Second + time.Nanosecond)
		down = false
		probe := make(chan error)
		go func() {
			_, err := exchange(c)
			probe <- err
		}()
		synctest.Wait() // the probe waits for its answer
		if !c.BreakerOpen() {
			t.Error("a second probe would be let through")
		}
		fails(t, c, 3, weixin.ClassUnavailable)
		close(release)
		if err := <-probe; err != nil || c.BreakerOpen() || requests.Load() != 1 {
			t.Errorf("probe: %v, open %v, %d requests", err, c.BreakerOpen(), requests.Load())
		}
		if _, err := exchange(c); err != nil {
			t.Error(err)
		}
	})
}

// answering returns a client whose server runs the handler that was set last.
func answering(t *testing.T, first http.HandlerFunc) (*weixin.Client, func(http.HandlerFunc)) {
	var now atomic.Pointer[http.HandlerFunc]
	set := func(h http.HandlerFunc) { now.Store(&h) }
	set(first)
	c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
		(*now.Load())(w, r)
	})
	return c, set
}

func silence(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// TestP5_WrongAnswers_OpenTheBreaker has the answers that count.
func TestBreaker_CountsAbsence_NotRefusals(t *testing.T) {
	for _, tc := range []struct {
		name  string
		h     http.HandlerFunc
		class weixin.Class
		opens bool
	}{
		{"time-out", silence, weixin.ClassUnavailable, true},
		{"code", reply(200, `{"errcode":40029}`), weixin.ClassCodeInvalid, false},
		{"user", reply(200, `{"errcode":40226}`), weixin.ClassUserBlocked, false},
		{"quota", reply(200, `{"errcode":45011}`), weixin.ClassRateLimited, false},
		{"config", reply(200, `{"errcode":40125}`), weixin.ClassMisconfigured, false},
		{"unknown errcode", reply(200, `{"errcode":99999}`), weixin.ClassRejected, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := answering(t, tc.h)
				fails(t, c, 8, tc.class)
				if c.BreakerOpen() != tc.opens {
					t.Errorf("open: %v", c.BreakerOpen())
				}
			})
		})
	}
}

// An answer between failures means that half of the calls may fail, where eight in a
// row come by chance.
func TestBreaker_AnswerBetween_NeedsMoreFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, set := answering(t, reply(500, ""))
		fails(t, c, 7, weixin.ClassUnavailable)
		set(reply(200, `{"errcode":40029}`)) // WeChat is there after all
		fails(t, c, 1, weixin.ClassCodeInvalid)
		set(reply(500, ""))
		fails(t, c, 31, weixin.ClassUnavailable)
		if c.BreakerOpen() {
			t.Error("open although an answer came in between")
		}
		fails(t, c, 1, weixin.ClassUnavailable)
		if !c.BreakerOpen() {
			t.Error("not open")
		}
	})
}

func TestBreaker_CallersEnd_IsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, set := answering(t, silence)
		canceled := func() {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
			time.AfterFunc(time.Second, cancel)
			_, err := c.Code2Session(ctx, testApp, goodCode)
			if wantClass(t, err, weixin.ClassCanceled); !errors.Is(err, context.Canceled) {
				t.Errorf("cause: %v", err)
			}
		}
		for range 20 {
			canceled()
		}
		if c.BreakerOpen() {
			t.Error("cancellations opened the breaker")
		}
		// A deadline that passed before the call says nothing of WeChat ...
		past, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		for range 20 {
			_, err := c.Code2Session(past, testApp, goodCode)
			wantClass(t, err, weixin.ClassUnavailable)
		}
		if c.BreakerOpen() {
			t.Error("expired deadlines opened the breaker")
		}
		// ... one that passes during the silence does, whatever callers cancel.
		for i := range 8 {
			if c.BreakerOpen() {
				t.Fatalf("open after %d", i)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := c.Code2Session(ctx, testApp, goodCode)
			cancel()
			wantClass(t, err, weixin.ClassUnavailable)
			if i < 7 {
				canceled()
			}
		}
		if !c.BreakerOpen() {
			t.Error("not open")
		}
		// A cancelled probe decides nothing: the next call is the probe.
		time.Sleep(2*time.Second + time.Nanosecond)
		canceled()
		if c.BreakerOpen() {
			t.Error("a cancelled probe keeps the door shut")
		}
		set(reply(200, goodBody))
		if _, err := exchange(c); err != nil || c.BreakerOpen() {
			t.Errorf("%v, open %v", err, c.BreakerOpen())
		}
	})
}

func TestBreaker_Settings_AreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := servePipe(t, weixin.Config{TripAfter: 2, OpenFor: time.Minute}, reply(500, ""))
		fails(t, c, 2, weixin.ClassUnavailable)
		time.Sleep(time.Minute)
		if !c.BreakerOpen() {
			t.Error("not open for a minute after 2 failures")
		}
	})
}
