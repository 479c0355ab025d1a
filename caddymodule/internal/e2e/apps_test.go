//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// platform is a server that people run behind the gate. Who is calling is what
// its own API says; how it reads names and paths is its own affair, and differs
// from one to the next.
type platform struct {
	name  string
	needs []string // programs

	// start runs an app at an address. The app notes every request in the file
	// seen, as one line with the JSON of a view. With it comes what Caddy needs
	// to send requests on to it.
	start func(tb testing.TB, dir, addr, seen string) (handler string)

	long    bool // too slow for a short run
	few     bool // a process for each request: some of them must do
	fastCGI bool // there is no asking it without a web server

	// What is known of it, by the names of the rows. An app that were not
	// fooled without a gate would be no test of the gate.
	fooled      []string // forgeries that it believes when it is asked directly
	fooledCaddy []string // forgeries that it believes behind a plain reverse_proxy or php_fastcgi
	misled      []string // targets that it reads as /admin when it is asked directly
}

// need looks for a program that Debian packages.
func need(tb testing.TB, program string) {
	tb.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if _, err := exec.LookPath(name); err == nil {
			return
		}
	}
	lacks(tb, program+" is not installed")
}

// lacks skips a test for what is missing, or fails it where nothing may be.
func lacks(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("WXGATE_REQUIRE_ALL") == "1" {
		tb.Fatal(what)
	}
	tb.Skip(what)
}

// spawn runs a program until the test ends, in a process group that ends with
// this process, too.
func spawn(tb testing.TB, dir string, env []string, addr, program string, args ...string) {
	tb.Helper()
	cmd := exec.Command("sh",
		append([]string{"-c", `"$@" </dev/null & read -r _; kill -9 0`, "sh", program}, args...)...)
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin", "HOME=" + dir, "TMPDIR=" + dir,
		"PYTHONDONTWRITEBYTECODE=1",
	},
		env...)
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		stdin.Close()
		cmd.Wait()
		if tb.Failed() {
			tb.Logf("%s printed:\n%s", program, tail(out.String(), 2000))
		}
	})
	eventually(tb, program+" listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// script returns the absolute path of an app in testdata.
func script(tb testing.TB, name string) string {
	tb.Helper()
	p, err := filepath.Abs(filepath.Join("testdata", "apps", name))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// view is an app's report of one request.
type view struct {
	OpenID, UnionID, AppID, Source *string // nil: its API gives nothing

	Environment []entry           // names in the manner of CGI
	Headers     []entry           // names in the manner of HTTP, trailers among them
	Paths       map[string]string // ways in which the platform gives the path
}

type entry struct{ API, Name, Value string }

// variable is an entry under the name that a header would have had.
type variable struct {
	entry
	header string // lower case, every other byte than letters and digits made a hyphen
}

func (v view) variables() (all []variable) {
	for _, e := range v.Environment {
		all = append(all, variable{e, strings.TrimPrefix(folded(e.Name), "http-")})
	}
	for _, e := range v.Headers {
		all = append(all, variable{e, folded(e.Name)})
	}
	return all
}

func folded(name string) string {
	b := []byte(strings.ToLower(name))
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			b[i] = '-'
		}
	}
	return string(b)
}

// believes reports whether the app takes the caller for the victim of a forgery.
func (v view) believes() bool {
	return slices.ContainsFunc([]*string{v.OpenID, v.UnionID, v.AppID, v.Source},
		func(s *string) bool { return s != nil && strings.Contains(*s, victim) })
}

// atAdmin reports whether any of the platform's readings of the path is /admin.
func (v view) atAdmin() bool {
	for _, p := range v.Paths {
		if p == "/admin" || strings.HasPrefix(p, "/admin/") {
			return true
		}
	}
	return false
}

// nearAdmin is atAdmin for an app that resolves whatever is left to resolve.
func (v view) nearAdmin() bool {
	for _, p := range v.Paths {
		for range 4 {
			p = strings.NewReplacer("%2e", ".", "%2E", ".", "%2f", "/", "%2F", "/", "%5c", "/",
				"%5C", "/", `\`, "/", "%25", "%", "%3b", ";", "%3B", ";").Replace(p)
		}
		segments := strings.Split(p, "/")
		for i, s := range segments {
			segments[i], _, _ = strings.Cut(s, ";")
		}
		if p = path.Clean("/" + strings.Join(segments, "/")); p == "/admin" ||
			strings.HasPrefix(p, "/admin/") {
			return true
		}
	}
	return false
}

// check demands that the app knows the caller exactly as told, by every way of
// asking, and nothing of a token. Of our names it may see no other. Those in
// harmless are no name of ours for any server, and may arrive.
func (v view) check(t *testing.T, want *identity, harmless []string) {
	t.Helper()
	told := map[string]string{}
	if want != nil {
		told = map[string]string{
			"x-wx-openid": want.openid, "x-wx-unionid": want.unionid, "x-wx-appid": want.appid,
			"x-wx-source": "wx_client",
		}
	}
	for name, got := range map[string]*string{
		"x-wx-openid": v.OpenID, "x-wx-unionid": v.UnionID, "x-wx-appid": v.AppID,
		"x-wx-source": v.Source,
	} {
		if value, ok := told[name]; ok != (got != nil) || ok && *got != value {
			t.Errorf("asked for %s the app says %s, want %q", name, said(got), value)
		}
	}
	seen := make(map[string]int)
	for _, e := range v.variables() {
		switch value, ok := told[e.header]; {
		case ok && e.Value == value:
			seen[e.API+" "+e.header]++
		case strings.Contains(e.header, "wx") && !slices.Contains(harmless, e.header):
			t.Errorf("the app sees %s %s = %q", e.API, e.Name, e.Value)
		case e.Name == "REMOTE_USER" && e.Value != "" && (want == nil || e.Value != want.openid):
			t.Errorf("the app takes %q for the user", e.Value)
		}
		if strings.Contains(e.Name+e.Value, "wxs_") {
			t.Errorf("the app sees a token: %s %s = %q", e.API, e.Name, e.Value)
		}
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("the app sees %s %d times", name, n)
		}
	}
}

func said(s *string) string {
	if s == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q", *s)
}

// stage is an app with several sites of one Caddy before it, and the world that
// these share.
type stage struct {
	*world
	platform
	seen string

	direct  string // the app itself; empty with FastCGI
	gated   string // behind wechat_auth
	lenient string // behind wechat_auth, where Caddy lets names with "_" and "." through
	plain   string // behind nothing at all
	// careful is behind what one might write without wechat_auth: a matcher that
	// closes all but the public paths, and a header that is overwritten.
	careful string

	creds  []credential
	token  string // a good one
	tokens *strings.Replacer
}

const trueOpenID = "openid-set-by-hand"

func newStage(t *testing.T, p platform) *stage {
	t.Helper()
	for _, program := range p.needs {
		need(t, program)
	}
	s := &stage{
		platform: p, seen: filepath.Join(t.TempDir(), "seen"), direct: freeAddr(t),
		gated: freeAddr(t), lenient: freeAddr(t), plain: freeAddr(t), careful: freeAddr(t),
	}
	if err := os.WriteFile(s.seen, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	handler := p.start(t, t.TempDir(), s.direct, s.seen)
	if p.fastCGI {
		s.direct = ""
	}
	var sites strings.Builder
	gate := "\twechat_auth {\n" + mixed.auth + "\n\t}\n"
	for addr, lines := range map[string]string{
		s.gated:   gate,
		s.lenient: gate,
		s.plain:   "",
		s.careful: "\t@closed not path /public/*\n\trespond @closed 401\n" +
			"\trequest_header X-WX-OPENID " + trueOpenID + "\n",
	} {
		sites.WriteString(siteAt(addr, lines+handler))
	}
	let := fmt.Sprintf("\tservers %s {\n\t\texpected_underscore_headers %s\n"+
		"\t\texpected_dot_headers %s\n\t}\n", s.lenient,
		strings.Join(everyName(aliasesWith("_")...), " "),
		strings.Join(everyName(aliasesWith(".")...), " "))
	s.world = newWorld(t, setup{auth: mixed.auth, options: let, sites: sites.String()})
	good, dead := s.login(t, "ada"), s.login(t, "eve")
	s.post(t, "/wx/logout", "", bearer(dead))
	s.creds = []credential{
		{name: "no token"},
		{name: "bad token", line: bearer(dead)},
		{name: "good token", line: bearer(good), who: s.who(appA, "ada")},
	}
	s.token = good
	s.tokens = strings.NewReplacer("{good}", good, "{dead}", dead)
	return s
}

// take returns what the app has seen since the last call.
func (s *stage) take(tb testing.TB) (views []view) {
	tb.Helper()
	b, err := os.ReadFile(s.seen)
	if err != nil {
		tb.Fatal(err)
	}
	if len(b) == 0 {
		return nil
	}
	if err := os.Truncate(s.seen, 0); err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var v view
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			tb.Fatalf("the app says %q: %v", line, err)
		}
		views = append(views, v)
	}
	return views
}

// ask sends a request to one of the addresses and returns what the app saw of it.
func (s *stage) ask(tb testing.TB, addr, request string) (reply, []view) {
	tb.Helper()
	s.take(tb)
	// A server may leave a malformed request unanswered.
	r, _ := exchange(addr, request)
	return r, s.take(tb)
}

func copyFile(tb testing.TB, from, to string) {
	tb.Helper()
	src, err := os.Open(from)
	if err != nil {
		tb.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		tb.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		tb.Fatal(err)
	}
}
