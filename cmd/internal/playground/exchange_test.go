package playground

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/cmd/internal/webtest"
)

// exchangeCode asks the simulator for the user of a code.
func exchangeCode(s *Server, code string) map[string]any {
	w := httptest.NewRecorder()
	s.cfg.WeChat.ServeHTTP(
		w,
		httptest.NewRequest(http.MethodGet, "/sns/jscode2session?appid="+appID+
			"&secret=secret&grant_type=authorization_code&js_code="+code, nil),
	)
	var out map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &out)
	return out
}

// startGate runs the taps around a small gate, which takes the header X-Wx-Openid away and
// puts its own in, before a proxy to the app.
func startGate(t *testing.T, app http.Handler) (base string) {
	t.Helper()
	upstream := httptest.NewServer(app)
	t.Cleanup(upstream.Close)
	target, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
		r.Out.Header.Set("Via", "a proxy")
		r.Out.Header.Del("X-Dropped")
	}}
	last := func(w http.ResponseWriter, r *http.Request) error {
		if r.URL.Path == "/own" {
			_, err := fmt.Fprint(w, "no app is asked")
			return err
		}
		return Tap{App: true, Wire: true}.Look(r, func(r *http.Request) error {
			proxy.ServeHTTP(w, r)
			return nil
		})
	}
	gate := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.Header().Set("X-Wxgate", "1")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Set("X-Wx-Openid", "o-ada")
		_ = Tap{}.Look(r, func(r *http.Request) error { return last(w, r) })
	}))
	t.Cleanup(gate.Close)
	return gate.URL
}

// listed writes the lines of a message with the actor of each.
func listed(m *Message) string {
	if m == nil {
		return "nothing"
	}
	var b strings.Builder
	for _, l := range m.Lines {
		fmt.Fprintf(&b, "%s=%s(%s) ", l.Name, l.Value, l.By)
	}
	return b.String()
}

func TestExchange_Request_IsSeenAtEachStation(t *testing.T) {
	_, base := startPage(
		t,
		startGate(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-From", "app")
			_ = r.Write(w)
		})),
	)
	headers := [][2]string{{"x-wx-OPENID", "forged"}, {"X-Kept", " 1 "}, {"X-Dropped", "2"}}
	for _, tt := range []struct {
		path, by        string
		sent, app, body string // parts
	}{
		{
			"/a/../b?c=d", "app",
			"x-wx-OPENID=forged(gate) X-Kept= 1 () X-Dropped=2(proxy)",
			"X-Wx-Openid=o-ada(gate)", "GET /a/../b?c=d HTTP/1.1\r\n",
		},
		{"/商 品", "app", "", "Via=a proxy(proxy)", "GET /%E5%95%86%20%E5%93%81 HTTP/1.1"},
		{"/own", "caddy", "X-Dropped=2()", "nothing", "no app is asked"},
		{"/refused", "gate", "x-wx-OPENID=forged() ", "nothing", ""},
	} {
		var x exchange
		in := request{Method: "GET", Path: tt.path, Headers: headers}
		if status := post(t, base, "exchange", in, &x); status != 200 || x.Answer == nil {
			t.Fatalf("%s: %d %+v", tt.path, status, x)
		}
		body := ""
		if x.Answer.Body != nil {
			body = x.Answer.Body.Text
		}
		if x.By != tt.by || !strings.Contains(listed(x.Sent), tt.sent) ||
			!strings.Contains(listed(x.App), tt.app) || !strings.Contains(body, tt.body) {
			t.Errorf("%s: by %s\nsent %s\napp %s\nbody %s", tt.path, x.By, listed(x.Sent),
				listed(x.App), body)
		}
		if tt.by == "app" && (x.App.Start != "GET "+escape(tt.path)+" HTTP/1.1" ||
			strings.Contains(listed(x.App), "forged")) {
			t.Errorf("%s: the app received %s %s", tt.path, x.App.Start, listed(x.App))
		}
	}
}

// TestExchange_AppBreaksOff_CaddyAnswers: the app received the request, and the answer is
// not its own.
func TestExchange_AppBreaksOff_CaddyAnswers(t *testing.T) {
	_, base := startPage(
		t,
		startGate(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			panic(http.ErrAbortHandler)
		})),
	)
	var x exchange
	post(t, base, "exchange", request{Method: "POST", Path: "/x", Body: "hello"}, &x)
	if x.Answer == nil || x.Answer.Status != 502 || x.By != "caddy" || x.App == nil {
		t.Errorf("broken off: %+v", x)
	}
}

// TestExchange_AnyAnswer_IsBoundedText: whatever the app answers, the page gets a bounded
// text and the reader learns that it was cut.
func TestExchange_AnyAnswer_IsBoundedText(t *testing.T) {
	const nasty = "<script>alert(1)</script>\u202e"
	app := http.NewServeMux()
	app.HandleFunc("/nasty", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Nasty", "<b>")
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, nasty)
	})
	app.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(strings.Repeat("ä", maxBody)))
	})
	app.HandleFunc("/binary", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte{0xff, 0xd8, 0xff, 'J', 'F', 'I', 'F'})
	})
	app.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	app.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})
	_, base := startPage(t, startGate(t, app))
	for _, tt := range []struct {
		path   string
		status int
		cut    string
		size   int
		text   string
	}{
		{"/nasty", 418, "", len(nasty), nasty},
		{"/large", 200, "size", maxBody, strings.Repeat("ä", maxBody/2)},
		{"/binary", 200, "", 7, "|...JFIF|\n"},
		{"/events", 200, "time", 11, "data: one\n\n"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			var x exchange
			post(t, base, "exchange", request{Method: "GET", Path: tt.path}, &x)
			if x.Answer == nil || x.Answer.Body == nil {
				t.Fatalf("%+v", x)
			}
			a := x.Answer
			if a.Status != tt.status || a.Cut != tt.cut || a.Body.Size != tt.size ||
				!strings.HasSuffix(a.Body.Text, tt.text) {
				t.Errorf("%d %q %d %.200q", a.Status, a.Cut, a.Body.Size, a.Body.Text)
			}
		})
	}
	var x exchange
	body := strings.Repeat("b", maxBody)
	post(t, base, "exchange", request{Method: "POST", Path: "/upload", Body: body}, &x)
	if x.App == nil || x.App.Body == nil || x.App.Body.Text != body {
		t.Errorf("the app read %+v", x.App)
	}
}

// TestTap_OtherClients_LeaveNoTrace: only the page's own requests are looked at, so nothing
// of another client's is kept.
func TestTap_OtherClients_LeaveNoTrace(t *testing.T) {
	gate := startGate(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, wrapped := r.Body.(*heard); wrapped {
			t.Error("the body is wrapped")
		}
	}))
	if status, _, _ := webtest.Ask(t, http.MethodPost, gate+"/x", "hello"); status != 200 {
		t.Errorf("status %d", status)
	}
	http.DefaultClient.CloseIdleConnections()
	inFlight.byConn.Range(func(key, _ any) bool {
		t.Errorf("%v is recorded", key)
		return true
	})
}

// TestRoundTrip_PageGoes_Ends: a page that is closed waits for nothing.
func TestRoundTrip_PageGoes_Ends(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel() // the request arrived, or is about to
			defer c.Close()
			_, _ = c.Read(make([]byte, 1))
		}
	}()
	done := make(chan error, 1)
	go func() {
		_, err := roundTrip(
			ctx,
			l.Addr().String(),
			"GET",
			[]byte("GET / HTTP/1.1\r\n\r\n"),
			new(record),
		)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("there is an answer")
		}
	case <-time.After(time.Minute):
		t.Error("it waits")
	}
}

func TestTapped_Handlers_StandAtTheirPlaces(t *testing.T) {
	var config any
	err := json.Unmarshal([]byte(`{"routes": [{"handle": [
		{"handler": "wechat_auth"},
		{"handler": "subroute", "routes": [{"handle": [
			{"handler": "reverse_proxy", "rewrite": {"uri": "/authz"}},
			{"handler": "reverse_proxy"},
			{"handler": "reverse_proxy", "transport": {"protocol": "fastcgi"}},
			{"handler": "file_server"}
		]}]}
	]}]}`), &config)
	if err != nil {
		t.Fatal(err)
	}
	AddTaps(config)
	got, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"routes":[{"handle":[{"handler":"wechat_auth"},{"handler":"wxgate_tap"},` +
		`{"handler":"subroute","routes":[{"handle":[` +
		`{"handler":"reverse_proxy","rewrite":{"uri":"/authz"}},` +
		`{"app":true,"handler":"wxgate_tap","wire":true},{"handler":"reverse_proxy"},` +
		`{"app":true,"handler":"wxgate_tap","wire":false},` +
		`{"handler":"reverse_proxy","transport":{"protocol":"fastcgi"}},` +
		`{"handler":"file_server"}]}]}]}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWeChat_Modes_ControlAPIWorks(t *testing.T) {
	s, base := startPage(t, "http://127.0.0.1:1")
	api := httptest.NewServer(s.WeChat(s.cfg.WeChat))
	defer api.Close()
	for _, mode := range []string{works, busy, down, silent} {
		var out struct{ Mode string }
		if post(t, base, "wechat", map[string]string{"mode": mode}, &out); out.Mode != mode {
			t.Fatalf("%s: %+v", mode, out)
		}
		if status, _, body := webtest.Ask(t, "GET", api.URL+"/_sim/calls", ""); status != 200 {
			t.Errorf("%s: the control API answers %d %s", mode, status, body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(
			ctx,
			http.MethodGet,
			api.URL+"/sns/jscode2session",
			nil,
		)
		if err != nil {
			t.Fatal(err)
		}
		if mode == silent { // an answer would come before the end of ctx, or never
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		resp, err := http.DefaultClient.Do(r)
		switch {
		case (err == nil) != (mode == works || mode == busy):
			t.Errorf("%s: %v", mode, err)
		case err == nil:
			var got struct{ ErrCode int }
			if json.NewDecoder(resp.Body).Decode(&got); (got.ErrCode == -1) != (mode == busy) {
				t.Errorf("%s: errcode %d", mode, got.ErrCode)
			}
			resp.Body.Close()
		}
		cancel()
	}
}
