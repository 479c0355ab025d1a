package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const monitoring = moduleRoot + "/examples/operate/monitoring/"

func monitoringFile(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(monitoring + name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// alertRule is one alert of rules.yml.
type alertRule struct {
	Alert, Expr string
	Labels      map[string]string
	Annotations map[string]string
}

func alertRules(tb testing.TB) (alerts []alertRule) {
	tb.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal([]byte(monitoringFile(tb, "rules.yml")), &file); err != nil {
		tb.Fatal(err)
	}
	for _, g := range file.Groups {
		alerts = append(alerts, g.Rules...)
	}
	if len(alerts) < 30 {
		tb.Fatalf("%d alerts", len(alerts))
	}
	return alerts
}

// TestGuide_Monitoring_AlertsAreExplained: each alert has a severity, a section in both
// languages, and a test in which it fires and one in which it is silent.
func TestGuide_Monitoring_AlertsAreExplained(t *testing.T) {
	var names []string
	for _, a := range alertRules(t) {
		names = append(names, a.Alert)
		if !slices.Contains([]string{"critical", "warning", "info"}, a.Labels["severity"]) ||
			a.Annotations["summary"] == "" ||
			!strings.HasSuffix(a.Annotations["runbook_url"], "#"+strings.ToLower(a.Alert)) {
			t.Errorf("%s: %v, %v", a.Alert, a.Labels, a.Annotations)
		}
	}
	heading := regexp.MustCompile(`(?m)^### (.*)$`)
	for _, page := range []string{"README.md", "README.zh-CN.md"} {
		var sections []string
		for _, m := range heading.FindAllStringSubmatch(monitoringFile(t, page), -1) {
			sections = append(sections, m[1])
		}
		if !slices.Equal(sections, names) {
			t.Errorf("%s has the sections\n%q, rules.yml the alerts\n%q", page, sections, names)
		}
	}
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	err := yaml.Unmarshal([]byte(monitoringFile(t, "rules_test.yml")), &file)
	if err != nil {
		t.Fatal(err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	for _, group := range file.Tests {
		for _, c := range group.AlertRuleTest {
			fires[c.Alertname] = fires[c.Alertname] || len(c.ExpAlerts) > 0
			silent[c.Alertname] = silent[c.Alertname] || len(c.ExpAlerts) == 0
		}
	}
	for _, name := range names {
		if !fires[name] || !silent[name] {
			t.Errorf("rules_test.yml: %s fires: %v, is silent: %v", name, fires[name], silent[name])
		}
	}
}

// dashboardQueries returns the queries of the dashboard, without Grafana's variables.
func dashboardQueries(tb testing.TB) (queries []string) {
	tb.Helper()
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(monitoringFile(tb, "dashboard.json")), &dashboard); err != nil {
		tb.Fatal(err)
	}
	taken := make(map[[2]int]string)
	for i, p := range dashboard.Panels {
		if p.ID != i+1 || p.Title == "" || len(p.Targets) == 0 && p.Type != "row" {
			tb.Errorf("panel %d: %+v", i, p)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					tb.Fatalf("%s lies over %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			queries = append(queries, strings.NewReplacer(
				"$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr))
		}
	}
	if len(queries) < 30 {
		tb.Fatalf("%d queries", len(queries))
	}
	return queries
}

// TestGuide_Monitoring_PromtoolAccepts: promtool reads the configuration, the rules and
// the queries of the dashboard, and runs the tests of the alerts.
func TestGuide_Monitoring_PromtoolAccepts(t *testing.T) {
	t.Parallel()
	need(t, "promtool")
	type recorded struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []recorded
	for i, q := range dashboardQueries(t) {
		rules = append(rules, recorded{fmt.Sprintf("panel:%d", i), q})
	}
	text, err := yaml.Marshal(map[string]any{
		"groups": []any{map[string]any{"name": "dashboard", "rules": rules}},
	})
	if err != nil {
		t.Fatal(err)
	}
	queries := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(queries, text, 0o600); err != nil {
		t.Fatal(err)
	}
	calls := [][]string{
		{"check", "config", monitoring + "prometheus.yml"}, // and the rules that it names
		{"check", "rules", queries},
	}
	if !testing.Short() { // it takes seconds
		calls = append(calls, []string{"test", "rules", monitoring + "rules_test.yml"})
	}
	for _, args := range calls {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// scrapedSeries are the labels of each metric, and all values of labels.
type scrapedSeries struct {
	labels map[string][]string
	values map[string]bool
}

var (
	seriesLine   = regexp.MustCompile(`(?m)^([a-z]\w*)(?:\{(.*)\})? `)
	labelPair    = regexp.MustCompile(`(\w+)="([^"]*)"`)
	queriedName  = regexp.MustCompile(`\b((?:caddy|process|go)_\w+)(?:\{([^}]*)\})?`)
	queriedLabel = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
	groupedBy    = regexp.MustCompile(`\b(?:by|on)\s*\(([^)]*)\)`)
)

// scrape reads what Prometheus would.
func (s *scrapedSeries) scrape(tb testing.TB, addr string) {
	tb.Helper()
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		tb.Fatal(resp.Status, err)
	}
	for _, m := range seriesLine.FindAllStringSubmatch(string(text), -1) {
		labels := append(s.labels[m[1]], "instance", "job") // Prometheus adds these two
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
			s.values[l[2]] = true
		}
		slices.Sort(labels)
		s.labels[m[1]] = slices.Compact(labels)
	}
}

// missing returns what a query asks for and no gate has: a metric, a label, or a value
// that is neither among the series nor in the code.
func (s *scrapedSeries) missing(query, code string) (found []string) {
	var all []string
	for _, m := range queriedName.FindAllStringSubmatch(query, -1) {
		labels, ok := s.labels[m[1]]
		if !ok {
			found = append(found, "no metric "+m[1])
		}
		all = append(all, labels...)
		for _, l := range queriedLabel.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(labels, l[1]) {
				found = append(found, fmt.Sprintf("%s has no label %s, but %q", m[1], l[1], labels))
			}
			if l[1] == "instance" || l[1] == "code" {
				continue
			}
			for value := range strings.SplitSeq(l[2], "|") {
				if !s.values[value] && !strings.Contains(code, `"`+value+`"`) {
					found = append(found, fmt.Sprintf("%s: nothing is %q", l[1], value))
				}
			}
		}
	}
	for _, m := range groupedBy.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(m[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(all, label) {
				found = append(found, fmt.Sprintf("%q: no label %s", query, label))
			}
		}
	}
	return found
}

// TestGuide_Monitoring_QueriesFitTheGate: each metric, label and value of the alerts and
// of the dashboard is one of gates that run: one on a file, with the guide's Caddyfile,
// and one on Redis.
func TestGuide_Monitoring_QueriesFitTheGate(t *testing.T) {
	t.Parallel()
	s := &scrapedSeries{labels: make(map[string][]string), values: make(map[string]bool)}
	scrapeGateOnFile(t, s)
	scrapeGateOnRedis(t, s)
	var code strings.Builder
	for _, text := range productCode(t) {
		code.WriteString(text)
	}
	queries := dashboardQueries(t)
	for _, a := range alertRules(t) {
		queries = append(queries, a.Expr)
	}
	for _, q := range queries {
		for _, m := range s.missing(q, code.String()) {
			t.Errorf("%s\n\t%s", m, q)
		}
	}
	for query, want := range map[string]bool{ // what the test would find
		`caddy_wechat_store_up == 0`:                                             false,
		`caddy_wechat_store_upp == 0`:                                            true,
		`caddy_wechat_store_up{calls="logins"}`:                                  true,
		`caddy_wechat_weixin_down{calls="logins"}`:                               false,
		`caddy_wechat_weixin_down{calls=~"logins|loggins"}`:                      true,
		`sum by (call) (rate(caddy_wechat_weixin_calls_total[5m]))`:              false,
		`sum by (instance, outcome) (rate(caddy_wechat_weixin_calls_total[5m]))`: true,
	} {
		if got := s.missing(query, code.String()); (len(got) > 0) != want {
			t.Errorf("%s: found %q", query, got)
		}
	}
}

// scrapeGateOnFile runs the Caddyfile of the guide, with traces.
func scrapeGateOnFile(t *testing.T, s *scrapedSeries) {
	traces := newTraceSink(t)
	w := prepareWorld(t, setup{})
	scraped := freeAddr(t)
	text := monitoringFile(t, "Caddyfile")
	if n := strings.Count(text, "9180"); n < 2 ||
		!strings.Contains(monitoringFile(t, "prometheus.yml"), ":9180") {
		t.Errorf("the Caddyfile names the port %d times, and prometheus.yml not at all", n)
	}
	text = strings.Replace(strings.ReplaceAll(text, "9180", portOf(scraped)), "\twechat {",
		fmt.Sprintf("\twechat {\n\t\tapi {\n\t\t\tbase_url %s\n\t\t}", w.wechat.URL), 1)
	w.env = append(traces.env(), "TRACING=on", "ADMIN="+w.admin, "SITE=http://"+w.addr,
		"UPSTREAM="+w.app.addr, "WX_APPID="+appA, "WX_SECRET="+secretOf(appA))
	w.run(t, "--adapter", "caddyfile", "--config", w.write(t, "Caddyfile", text))
	token := w.login(t, "ada")
	w.call(t, "GET", "/x", "", bearer(token))
	w.post(t, "/wx/decrypt", "{}", bearer(token))
	w.operate(t, "backup", filepath.Join(w.home, "backup.db"))
	w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultReset, Times: -1})
	eventually(t, "WeChat is down", func() bool {
		w.tryLogin(t, "bob")
		return strings.Contains(w.out.String(), "WeChat is unavailable")
	})
	s.scrape(t, scraped)
	eventually(t, "the traces come", func() bool {
		spans := traces.below("handler")
		return spans["session store login"] == "ok" && spans["wechat code2session"] != ""
	})
}

// scrapeGateOnRedis runs a gate with what the guide's has not.
func scrapeGateOnRedis(t *testing.T, s *scrapedSeries) {
	api := freeAddr(t)
	redis := redistest.Start(t, redistest.Password(fleetPassword))
	w := prepareWorld(t, shared(setup{
		options: "\tmetrics",
		wechat:  "\t\tlogin_rate 3/h\n",
		auth:    "\t\tassertion {\n\t\t\taudience app\n\t\t\tissuer https://x.example\n\t\t}",
		sites:   siteAt(api, "\twechat_api"),
		env:     []string{"WX_PUSH_TOKEN=token", "WX_PUSH_KEY=" + strings.Repeat("k", 43)},
	}, redis.Addr))
	app := "app " + appA + " {env.WX_SECRET_0}"
	w.run(t, "--adapter", "caddyfile", "--config", w.write(t, "Caddyfile", strings.Replace(
		w.caddyfile(w.setup), app,
		app+" {\n\t\t\tpush {\n\t\t\t\ttoken {env.WX_PUSH_TOKEN}\n"+
			"\t\t\t\taes_key {env.WX_PUSH_KEY}\n\t\t\t}\n\t\t}", 1)))
	w.post(t, "/wx/push/"+appA, "{}")
	eventually(t, "a login is refused by the limit", func() bool {
		return w.tryLogin(t, "ada").status == 429
	})
	ask(t, api, "POST", "/wxa/msg_sec_check", "{}", "Content-Type: application/json")
	eventually(t, "redis is heard", func() bool {
		s.scrape(t, w.admin)
		return len(s.labels["caddy_wechat_store_last_heard_timestamp_seconds"]) > 0
	})
}
