package wechatauth

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"  // basic_auth
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver" // try_files

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// server is Caddy's server with sites of a Caddyfile.
type server struct {
	*apptest.World
	addr  string
	token string
}

// alice returns the one token of alice.
func (s *server) alice() string {
	if s.token == "" {
		s.token = s.Token(caddytest.AppID, "alice")
	}
	return s.token
}

// newServer serves the sites. In them the directive echo is the app, and error, which
// runs first, stands for what fails.
func newServer(t *testing.T, sites string) *server {
	t.Helper()
	t.Setenv("WX_SECRET", caddytest.Canary)
	out, _, err := caddytest.Adapt(fmt.Sprintf(
		"{\n\torder error first\n\torder echo last\n\twechat {\n\t\tapp %s {env.WX_SECRET}\n"+
			"\t\tapp %s {env.WX_SECRET}\n\t\tstore bolt %s {\n\t\t\tnew\n\t\t}\n\t}\n}\n%s",
		caddytest.AppID, caddytest.OtherAppID, filepath.Join(t.TempDir(), "s.db"), sites))
	if err != nil {
		t.Fatal(err)
	}
	return startServer(t, string(out))
}

// startServer starts a configuration, as JSON.
func startServer(t *testing.T, config string) *server {
	t.Helper()
	w, web, err := provision(t, config)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(web.Servers["srv0"])
	t.Cleanup(srv.Close)
	return &server{World: w.Start(), addr: srv.Listener.Addr().String()}
}

// provision builds the apps wechat and http of a configuration. A context of its own
// lets the end of the test clean up after http.
func provision(t *testing.T, text string) (*apptest.World, *caddyhttp.App, error) {
	t.Helper()
	cfg := caddytest.Load(t, text)
	app, ctx := caddytest.ProvisionApp(t, string(cfg.AppsRaw["wechat"]))
	w := &apptest.World{T: t, App: app.(*wechatapp.App), Ctx: ctx}
	inner, cancel := caddy.NewContext(ctx)
	t.Cleanup(cancel)
	web, err := inner.LoadModuleByID("http", cfg.AppsRaw["http"])
	if err != nil {
		return nil, nil, err
	}
	return w, web.(*caddyhttp.App), nil
}

func init() {
	caddy.RegisterModule(echo{})
	httpcaddyfile.RegisterHandlerDirective("echo",
		func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return echo{}, nil })
}

// echo is an app that answers with the request line, the openid as the rest of the
// configuration knows it, the body, and the headers and trailers in order.
type echo struct{}

func (echo) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.echo", New: func() caddy.Module { return new(echo) }}
}

func (echo) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	body, _ := io.ReadAll(r.Body)
	user := replacer(r).ReplaceKnown("{http.auth.user.id}", "")
	fmt.Fprintf(w, "%s %s\nuser <%s>\n%s\n", r.Method, r.RequestURI, user, body)
	for _, headers := range []http.Header{r.Header, r.Trailer} {
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			for _, v := range headers[name] {
				fmt.Fprintf(w, "%s: %s\n", name, v)
			}
		}
	}
	return nil
}

// get returns the bytes of a request with some header lines.
func get(path, lines string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: {host}\r\n" + lines + "\r\n"
}

// send sends the bytes of one request and returns status, header and body. The words
// {host} and {token} stand for the server and for alice's token.
func (s *server) send(text string) (int, http.Header, string) {
	s.T.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.T.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, strings.NewReplacer(
		"{host}", s.addr, "{token}", s.alice(),
	).Replace(text)); err != nil {
		s.T.Fatal(err)
	}
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		s.T.Fatalf("%v: %.300q", err, text)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.T.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// code returns the code of a problem, or what else the body is.
func code(body string) string {
	var p struct{ Code string }
	if json.Unmarshal([]byte(body), &p) != nil {
		return body
	}
	return p.Code
}
