package playground

import (
	"embed"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"slices"
)

// policy lets the page load its own files, and nothing from elsewhere. No string
// becomes markup or code: with trusted types, the browser refuses innerHTML and its
// kind, so an app's answer stays text even if the page had a mistake.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

//go:embed page
var files embed.FS

// routes serves the files and the calls of the page.
func (s *Server) routes() http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the name is constant
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.Handle("POST /api/state", call(s, s.state))
	mux.Handle("POST /api/exchange", call(s, s.exchange))
	mux.Handle("POST /api/code", call(s, s.code))
	mux.Handle("POST /api/phone_code", call(s, s.phoneCode))
	mux.Handle("POST /api/encrypt", call(s, s.encrypt))
	mux.Handle("POST /api/wechat", call(s, s.setWeChat))
	return mux
}

// guard refuses requests that other web pages make, whatever they ask for
// (docs/threats.md#t31). A page whose name was rebound to this address has another
// Host. A page of any other origin, such as the developer's own app on another port,
// has another Origin; a browser sends one with every POST, so none is refused, too.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if why := s.foreign(r); why != "" {
			http.Error(w, why, http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// foreign says why a request is not one of the page; "" when it is.
func (s *Server) foreign(r *http.Request) string {
	if !slices.Contains(s.hosts, r.Host) {
		return fmt.Sprintf("this page has the address http://%s/ only", s.hosts[0])
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return "" // files of this repository; a link may lead here
	}
	site, origin := r.Header.Get("Sec-Fetch-Site"), r.Header["Origin"]
	if len(origin) != 1 || origin[0] != "http://"+r.Host || site != "" && site != "same-origin" {
		return "only the page itself may call this"
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return "the body is no application/json"
	}
	return ""
}
