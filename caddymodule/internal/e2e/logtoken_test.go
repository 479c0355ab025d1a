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
	s := mixed
	// With an upstream that is down, for the error log.
	s.site = "\tlog\n\thandle /app/down/* {\n\t\treverse_proxy 127.0.0.1:1\n\t}"
	w := newWorld(t, s)
	formats := []struct {
		name, log string
		shown     bool
		token     string
	}{
		{name: "wechat", log: "\t\tformat wechat\n"},
		{name: "wrapped", log: "\t\tformat wechat {\n\t\t\twrap console\n\t\t}\n"},
		{name: "none", shown: true},
	}
	for i, f := range formats {
		s.options = "\tlog {\n\t\tlevel DEBUG\n" + f.log + "\t}"
		w.mustReload(t, s)
		token := w.login(t, "ada")
		for path, want := range map[string]int{"/app/x/": 200, "/app/down/": 502} {
			r := w.call(t, "GET", path+f.name, "", "X-3rd-Session: "+token)
			if r.status != want {
				t.Fatal(r)
			}
		}
		formats[i].token = token
	}
	w.gate.stop(t)
	printed := w.out.String()
	for _, f := range formats {
		if shown := strings.Contains(printed, f.token); shown != f.shown {
			t.Errorf("format %s: the token is shown: %v", f.name, shown)
		}
		for _, path := range []string{"/app/x/", "/app/down/"} {
			if !strings.Contains(printed, path+f.name) {
				t.Errorf("format %s: %s is not in the log", f.name, path)
			}
		}
	}
	if !strings.Contains(printed, "X-3rd-Session") {
		t.Error("there is no access log")
	}
}
