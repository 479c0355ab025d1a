package probe_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
)

const (
	token    = "wxs_0123456789abcdefghijklmnopqrstuvwxyzABCDE"
	openID   = "oABCDEFGHIJKLMNOPQRSTUVWXYZ"
	thisGate = "X-Wxgate"
)

// defences of the little gate, one for each row of docs/threats.md; each can be
// left out.
type defences struct {
	noStrip, noFold, noConnection, noTrailer, noUpgrade, noProxyDoubt, noDouble bool
	noBadToken, noRawPath, noQuery, noEndpoints, noAgent, noMethod, noErrors    bool

	optional bool // guests pass
}

// littleGate is a gate in front of an app, with all its defences but those that
// were left out.
type littleGate struct {
	defences
	proxy *httputil.ReverseProxy
}

func newLittleGate(d defences, app string) *littleGate {
	u := &url.URL{Scheme: "http", Host: app}
	return &littleGate{defences: d, proxy: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Trailer = r.In.Trailer // as Caddy does
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request,
			_ error,
		) {
			w.WriteHeader(http.StatusBadGateway)
		},
	}}
}

func (g *littleGate) owned(name string) bool {
	if !g.noFold {
		name = strings.Map(func(c rune) rune {
			if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", c) {
				return c
			}
			return '-'
		}, strings.ToLower(name))
	}
	return strings.HasPrefix(strings.ToLower(name), "x-wx-")
}

func (g *littleGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Trim(r.Host, ".") == "" || len(r.Method) > 32 { // fails before the gate
		if g.noErrors {
			g.proxy.ServeHTTP(w, r)
			return
		}
		refuse(w, http.StatusBadRequest)
		return
	}
	if !g.clean(r) {
		refuse(w, http.StatusBadRequest)
		return
	}
	switch route, tokens := g.route(r), g.tokens(r); {
	case route == "own":
		refuse(w, http.StatusNotFound)
		return
	case route == "public":
	case len(tokens) > 1 && !g.noDouble:
		refuse(w, http.StatusBadRequest)
		return
	case len(tokens) > 0 && slices.Contains(tokens, token):
		r.Header.Set("X-Wx-Openid", openID)
	case len(tokens) > 0 && !g.noBadToken, !g.optional:
		refuse(w, http.StatusUnauthorized)
		return
	}
	g.proxy.ServeHTTP(w, r)
}

// clean does the work of docs/threats.md 1 to 5.
func (g *littleGate) clean(r *http.Request) bool {
	for name := range r.Header {
		if g.owned(name) && !g.noStrip {
			delete(r.Header, name)
		}
	}
	upgrade := r.Header["Upgrade"]
	webSocket := len(upgrade) == 1 && strings.EqualFold(upgrade[0],
		"websocket") && r.Method == "GET"
	if !g.noConnection {
		r.Header.Del("Connection")
		if webSocket || len(upgrade) > 0 && g.noUpgrade {
			r.Header.Set("Connection", "Upgrade")
		}
	}
	if !g.noUpgrade {
		r.Header.Del("Http2-Settings")
		if !webSocket {
			r.Header.Del("Upgrade")
		}
	}
	if g.noTrailer {
		return true
	}
	for name := range r.Trailer {
		if g.owned(name) {
			return false
		}
	}
	r.Trailer = nil
	body := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{readerFunc(func(p []byte) (int, error) {
		n, err := body.Read(p)
		clear(r.Trailer)
		return n, err
	}), body}
	for _, line := range r.Header["Trailer"] {
		if g.owned(line) {
			return false
		}
	}
	return true
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// route does the work of docs/threats.md 6 and 10 to 14.
func (g *littleGate) route(r *http.Request) string {
	p := r.URL.EscapedPath()
	plain := path.Clean(p) == strings.TrimSuffix(p, "/") && !strings.ContainsAny(p,
		"%\\;") && r.URL.Opaque == ""
	if !g.noEndpoints && strings.Contains(strings.ToLower(r.URL.Path),
		"wx") && strings.Contains(strings.ToLower(r.URL.Path),
		"login") || strings.HasPrefix(p, "/wx/") && (!g.noEndpoints || p == "/wx/login") {
		return "own"
	}
	cleaned := path.Clean(r.URL.Path)
	switch {
	case plain && strings.HasPrefix(p, "/public/"),
		g.noRawPath && (strings.HasPrefix(cleaned, "/public/") || strings.HasPrefix(p, "/public/")),
		g.noQuery && strings.Contains(r.URL.RawQuery, "/public/"),
		g.noProxyDoubt && strings.HasPrefix(r.Header.Get("X-Original-Url"), "/public/"),
		g.noAgent && strings.HasPrefix(r.UserAgent(), "GoogleHC"),
		g.noMethod && r.Method == "OPTIONS":
		return "public"
	}
	return ""
}

// tokens returns the different tokens of a request and takes them out.
func (g *littleGate) tokens(r *http.Request) (tokens []string) {
	for _, value := range append(r.Header["Authorization"], r.Header["X-3rd-Session"]...) {
		value = strings.TrimPrefix(value, "Bearer ")
		if !slices.Contains(tokens, value) {
			tokens = append(tokens, value)
		}
	}
	r.Header.Del("Authorization")
	r.Header.Del("X-3rd-Session")
	return tokens
}

func refuse(w http.ResponseWriter, status int) {
	w.Header().Set(thisGate, "1")
	w.WriteHeader(status)
}

// serve starts a handler, over TLS with HTTP/2 or as HTTP/1 and cleartext
// HTTP/2, and returns its URL.
func serve(t *testing.T, h http.Handler, secure bool) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = nil
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetHTTP2(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	if secure {
		s.EnableHTTP2 = true
		s.TLS = new(tls.Config)
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.URL
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// reflector is an app that answers with the headers of the request, in one of
// several formats.
func reflector(format string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, values := range r.Header {
			for _, v := range values {
				fmt.Fprintf(w, format, name, v)
			}
		}
	})
}
