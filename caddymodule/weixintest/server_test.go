package weixintest_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClose_HeldCalls_LeaveNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := weixintest.NewServer(config())
	for _, kind := range []weixintest.FaultKind{
		weixintest.FaultHang, weixintest.FaultEndless, weixintest.FaultSlow,
	} {
		s.Inject(weixintest.Fault{Kind: kind})
	}
	var clients sync.WaitGroup
	for range 6 { // three are held up, three leave idle connections
		clients.Go(func() {
			if r, err := get(t.Context(), s, "0x"); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
		})
	}
	for s.Count(loginPath) < 6 {
		runtime.Gosched()
	}
	s.Close()
	s.Close() // harmless
	if n := s.Count(loginPath); n != 6 {
		t.Errorf("%d calls", n)
	}
	clients.Wait()
	goleak.VerifyNone(t, before)
	if r, err := get(t.Context(), s, "0x"); err == nil {
		r.Body.Close()
		t.Error("a closed server answers")
	}
}

func TestServer_Concurrent_Works(t *testing.T) {
	s := start(t)
	s.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, Path: "/none", Times: -1})
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			name := fmt.Sprint("user", i%4)
			for range 10 {
				code := s.Code(appA, name)
				r, err := get(t.Context(), s, code)
				if err != nil {
					t.Error(err)
					return
				}
				if b := body(t, r); !strings.Contains(b, s.OpenID(appA, name)) {
					t.Errorf("answer %s", b)
				}
				s.SetUser(appA, name, weixintest.UserOptions{NoUnionID: i%2 == 0})
				s.RotateKey(appA, name)
				if _, err := s.Encrypt(appA, name, struct{}{}); err != nil {
					t.Error(err)
				}
				s.Calls()
				token(t, s)
			}
		})
	}
	// The same code at once: one wins.
	code := s.Code(appA, "racer")
	wins := make(chan int, 16)
	for range cap(wins) {
		group.Go(func() { wins <- login(t, s, code).errcode() })
	}
	group.Wait()
	close(wins)
	got := map[int]int{}
	for c := range wins {
		got[c]++
	}
	if got[0] != 1 || got[40163] != 15 {
		t.Errorf("errcodes of one code at once: %v", got)
	}
	if n := s.Count(loginPath); n != 16*10+16 {
		t.Errorf("%d calls counted", n)
	}
}

func TestClose_LaterCall_IsBrokenOff(t *testing.T) {
	s := weixintest.New(config())
	s.Close()
	s.Close() // harmless
	defer func() {
		if v := recover(); v != http.ErrAbortHandler || s.Count(loginPath) != 0 {
			t.Errorf("panic %v, %d calls", v, s.Count(loginPath))
		}
	}()
	login(t, s, "0x")
}

// Close returns after the last OnCall.
func TestClose_OnCall_ReturnsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		told := false
		cfg.OnCall = func(weixintest.Call) { time.Sleep(time.Hour); told = true }
		for name, end := range map[string]func(*weixintest.Server){
			"simulator": func(s *weixintest.Server) { s.Simulator.Close() },
			"server":    func(s *weixintest.Server) { s.Close() },
		} {
			told = false
			s := weixintest.NewPipeServer(cfg)
			defer s.Close()
			go login(t, s, "0x")
			synctest.Wait()
			if end(s); !told {
				t.Errorf("%s: Close has not waited", name)
			}
		}
	})
}

func TestSimulator_UnderPrefix_Works(t *testing.T) {
	mux := http.NewServeMux()
	s := weixintest.New(config())
	mux.Handle("/weixin/", http.StripPrefix("/weixin", s))
	a := call(t, mux, "GET", "/weixin"+loginTarget(appA, secretA, s.Code(appA, "alice")), "")
	if a.text("openid") != s.OpenID(appA, "alice") {
		t.Errorf("answer %s", a.raw)
	}
}
