package wechatauth

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// typical are the headers of a call by wx.request behind a load balancer; with
// the token they are twelve.
var typical = http.Header{
	"Accept":          {"*/*"},
	"Accept-Encoding": {"gzip, deflate, br"},
	"Accept-Language": {"zh-CN,zh"},
	"Connection":      {"keep-alive"},
	"Content-Type":    {"application/json"},
	"Host":            {"api.example.com"},
	"Referer":         {"https://servicewechat.com/wx0123456789abcdef/12/page-frame.html"},
	"User-Agent": {
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 " +
			"MicroMessenger/8.0.60 NetType/WIFI Language/zh_CN",
	},
	"X-Forwarded-For":   {"203.0.113.7"},
	"X-Forwarded-Proto": {"https"},
	"X-Request-Id":      {"0123456789abcdef"},
}

// blackHole is a response that costs nothing.
type blackHole struct{ header http.Header }

func (b *blackHole) Header() http.Header         { return b.header }
func (b *blackHole) Write(p []byte) (int, error) { return len(p), nil }
func (b *blackHole) WriteHeader(int)             {}

// BenchmarkP8_Handler is ServeHTTP with an app that does nothing. Each call
// gets a fresh request, made outside the clock; "refused" includes its log
// line, written to nowhere.
func BenchmarkP8_Handler(b *testing.B) {
	w := newWorld(b, &Handler{Optional: []string{"/feed/*"}})
	signs := w.newGate(&Handler{Assertion: &Assertion{"orders", "https://a.example.com"}})
	w.start()
	token := w.Token(caddytest.AppID, "oABCDEFGHIJKLMNOPQRSTUVWXYZ0")
	w.warm(token)
	w.gate.log = zap.New(
		zapcore.NewCore(
			zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard),
			zap.InfoLevel,
		),
	)

	for _, c := range []struct{ name, target, token string }{
		{"accepted", "/api/orders", token},
		{"signed", "/api/orders", token}, // P12: a hot request signs nothing
		{"guest", "/feed/new", ""},
		{"refused_forged", "/api/orders", caddytest.MadeUp},
	} {
		gate := w.gate
		if c.name == "signed" {
			gate = signs
		}
		b.Run(c.name, func(b *testing.B) {
			app := caddyhttp.HandlerFunc(
				func(http.ResponseWriter, *http.Request) error { return nil },
			)
			// small enough to stay in the processor's cache, as a request that
			// was just read would be
			const batch = 64
			requests, writers := make([]*http.Request, batch), make([]blackHole, batch)
			b.ReportAllocs()
			for i := 0; b.Loop(); i = (i + 1) % batch {
				if i == 0 {
					b.StopTimer()
					for j := range requests {
						writers[j].header = http.Header{"Server": {"Caddy"}} // as Caddy does
						r := httptest.NewRequest("GET", c.target, nil)
						r.Header = typical.Clone()
						if c.token != "" {
							r.Header.Set("X-3rd-Session", c.token)
						}
						requests[j] = caddytest.Prepare(r, &writers[j])
					}
					b.StartTimer()
				}
				if err := gate.ServeHTTP(&writers[i], requests[i], app); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
