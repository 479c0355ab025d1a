package gate_test

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

var benchIdentity = gate.Identity{
	gate.OpenID: "oABCD1234567890abcdefghijklmn", gate.UnionID: "uABCD1234567890abcdefghijklmn",
	gate.AppID: "wx0123456789abcdef", gate.Phone: "13580006666",
}

// miniProgram returns a request as the WeChat client sends it.
func miniProgram() *http.Request {
	r := request(http.Header{
		"Accept":          {"*/*"},
		"Accept-Encoding": {"gzip,compress,br,deflate"},
		"Accept-Language": {"zh-CN,zh-Hans;q=0.9"},
		"Authorization":   {"Bearer wxs_0123456789012345678901234567890123456789a"},
		"Cache-Control":   {"no-cache"},
		"Connection":      {"keep-alive"},
		"Content-Length":  {"17"},
		"Content-Type":    {"application/json"},
		"Referer":         {"https://servicewechat.com/wx0123456789abcdef/12/page-frame.html"},
		"User-Agent":      {"Mozilla/5.0 (iPhone) MicroMessenger/8.0.50 NetType/WIFI"},
		"X-Forwarded-For": {"203.0.113.7"},
		"X-Request-Id":    {"0190d2b8-6f7a-7c1e-9d6e-3f2b1a0c9e8d"},
	})
	r.URL = &url.URL{Path: "/api/orders/2024/items"}
	return r
}

func benchGate(b *testing.B) *gate.Rules {
	return newGate(b,
		gate.Config{Public: []string{"/healthz", "/assets/*"}, Optional: []string{"/api/feed/*"}})
}

func BenchmarkP8_Clean(b *testing.B) {
	g, r := benchGate(b), miniProgram()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Clean(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkP8_CleanAttack includes putting back what Clean takes out.
func BenchmarkP8_CleanAttack(b *testing.B) {
	g, r := benchGate(b), miniProgram()
	owned, lines := []string{"victim"}, []string{"", ""}
	b.ReportAllocs()
	for b.Loop() {
		r.Header["X-Wx-Openid"], r.Header["X~wx~openid"] = owned, owned
		lines[0], lines[1] = "close", "X-Wx-Openid"
		r.Header["Connection"] = lines
		if found, err := g.Clean(r); err != nil || found.Dropped != 1 {
			b.Fatal(found, err)
		}
	}
}

// BenchmarkP8_Credential includes putting the header back.
func BenchmarkP8_Credential(b *testing.B) {
	g, r := benchGate(b), miniProgram()
	line, value := r.Header["Authorization"], r.Header["Authorization"][0]
	b.ReportAllocs()
	for b.Loop() {
		line[0] = value
		r.Header["Authorization"] = line
		if token, err := g.Credential(r); token == "" || err != nil {
			b.Fatal(token, err)
		}
	}
}

func BenchmarkP8_Inject(b *testing.B) {
	g, r := benchGate(b), miniProgram()
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Inject(r, benchIdentity); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkP8_Route(b *testing.B) {
	g := benchGate(b)
	for name, target := range map[string]string{
		"plain":     "/api/orders/2024/items",
		"public":    "/assets/app.js",
		"endpoint":  "/wx/login",
		"encoded":   "/api/%E4%BD%A0%E5%A5%BD",
		"unusual":   "/api//orders;v=1/%2e%2e/x",
		"worst":     "/" + strings.Repeat("%25252577x;a/%5c..;b//./", 40) + "wx",
		"mixed":     "/" + strings.Repeat("a%2f;x/..//%5cb%3bc/", 45) + "wx",
		"short":     "/%25252577x;a/%5c..;b//./%2577x%252f..;/%3b%5cwx",
		"slashes":   "/wx" + strings.Repeat("//a", 330),
		"dots":      "/q/wx" + strings.Repeat("/./..", 200),
		"overlong":  "/" + strings.Repeat("%25252577x;a/%5c..;b//./", 4000) + "wx",
		"unlikely":  "/a;b//%252e/c%5cd/wx",
		"traversal": "/public/../admin",
	} {
		b.Run(name, func(b *testing.B) {
			r := parse(b, "GET", target)
			b.ReportAllocs()
			for b.Loop() {
				g.Route(r)
			}
		})
	}
}

// BenchmarkP8_All is a whole authenticated request, including the refilling of
// its headers, which "refill" measures alone. The map has room for ours.
// "fresh" has a new map of the size that net/http makes, so that it may grow.
func BenchmarkP8_All(b *testing.B) {
	for _, name := range []string{"refill", "gate", "refill_fresh", "gate_fresh"} {
		b.Run(name, func(b *testing.B) {
			g, r := benchGate(b), miniProgram()
			full := r.Header
			r.Header = make(http.Header, 2*len(full))
			line, value := full["Authorization"], full["Authorization"][0]
			b.ReportAllocs()
			for b.Loop() {
				if strings.HasSuffix(name, "fresh") {
					r.Header = make(http.Header, len(full))
				} else {
					clear(r.Header)
				}
				maps.Copy(r.Header, full)
				line[0] = value
				if strings.HasPrefix(name, "gate") {
					wholeRequest(b, g, r, value[len("Bearer "):])
				}
			}
		})
	}
}

func wholeRequest(b *testing.B, g *gate.Rules, r *http.Request, want string) {
	if _, err := g.Clean(r); err != nil {
		b.Fatal(err)
	}
	if route := g.Route(r); route.Class != gate.Required {
		b.Fatal(route)
	}
	if token, err := g.Credential(r); token != want || err != nil {
		b.Fatal(token, err)
	}
	if err := g.Inject(r, benchIdentity); err != nil {
		b.Fatal(err)
	}
}
