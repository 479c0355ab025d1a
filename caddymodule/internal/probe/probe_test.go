package probe_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/probe"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // net/http's complaints about what is sent here
	if status := m.Run(); status != 0 {
		os.Exit(status)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

var credential = []string{"Authorization: Bearer " + token}

// run probes a gate that must be seen through.
func run(t *testing.T, c probe.Config) probe.Report {
	t.Helper()
	report, err := probe.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// probeGate probes a little gate through an echo app.
func probeGate(t *testing.T, d defences, secure bool) probe.Report {
	t.Helper()
	l := listen(t)
	return run(t, probe.Config{
		URL:        serve(t, newLittleGate(d, l.Addr().String()), secure) + "/admin",
		Credential: credential, Public: "/public/", Echo: l, Insecure: true,
	})
}

// fallen returns the rows of docs/threats.md that fell.
func fallen(r probe.Report) (threats []int) {
	for _, row := range r.Rows {
		if row.Result == probe.Fell {
			threats = append(threats, row.Threat)
		}
	}
	slices.Sort(threats)
	return slices.Compact(threats)
}

func TestRun_HonestGate_Holds(t *testing.T) {
	for _, optional := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			if testing.Short() && secure != optional {
				continue
			}
			report := probeGate(t, defences{optional: optional}, secure)
			for _, row := range report.Rows {
				open := optional && (row.Threat == 10 || row.Threat == 11 || row.Threat == 14)
				if open && row.Result != probe.NotTried || !open && row.Result != probe.Held {
					t.Errorf("optional %v, TLS %v: %d %s as %s: %s: %s", optional, secure,
						row.Threat, row.Attack, row.As, row.Result, row.Evidence)
				}
			}
			if !report.HTTP2 || len(report.Rows) < 200 || len(report.Rows) > 600 {
				t.Errorf("HTTP/2 tried: %v, %d rows", report.HTTP2, len(report.Rows))
			}
		}
	}
}

// TestRun_MissingDefence_Falls leaves one defence out at a time: the rows that
// concern it fall, and no others.
func TestRun_MissingDefence_Falls(t *testing.T) {
	tests := []struct {
		threat   int
		without  defences
		also     []int // a gate without this defence is open to these, too
		evidence string
	}{
		{1, defences{noStrip: true}, []int{2, 3}, "X-Wx-Openid: forged-"},
		{2, defences{noFold: true}, nil, "X_wx_appid: forged-"},
		{3, defences{noConnection: true}, nil, "the app was not told X-Wx-Openid"},
		{4, defences{noTrailer: true}, nil, "X-Wx-Openid: forged-"},
		{5, defences{noUpgrade: true}, nil, "the app saw Http2-Settings: "},
		{6, defences{noProxyDoubt: true}, nil, "the app was asked: GET /admin?"},
		{8, defences{noDouble: true}, nil, "the app was asked: GET /admin?"},
		{9, defences{noBadToken: true, optional: true}, nil, "the app was asked: GET /admin?"},
		{10, defences{noRawPath: true}, []int{11}, "the app was asked: GET /public/..;/admin"},
		{11, defences{noQuery: true}, nil, "the app was asked: GET /admin?x=/public/"},
		{12, defences{noEndpoints: true}, nil, "the app was asked: GET /WX/login?"},
		{13, defences{noAgent: true}, nil, "the app was asked: GET /admin?"},
		{14, defences{noMethod: true}, nil, "the app was asked: OPTIONS /admin?"},
		{35, defences{noErrors: true}, nil, "the app saw X-Wx-Appid: forged-"},
	}
	for i, tt := range tests {
		if testing.Short() && i%4 != 0 {
			continue
		}
		report := probeGate(t, tt.without, false)
		want := append([]int{tt.threat}, tt.also...)
		if got := fallen(report); !slices.Equal(got, want) {
			t.Errorf("without the defence of %d fall %v, want %v", tt.threat, got, want)
			logFallen(t, report)
		}
		if !slices.ContainsFunc(report.Rows, func(row probe.Row) bool {
			return row.Threat == tt.threat && row.Result == probe.Fell &&
				strings.Contains(row.Evidence, tt.evidence)
		}) {
			t.Errorf("without the defence of %d there is no evidence %q", tt.threat, tt.evidence)
			logFallen(t, report)
		}
	}
}

func logFallen(t *testing.T, report probe.Report) {
	t.Helper()
	for _, row := range report.Rows {
		if row.Result == probe.Fell {
			t.Logf("%d %s as %s: %s", row.Threat, row.Attack, row.As, row.Evidence)
		}
	}
}

// TestRun_NaiveProxy_Falls at all that can be tried without a login.
func TestRun_NaiveProxy_Falls(t *testing.T) {
	l := listen(t)
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	base := serve(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Trailer = r.In.Trailer
	}}, false)
	report := run(t, probe.Config{URL: base, Echo: l})
	if got, want := fallen(report), []int{1, 2, 4, 5, 35}; !slices.Equal(got, want) {
		t.Errorf("%v fall, want %v", got, want)
	}
	for _, row := range report.Rows {
		if row.As == "user" &&
			(row.Result != probe.NotTried || !strings.Contains(row.Evidence, "needs -H")) {
			t.Errorf("%s without a credential: %s: %s", row.Attack, row.Result, row.Evidence)
		}
	}
}

// TestRun_WithoutEcho_SeesReflections: without an echo app the answers show
// what fell, whatever their format, and nothing is said to hold that cannot be
// seen.
func TestRun_WithoutEcho_SeesReflections(t *testing.T) {
	for i, format := range []string{
		"%s: %s\n", "\t\"%s\": [\"%s\"],\n", "[HTTP_%s] => %s\n", "<td>%s</td><td>%s</td>",
	} {
		app := httptest.NewServer(reflector(format))
		defer app.Close()
		addr := strings.TrimPrefix(app.URL, "http://")
		for _, tt := range []struct {
			without defences
			want    []int
		}{
			{defences{}, nil},
			{defences{noStrip: true}, []int{1, 2, 3}},
			{defences{noFold: true}, []int{2}},
			{defences{noConnection: true}, []int{3}},
			{defences{noDouble: true}, []int{8}},
			{defences{noRawPath: true}, []int{10, 11}},
			{defences{noMethod: true}, []int{14}},
		} {
			if i > 0 && (testing.Short() || !tt.without.noStrip && !tt.without.noConnection) {
				continue // one format is enough for what no format changes
			}
			base := serve(t, newLittleGate(tt.without, addr), false)
			c := probe.Config{URL: base + "/admin", Credential: credential, Public: "/public/"}
			report := run(t, c)
			if got := fallen(report); !slices.Equal(got, tt.want) {
				t.Errorf("%q, without %+v: %v fall, want %v", format, tt.without, got, tt.want)
				logFallen(t, report)
			}
			for _, row := range report.Rows {
				if row.Threat == 4 && row.Result != probe.NotTried {
					t.Errorf("a trailer is %s, which nobody can see", row.Result)
				}
			}
		}
	}
}

// TestRun_CannotSee_SaysWhatToDo: where the probe cannot see, it says so and
// what to do.
func TestRun_CannotSee_SaysWhatToDo(t *testing.T) {
	app := httptest.NewServer(reflector("%s: %s\n"))
	defer app.Close()
	mute := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer mute.Close()
	guarded := serve(t, newLittleGate(defences{}, strings.TrimPrefix(app.URL, "http://")), false)
	secure := serve(t, newLittleGate(defences{}, strings.TrimPrefix(app.URL, "http://")), true)
	for _, tt := range []struct {
		name   string
		config probe.Config
		want   string
	}{
		{"nobody there", probe.Config{URL: "http://127.0.0.1:1/"}, "connect"},
		{"no credential", probe.Config{URL: guarded + "/admin"}, "give one with -H"},
		{
			"bad credential",
			probe.Config{
				URL: guarded + "/admin", Credential: []string{"Authorization: Bearer wxs_bad"},
			},
			"the credential is not good here",
		},
		{
			"other names",
			probe.Config{
				URL: guarded + "/admin", Credential: credential, Identity: []string{"X-User"},
			},
			"--identity",
		},
		{
			"a public path",
			probe.Config{URL: guarded + "/public/x", Credential: credential},
			"the URL is open without a look at credentials",
		},
		{
			"not public",
			probe.Config{URL: guarded + "/admin", Credential: credential, Public: "/shut/"},
			"under --public",
		},
		{"no reflection", probe.Config{URL: mute.URL}, "does not reflect"},
		{
			"another upstream",
			probe.Config{URL: mute.URL, Echo: listen(t)},
			"point the gate's upstream at 127.0.0.1:",
		},
		{"unknown certificate", probe.Config{URL: secure + "/public/x"}, "certificate"},
	} {
		report, err := probe.Run(t.Context(), tt.config)
		if !errors.Is(err, probe.ErrBlind) || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), token) || len(report.Rows) > 0 {
			t.Errorf("%s: %v with %d rows, want %q", tt.name, err, len(report.Rows), tt.want)
		}
	}
}

// TestRun_WrongConfig_IsRefused is told apart from a gate that cannot be seen
// through, and gives no credential away.
func TestRun_WrongConfig_IsRefused(t *testing.T) {
	for _, c := range []probe.Config{
		{URL: "127.0.0.1:80"},
		{URL: "ftp://127.0.0.1/"},
		{URL: "http://127.0.0.1/", Credential: []string{token}},
		{URL: "http://127.0.0.1/", Credential: []string{"X-A: " + token + "\r\nX-B: c"}},
		{URL: "http://127.0.0.1/", Credential: []string{"X_WX_OPENID: " + token}},
		{URL: "http://127.0.0.1/", Identity: []string{"not a name"}},
		{URL: "http://127.0.0.1/", Public: "/a/../b"},
		{URL: "http://127.0.0.1/", Public: "/"},
		{URL: "http://127.0.0.1/", Endpoints: "wx"},
		{URL: "http://127.0.0.1/", Endpoints: "/"},
	} {
		_, err := probe.Run(t.Context(), c)
		if err == nil || errors.Is(err, probe.ErrBlind) || strings.Contains(err.Error(), token) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestRun_GateThatStops_HoldsNothing: refusals after a gate has gone are no merit.
func TestRun_GateThatStops_HoldsNothing(t *testing.T) {
	l := listen(t)
	inner := newLittleGate(defences{}, l.Addr().String())
	var gone atomic.Bool
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Original-Url") != "" {
			gone.Store(true)
		}
		if gone.Load() {
			refuse(w, http.StatusTooManyRequests)
			return
		}
		inner.ServeHTTP(w, r)
	}), false)
	report, err := probe.Run(t.Context(),
		probe.Config{URL: base + "/admin", Credential: credential, Echo: l})
	if !errors.Is(err, probe.ErrBlind) {
		t.Errorf("the error is %v, want ErrBlind", err)
	}
	last := report.Rows[len(report.Rows)-1]
	if last.Threat != 6 {
		t.Errorf("the report ends with %d, want 6", last.Threat)
	}
	for _, row := range report.Rows {
		if row.Threat == 6 && row.Result == probe.Held {
			t.Errorf("%s is said to hold", row.Attack)
		}
	}
}

func TestRun_ContextEnds_ReportEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := listen(t)
	inner := newLittleGate(defences{}, l.Addr().String())
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Trailer") != "" || len(r.Trailer) > 0 {
			cancel()
		}
		inner.ServeHTTP(w, r)
	}), false)
	report, err := probe.Run(ctx,
		probe.Config{URL: base + "/admin", Credential: credential, Echo: l})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want context.Canceled", err)
	}
	if last := report.Rows[len(report.Rows)-1]; last.Threat != 4 {
		t.Errorf("the report ends with %d, want 4", last.Threat)
	}
}

// TestReport_HoldsNoCredential: the credential is in no output, even when the app
// is told of it.
func TestReport_HoldsNoCredential(t *testing.T) {
	l := listen(t)
	u := &url.URL{Scheme: "http", Host: l.Addr().String()}
	base := serve(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Header.Set("X-Wx-Openid", openID)
		if r.In.Header.Get("X-Wx-Unionid") != "" {
			r.Out.Header.Set("X-Wx-Unionid",
				strings.TrimPrefix(r.In.Header.Get("Authorization"), "Bearer "))
		}
	}}, false)
	report := run(t, probe.Config{URL: base + "/admin", Credential: credential, Echo: l})
	if len(fallen(report)) == 0 {
		t.Fatal("nothing fell")
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{token, token[:20], token[25:]} {
		if strings.Contains(text.String()+string(data), part) {
			t.Errorf("the report holds %q of the credential", part)
		}
	}
	if !strings.Contains(text.String(), "FELL") ||
		!strings.Contains(text.String(), "needs --public") {
		t.Errorf("the report says too little:\n%s", text.String())
	}
}

// TestRun_NothingReflected_IsNotTried: an answer of the app that reflects
// nothing is not taken for a refusal.
func TestRun_NothingReflected_IsNotTried(t *testing.T) {
	show := reflector("%s: %s\n")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		show.ServeHTTP(w, r)
	}))
	defer app.Close()
	gate := newLittleGate(defences{noMethod: true}, strings.TrimPrefix(app.URL, "http://"))
	base := serve(t, gate, false)
	report := run(t, probe.Config{URL: base + "/admin", Credential: credential})
	for _, row := range report.Rows {
		if row.Threat == 14 && row.Attack == "OPTIONS" && row.Result != probe.NotTried {
			t.Errorf("OPTIONS, which reaches the app, is %s: %s", row.Result, row.Evidence)
		}
	}
}
