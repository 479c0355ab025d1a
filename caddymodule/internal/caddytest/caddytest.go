// Package caddytest owns what the tests of the Caddy packages share: names and
// secrets, configurations in memory, Caddyfiles that must be refused, stores with
// switches, and requests as Caddy hands them to a handler.
//
// It must not know any of the packages that it serves.
package caddytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy" // for Caddyfiles
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

// Names and secrets of the tests.
const (
	AppID      = "wx0123456789abcdef"
	OtherAppID = "wxfedcba9876543210"
	Canary     = "canary5ecret0123456789abcdef0123"
	SealKey    = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

	PushToken = "canaryPushT0ken"
	PushKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG" // its spare bits are set

	// MadeUp has the form of a token that no key has signed.
	MadeUp = "wxs_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

// Main runs the tests of a package. It keeps Caddy's data directory out of the
// user's home and fails when the tests leave a goroutine behind.
func Main(m *testing.M) {
	dir := dataDir()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// MainProvisioning is Main for tests that provision servers: Caddy offers no way to
// end a context that it has provisioned and not run.
func MainProvisioning(m *testing.M) {
	dir := dataDir()
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func dataDir() string {
	dir, err := os.MkdirTemp("", "wxgate-test-")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	return dir
}

// SetSecrets sets each variable that the Caddyfiles of the tests name.
func SetSecrets(t testing.TB) {
	t.Helper()
	for name, value := range map[string]string{
		"WX_SECRET": Canary, "WX_SECRET_3": Canary, "WX_APPID": "wxaaaaaaaaaaaaaaaa",
		"WX_SEAL_KEY":   SealKey,
		"WX_PUSH_TOKEN": PushToken, "WX_PUSH_KEY": PushKey, "WX_PUSH_KEY_OLD": PushKey,
	} {
		t.Setenv(name, value)
	}
}

// Adapt runs a Caddyfile through Caddy's own adapter.
func Adapt(text string) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").
		Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
}

// Load reads a JSON configuration as Caddy does.
func Load(t testing.TB, text string) *caddy.Config {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	cfg := new(caddy.Config)
	if err := dec.Decode(cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Quiet is a logging configuration that discards everything.
func Quiet() *caddy.Logging {
	return &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
	}}
}

// AppJSON returns the JSON of an app `wechat` with one mini program and the given
// fields.
func AppJSON(fields string) string {
	if fields != "" {
		fields = "," + fields
	}
	return `{"apps":[{"appid":"` + AppID + `","secret":"{env.WX_SECRET}"}]` + fields + `}`
}

// ProvisionApp provisions and validates the app `wechat`, given in JSON, in a
// configuration of its own that logs nowhere.
func ProvisionApp(t testing.TB, app string) (any, caddy.Context) {
	t.Helper()
	ctx, err := caddy.ProvisionContext(&caddy.Config{
		Logging: Quiet(),
		AppsRaw: caddy.ModuleMap{"wechat": json.RawMessage(app)},
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := ctx.App("wechat")
	if err != nil {
		t.Fatal(err)
	}
	return a, ctx
}

// Files lists all that is under a folder.
func Files(t testing.TB, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Request returns a request as Caddy hands it to a handler.
func Request(method, target, token string) (*http.Request, *httptest.ResponseRecorder) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest(method, target, nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return Prepare(r, rec), rec
}

// Prepare gives a request the context of Caddy's server.
func Prepare(r *http.Request, w http.ResponseWriter) *http.Request {
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
}

// Body returns a request body.
func Body(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

// Next is the handler behind the one under test. It remembers the last call.
type Next struct {
	Called bool
	W      http.ResponseWriter
	R      *http.Request
}

// ServeHTTP implements caddyhttp.Handler.
func (n *Next) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	n.Called, n.W, n.R = true, w, r
	return nil
}

// Code returns the code of a problem.
func Code(t testing.TB, rec *httptest.ResponseRecorder) string {
	t.Helper()
	var p struct{ Code string }
	b, _ := io.ReadAll(rec.Body)
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatalf("answer %q: %v", b, err)
	}
	return p.Code
}

// ProblemID returns the id of a problem.
func ProblemID(t testing.TB, body []byte) string {
	t.Helper()
	var p struct{ ID string }
	if err := json.Unmarshal(body, &p); err != nil || len(p.ID) != 10 {
		t.Fatalf("answer %q has no id (%v)", body, err)
	}
	return p.ID
}

// Answer returns an answer that is a problem, without the id, to compare it.
func Answer(t testing.TB, rec *httptest.ResponseRecorder) string {
	t.Helper()
	id := ProblemID(t, rec.Body.Bytes())
	return fmt.Sprint(rec.Code, rec.Header(), strings.Replace(rec.Body.String(), id, "", 1))
}

// Lines returns the log as text.
func Lines(logs *observer.ObservedLogs) string {
	var b strings.Builder
	for _, e := range logs.All() {
		fmt.Fprintf(&b, "%s %s %v\n", e.Level, e.Message, e.ContextMap())
	}
	return b.String()
}

// Count returns the sum of a counter over all labels.
func Count(c prometheus.Collector) float64 {
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		panic(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

// Gathered returns the value of each counter and the count of each histogram by
// name and labels.
func Gathered(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+`="`+l.GetValue()+`"`)
			}
			name := f.GetName()
			if labels != nil {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}

// NewMasterKeys returns master keys that may be in one ring: one pair in 64 may not.
func NewMasterKeys(n int) (masters []string) {
	for len(masters) < n {
		k := keyring.NewMasterKey()
		if _, err := keyring.Parse(strings.Join(append(masters, k), ",")); err == nil {
			masters = append(masters, k)
		}
	}
	return masters
}

// LintMetrics registers collectors and holds that the metrics are families in number
// and follow Prometheus' rules.
func LintMetrics(t *testing.T, register func(*prometheus.Registry) error, families int) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := register(reg); err != nil {
		t.Fatal(err)
	}
	got, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != families {
		t.Errorf("%d families, want %d", len(got), families)
	}
	problems, err := promlint.NewWithMetricFamilies(got).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p.Metric, p.Text)
	}
}
