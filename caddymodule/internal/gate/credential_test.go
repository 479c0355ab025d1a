package gate_test

import (
	"errors"
	"net/http"
	"reflect"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func TestThreat8_Credential(t *testing.T) {
	std, ambiguous := gate.Config{}, gate.ErrAmbiguousCredentials
	custom := gate.Config{TokenHeader: "x-token"}
	bearer := gate.Config{TokenHeader: "authorization"}
	third := gate.Config{TokenHeader: "x-3rd-session"}
	for _, tc := range []struct {
		name   string
		config gate.Config
		header string
		token  string
		err    error
		left   string
	}{
		{"none", std, "Accept: */*", "", nil, "Accept: */*"},
		{"bearer", std, "Authorization: Bearer wxs_a", "wxs_a", nil, ""},
		{"bearer, odd case", std, "Authorization:  bEARER \t wxs_a ", "wxs_a", nil, ""},
		{"no scheme", std, "Authorization: wxs_a", "wxs_a", nil, ""},
		{"other scheme", std, "Authorization: Token wxs_a", "wxs_a", nil, ""},
		{"header", std, "X-3rd-Session:  wxs_a\t", "wxs_a", nil, ""},
		{"header, malformed", std, "X-3rd-Session: nonsense", "nonsense", nil, ""},
		{"header, empty", std, "X-3rd-Session: ", "", nil, ""},
		{"header, blank, twice", std, "X-3rd-Session:  \nX-3rd-Session: \t", "", nil, ""},
		{"header, one empty", std, "X-3rd-Session: \nX-3rd-Session: wxs_a", "wxs_a", nil, ""},
		{
			"same token twice", std,
			"X-3rd-Session: wxs_a\nX-3rd-Session: wxs_a\nAuthorization: Bearer wxs_a",
			"wxs_a", nil, "",
		},
		{"header twice", std, "X-3rd-Session: wxs_a\nX-3rd-Session: wxs_b", "", ambiguous, ""},
		{
			"bearer twice", std,
			"Authorization: Bearer wxs_a\nAuthorization: Bearer wxs_b", "", ambiguous, "",
		},
		{
			"header against bearer", std,
			"X-3rd-Session: wxs_b\nAuthorization: Bearer wxs_a", "", ambiguous, "",
		},
		{
			"a, b, a", std, "X-3rd-Session: wxs_a\nX-3rd-Session: wxs_b\nX-3rd-Session: wxs_a",
			"", ambiguous, "",
		},
		{
			"foreign bearer", std, "Authorization: Bearer eyJhbGciOi",
			"", nil, "Authorization: Bearer eyJhbGciOi",
		},
		{
			"empty bearer", std, "Authorization: Bearer\nAuthorization: Bearer \nAuthorization: ",
			"", nil, "Authorization: Bearer\nAuthorization: Bearer \nAuthorization: ",
		},
		{
			"odd case of the prefix", std, "Authorization: Bearer WXS_a",
			"", nil, "Authorization: Bearer WXS_a",
		},
		{"basic", std, "Authorization: Basic d3hzXzo=", "", nil, "Authorization: Basic d3hzXzo="},
		{
			"others stay, in order", std,
			"Authorization: Basic a\nAuthorization: Bearer wxs_a\nAuthorization: Digest b\n" +
				"Authorization: wxs_a\nAuthorization: Bearer x",
			"wxs_a", nil,
			"Authorization: Basic a\nAuthorization: Digest b\nAuthorization: Bearer x",
		},
		{"own header", custom, "X-Token: wxs_a", "wxs_a", nil, ""},
		{
			"own header: the standard ones are cleared, not used", custom,
			"Authorization: Bearer wxs_a\nAuthorization: Basic x\n" +
				"X-3rd-Session: wxs_b\nX-3rd-Session: the app's",
			"", nil,
			"Authorization: Basic x\nX-3rd-Session: the app's",
		},
		{
			"own header wins", custom,
			"Authorization: Bearer wxs_a\nX-Token: wxs_b", "wxs_b", nil, "",
		},
		{
			"bearer only", bearer,
			"Authorization: Bearer wxs_a\nX-3rd-Session: wxs_b", "wxs_a", nil, "",
		},
		{"bearer only: no token", bearer, "X-3rd-Session: wxs_b", "", nil, ""},
		{
			"3rd session only", third,
			"Authorization: Bearer wxs_a\nX-3rd-Session: wxs_b", "wxs_b", nil, "",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(lines(tc.header))
			token, err := newGate(t, tc.config).Credential(r)
			if token != tc.token || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v; want %q, %v", token, err, tc.token, tc.err)
			}
			if !reflect.DeepEqual(r.Header, lines(tc.left)) {
				t.Errorf("left %q, want %q", r.Header, tc.left)
			}
		})
	}
}

// A malformed token is a token, so that the caller refuses it on optional routes.
func TestThreat9_MalformedTokenIsPresented(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, value := range []string{
		"x", "wxs_", "wxs_a, wxs_a", "Bearer wxs_a", "null", "undefined",
		"微信",
	} {
		token, err := g.Credential(request(http.Header{"X-3rd-Session": {value}}))
		if token != value || err != nil {
			t.Errorf("%q: got %q, %v", value, token, err)
		}
	}
}
