package gate_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// The explanation is what happens, and each reason names its cause.
func TestExplain_NamesEachCause(t *testing.T) {
	g := newGate(t, gate.Config{Public: []string{"/public/*"}, Optional: []string{"/feed"}})
	for _, tt := range []struct {
		name, target string
		header       http.Header
		class        gate.Class
		path         string   // part of the reason
		removed      []string // parts of "name: why", in order
		token        string
		refused      error
	}{
		{name: "plain", target: "/x", class: gate.Required, path: "no rule opens it"},
		{name: "public", target: "/public/a", class: gate.Public, path: "rule /public/*"},
		{name: "optional", target: "/feed", class: gate.Optional, path: "rule /feed"},
		{name: "dots", target: "/public/../admin", class: gate.Required, path: "dot segment"},
		{name: "empty segment", target: "/public//x", class: gate.Required, path: "empty segment"},
		{
			name: "encoded slash", target: "/public/..%2fadmin",
			class: gate.Required, path: "encoded slash",
		},
		{
			name: "unreserved encoded", target: "/public/%61",
			class: gate.Public, path: "rule /public/*",
		},
		{name: "encoded dot", target: "/public/a%2ejs", class: gate.Required, path: "encoded dot"},
		{
			name: "reserved encoded", target: "/public/a%28",
			class: gate.Required, path: "stands for itself",
		},
		{
			name: "encoded twice", target: "/public/%252e",
			class: gate.Required, path: `one of \ ; % # ?`,
		},
		{name: "endpoint", target: "/wx/login", class: gate.Endpoint, path: "answers it itself"},
		{
			name: "no endpoint", target: "/wx/login/",
			class: gate.NotFound, path: "none of its endpoints",
		},
		{
			name: "alias of an endpoint", target: "/wx//login", class: gate.NotFound,
			path: "lying under /wx",
		},
		{
			name: "headers", target: "/x", class: gate.Required, path: "no rule",
			header: http.Header{
				"Connection": {"close, X-Wx-Openid"}, "Upgrade": {"h2c"},
				"Http2-Settings": {"AAMA"}, "X_wx_openid": {"a"}, "X-Wx-Unionid": {"b"},
				"X_3rd_session": {"c"}, "X-Request-Id": {"kept"},
			},
			removed: []string{
				`Connection: now "close"`, "Http2-Settings: it belongs to an upgrade",
				"Upgrade: only a WebSocket", "X-Wx-Unionid: only the gate",
				"X_3rd_session: servers may take", "X_wx_openid: only the gate",
			},
		},
		{
			name: "token", target: "/x", class: gate.Required, path: "no rule",
			header:  http.Header{"Authorization": {"Bearer wxs_t"}},
			removed: []string{"Authorization: a token is for the gate"}, token: "wxs_t",
		},
		{
			name: "two tokens", target: "/x", class: gate.Required, path: "no rule",
			header: http.Header{"Authorization": {"Bearer wxs_t"}, "X-3rd-Session": {"wxs_u"}},
			removed: []string{
				"Authorization: a token",
				"X-3rd-Session: a token",
			}, refused: gate.ErrAmbiguousCredentials,
		},
		{
			name: "trailer", target: "/x", class: gate.Required, path: "no rule",
			header: http.Header{"Trailer": {"X-Wx-Openid"}}, refused: gate.ErrOwnedTrailer,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", tt.target, nil)
			if tt.header != nil {
				r.Header = tt.header
			}
			e := g.Explain(r)
			if e.Route.Class != tt.class || !strings.Contains(e.Path, tt.path) {
				t.Errorf("path: %v, %q", e.Route.Class, e.Path)
			}
			if e.Token != tt.token || !errors.Is(e.Refused, tt.refused) {
				t.Errorf("token %q, refused %v", e.Token, e.Refused)
			}
			var got []string
			for _, r := range e.Removed {
				got = append(got, r.What+": "+r.Why)
			}
			if !slices.EqualFunc(got, tt.removed, strings.HasPrefix) {
				t.Errorf("removed %q", got)
			}
		})
	}
}
