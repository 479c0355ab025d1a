package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkProxy measures the cost of the gate for a request
// (docs/design.md#numbers): the same request through `wechat_auth` and
// `reverse_proxy`, through a bare `reverse_proxy`, and through `forward_auth`
// to a server that answers 204, all sites of one process, with kept
// connections. Only ratios within one run mean something.
func BenchmarkProxy(b *testing.B) {
	upstream := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
	b.Cleanup(upstream.Close)
	yes := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	b.Cleanup(yes.Close)
	host := func(s *httptest.Server) string { return s.Listener.Addr().String() }

	w := prepareWorld(b, setup{})
	w.app.addr = host(upstream)
	sites := map[string]string{
		"wechat_auth": w.addr, "bare": freeAddr(b), "forward_auth": freeAddr(b),
	}
	one := func(addr, lines string) string {
		return siteAt(addr, lines+"\n\treverse_proxy "+host(upstream))
	}
	w.sites = one(sites["bare"], "") + one(sites["forward_auth"],
		"\tforward_auth "+host(yes)+" {\n\t\turi /auth\n\t}")
	w.start(b)
	token := w.login(b, "ada")

	for _, name := range []string{"bare", "wechat_auth", "forward_auth"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs() // of this process: client and servers, not the gate
			b.SetParallelism(8)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			defer client.CloseIdleConnections()
			before := w.gate.cpu()
			defer func() {
				if after := w.gate.cpu(); after > 0 {
					b.ReportMetric((after-before)/float64(b.N), "gate-cpu-ns/op")
				}
			}()
			b.RunParallel(func(pb *testing.PB) {
				req, err := http.NewRequest("GET", "http://"+sites[name]+"/hello", nil)
				if err != nil {
					b.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				for pb.Next() {
					resp, err := client.Do(req)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != 200 {
						b.Errorf("status %d", resp.StatusCode)
						return
					}
				}
			})
		})
	}
}

// cpu returns the nanoseconds that the process's threads have run, or 0 where
// the system does not tell. The client and the servers share the machine with
// the gate, so its own share is the sharper figure.
func (p *process) cpu() (sum float64) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	for _, name := range threads {
		text, _ := os.ReadFile(name)
		first, _, _ := strings.Cut(string(text), " ")
		ns, _ := strconv.ParseFloat(first, 64)
		sum += ns
	}
	return sum
}

// BenchmarkLogin measures a durable login over HTTP, with WeChat answering at
// once.
func BenchmarkLogin(b *testing.B) {
	w := newWorld(b, setup{})
	b.SetParallelism(32)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			resp, err := client.Post("http://"+w.addr+"/wx/login", "application/json",
				strings.NewReader(codeBody(w.wechat.Code(appA, fmt.Sprint("user", n)))))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Errorf("status %d", resp.StatusCode)
				return
			}
		}
	})
}
