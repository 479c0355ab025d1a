package wechatauth

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	phonePath = "/wxa/business/getuserphonenumber"
	number    = "13580006666"
)

func phoneBody(code string) string { return fmt.Sprintf(`{"code":%q}`, code) }

// TestPhone: the number goes to the client, in WeChat's own words, and nowhere
// else unless the operator asks for it.
func TestPhone(t *testing.T) {
	for _, c := range []struct {
		name     string
		remember bool
		phone    string
		answer   string
		header   string
	}{
		{
			"mainland", false, number,
			`{"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":"86"}`, "",
		},
		{
			"foreign", false, "852-51230000",
			`{"phoneNumber":"85251230000","purePhoneNumber":"51230000","countryCode":"852"}`, "",
		},
		{
			"remembered", true, number,
			`{"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":"86"}`,
			number,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newDataWorld(t, fmt.Sprintf(`"phone":{"remember":%t}`, c.remember))
			first, second := w.login("ada"), w.login("ada")
			other := w.login("bob")
			rec := w.post(
				"/wx/phone", first, phoneBody(w.wechat.PhoneCode(caddytest.AppID, c.phone)),
			)
			if rec.Code != 200 || rec.Body.String() != c.answer ||
				rec.Header().Get("Content-Type") != "application/json" ||
				rec.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%d %v %s, want %s", rec.Code, rec.Header(), rec.Body, c.answer)
			}
			for token, want := range map[string]string{
				first: c.header, second: c.header, other: "",
			} {
				got := w.sees(token)["X-Wx-Phone"]
				if want == "" && got != nil || want != "" && (len(got) != 1 || got[0] != want) {
					t.Errorf("the app sees the phone %q, want %q", got, want)
				}
			}
			if lines := caddytest.Lines(w.Logs); strings.Contains(lines, c.phone) {
				t.Errorf("the log holds the number: %s", lines)
			}
		})
	}
}

// TestPhoneFailures holds that each failure has its code, that none asks for a new
// login, and that none makes the gate ask WeChat twice for what costs money.
// TestErrcodes_AnyCall_GivesClassAndMeaning and TestFor_ErrorByCall_Problem have the rest.
func TestPhoneFailures(t *testing.T) {
	w := newDataWorld(t, "")
	token := w.login("ada")
	used := w.wechat.PhoneCode(caddytest.AppID, number)
	// and the access token is there
	if rec := w.post("/wx/phone", token, phoneBody(used)); rec.Code != 200 {
		t.Fatal(rec.Code, rec.Body)
	}
	none := weixintest.Fault{}
	errcode := func(n int) weixintest.Fault {
		return weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: n}
	}
	for _, c := range []struct {
		name   string
		fault  weixintest.Fault
		code   string
		status int
		want   string
	}{
		{"a code that was used", none, used, 422, "code_invalid"},
		{"a code of wx.login", none, w.wechat.Code(caddytest.AppID, "ada"), 422, "code_invalid"},
		{"50001", errcode(50001), "", 403, "user_blocked"},
		{"45009", errcode(45009), "", 429, "rate_limited"},
		{"48001", errcode(48001), "", 502, "misconfigured"},
		{"-1", errcode(-1), "", 503, "wechat_unavailable"},
		{"lost", weixintest.Fault{Kind: weixintest.FaultLost}, "", 503, "wechat_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.wechat.Reset()
			*w.Live().Users = *wechatapp.NewUserLimits()
			if c.code == "" {
				c.fault.Path = phonePath
				w.wechat.Inject(c.fault)
				c.code = w.wechat.PhoneCode(caddytest.AppID, number)
			}
			rec := w.post("/wx/phone", token, phoneBody(c.code))
			waits := rec.Header().Get("Retry-After") != ""
			if got := caddytest.Code(t, rec); rec.Code != c.status || got != c.want ||
				waits != (c.status == 429 || c.status == 503) ||
				rec.Header().Get("WWW-Authenticate") != "" {
				t.Errorf("%d %v %s, want %d %s", rec.Code, rec.Header(), got, c.status, c.want)
			}
			if n := w.wechat.Count(phonePath); n != 1 {
				t.Errorf("WeChat was asked %d times, want once", n)
			}
		})
	}
	if lines := caddytest.Lines(w.Logs); strings.Contains(lines, used) ||
		strings.Contains(lines, number) {
		t.Errorf("the log holds a code or a number: %s", lines)
	}
}

// TestThreat26_PhoneLimit: numbers cost money, so a user gets ten an hour, by
// whatever session, and other users theirs. A reload changes nothing about it.
func TestThreat26_PhoneLimit(t *testing.T) {
	w := newDataWorld(t, "")
	first, other := w.login("ada"), w.login("bob")
	for i := range 10 {
		code := w.wechat.PhoneCode(caddytest.AppID, number)
		if rec := w.post("/wx/phone", first, phoneBody(code)); rec.Code != 200 {
			t.Fatal(i, rec.Code, rec.Body)
		}
	}
	again := again(t, w.wechat, w.Path, "")
	for what, g := range map[string]*Handler{"the same": w.gate, "reloaded": again.gate} {
		for _, token := range []string{first, w.login("ada")} {
			rec := serve(
				t, g, "/wx/phone", token,
				strings.NewReader(phoneBody(w.wechat.PhoneCode(caddytest.AppID, number))),
			)
			var wait int
			fmt.Sscan(rec.Header().Get("Retry-After"), &wait)
			if got := caddytest.Code(t, rec); rec.Code != 429 || got != "rate_limited" ||
				wait < 300 || wait > 360 {
				t.Errorf("%s: %d %s, Retry-After %d", what, rec.Code, got, wait)
			}
		}
	}
	if n := w.wechat.Count(phonePath); n != 10 {
		t.Errorf("WeChat was asked %d times", n)
	}
	code := w.wechat.PhoneCode(caddytest.AppID, number)
	if rec := w.post("/wx/phone", other, phoneBody(code)); rec.Code != 200 {
		t.Errorf("another user: %d %s", rec.Code, rec.Body)
	}
}

// TestThreat29_FailureLimit: whoever guesses is stopped after ten failures,
// before the body is read, and so is what would have passed; others are not.
func TestThreat29_FailureLimit(t *testing.T) {
	w := newDataWorld(t, "")
	first, other := w.login("ada"), w.login("bob")
	good := body(w.seal("ada", `{}`))
	bad := strings.Replace(good, `"iv":"`, `"iv":"AAAA`, 1)
	for i := range 10 {
		for _, c := range []struct {
			body   string
			status int
		}{{bad, 422}, {good, 200}} {
			if rec := w.post("/wx/decrypt", first, c.body); rec.Code != c.status {
				t.Fatal(i, rec.Code, rec.Body)
			}
			if i == 9 {
				break // the last failure locks out what is good
			}
		}
	}
	again := again(t, w.wechat, w.Path, "")
	for _, g := range []*Handler{w.gate, again.gate} {
		for _, token := range []string{first, w.login("ada")} {
			r, rec := caddytest.Request("POST", "/wx/decrypt", token)
			unread := &counter{Reader: strings.NewReader(good)}
			r.Body = unread
			if err := g.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
			if got := caddytest.Code(t, rec); rec.Code != 429 || got != "rate_limited" ||
				rec.Header().Get("Retry-After") == "" || unread.n != 0 {
				t.Errorf("%d %s after %d bytes", rec.Code, got, unread.n)
			}
		}
	}
	if rec := w.post("/wx/decrypt", other, body(w.seal("bob", `{}`))); rec.Code != 200 {
		t.Errorf("another user: %d %s", rec.Code, rec.Body)
	}
}

// A hundred bodies arrive before the first is judged: all of them count.
func TestThreat41_ParallelFailures_TenAreJudged(t *testing.T) {
	w := newDataWorld(t, "")
	token := w.login("ada")
	bad := strings.Replace(body(w.seal("ada", `{}`)), `"iv":"`, `"iv":"AAAA`, 1)
	arrive, statuses := make(chan struct{}), make(chan int)
	for range 100 {
		go func() {
			r, rec := caddytest.Request("POST", "/wx/decrypt", token)
			r.Body = io.NopCloser(&late{strings.NewReader(bad), arrive})
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Error(err)
			}
			statuses <- rec.Code
		}()
	}
	got := make(map[int]int)
	for i := range 100 {
		if i == 90 {
			close(arrive)
		}
		got[<-statuses]++
	}
	if got[422] != 10 || got[429] != 90 {
		t.Errorf("statuses: %v", got)
	}
}

// late is a body that arrives when the channel is closed.
type late struct {
	*strings.Reader
	arrive <-chan struct{}
}

func (l *late) Read(p []byte) (int, error) {
	<-l.arrive
	return l.Reader.Read(p)
}

// TestThreat26_DecryptLimit: sixty a minute, good as they may be.
func TestThreat26_DecryptLimit(t *testing.T) {
	w := newDataWorld(t, "")
	token, text := w.login("ada"), ""
	text = body(w.seal("ada", `{}`))
	for i := range 60 {
		if rec := w.post("/wx/decrypt", token, text); rec.Code != 200 {
			t.Fatal(i, rec.Code, rec.Body)
		}
	}
	if rec := w.post("/wx/decrypt", token, text); rec.Code != 429 {
		t.Errorf("the 61st: %d %s", rec.Code, rec.Body)
	}
}

// counter counts what is read of a body.
type counter struct {
	*strings.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func (*counter) Close() error { return nil }
