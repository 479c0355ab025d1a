//go:build unix

package e2e_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestApp_PHP_FastCGIUser holds that REMOTE_USER is the openid, and that the
// gate judges a path rewritten before it as rewritten, while the app gets the
// original one.
func TestApp_PHP_FastCGIUser(t *testing.T) {
	t.Parallel()
	for _, program := range fastCGI.needs {
		need(t, program)
	}
	seen, addr := filepath.Join(t.TempDir(), "seen"), freeAddr(t)
	if err := os.WriteFile(seen, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	handler := fastCGI.start(t, t.TempDir(), freeAddr(t), seen)
	s := &stage{seen: seen, world: newWorld(t, setup{sites: siteAt(addr,
		"\trewrite /old/* /public/x\n\twechat_auth {\n"+mixed.auth+"\n\t}\n"+handler)})}
	token, ada := s.login(t, "ada"), s.who(appA, "ada")

	for _, tt := range []struct {
		name, target string
		headers      []string
		want         *identity
		uri          string
	}{
		{
			name: "caller", target: "/x?y", headers: []string{bearer(token), "Remote-User: victim"},
			want: ada, uri: "/x",
		},
		{
			name: "guest", target: "/optional/x", headers: []string{"Remote-User: victim"},
			uri: "/optional/x",
		},
		{name: "public", target: "/public/x", headers: []string{bearer(token)}, uri: "/public/x"},
		{name: "rewritten", target: "/old/admin", uri: "/old/admin"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, views := s.ask(t, addr, request(addr, "GET", tt.target, "", tt.headers...))
			if len(views) != 1 {
				t.Fatalf("the app is asked %d times", len(views))
			}
			v := views[0]
			v.check(t, tt.want, nil)
			user := ""
			if tt.want != nil {
				user = tt.want.openid
			}
			if got := v.variable("REMOTE_USER"); got != user {
				t.Errorf("REMOTE_USER is %q, want %q", got, user)
			}
			if got := v.Paths["REQUEST_URI"]; got != tt.uri {
				t.Errorf("REQUEST_URI is %q, want %q", got, tt.uri)
			}
		})
	}
}

// variable returns a variable of the app's environment.
func (v view) variable(name string) string {
	for _, e := range v.Environment {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}
