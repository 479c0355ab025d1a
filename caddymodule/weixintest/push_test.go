package weixintest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	pushApp   = "wx0123456789abcdef"
	pushToken = "demoToken"
	pushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// pushServer reads pushes with the gate's own code, which the official samples hold, and
// answers as the test says.
type pushServer struct {
	*httptest.Server
	got    []string // messages
	answer func(q push.Query, f push.Format, with push.Key) (status int, body string)
}

func newPushServer(t *testing.T, plain bool) *pushServer {
	r, err := push.New(pushApp, pushToken, pushKey)
	if err != nil {
		t.Fatal(err)
	}
	p := &pushServer{answer: func(push.Query, push.Format, push.Key) (int, string) {
		return 200, push.Success
	}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		q, err := push.ReadQuery(req.URL.RawQuery)
		if err == nil {
			err = r.Signed(q)
		}
		if err == nil && req.Method == http.MethodGet {
			io.WriteString(w, q.Echo)
			return
		}
		var with push.Key
		var e push.Envelope
		if err == nil && !plain {
			if e, err = push.ReadEnvelope(body); err == nil {
				body, with, err = r.Open(q, e.Encrypt)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", req.URL, err)
			http.Error(w, "", http.StatusForbidden)
			return
		}
		p.got = append(p.got, string(body))
		status, text := p.answer(q, e.Format, with)
		w.WriteHeader(status)
		io.WriteString(w, text)
	}))
	t.Cleanup(p.Close)
	return p
}

func TestPush_EachMode_IsReadByTheGate(t *testing.T) {
	sim := weixintest.New(weixintest.Config{Apps: map[string]string{pushApp: "s"}})
	defer sim.Close()
	for _, mode := range []weixintest.PushMode{"", "secure", "compatible", "plain"} {
		for _, xml := range []bool{false, true} {
			p := newPushServer(t, mode == weixintest.PushPlain)
			err := sim.SetPush(t.Context(), pushApp, weixintest.PushSettings{
				URL: p.URL, Token: pushToken, AESKey: pushKey, Mode: mode, XML: xml,
			})
			if err != nil {
				t.Fatal(err)
			}
			done, err := sim.Push(t.Context(), pushApp, weixintest.Push{
				User: "alice", Event: push.UserRevoked, RevokeInfo: "8",
			})
			want := weixintest.Pushed{Attempts: 1, Status: 200, Answer: "success"}
			if err != nil || done != want {
				t.Fatalf("%s, xml %v: %+v, %v", mode, xml, done, err)
			}
			m, err := push.ReadMessage([]byte(p.got[0]))
			if err != nil || m.Event != push.UserRevoked || m.RevokeInfo[0] != "8" ||
				m.OpenID != sim.OpenID(pushApp, "alice") || m.From == m.OpenID ||
				(m.In == push.XML) != xml {
				t.Errorf("%s, xml %v: %s, %v", mode, xml, p.got[0], err)
			}
		}
	}
}

func TestPush_NoAnswer_IsSentThreeTimes(t *testing.T) {
	sim := weixintest.New(weixintest.Config{Apps: map[string]string{pushApp: "s"}})
	defer sim.Close()
	p := newPushServer(t, false)
	set := weixintest.PushSettings{URL: p.URL, Token: pushToken, AESKey: pushKey}
	if err := sim.SetPush(t.Context(), pushApp, set); err != nil {
		t.Fatal(err)
	}
	r, _ := push.New(pushApp, pushToken, pushKey)
	p.answer = func(q push.Query, f push.Format, with push.Key) (int, string) {
		if len(p.got) < 3 {
			return 503, "down"
		}
		return 200, string(r.Reply(f, []byte(`{"demo_resp":"good luck"}`), with, q.Nonce, q.Time()))
	}
	message := json.RawMessage(`{"MsgType":"text","Content":"<hi]]>","MsgId":6054768590064713728}`)
	done, err := sim.Push(t.Context(), pushApp, weixintest.Push{Message: message})
	if err != nil || done.Attempts != 3 || done.Answer != `{"demo_resp":"good luck"}` {
		t.Errorf("%+v, %v", done, err)
	}
	for _, got := range p.got {
		if got != p.got[0] || !strings.Contains(got, "6054768590064713728") {
			t.Errorf("got %q", p.got)
		}
	}
	p.answer = func(push.Query, push.Format, push.Key) (int, string) { return 503, "down" }
	done, err = sim.Push(t.Context(), pushApp, weixintest.Push{Event: "debug_demo"})
	if err != nil || done != (weixintest.Pushed{Attempts: 3, Status: 503, Answer: "down"}) {
		t.Errorf("%+v, %v", done, err)
	}
}

func TestPush_Console_RefusesWhatDoesNotProve(t *testing.T) {
	sim := weixintest.New(weixintest.Config{Apps: map[string]string{pushApp: "s"}})
	defer sim.Close()
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "hello")
	}))
	defer wrong.Close()
	for _, set := range []weixintest.PushSettings{
		{URL: wrong.URL, Token: pushToken, AESKey: pushKey},
		{URL: wrong.URL, Token: pushToken, AESKey: "short"},
		{URL: "http://127.0.0.1:1", Token: pushToken, AESKey: pushKey},
		{},
	} {
		if err := sim.SetPush(t.Context(), pushApp, set); err == nil {
			t.Errorf("%+v is accepted", set)
		}
	}
	if _, err := sim.Push(t.Context(), pushApp, weixintest.Push{Event: "x"}); err == nil {
		t.Error("a push without a URL")
	}
	if _, err := sim.Push(t.Context(), "wx", weixintest.Push{}); err == nil {
		t.Error("an unknown appid")
	}
}
