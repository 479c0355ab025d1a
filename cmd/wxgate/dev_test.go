package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/cmd/internal/webtest"
)

const patience = 20 * time.Second

// product is the product as a child process.
type product struct {
	t      *testing.T
	cmd    *exec.Cmd
	temp   string // its TMPDIR
	lines  chan string
	text   strings.Builder // all lines that were read
	stderr strings.Builder
}

// startProduct runs the real main in a child, in an environment of its own.
func startProduct(t *testing.T, args ...string) *product {
	t.Helper()
	dir := t.TempDir()
	p := &product{
		t: t, cmd: exec.Command(os.Args[0], args...), temp: dir, lines: make(chan string, 100),
	}
	p.cmd.Env = []string{
		childEnv + "=1", "HOME=" + dir, "TMPDIR=" + dir, "PATH=" + os.Getenv("PATH"),
	}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	return p
}

// startDev runs wxgate dev on free ports until it has printed all.
func startDev(t *testing.T, args ...string) *product {
	t.Helper()
	p := startProduct(t, append([]string{
		"dev", "--listen", "127.0.0.1:0", "--sim-listen", "127.0.0.1:0",
		"--page-listen", "127.0.0.1:0",
	}, args...)...)
	p.until("It stays up")
	return p
}

// until reads lines up to the one that holds the word.
func (p *product) until(word string) {
	p.t.Helper()
	for late := time.After(patience); ; {
		select {
		case line, open := <-p.lines:
			p.text.WriteString(line + "\n")
			if !open {
				p.cmd.Wait()
				p.t.Fatalf("it ended before %q:\n%s%s", word, p.text.String(), p.stderr.String())
			}
			if strings.Contains(line, word) {
				return
			}
		case <-late:
			p.t.Fatalf("%q is not printed:\n%s", word, p.text.String())
		}
	}
}

// stop ends the product as Ctrl-C does. It has to leave nothing behind.
func (p *product) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	for range p.lines { // Wait would close the pipe under the reader
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("%v: %s", err, p.stderr.String())
	}
}

// find returns the group of a pattern in what was printed.
func (p *product) find(pattern string) string {
	p.t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(p.text.String())
	if m == nil {
		p.t.Fatalf("%q is not in\n%s", pattern, p.text.String())
	}
	return m[1]
}

// shell runs the printed lines that begin with two blanks, in one shell.
func (p *product) shell() string {
	p.t.Helper()
	needShell(p.t)
	var script strings.Builder
	for line := range strings.Lines(p.text.String()) {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			script.WriteString(command)
		}
	}
	cmd := exec.Command("sh", "-ec", script.String())
	cmd.Env = append(os.Environ(), "no_proxy=*")
	b, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Errorf("%v: %s", err, b)
	}
	return string(b)
}

// startApp runs the sample app. An addr of port 0 takes a free one.
func startApp(t *testing.T, addr string) *http.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	app := &http.Server{Addr: l.Addr().String(), Handler: http.HandlerFunc(sampleApp)}
	go app.Serve(l)
	t.Cleanup(func() { app.Close() })
	return app
}

func TestDev_Upstream_PrintedLinesWork(t *testing.T) {
	t.Parallel()
	app := startApp(t, "127.0.0.1:0")
	p := startDev(t, app.Addr, "--user", "alice", "--user", "爱丽丝")
	openID := p.find(`alice of \S+ has the openid (\S+)`)
	other := p.find(`爱丽丝 of \S+ has the openid (\S+)`)
	out := p.shell()
	for _, want := range []string{
		`"X-Wx-Openid":"` + openID, `"X-Wx-Openid":"` + other, `"3rd_session":"wxs_`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in what the lines print: %s", want, out)
		}
	}
	for _, word := range []string{"WeChat, simulated", "the gate"} {
		base := p.find(word + ` +(http://127\.0\.0\.1:\d+)`)
		checkLoopbackOnly(t, base)
	}
	p.stop()
	if left, _ := filepath.Glob(filepath.Join(p.temp, "wxgate-dev-*")); left != nil {
		t.Errorf("dev leaves %v behind", left)
	}
}

// TestDev_AppRestarts_SessionStays holds that the same token works before and after.
func TestDev_AppRestarts_SessionStays(t *testing.T) {
	t.Parallel()
	app := startApp(t, "127.0.0.1:0")
	p := startDev(t, "--upstream", "http://"+app.Addr)
	url, token := p.find(`curl (\S+) -H`), p.find(`-H '(.*)'`)
	if status, _, body := webtest.Ask(t, "GET", url, "", token); status != http.StatusOK {
		t.Errorf("with the app: %d %s", status, body)
	}
	app.Close()
	if status, _, body := webtest.Ask(t, "GET", url, "", token); status != http.StatusBadGateway {
		t.Errorf("without the app: %d %s", status, body)
	}
	startApp(t, app.Addr)
	if status, _, body := webtest.Ask(t, "GET", url, "", token); status != http.StatusOK {
		t.Errorf("with the app again: %d %s", status, body)
	}
}

func TestDev_NoUpstream_SaysSoAndWaits(t *testing.T) {
	t.Parallel()
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := startDev(t, addr)
	p.until("Your app at " + addr + " is not there")
	startApp(t, addr)
	p.until("Your app at " + addr + " is there now")
	p.stop()
}

func TestDev_Keep_TokensOutliveDev(t *testing.T) {
	t.Parallel()
	app := startApp(t, "127.0.0.1:0")
	dir := filepath.Join(t.TempDir(), "kept")
	p := startDev(t, app.Addr, "--keep", dir)
	token, openID := p.find(`-H '(.*)'`), p.find(`has the openid (\S+)`)
	p.stop()
	p = startDev(t, app.Addr, "--keep", dir)
	status, _, body := webtest.Ask(t, "GET", p.find(`curl (\S+) -H`), "", token)
	if status != http.StatusOK || !strings.Contains(body, openID) {
		t.Errorf("%d %s, want the user %s", status, body, openID)
	}
}

// devFile is a configuration of production: domain names, TLS, secrets, a Redis, files
// of an administrator, an open port, and a site for calls to WeChat.
const devFile = `{
	admin unix//nowhere/admin.sock
	grace_period 10m
	log {
		output file /nowhere/gate.log
	}
	wechat {
		app {env.WX_APPID} {env.WX_SECRET} {env.WX_OLD_SECRET}
		app wxfedcba9876543210 {file./nowhere/secret}
		store redis redis.example.com:6379
		seal_key {file./nowhere/keys}
	}
}

shop.example.com, www.example.com {
	tls /nowhere/cert.pem /nowhere/key.pem
	wechat_auth {
		apps {env.WX_APPID}
		endpoints /auth
		token header X-Token
	}
	respond /errors 404
	reverse_proxy %[1]s
}

staff.example.com:8443 {
	wechat_auth {
		apps wxfedcba9876543210
	}
	reverse_proxy %[1]s
}

www.example.org, :9443 {
	respond "no gate {http.request.uri.path}"
}

http://127.0.0.1:%[2]s {
	wechat_api {
		allow /wxa/getpaidunionid
	}
}
`

func TestDev_Caddyfile_RunsOnLoopback(t *testing.T) {
	t.Parallel()
	app := startApp(t, "127.0.0.1:0")
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(addr, ":")
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, fmt.Appendf(nil, devFile, app.Addr, port), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startDev(t, "--caddyfile", file, "--user", "alice")
	shop := p.find(`the gate +(\S+)   for shop\.example\.com, www\.example\.com`)
	staff := p.find(`the gate +(\S+)   for staff\.example\.com`)
	openID := p.find(`alice of ` + demoApp + ` has the openid (\S+)`)
	staffID := p.find(`alice of wxfedcba9876543210 has the openid (\S+)`)
	out := p.shell()
	for _, id := range []string{openID, staffID} {
		if !strings.Contains(out, `"X-Wx-Openid":"`+id) {
			t.Errorf("the app sees no %s: %s", id, out)
		}
	}
	token := p.find(`-H '(X-Token: .*)'`)
	api := "http://" + addr + "/wxa/getpaidunionid?from_appid=" + demoApp
	bearer := strings.Replace(token, "X-Token: ", "Authorization: Bearer ", 1)
	for _, tt := range []struct {
		url, header string
		status      int
		holds       string
	}{
		{shop + "/orders", token, http.StatusOK, openID},
		{shop + "/errors", token, http.StatusNotFound, ""},
		{shop + "/orders", "X-WX-OPENID: " + openID, http.StatusUnauthorized, "session_missing"},
		{staff + "/orders", bearer, http.StatusForbidden, "app_not_allowed"},
		{p.find(`without a gate +(\S+)   for www\.example\.org`) + "/x", "A: b", 200, "no gate /x"},
		{api + "&openid=" + openID, "A: b", http.StatusOK, "errcode"},
	} {
		status, _, body := webtest.Ask(t, "GET", tt.url, "", tt.header)
		if status != tt.status || !strings.Contains(body, tt.holds) {
			t.Errorf(
				"%s, %s: %d %s, want %d %s",
				tt.url,
				tt.header,
				status,
				body,
				tt.status,
				tt.holds,
			)
		}
	}
	printed := regexp.MustCompile(`(?m)^\S.* (http://\S+)`)
	for _, m := range printed.FindAllStringSubmatch(p.text.String(), -1) {
		checkLoopbackOnly(t, m[1])
	}
	p.stop()
}

func TestDev_BadCommand_SaysWhatToChange(t *testing.T) {
	t.Parallel()
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	addr := used.Addr().String()
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "Caddyfile")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const global = "{\n\twechat {\n\t\tapp wx0123456789abcdef {env.S}\n\t}\n}\n"
	noGate, noWeChat := write(global+"a.test {\n}\n"), write("a.test {\n}\n")
	taken := write(global + "a.test {\n\twechat_auth\n}\nhttp://" + addr + " {\n\twechat_api\n}\n")
	const app, free = "127.0.0.1:1", "127.0.0.1:0"
	for name, tt := range map[string]struct {
		o    devOptions
		want string
	}{
		"gate's port in use": {
			devOptions{upstream: app, listen: addr},
			addr + ": bind: address already in use; choose another with --listen",
		},
		"WeChat's port in use": {
			devOptions{upstream: app, simListen: addr},
			addr + ": bind: address already in use; choose another with --sim-listen",
		},
		"site's port in use": {devOptions{file: taken}, "change the site in " + taken},
		"all interfaces": {
			devOptions{upstream: app, listen: ":0"},
			"not a loopback address; choose another with --listen",
		},
		"WeChat on all": {
			devOptions{upstream: app, simListen: "0.0.0.0:0"}, "not a loopback address",
		},
		"port of a name":  {devOptions{upstream: app, listen: "localhost:http"}, "--listen"},
		"nothing":         {devOptions{}, "--caddyfile"},
		"both":            {devOptions{upstream: app, file: taken}, "not both"},
		"port only":       {devOptions{upstream: "8080"}, "write it as 127.0.0.1:8080"},
		"two words":       {devOptions{upstream: "a b:1"}, "write it as"},
		"directive":       {devOptions{upstream: "a:1\n}\n:81"}, "write it as"},
		"path":            {devOptions{upstream: "http://a:1/x"}, "write it as"},
		"the gate itself": {devOptions{upstream: app, listen: app}, "the gate's own address"},
		"user":            {devOptions{upstream: app, users: []string{`a"b`}}, "--user"},
		"no file":         {devOptions{file: "/nowhere/Caddyfile"}, "no such file"},
		"no site":         {devOptions{file: noGate}, "no site with wechat_auth"},
		"no block":        {devOptions{file: noWeChat}, "needs the global block wechat"},
		"no Caddyfile":    {devOptions{file: write("{\n\tbogus\n}\n")}, "bogus"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.o.listen == "" {
				tt.o.listen = free
			}
			if tt.o.simListen == "" {
				tt.o.simListen = free
			}
			err := runDev(t.Context(), io.Discard, tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// demoCommand returns the command demo as Caddy makes it. No parallel test may call it.
func demoCommand() *cobra.Command {
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
	caddycmd.Commands()["demo"].CobraFunc(cmd)
	return cmd
}

// TestReference_DevFlags_Exist compares the flags with their table.
func TestReference_DevFlags_Exist(t *testing.T) {
	b, err := os.ReadFile("../../caddymodule/docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), `<a id="dev"></a>`)
	section, _, _ = strings.Cut(section, "<a id=")
	var want, got []string
	for _, m := range regexp.MustCompile("(?m)^. `--([a-z-]+)").FindAllStringSubmatch(section, -1) {
		want = append(want, m[1])
	}
	cmd := demoCommand()
	usage := cmd.Flags().FlagUsages()
	for _, m := range regexp.MustCompile("(?m)^ +--([a-z-]+)").FindAllStringSubmatch(usage, -1) {
		got = append(got, m[1])
	}
	slices.Sort(want)
	if !slices.Equal(got, want) || !slices.Equal(cmd.Aliases, []string{"dev"}) {
		t.Errorf("the flags are %q, the table has %q; aliases %q", got, want, cmd.Aliases)
	}
}

// TestDemo_BadFlags_Refused holds that no flag is passed over.
func TestDemo_BadFlags_Refused(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--user", "alice"}, "--user needs"},
		{[]string{"--keep", "x"}, "--keep needs"},
		{[]string{"127.0.0.1:1", "--upstream", "127.0.0.1:2"}, "given twice"},
		{[]string{"127.0.0.1:1", "127.0.0.1:2"}, "at most 1 arg"},
	} {
		cmd := demoCommand()
		cmd.SetArgs(tt.args)
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.args, err, tt.want)
		}
	}
}

func TestSim_BadFlags_Process(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "sim", "-listen", ":8750")
	cmd.Env = []string{childEnv + "=1", "HOME=" + t.TempDir()}
	b, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); !exited ||
		!strings.Contains(string(b), "needs -allow-remote") {
		t.Errorf("%v, %s", err, b)
	}
}

func TestSim_Process_Simulates(t *testing.T) {
	t.Parallel()
	p := startProduct(t, "sim", "-listen", "127.0.0.1:0")
	p.until("/_sim/calls")
	if out := p.shell(); !strings.Contains(out, `{"code":"`) {
		t.Errorf("the printed lines give %s", out)
	}
	p.stop()
}

// needShell skips without the programs of the printed lines, and further ones.
func needShell(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range append(programs, "sh", "curl", "cut") {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("WXGATE_REQUIRE_ALL") != "" {
				t.Fatal(err)
			}
			t.Skipf("the lines need %s, which is not here", program)
		}
	}
}

// checkLoopbackOnly holds that a server answers at 127.0.0.1 only.
func checkLoopbackOnly(t *testing.T, base string) {
	t.Helper()
	port, ok := strings.CutPrefix(base, "http://127.0.0.1:")
	if !ok {
		t.Errorf("%s is not on 127.0.0.1", base)
	}
	hosts := []string{"127.0.0.2", "::1"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() {
			hosts = append(hosts, ip.IP.String())
		}
	}
	dialer := net.Dialer{Timeout: patience}
	for _, host := range hosts {
		c, err := dialer.DialContext(context.Background(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
			t.Errorf("%s answers at %s, too", base, host)
		}
	}
}
