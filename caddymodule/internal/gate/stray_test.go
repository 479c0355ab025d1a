package gate_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// aToken has the form of a token.
const aToken = "wxs_AAAAAAAAAAAAAAAAAAAA-AAAAAAAAAAAAAAAAAAA_"

func TestThreat46_Stray(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, tt := range []struct{ name, header, left, found string }{
		{"none", "Accept: */*\nCookie: a=b", "Accept: */*\nCookie: a=b", ""},
		{"second in a list", "Authorization: Bearer x, Bearer " + aToken, "", "Authorization"},
		{"quotes", `Authorization: Bearer "` + aToken + `"`, "", "Authorization"},
		{"parameter", "Authorization: Digest token=" + aToken, "", "Authorization"},
		{
			"other values stay", "Authorization: Basic eDp5\nAuthorization: x:" + aToken,
			"Authorization: Basic eDp5", "Authorization",
		},
		{"other header", "Token: " + aToken, "", "Token"},
		{"odd key", "x_token: " + aToken, "", "x_token"},
		{"cookie", "Cookie: a=b; t=" + aToken + "; c=d", "Cookie: a=b; c=d", "Cookie"},
		{"only cookie", "Cookie: t=" + aToken, "", "Cookie"},
		{"encoded cookie", "Cookie: t=wxs%5f" + aToken[4:] + ";a=b", "Cookie: a=b", "Cookie"},
		{"address", "Referer: https://h5.test/?token=" + aToken, "", "Referer"},
		{
			"protocol of a WebSocket", "Sec-Websocket-Protocol: a, " + aToken,
			"", "Sec-Websocket-Protocol",
		},
		{"after another prefix", "X-Note: wxs_wxs_x wxs wxs%" + aToken, "", "X-Note"},
		{"too short", "X-Note: wxs_" + aToken[4:35], "X-Note: wxs_" + aToken[4:35], ""},
		{"cut", "X-Note: wxs_AAAA AAAA", "X-Note: wxs_AAAA AAAA", ""},
		{"other case", "X-Note: WXS_" + aToken[4:], "X-Note: WXS_" + aToken[4:], ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(lines(tt.header))
			f, err := g.Clean(r)
			if err != nil {
				t.Fatal(err)
			}
			if found := g.Stray(r, f); found != tt.found {
				t.Errorf("found in %q, want %q", found, tt.found)
			}
			if !reflect.DeepEqual(r.Header, lines(tt.left)) {
				t.Errorf("left %q, want %q", r.Header, tt.left)
			}
		})
	}
}

func TestTokenHeaders(t *testing.T) {
	for header, want := range map[string][]string{
		"":              {"Authorization", "X-3rd-Session"},
		"x-token":       {"X-Token"},
		"authorization": {"Authorization"},
		"X-3rd-Session": {"X-3rd-Session"},
	} {
		got := newGate(t, gate.Config{TokenHeader: header}).TokenHeaders()
		if !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", header, got, want)
		}
	}
}

func TestThreat44_DropRouting(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, name := range []string{
		"X-Original-Url", "x-rewrite-url", "X_Original_URL", "X-HTTP-Method-Override",
		"X-Http-Method", "X.Method.Override", "X-Forwarded-Uri",
	} {
		r := request(lines(name + ": /admin\nX-Forwarded-For: 1\nX-Original-Urls: a"))
		f, err := g.Clean(r)
		if err != nil {
			t.Fatal(err)
		}
		g.DropRouting(r, f)
		want := lines("X-Forwarded-For: 1\nX-Original-Urls: a")
		if !reflect.DeepEqual(r.Header, want) {
			t.Errorf("%s: left %q", name, r.Header)
		}
	}
}
