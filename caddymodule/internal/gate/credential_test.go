package gate_test

import (
	"errors"
	"net/http"
	"reflect"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func TestThreat8_Credential(t *testing.T) {
	std := gate.Config{}
	custom := gate.Config{TokenHeader: "x-token"}
	bearer := gate.Config{TokenHeader: "authorization"}
	third := gate.Config{TokenHeader: "x-3rd-session"}
	for _, tc := range []struct {
		name   string
		config gate.Config
		header http.Header
		token  string
		err    error
		left   http.Header
	}{
		{"none", std, http.Header{"Accept": {"*/*"}}, "", nil, http.Header{"Accept": {"*/*"}}},
		{"bearer", std, http.Header{"Authorization": {"Bearer wxs_a"}}, "wxs_a", nil, nil},
		{"bearer, odd case and blanks", std, http.Header{"Authorization": {" bEARER \t wxs_a "}}, "wxs_a", nil, nil},
		{"no scheme", std, http.Header{"Authorization": {"wxs_a"}}, "wxs_a", nil, nil},
		{"other scheme", std, http.Header{"Authorization": {"Token wxs_a"}}, "wxs_a", nil, nil},
		{"header", std, http.Header{"X-3rd-Session": {" wxs_a\t"}}, "wxs_a", nil, nil},
		{"header, malformed", std, http.Header{"X-3rd-Session": {"nonsense"}}, "nonsense", nil, nil},
		{"header, empty", std, http.Header{"X-3rd-Session": {""}}, "", nil, nil},
		{"header, blank, twice", std, http.Header{"X-3rd-Session": {" ", "\t"}}, "", nil, nil},
		{"header, empty beside a token", std, http.Header{"X-3rd-Session": {"", "wxs_a"}}, "wxs_a", nil, nil},
		{"same token twice", std, http.Header{"X-3rd-Session": {"wxs_a", "wxs_a"}, "Authorization": {"Bearer wxs_a"}}, "wxs_a", nil, nil},
		{"header twice", std, http.Header{"X-3rd-Session": {"wxs_a", "wxs_b"}}, "", gate.ErrAmbiguousCredentials, nil},
		{"bearer twice", std, http.Header{"Authorization": {"Bearer wxs_a", "Bearer wxs_b"}}, "", gate.ErrAmbiguousCredentials, nil},
		{"header against bearer", std, http.Header{"X-3rd-Session": {"wxs_b"}, "Authorization": {"Bearer wxs_a"}}, "", gate.ErrAmbiguousCredentials, nil},
		{"a, b, a", std, http.Header{"X-3rd-Session": {"wxs_a", "wxs_b", "wxs_a"}}, "", gate.ErrAmbiguousCredentials, nil},
		{"foreign bearer", std, http.Header{"Authorization": {"Bearer eyJhbGciOi"}}, "", nil, http.Header{"Authorization": {"Bearer eyJhbGciOi"}}},
		{"empty bearer", std, http.Header{"Authorization": {"Bearer", "Bearer ", ""}}, "", nil, http.Header{"Authorization": {"Bearer", "Bearer ", ""}}},
		{"odd case of the prefix", std, http.Header{"Authorization": {"Bearer WXS_a"}}, "", nil, http.Header{"Authorization": {"Bearer WXS_a"}}},
		{"basic", std, http.Header{"Authorization": {"Basic d3hzXzo="}}, "", nil, http.Header{"Authorization": {"Basic d3hzXzo="}}},
		{
			"others stay, in order", std,
			http.Header{"Authorization": {"Basic a", "Bearer wxs_a", "Digest b", "wxs_a", "Bearer x"}},
			"wxs_a", nil,
			http.Header{"Authorization": {"Basic a", "Digest b", "Bearer x"}},
		},
		{"own header", custom, http.Header{"X-Token": {"wxs_a"}}, "wxs_a", nil, nil},
		{
			"own header: the standard ones are cleared, not used", custom,
			http.Header{"Authorization": {"Bearer wxs_a", "Basic x"}, "X-3rd-Session": {"wxs_b", "the app's"}},
			"", nil,
			http.Header{"Authorization": {"Basic x"}, "X-3rd-Session": {"the app's"}},
		},
		{"own header: no ambiguity with the others", custom, http.Header{"Authorization": {"Bearer wxs_a"}, "X-Token": {"wxs_b"}}, "wxs_b", nil, nil},
		{"bearer only", bearer, http.Header{"Authorization": {"Bearer wxs_a"}, "X-3rd-Session": {"wxs_b"}}, "wxs_a", nil, nil},
		{"bearer only: no token", bearer, http.Header{"X-3rd-Session": {"wxs_b"}}, "", nil, nil},
		{"3rd session only", third, http.Header{"Authorization": {"Bearer wxs_a"}, "X-3rd-Session": {"wxs_b"}}, "wxs_b", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(tc.header)
			token, err := newGate(t, tc.config).Credential(r)
			if token != tc.token || !errors.Is(err, tc.err) {
				t.Errorf("got %q, %v; want %q, %v", token, err, tc.token, tc.err)
			}
			if len(r.Header)+len(tc.left) > 0 && !reflect.DeepEqual(r.Header, tc.left) {
				t.Errorf("left %q, want %q", r.Header, tc.left)
			}
		})
	}
}

// A presented token is reported whatever it looks like, so that the caller can refuse it on optional routes too.
func TestThreat9_MalformedTokenIsPresented(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, value := range []string{"x", "wxs_", "wxs_a, wxs_a", "Bearer wxs_a", "null", "undefined", "微信"} {
		token, err := g.Credential(request(http.Header{"X-3rd-Session": {value}}))
		if token != value || err != nil {
			t.Errorf("%q: got %q, %v", value, token, err)
		}
	}
}
