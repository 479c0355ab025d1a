package wechatauth

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestThreat46_StrayTokens holds that no app sees a token, in whatever shape it comes.
func TestThreat46_StrayTokens(t *testing.T) {
	w := newWorld(t, &Handler{Public: []string{"/public/*"}, Optional: []string{"/feed/*"}}).start()
	token := w.Token(caddytest.AppID, "alice")
	for _, path := range []string{"/public/x", "/feed/x", "/orders"} {
		for _, tt := range [][2]string{
			{"Authorization", "Bearer x, Bearer " + token},
			{"Authorization", `Bearer "` + token + `"`},
			{"Cookie", "a=b; t=" + token},
			{"Token", token},
		} {
			r, rec := caddytest.Request("GET", path, "")
			if path == "/orders" {
				r.Header.Set("X-3rd-Session", token)
			}
			r.Header.Set(tt[0], tt[1])
			var n caddytest.Next
			if err := w.gate.ServeHTTP(rec, r, &n); err != nil || !n.Called {
				t.Fatal(err, rec.Code)
			}
			for name, values := range r.Header {
				if strings.Contains(strings.Join(values, " "), "wxs_") {
					t.Errorf("%s with %q: the app gets %s: %q", path, tt, name, values)
				}
			}
		}
	}
}

// TestThreat44_RoutingHeaders holds that a path which a rule opened is the only
// one that the app may route by.
func TestThreat44_RoutingHeaders(t *testing.T) {
	w := newWorld(t, &Handler{Public: []string{"/public/*"}, Optional: []string{"/feed/*"}}).start()
	token := w.Token(caddytest.AppID, "alice")
	for path, want := range map[string]bool{"/public/x": false, "/feed/x": false, "/orders": true} {
		r, rec := caddytest.Request("GET", path, token)
		r.Header.Set("X-Original-Url", "/admin")
		if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get("X-Original-Url") != ""; got != want {
			t.Errorf("%s: passed on: %v", path, got)
		}
	}
}

// TestThreat45_Vary holds that each answer to a request whose token was read names the
// token's headers, and keeps what an earlier handler has named.
func TestThreat45_Vary(t *testing.T) {
	rules := Handler{Public: []string{"/public/*"}, Optional: []string{"/feed/*"}}
	own := rules
	own.TokenHeader = "X-Token"
	w := newWorld(t, &rules).start()
	token := w.Token(caddytest.AppID, "alice")
	for _, tt := range []struct {
		gate        *Handler
		path, token string
		want        []string
	}{
		{w.gate, "/orders", token, []string{"Authorization, X-3rd-Session"}},
		{w.gate, "/orders", "", []string{"Authorization, X-3rd-Session"}},
		{w.gate, "/orders", caddytest.MadeUp, []string{"Authorization, X-3rd-Session"}},
		{w.gate, "/feed/x", "", []string{"Authorization, X-3rd-Session"}},
		{w.gate, "/wx/session", token, []string{"Authorization, X-3rd-Session"}},
		{w.gate, "/public/x", token, nil},
		{w.newGate(&own), "/orders", "", []string{"X-Token"}},
	} {
		for _, old := range [][]string{nil, {"Origin"}} {
			r, rec := caddytest.Request("GET", tt.path, tt.token)
			rec.Header()["Vary"] = old
			if err := tt.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
			got := rec.Header()["Vary"]
			if want := slices.Concat(old, tt.want); !slices.Equal(got, want) {
				t.Errorf("%s %.9s: got %q, want %q", tt.path, tt.token, got, want)
			}
		}
	}
	h := make(http.Header)
	vary(h, w.gate.vary) // one slice serves all requests
	h.Add("Vary", "y")
	if !slices.Equal(w.gate.vary, []string{"Authorization, X-3rd-Session"}) {
		t.Errorf("an answer changed those to come: %q", w.gate.vary)
	}
}

// TestPlaceholders_NoUser_Empty holds that guests and public paths have no user, also
// when an earlier handler has set one.
func TestPlaceholders_NoUser_Empty(t *testing.T) {
	w := newWorld(t, &Handler{Public: []string{"/public/*"}, Optional: []string{"/feed/*"}}).start()
	for _, path := range []string{"/public/x", "/feed/x"} {
		for _, before := range []string{"", "bob"} {
			r, rec := caddytest.Request("GET", path, "")
			if before != "" {
				replacer(r).Set("http.auth.user.id", before)
				replacer(r).Set("http.auth.user.role", before)
			}
			if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
				t.Fatal(err)
			}
			const text = "<{http.auth.user.id}{http.auth.user.unionid}{http.auth.user.appid}" +
				"{http.auth.user.role}>"
			if got := replacer(r).ReplaceKnown(text, ""); got != "<>" {
				t.Errorf("%s after %q: %q", path, before, got)
			}
		}
	}
}
