package weixin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func TestThreat28_CredentialsPrintNoSecret(t *testing.T) {
	const secret, key = "canary-appsecret", "canary-session-key"
	app := weixin.Credentials{ID: "wx0123456789abcdef", Secret: secret}
	session := weixin.Session{OpenID: "o-visible", SessionKey: key, UnionID: "u-visible"}
	values := map[string]any{
		"wx0123456789abcdef": app,
		"o-visible":          session,
	}
	withTokens := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reply(200, `{"access_token":"`+secret+`","expires_in":7200}`)(w, r)
	})
	tok := token(t, withTokens)
	userKey := weixin.UserKey{Version: 1}
	copy(userKey.Key[:], key)
	copy(userKey.IV[:], secret)
	nested := []any{
		tok, &tok,
		[]weixin.AccessToken{tok},
		struct{ T weixin.AccessToken }{tok},
		map[weixin.AccessToken]bool{tok: true},
		userKey, &userKey,
		[]weixin.UserKey{userKey},
		struct{ K *weixin.UserKey }{&userKey},
		&app, &session,
		[]weixin.Credentials{app},
		[]weixin.Session{session},
		map[string]any{"a": app, "s": session},
		struct{ A weixin.Credentials }{app},
		struct{ S *weixin.Session }{&session},
	}
	var out strings.Builder
	out.WriteString(app.String() + session.String() + tok.String() + userKey.String())
	for id, v := range values {
		got := renderings(v)
		if !strings.Contains(got, id) {
			t.Errorf("%T without its id: %s", v, got)
		}
		out.WriteString(got)
	}
	for _, v := range nested {
		out.WriteString(renderings(v))
	}
	for _, c := range canaryForms(secret, key, key[:16], secret[:16]) {
		if strings.Contains(out.String(), c) {
			t.Errorf("%q leaked: %s", c, out.String())
		}
	}
}

// renderings returns v in every form in which it could reach a log.
func renderings(v any) string {
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%T"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	slog.New(slog.NewJSONHandler(&out, options)).Debug("m", "v", v)
	slog.New(slog.NewTextHandler(&out, options)).Debug("m", "v", v)
	if j, err := json.Marshal(v); err == nil {
		out.Write(j)
	}
	return out.String()
}

// canaryForms returns a secret as the renderings would show it: plain, in
// hexadecimal and as a list of bytes.
func canaryForms(secrets ...string) []string {
	var forms []string
	for _, s := range secrets {
		list := strings.Trim(fmt.Sprint([]byte(s)), "[]")
		forms = append(forms, s, fmt.Sprintf("%x", s), fmt.Sprintf("%X", s), list,
			strings.ReplaceAll(list, " ", ","))
	}
	return forms
}

const newSecret = "fedcba9876543210fedcba9876543210"

// rotated is testApp with the new AppSecret configured before the reset.
var rotated = weixin.Credentials{ID: testApp.ID, Secret: newSecret, Previous: testApp.Secret}

// withTwoSecrets returns a client of a simulator that records changes of the AppSecret
// in use.
func withTwoSecrets(t *testing.T) (*weixin.Client, *weixintest.Server, func() []string) {
	t.Helper()
	sim := weixintest.NewServer(simulated)
	t.Cleanup(sim.Close)
	var mu sync.Mutex
	var changes []string
	c := newClient(t, weixin.Config{
		BaseURL: sim.URL,
		SecretChanged: func(appID string, in weixin.SecretInUse) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, fmt.Sprint(appID, " ", in))
		},
	})
	return c, sim, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(changes)
	}
}

// TestSecrets_Reset_IsNoOutage: no login fails around a reset in the console, and no
// code is sent with a refused AppSecret twice.
func TestSecrets_Reset_IsNoOutage(t *testing.T) {
	c, sim, changes := withTwoSecrets(t)
	login := func(calls int) {
		t.Helper()
		sim.Reset()
		_, err := c.Code2Session(t.Context(), rotated, sim.Code(testApp.ID, "alice"))
		if n := sim.Count(loginPath); err != nil || n != calls {
			t.Errorf("%v, %d calls, want %d", err, n, calls)
		}
	}
	login(2) // the new one is not valid yet
	login(1)
	if in := c.SecretInUse(rotated); in != weixin.PreviousSecret {
		t.Errorf("%s in use before the reset", in)
	}
	sim.SetSecret(testApp.ID, newSecret)
	login(2)
	login(1)
	if in := c.SecretInUse(rotated); in != weixin.CurrentSecret {
		t.Errorf("%s in use after the reset", in)
	}
	want := []string{testApp.ID + " previous", testApp.ID + " current"}
	if got := changes(); !slices.Equal(got, want) {
		t.Errorf("changes %q", got)
	}
}

func TestSecrets_Token_TriesTheOther(t *testing.T) {
	c, _, changes := withTwoSecrets(t)
	if _, err := c.Tokens().Token(t.Context(), rotated); err != nil {
		t.Error(err)
	}
	if got := changes(); len(got) != 1 || c.SecretInUse(rotated) != weixin.PreviousSecret {
		t.Errorf("changes %q", got)
	}
}

// TestSecrets_BothRefused_NothingChanges: two tries a login, and a client's bad code
// does not make a good AppSecret a bad one.
func TestSecrets_BothRefused_NothingChanges(t *testing.T) {
	c, sim, changes := withTwoSecrets(t)
	sim.SetSecret(testApp.ID, "neither")
	_, err := c.Code2Session(t.Context(), rotated, sim.Code(testApp.ID, "alice"))
	if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != 40125 {
		t.Error(e)
	}
	sim.SetSecret(testApp.ID, newSecret)
	for range 3 {
		_, err = c.Code2Session(t.Context(), rotated, goodCode)
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	if n := sim.Count(loginPath); n != 5 || len(changes()) > 0 {
		t.Errorf("%d calls, changes %q", n, changes())
	}
	// An answer that is not WeChat's proves no AppSecret.
	sim.SetSecret(testApp.ID, testApp.Secret)
	sim.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 40125})
	sim.Inject(weixintest.Fault{Kind: weixintest.FaultHTML})
	_, err = c.Code2Session(t.Context(), rotated, sim.Code(testApp.ID, "alice"))
	wantClass(t, err, weixin.ClassProtocol)
	if len(changes()) > 0 {
		t.Errorf("changes %q", changes())
	}
}

// TestSecrets_ManyLogins_OneChange: logins at once meet the reset together.
func TestSecrets_ManyLogins_OneChange(t *testing.T) {
	c, sim, changes := withTwoSecrets(t)
	var wg sync.WaitGroup
	for i := range 32 {
		code := sim.Code(testApp.ID, fmt.Sprint("user ", i))
		wg.Go(func() {
			if _, err := c.Code2Session(t.Context(), rotated, code); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := changes(); len(got) != 1 {
		t.Errorf("changes %q", got)
	}
}

func TestSecrets_Malformed_MakesNoCall(t *testing.T) {
	c, sim, _ := withTwoSecrets(t)
	app := rotated
	app.Previous = "with a blank"
	_, err := c.Code2Session(t.Context(), app, goodCode)
	wantClass(t, err, weixin.ClassMisconfigured)
	if n := len(sim.Calls()); n > 0 {
		t.Errorf("%d calls", n)
	}
}
