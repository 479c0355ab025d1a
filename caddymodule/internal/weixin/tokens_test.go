package weixin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// tokenRequest is the body of a request in normal mode.
var tokenRequest = `{"grant_type":"client_credential","appid":"` + testApp.ID +
	`","secret":"` + testApp.Secret + `"}`

var slowToken = weixintest.Fault{
	Kind: weixintest.FaultSlow, Path: tokenPath, Delay: 3 * time.Second,
}

const (
	tokenPath  = "/cgi-bin/stable_token"
	phonePath  = "/wxa/business/getuserphonenumber"
	pluginPath = "/wxa/getpluginopenpid"
)

// simulate returns a client of a simulator, for a synctest bubble.
func simulate(t *testing.T, cfg weixin.Config) (*weixin.Client, *weixintest.Server) {
	t.Helper()
	sim := weixintest.NewPipeServer(simulated)
	t.Cleanup(sim.Close)
	cfg.BaseURL = sim.URL
	c := newClient(t, cfg)
	c.SetDial(sim.Client().Transport.(*http.Transport).DialContext)
	return c, sim
}

// forceRefresh ends all tokens of the mini program, as a process that knows no
// better does.
func forceRefresh(t *testing.T, sim *weixintest.Server) {
	t.Helper()
	resp, err := sim.Client().Post(sim.URL+tokenPath, "", strings.NewReader(
		strings.TrimSuffix(tokenRequest, "}")+`,"force_refresh":true}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(string(body), "access_token") {
		t.Fatalf("not refreshed: %s", body)
	}
}

// wantGoodToken makes a call that fails for its code, and so not for its token.
func wantGoodToken(t *testing.T, c *weixin.Client) {
	t.Helper()
	_, err := c.PluginOpenPID(t.Context(), testApp, "nonsense")
	wantClass(t, err, weixin.ClassCodeInvalid)
}

func token(t *testing.T, c *weixin.Client) weixin.AccessToken {
	t.Helper()
	tok, err := c.Tokens().Token(t.Context(), testApp)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestToken_ManyCallers_OneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: time.Second})
		var all [64]weixin.AccessToken
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { all[i] = token(t, c) })
		}
		wg.Wait()
		for _, tok := range all {
			if tok != all[0] || tok == (weixin.AccessToken{}) {
				t.Fatal("different tokens")
			}
		}
		for range 100 {
			if token(t, c) != all[0] {
				t.Fatal("another token")
			}
		}
		if n := sim.Count(tokenPath); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// Each call gets a good token. The first renewal is 6 to 5 minutes before the
// end; further ones are at least 30 seconds apart.
func TestToken_SteadyUse_IsRenewedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		begin := time.Now()
		for time.Since(begin) < 2*time.Hour-6*time.Minute-time.Second {
			wantGoodToken(t, c)
			time.Sleep(time.Minute)
		}
		if n := sim.Count(tokenPath); n != 1 {
			t.Fatalf("%d requests before it was time", n)
		}
		sim.Reset()
		first := token(t, c)
		for time.Since(begin) < 4*time.Hour {
			wantGoodToken(t, c)
			time.Sleep(10 * time.Second)
		}
		if token(t, c) == first {
			t.Error("the same token after 4 hours")
		}
		var last time.Time
		asked := 0
		for _, call := range sim.Calls() {
			if call.Path != tokenPath {
				continue
			}
			if asked++; asked == 1 {
				left := 2*time.Hour - call.Time.Sub(begin)
				if left > 6*time.Minute || left < 5*time.Minute-10*time.Second {
					t.Errorf("first renewal %v before the end", left)
				}
			}
			if call.Time.Sub(last) < 30*time.Second {
				t.Errorf("asked again after %v", call.Time.Sub(last))
			}
			last = call.Time
		}
		if asked < 1 || asked > 2*5 {
			t.Errorf("%d renewals in 4 hours", asked)
		}
	})
}

func TestToken_SlowRenewal_DelaysNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		first := token(t, c)
		time.Sleep(2*time.Hour - 4*time.Minute)
		sim.Inject(slowToken)
		start := time.Now()
		for range 100 {
			if token(t, c) != first {
				t.Fatal("another token")
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v", took)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if token(t, c) == first || sim.Count(tokenPath) != 2 {
			t.Errorf("not renewed, or not once: %d requests", sim.Count(tokenPath))
		}
	})
}

func TestToken_Outage_ServesUntilItsEnd(t *testing.T) {
	for name, fault := range map[string]weixintest.Fault{
		"5xx":      {Kind: weixintest.FaultStatus, Status: 503},
		"silence":  {Kind: weixintest.FaultHang},
		"quota":    {Kind: weixintest.FaultErrCode, ErrCode: 45009},
		"IP":       {Kind: weixintest.FaultErrCode, ErrCode: 40164},
		"nonsense": {Kind: weixintest.FaultHTML},
		"no token": {Kind: weixintest.FaultBody, Body: `{"errcode":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, sim := simulate(t, weixin.Config{})
				begin := time.Now()
				first := token(t, c)
				fault.Times, fault.Path = -1, tokenPath
				sim.Inject(fault)
				time.Sleep(2*time.Hour - 6*time.Minute)
				for time.Since(begin) < 2*time.Hour {
					if tok := token(t, c); tok != first {
						t.Fatal("another token")
					}
					time.Sleep(time.Second)
				}
				tries := sim.Count(tokenPath)
				if tries < 5 || tries > 14 { // 1, 2, 4 … 60 s apart, less the jitter
					t.Errorf("%d requests in 6 minutes of outage", tries)
				}
				if _, err := c.Tokens().Token(t.Context(), testApp); err == nil {
					t.Fatal("a dead token was given out")
				}
				start := time.Now()
				for range 1000 { // the pause holds for all callers
					_, err := c.Tokens().Token(t.Context(), testApp)
					if e := asError(t, err); e.Op != "getting access token" {
						t.Fatal(e)
					}
				}
				if n := sim.Count(tokenPath) - tries; n > 2 || time.Since(start) > 5*time.Second {
					t.Errorf("%d requests for 1000 failures in %v", n, time.Since(start))
				}
				sim.Reset() // WeChat is back
				time.Sleep(time.Minute)
				if token(t, c) == first {
					t.Error("the dead token")
				}
			})
		})
	}
}

// After the forced refresh of another process, one request and one repetition
// serve the user.
func TestToken_Refused_IsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		wantGoodToken(t, c)
		time.Sleep(time.Minute)
		forceRefresh(t, sim)
		sim.Reset()
		p, err := c.PhoneNumber(t.Context(), testApp, sim.PhoneCode(testApp.ID, "13580006666"), "")
		if err != nil || p.Number != "13580006666" {
			t.Fatalf("%v", err)
		}
		if sim.Count(tokenPath) != 1 || sim.Count(phonePath) != 2 {
			t.Errorf("%d token requests, %d calls", sim.Count(tokenPath), sim.Count(phonePath))
		}
		wantGoodToken(t, c)
		if sim.Count(tokenPath) != 1 {
			t.Error("the new token was not kept")
		}
	})
}

// WeChat returns the same token while it holds it good, so a repetition is
// useless (docs/wechat.md#token-conflicts).
func TestToken_GoodButRefused_DoesNotLoop(t *testing.T) {
	for _, errcode := range []int{40001, 40014, 42001} {
		synctest.Test(t, func(t *testing.T) {
			c, sim := simulate(t, weixin.Config{})
			wantGoodToken(t, c)
			time.Sleep(time.Minute)
			sim.Reset()
			sim.Inject(weixintest.Fault{
				Kind: weixintest.FaultErrCode, ErrCode: errcode, Path: pluginPath, Times: -1,
			})
			begin := time.Now()
			calls := 0
			for time.Since(begin) < 10*time.Minute {
				_, err := c.PluginOpenPID(t.Context(), testApp, "code")
				if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != errcode {
					t.Fatal(e)
				}
				calls++
				time.Sleep(time.Second)
			}
			if n := sim.Count(pluginPath); n != calls {
				t.Errorf("%d requests for %d calls", n, calls)
			}
			if n := sim.Count(tokenPath); n < 10 || n > 20 {
				t.Errorf("%d requests for a token in 10 minutes", n)
			}
			sim.Reset()
			wantGoodToken(t, c) // what is held good is used on
		})
	}
}

// Against a process that forces refreshes, each call makes one repetition, and
// one request a second at most.
func TestToken_ForcedRefreshes_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tokens, calls atomic.Int32
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == tokenPath {
				tokenServer(&tokens)(w, r)
				return
			}
			calls.Add(1)
			reply(200, `{"errcode":40001}`)(w, r)
		})
		for range 100 {
			_, err := c.PluginOpenPID(t.Context(), testApp, "code")
			wantClass(t, err, weixin.ClassMisconfigured)
			time.Sleep(100 * time.Millisecond)
		}
		if tokens.Load() > 16 || calls.Load() > 116 {
			t.Errorf("%d tokens, %d calls", tokens.Load(), calls.Load())
		}
	})
}

// Without WeChat, a refused token is better than none: the refusal may be wrong.
func TestToken_RefusedInAnOutage_IsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		first := token(t, c)
		time.Sleep(time.Minute)
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultStatus, Path: tokenPath, Times: -1})
		c.Tokens().Invalidate(testApp, first)
		for range 2 { // after a request, and in the pause that follows
			if token(t, c) != first || sim.Count(tokenPath) != 2 {
				t.Errorf("%d requests", sim.Count(tokenPath))
			}
		}
		sim.Reset()
		forceRefresh(t, sim)
		time.Sleep(time.Second)
		if token(t, c) == first { // the refusal is not forgotten
			t.Error("the dead token")
		}
	})
}

func TestInvalidate_OldToken_HasNoEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		first := token(t, c)
		time.Sleep(2 * time.Hour)
		if token(t, c) == first {
			t.Fatal("the dead token")
		}
		n := sim.Count(tokenPath)
		time.Sleep(time.Minute)
		c.Tokens().Invalidate(testApp, first)
		c.Tokens().Invalidate(weixin.Credentials{ID: "wxffffffffffffffff", Secret: "s"}, first)
		token(t, c)
		if sim.Count(tokenPath) != n {
			t.Error("fetched for a token that is kept no more")
		}
	})
}

func TestToken_OnTheWire_IsNormalMode(t *testing.T) {
	var got *http.Request
	var body []byte
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		reply(200, `{"access_token":"t","expires_in":7200}`)(w, r)
	})
	token(t, c)
	if got.Method != "POST" || got.RequestURI != tokenPath ||
		got.Header.Get("Content-Type") != "application/json" ||
		got.ContentLength != int64(len(body)) {
		t.Errorf("%s %s %v", got.Method, got.RequestURI, got.Header)
	}
	// Normal mode: force_refresh is left out.
	if string(body) != tokenRequest {
		t.Errorf("body %s", body)
	}
}

func TestToken_Life_IsBounded(t *testing.T) {
	for _, tc := range []struct {
		answer string
		life   time.Duration // 0: refused
	}{
		{`{"access_token":"t","expires_in":7200}`, 2 * time.Hour},
		{`{"access_token":"t","expires_in":"7200"}`, 2 * time.Hour},
		{`{"access_token":"t","expires_in":345,"errcode":0}`, 345 * time.Second},
		{`{"access_token":"t","expires_in":1}`, time.Second},
		{`{"access_token":"t","expires_in":86400000}`, 2 * time.Hour},
		{`{"access_token":"t","expires_in":9223372036854775807}`, 2 * time.Hour},
		{`{"access_token":"` + strings.Repeat("t", 2048) + `","expires_in":7200}`, 2 * time.Hour},
		{`{"access_token":"` + strings.Repeat("t", 2049) + `","expires_in":7200}`, 0},
		{`{"access_token":"t"}`, 0},
		{`{"access_token":"t","expires_in":0}`, 0},
		{`{"access_token":"t","expires_in":-1}`, 0},
		{`{"access_token":"t","expires_in":1e99}`, 0},
		{`{"access_token":"t","expires_in":{}}`, 0},
		{`{"access_token":"","expires_in":7200}`, 0},
		{`{"access_token":7,"expires_in":7200}`, 0},
		{`{"access_token":"t\n","expires_in":7200}`, 0},
		{`{"expires_in":7200}`, 0},
	} {
		t.Run(tc.answer[:min(60, len(tc.answer))], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests atomic.Int32
				c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
					if requests.Add(1) > 1 {
						reply(503, "")(w, r)
						return
					}
					reply(200, tc.answer)(w, r)
				})
				_, err := c.Tokens().Token(t.Context(), testApp)
				if tc.life == 0 {
					wantClass(t, err, weixin.ClassProtocol)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tc.life - time.Nanosecond)
				token(t, c)
				synctest.Wait() // a renewal
				time.Sleep(time.Nanosecond)
				_, err = c.Tokens().Token(t.Context(), testApp)
				wantClass(t, err, weixin.ClassUnavailable)
			})
		})
	}
}

func TestToken_OneCallerCancels_OthersGetIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultSlow, Delay: 3 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Tokens().Token(ctx, testApp)
			e := wantClass(t, err, weixin.ClassCanceled)
			if e.Op != "getting access token" || !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		wg.Go(func() { token(t, c) })
		wg.Wait()
		short, done := context.WithTimeout(t.Context(), 0)
		defer done()
		if _, err := c.Tokens().Token(short, testApp); err != nil {
			t.Errorf("a token that is here needs no time: %v", err)
		}
		if sim.Count(tokenPath) != 1 {
			t.Errorf("%d requests", sim.Count(tokenPath))
		}
	})
}

func TestAuthorized_OneDeadline_CoversTokenAndCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{Timeout: 4 * time.Second})
		sim.Inject(slowToken)
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Path: pluginPath})
		start := time.Now()
		_, err := c.PluginOpenPID(t.Context(), testApp, "code")
		if wantClass(t, err, weixin.ClassUnavailable); time.Since(start) != 4*time.Second {
			t.Errorf("took %v", time.Since(start))
		}
	})
}

func TestToken_NewSecret_HasItsOwnSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, sim := simulate(t, weixin.Config{})
		old := weixin.Credentials{ID: testApp.ID, Secret: "reset in the console"}
		for range 10 {
			_, err := c.Tokens().Token(t.Context(), weixin.Credentials{ID: old.ID, Secret: "wrong"})
			if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != 40125 {
				t.Fatal(e)
			}
		}
		if n := sim.Count(tokenPath); n != 1 {
			t.Errorf("%d requests with a wrong secret", n)
		}
		token(t, c) // no pause for the right one
		_, err := c.Tokens().Token(t.Context(), old)
		if wantClass(t, err, weixin.ClassMisconfigured); sim.Count(tokenPath) != 2 {
			t.Errorf("a secret of impossible shape was sent: %v", err)
		}
		_, err = c.Tokens().Token(t.Context(), weixin.Credentials{Secret: "s"})
		wantClass(t, err, weixin.ClassMisconfigured)
	})
}

func TestClose_EndsRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := false
		c, sim := simulate(t, weixin.Config{Observe: func(weixin.Call) {
			time.Sleep(time.Second)
			over = true
		}})
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Times: -1})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Tokens().Token(t.Context(), testApp)
			wantClass(t, err, weixin.ClassCanceled)
		})
		synctest.Wait()
		start := time.Now()
		c.Close()
		if !over || time.Since(start) != time.Second {
			t.Errorf("returned after %v with the renewal under way: %v", time.Since(start), !over)
		}
		wg.Wait()
		time.Sleep(time.Hour)
		_, err := c.Tokens().Token(t.Context(), testApp)
		wantClass(t, err, weixin.ClassCanceled)
		another := weixin.Credentials{ID: testApp.ID, Secret: "another"}
		_, err = c.Tokens().Token(t.Context(), another)
		wantClass(t, err, weixin.ClassCanceled)
		if !strings.Contains(err.Error(), "closed") || sim.Count(tokenPath) != 1 {
			t.Errorf("WeChat was asked after Close: %v", err)
		}
	})
}

func TestClose_KeepsTheCachedToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := simulate(t, weixin.Config{})
		first := token(t, c)
		c.Close()
		c.Tokens().Invalidate(testApp, first)
		time.Sleep(2*time.Hour - time.Second)
		if token(t, c) != first {
			t.Error("another token")
		}
	})
}
