package e2e_test

import (
	"strings"
	"testing"
)

// TestP6_LogFormatInPlace holds that `format wechat` keeps tokens out of the
// access and error logs at debug level. Caddy hides Authorization and Cookie
// only.
func TestP6_LogFormatInPlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, log string
		shown     bool
	}{
		{"format wechat", "\tlog {\n\t\tlevel DEBUG\n\t\tformat wechat\n\t}", false},
		{
			"wrapped",
			"\tlog {\n\t\tlevel DEBUG\n\t\tformat wechat {\n\t\t\twrap console\n\t\t}\n\t}", false,
		},
		{"no format", "\tlog {\n\t\tlevel DEBUG\n\t}", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := mixed
			s.options = tt.log
			// With an upstream that is down, for the error log.
			s.site = "\tlog\n\thandle /app/down {\n\t\treverse_proxy 127.0.0.1:1\n\t}"
			w := newWorld(t, s)
			token := w.login(t, "ada")
			if r := w.call(t, "GET", "/app/x", "", "X-3rd-Session: "+token); r.status != 200 {
				t.Fatal(r)
			}
			if r := w.call(t, "GET", "/app/down", "", "X-3rd-Session: "+token); r.status != 502 {
				t.Fatal(r)
			}
			w.gate.stop(t)
			if shown := strings.Contains(w.out.String(), token); shown != tt.shown {
				t.Errorf("the token is shown: %v", shown)
			}
			if !strings.Contains(w.out.String(), "X-3rd-Session") {
				t.Error("there is no access log")
			}
		})
	}
}
