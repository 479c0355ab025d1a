package e2e_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	pushToken = "canaryPushT0ken"
	pushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// pushApp is an app that gets pushes.
type pushApp struct {
	*httptest.Server
	broken atomic.Bool

	mu  sync.Mutex
	got []string // source, AppID, openid and body of each push that it has taken

	events []event // that it has taken
}

// event is what an app got on the path of events_to.
type event struct{ proof, body string }

func newPushApp(t *testing.T) *pushApp {
	a := new(pushApp)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/push" {
			a.mu.Lock()
			a.got = append(a.got, fmt.Sprintf("%s %s %s %s", r.Header["X-Wx-Source"],
				r.Header["X-Wx-Appid"], r.Header["X-Wx-Openid"], body))
			a.mu.Unlock()
		}
		if r.URL.Path == "/wx-events" {
			a.mu.Lock()
			a.events = append(a.events, event{r.Header.Get("X-Wx-Assertion"), string(body)})
			a.mu.Unlock()
		}
		if strings.Contains(string(body), "question") {
			io.WriteString(w, `{"answer":42}`)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

// taken waits until the app has n pushes and returns them.
func (a *pushApp) taken(t *testing.T, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); ; time.Sleep(20 * time.Millisecond) {
		a.mu.Lock()
		got := slices.Clone(a.got)
		a.mu.Unlock()
		if len(got) >= n {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("the app has %d pushes of %d: %q", len(got), n, got)
		}
	}
}

// newPushWorld starts a world whose mini program takes pushes and whose app gets them.
func newPushWorld(t *testing.T) (*world, *pushApp) {
	t.Helper()
	w, a := prepareWorld(t, setup{}), newPushApp(t)
	w.env = append(w.env, "WX_PUSH_TOKEN="+pushToken, "WX_PUSH_KEY="+pushKey)
	w.write(t, "Caddyfile", fmt.Sprintf(`{
	admin %s
	grace_period 1s
	wechat {
		app %s {env.WX_SECRET_0} {
			push {
				token {env.WX_PUSH_TOKEN}
				aes_key {env.WX_PUSH_KEY}
				deliver /push
				events_to /wx-events
			}
		}
		api {
			base_url %s
		}
	}
}
`, w.admin, appA, w.wechat.URL)+siteAt(w.addr, "\twechat_auth {\n\t\toptional /*\n"+
		"\t\tassertion {\n\t\t\taudience orders\n\t\t\tissuer https://api.example.com\n\t\t}\n\t}\n"+
		"\treverse_proxy "+strings.TrimPrefix(a.URL, "http://")))
	w.run(t, "--adapter", "caddyfile", "--config", w.home+"/Caddyfile")
	err := w.wechat.SetPush(t.Context(), appA, weixintest.PushSettings{
		URL: "http://" + w.addr + "/wx/push/" + appA, Token: pushToken, AESKey: pushKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w, a
}

// push sends a push that must be answered at once.
func (w *world) push(t *testing.T, p weixintest.Push, want string) {
	t.Helper()
	done, err := w.wechat.Push(t.Context(), appA, p)
	if err != nil || done.Status != 200 || done.Answer != want {
		t.Fatalf("%+v: %+v, %v", p, done, err)
	}
}

func text(content string) weixintest.Push {
	return weixintest.Push{Message: []byte(`{"MsgType":"text","FromUserName":"o1",` +
		`"Content":"` + content + `"}`)}
}

// A push that WeChat was told success for survives a kill: what it asks for is done, and
// the app gets it as soon as it can, in order.
func TestPush_AppDownAndGateKilled_NothingIsLost(t *testing.T) {
	slow(t)
	t.Parallel()
	w, a := newPushWorld(t)
	token := w.login(t, "alice")

	w.push(t, text("question"), `{"answer":42}`)
	want := `[wx_push] [` + appA + `] [] ` +
		`{"Content":"question","FromUserName":"o1","MsgType":"text"}`
	if got := a.taken(t, 1); got[0] != want {
		t.Errorf("the app got %s, want %s", got[0], want)
	}
	for _, target := range []string{
		"/push", "/PUSH/", "/push/x", "/x/..%2fpush", "/%70ush", "/wx-events",
	} {
		for _, header := range []string{"X-WX-SOURCE: wx_push", bearer(token)} {
			r := w.post(t, target, `{"Event":"x"}`, header)
			if r.status != 404 || !r.fromGate() {
				t.Errorf("a client's %s is answered with %s", target, r)
			}
		}
	}

	a.broken.Store(true)
	for i := range 3 {
		w.push(t, text(fmt.Sprint("late ", i)), "success")
	}
	w.push(t, weixintest.Push{User: "alice", Event: "user_authorization_cancellation"}, "success")
	w.gate.kill()
	w.run(t, "--adapter", "caddyfile", "--config", w.home+"/Caddyfile")
	w.checkDead(t, token)
	a.broken.Store(false)

	var late, cancelled []string
	for _, got := range a.taken(t, 5) {
		if strings.Contains(got, "late") {
			late = append(late, got)
		} else if strings.Contains(got, "cancellation") {
			cancelled = append(cancelled, got)
		}
	}
	late = slices.Compact(late) // at least once
	if len(late) != 3 || !slices.IsSorted(late) {
		t.Errorf("late: %q", late)
	}
	who := `[wx_push] [` + appA + `] [` + w.wechat.OpenID(appA, "alice") + `] {`
	if len(cancelled) == 0 || !strings.HasPrefix(cancelled[0], who) {
		t.Errorf("cancelled: %q", cancelled)
	}
	w.checkForgottenEvent(t, a)
}

// checkForgottenEvent waits until the app has heard that alice is forgotten, with a proof
// that the published keys verify.
func (w *world) checkForgottenEvent(t *testing.T, a *pushApp) {
	t.Helper()
	var got event
	eventually(t, "an event", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.events) > 0 {
			got = a.events[0]
		}
		return len(a.events) > 0
	})
	var claims struct {
		Subject string `json:"sub"`
		Event   string `json:"event"`
		Digest  string `json:"body_sha256"`
	}
	parsed, err := jwt.ParseSigned(got.proof, []jose.SignatureAlgorithm{jose.ES256})
	if err == nil {
		err = parsed.Claims(w.keySet(t, 1), &claims)
	}
	sum := sha256.Sum256([]byte(got.body))
	if err != nil || claims.Subject != w.wechat.OpenID(appA, "alice") ||
		claims.Event != "forgotten" ||
		claims.Digest != base64.RawURLEncoding.EncodeToString(sum[:]) {
		t.Errorf("%v: %+v of %s", err, claims, got.body)
	}
}
