package wxsim

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/cmd/internal/webtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret  = "a-secret-of-this-test"
	demoApp = demoAppID + "=" + secret
)

func TestRun_BadFlag_Refuses(t *testing.T) {
	for name, c := range map[string]struct {
		args  []string
		holds string
	}{
		"all interfaces":  {[]string{"-listen", ":8750"}, "needs -allow-remote"},
		"any IPv4":        {[]string{"-listen", "0.0.0.0:8750"}, "needs -allow-remote"},
		"any IPv6":        {[]string{"-listen", "[::]:8750"}, "needs -allow-remote"},
		"other host":      {[]string{"-listen", "192.0.2.1:8750"}, "needs -allow-remote"},
		"name":            {[]string{"-listen", "localhost.example:8750"}, "needs -allow-remote"},
		"no port":         {[]string{"-listen", "127.0.0.1"}, "needs -allow-remote"},
		"argument":        {[]string{"serve"}, `unexpected argument "serve"`},
		"app twice":       {[]string{"-app", demoApp, "-app", demoApp}, "given twice"},
		"app shape":       {[]string{"-app", "wx1=" + secret}, "-app number 1"},
		"secret only":     {[]string{"-app", demoAppID + "=x", "-app", secret}, "-app number 2"},
		"empty secret":    {[]string{"-app", demoAppID + "="}, "-app number 1"},
		"unknown flag":    {[]string{"-port", "1"}, "-port"},
		"port not usable": {[]string{"-listen", "127.0.0.1:99999"}, "invalid port"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := Run(t.Context(), "wxsim", c.args, &out, &errs)
			if code == 0 || !strings.Contains(errs.String(), c.holds) {
				t.Errorf("exit status %d, %s", code, errs.String())
			}
			if strings.Contains(errs.String(), secret) {
				t.Errorf("secret printed: %s", errs.String())
			}
		})
	}
}

func TestParse_GoodFlags_Accepts(t *testing.T) {
	for _, args := range [][]string{
		nil,
		{"-listen", "localhost:0"},
		{"-listen", "127.9.9.9:1"},
		{"-listen", "[::1]:1"},
		{"-listen", "[::ffff:127.0.0.1]:1"},
		{"-allow-remote", "-listen", ":8750"},
		{"-app", demoAppID + "=a=b", "-app", "wxfedcba9876543210=" + secret},
	} {
		o, err := parse("wxsim", args, io.Discard)
		if err != nil || len(o.apps) == 0 {
			t.Errorf("%q: %v, %+v", args, err, o)
		}
		if len(o.apps) == 2 && o.apps[demoAppID] != "a=b" {
			t.Errorf("%q: %+v", args, o)
		}
	}
}

func TestRun_Help_ExitStatusZero(t *testing.T) {
	var errs bytes.Buffer
	code := Run(t.Context(), "wxsim", []string{"-h"}, io.Discard, &errs)
	if code != 0 || !strings.Contains(errs.String(), "-allow-remote") {
		t.Errorf("exit status %d, %s", code, errs.String())
	}
}

// program is one run of wxsim on a free port.
type program struct {
	url, greeting string
	stop          func() (code int, log string)
}

func startProgram(t *testing.T, args ...string) program {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	var (
		errs bytes.Buffer
		code int
		wg   sync.WaitGroup
	)
	wg.Go(func() {
		code = Run(ctx, "wxsim", append([]string{"-listen", "127.0.0.1:0"}, args...), in, &errs)
		in.Close()
	})
	var p program
	p.stop = func() (int, string) { cancel(); wg.Wait(); return code, errs.String() }
	t.Cleanup(func() { p.stop() })
	lines := bufio.NewScanner(out)
	for range 5 {
		if !lines.Scan() {
			p.stop()
			t.Fatalf("only %q: %s", p.greeting, errs.String())
		}
		p.greeting += lines.Text() + "\n"
	}
	p.url = regexp.MustCompile(`http://\S+`).FindString(p.greeting)
	return p
}

// curl sends the request of a printed curl line.
func curl(t *testing.T, line string) string {
	t.Helper()
	m := regexp.MustCompile(`^  curl '?(\S+?)'?(?: -d '(.*)')?$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%q is no curl line", line)
	}
	method := http.MethodGet
	if m[2] != "" {
		method = http.MethodPost
	}
	_, _, answer := webtest.Ask(t, method, m[1], m[2])
	return answer
}

func TestGreeting_Commands_Work(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	p := startProgram(t)
	lines := strings.Split(p.greeting, "\n")
	code := regexp.MustCompile(`"code":"(\w+)"`).FindStringSubmatch(curl(t, lines[2]))
	if code == nil {
		t.Fatalf("no code from %q", lines[2])
	}
	login := curl(t, strings.ReplaceAll(lines[3], "CODE", code[1]))
	if !strings.Contains(login, `"openid":"o`) {
		t.Errorf("login: %s", login)
	}
	if a := curl(t, lines[4]); !strings.Contains(a, `"user":"alice"`) {
		t.Errorf("calls: %s", a)
	}
	status, log := p.stop()
	want := "path=/sns/jscode2session appid=" + demoAppID + " user=alice"
	if status != 0 || !strings.Contains(log, want) || strings.Count(log, "\n") != 1 {
		t.Errorf("exit status %d, log %s", status, log)
	}
	for _, bad := range []string{code[1], demoSecret, "fault="} {
		if strings.Contains(log, bad) {
			t.Errorf("%q in log %s", bad, log)
		}
	}
}

func TestGreeting_OwnSecret_NotPrinted(t *testing.T) {
	p := startProgram(t, "-app", "wxfedcba9876543210="+secret)
	if strings.Contains(p.greeting, secret) || !strings.Contains(p.greeting, "secret=SECRET") {
		t.Errorf("greeting %s", p.greeting)
	}
}

func TestRun_Stop_EndsHangingCalls(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	p := startProgram(t)
	curl(t, `  curl `+p.url+`/_sim/fault -d '{"kind":"hang"}'`)
	ended := make(chan error)
	go func() {
		// A POST, since net/http sends a GET again when a used connection breaks.
		r, err := http.Post(p.url+"/sns/jscode2session", "", nil)
		if err == nil {
			r.Body.Close()
		}
		ended <- err
	}()
	for !strings.Contains(curl(t, "  curl "+p.url+"/_sim/calls"), `"fault":"hang"`) {
	}
	if code, _ := p.stop(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if err := <-ended; err == nil {
		t.Error("the hanging call was answered")
	}
}
