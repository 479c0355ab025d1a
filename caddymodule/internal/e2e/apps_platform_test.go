//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// asWritten are forgeries that every server believes.
var asWritten = []string{
	"X-WX-OPENID", "x-wx-openid", "x-WX-oPeNiD", "list", "empty and forged", "X-WX-OPENID:victim",
	"X-WX-OPENID:\t victim \t",
}

// unresolved are dotted paths as some proxies leave them.
var unresolved = []string{
	"/public/../admin", "/public/%2e%2e/admin", "/public/%2E%2E%2Fadmin", "/public/..%2fadmin",
}

// without leaves out the names that hold any of the bytes.
func without(names []string, bytes string) []string {
	return slices.DeleteFunc(names,
		func(name string) bool { return strings.ContainsAny(name, bytes) })
}

// php is PHP's own server with a router script. It makes "_" of "-", "." and
// blanks, and headers of trailers.
var php = platform{
	name: "PHP", long: true, needs: []string{"php"},
	fooled: slices.Concat(asWritten, []string{
		"X_WX_OPENID", "x_wx_openid", "X_WX-OPENID", "X-WX_OPENID", "X.WX.OPENID", "X.WX-OPENID",
		"X-WX.OPENID", "X_WX.OPENID", "X WX OPENID: victim", "truth first", "all at once",
		"declared trailer X-WX-OPENID", "undeclared trailer X-WX-OPENID",
		"undeclared trailer X_WX_OPENID",
	}),
	fooledCaddy: slices.Concat(asWritten, []string{
		"declared trailer X-WX-OPENID", "trailer behind a declared one X-WX-OPENID",
		"trailer behind a declared one X_WX_OPENID",
	}),
	misled: unresolved,
	start: func(tb testing.TB, dir, addr, seen string) string {
		spawn(tb, dir, []string{"APP_SEEN=" + seen}, addr, "php", "-n", "-S", addr, "-t", dir,
			script(tb, "caller.php"))
		return "\treverse_proxy " + addr
	},
}

// cgi is PHP by CGI under lighttpd, which makes "_" of all punctuation and lets
// the last one win. The scripts are called public, optional and admin, as a
// site without a front controller has them.
var cgi = platform{
	name: "CGI", long: true, few: true, needs: []string{"lighttpd", "php-cgi"},
	fooled:      slices.Concat(asWritten, aliases()[:9], []string{"truth first", "all at once"}),
	fooledCaddy: slices.Concat(asWritten, without(aliases()[:9], "_.")),
	misled:      unresolved,
	start: func(tb testing.TB, dir, addr, seen string) string {
		root := filepath.Join(dir, "root")
		if err := os.Mkdir(root, 0o700); err != nil {
			tb.Fatal(err)
		}
		for _, name := range []string{"public", "optional", "admin"} {
			copyFile(tb, script(tb, "caller.php"), filepath.Join(root, name))
		}
		config := filepath.Join(dir, "lighttpd.conf")
		text := fmt.Sprintf(`server.modules = ("mod_setenv", "mod_cgi")
server.bind = "127.0.0.1"
server.port = %s
server.document-root = %q
server.upload-dirs = (%q)
cgi.assign = ("" => "/usr/bin/php-cgi")
setenv.set-environment = ("APP_SEEN" => %q, "PHP_INI_SCAN_DIR" => "")
`, portOf(addr), root, dir, seen)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		spawn(tb, dir, nil, addr, "lighttpd", "-D", "-f", config)
		return "\treverse_proxy " + addr
	},
}

// fastCGI is PHP by FastCGI, with Caddy's own php_fastcgi and a front controller.
var fastCGI = platform{
	name: "FastCGI", long: true, needs: []string{"php-cgi"}, fastCGI: true,
	fooledCaddy: asWritten,
	start: func(tb testing.TB, dir, addr, seen string) string {
		copyFile(tb, script(tb, "caller.php"), filepath.Join(dir, "index.php"))
		spawn(tb, dir, []string{"APP_SEEN=" + seen, "PHP_FCGI_MAX_REQUESTS=0"}, addr, "php-cgi",
			"-n", "-b", addr)
		return "\troot " + dir + "\n\tphp_fastcgi " + addr
	},
}

// wsgi is Python's interface under gunicorn.
var wsgi = platform{
	name: "WSGI", long: true, needs: []string{"gunicorn"},
	fooled: slices.Concat(asWritten,
		[]string{"X_WX_OPENID", "x_wx_openid", "X_WX-OPENID", "X-WX_OPENID"}),
	fooledCaddy: asWritten,
	misled:      append([]string{mountPoint}, unresolved...),
	start: func(tb testing.TB, dir, addr, seen string) string {
		spawn(tb, dir, []string{"APP_SEEN=" + seen}, addr, "gunicorn", "--bind", addr, "--config",
			script(tb, "gunicorn.conf.py"), "--pythonpath", filepath.Dir(script(tb, "caller.py")),
			"caller:application")
		return "\treverse_proxy " + addr
	},
}

// node is Node's http server.
var node = platform{
	name: "Node", long: true, needs: []string{"node"},
	fooled: asWritten, fooledCaddy: asWritten,
	misled: unresolved[:2],
	start: func(tb testing.TB, dir, addr, seen string) string {
		spawn(tb, dir, []string{"APP_SEEN=" + seen}, addr, "node", script(tb, "caller.js"),
			portOf(addr))
		return "\treverse_proxy " + addr
	},
}

// golang is net/http, in this process.
var golang = platform{
	name: "Go", fooled: asWritten, fooledCaddy: asWritten, misled: unresolved,
	start: func(tb testing.TB, dir, addr, seen string) string {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			tb.Fatal(err)
		}
		server := &http.Server{Handler: goApp(tb, seen)}
		go server.Serve(l)
		tb.Cleanup(func() { server.Close() })
		return "\treverse_proxy " + addr
	},
}

func goApp(tb testing.TB, seen string) http.Handler {
	mux := http.NewServeMux()
	for _, pattern := range []string{"/admin", "/admin/", "/public/", "/optional/"} {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // up to the trailers
		_, pattern := mux.Handler(r)
		v := view{
			Paths: map[string]string{
				"Path": r.URL.Path, "Clean": path.Clean(r.URL.Path), "ServeMux": pattern,
			},
		}
		for name, field := range map[string]**string{
			"X-Wx-Openid": &v.OpenID, "X-Wx-Unionid": &v.UnionID, "X-Wx-Appid": &v.AppID,
			"X-Wx-Source": &v.Source,
		} {
			if values := r.Header.Values(name); len(values) > 0 {
				*field = new(strings.Join(values, ", "))
			}
		}
		for api, header := range map[string]http.Header{"Header": r.Header, "Trailer": r.Trailer} {
			for name, values := range header {
				for _, value := range values {
					v.Headers = append(v.Headers, entry{api, name, value})
				}
			}
		}
		said, err := json.Marshal(v)
		if err != nil {
			tb.Error(err)
		}
		f, err := os.OpenFile(seen, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			tb.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.Write(append(said, '\n')); err != nil {
			tb.Error(err)
		}
		w.Header().Set("X-App", "go")
		w.Write(said)
	})
}

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
