package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestDemo_Once_TakesEveryStep(t *testing.T) {
	t.Setenv("WX_SECRET", "") // the demo changes it
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var out bytes.Buffer
	if err := runDemo(t.Context(), &out, "", true); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"1. The mini program", "7. The token opens nothing", `"3rd_session": "wxs_`,
		`"X-Wx-Openid"`, `"session_invalid"`, "Every step came out as it should.",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "It stays up") {
		t.Error("with --once it stays up")
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the demo leaves %v behind (%v)", left, err)
	}
}

// TestDemo_PrintedCommands_Work pastes what the demo prints into a shell.
func TestDemo_PrintedCommands_Work(t *testing.T) {
	t.Setenv("WX_SECRET", "")
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var printed bytes.Buffer
	out := &notify{to: &printed, word: "It stays up", seen: func() {
		t.Run("try", func(t *testing.T) { tryPrinted(t, printed.String()) })
		cancel()
	}}
	if err := runDemo(ctx, out, "127.0.0.1:0", false); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() == nil {
		t.Error("it ended by itself")
	}
}

// TestDemo_OtherAddresses_Refuse: gate, app and simulator have no protection that
// suits a network, so each listens on 127.0.0.1 only.
func TestDemo_OtherAddresses_Refuse(t *testing.T) {
	t.Setenv("WX_SECRET", "")
	t.Setenv("TMPDIR", t.TempDir())
	d, err := startDemo()
	if err != nil {
		t.Fatal(err)
	}
	defer d.stop()
	for _, base := range []string{d.gate, d.app.URL, d.api.URL} {
		checkLoopbackOnly(t, base)
	}
}

// tryPrinted runs the indented lines after "It stays up" in a shell.
func tryPrinted(t *testing.T, printed string) {
	needShell(t)
	var script strings.Builder
	_, lines, _ := strings.Cut(printed, "It stays up")
	for line := range strings.Lines(lines) {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			script.WriteString(strings.TrimSuffix(command, "\n") + "\necho; echo ---\n")
		}
	}
	cmd := exec.Command("sh", "-c", script.String())
	cmd.Env = append(os.Environ(), "no_proxy=*")
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, b)
	}
	said := strings.Split(string(b), "---\n")
	want := []string{
		"", "", "wxs_", `"X-Wx-Openid"`, `"X-Wx-Openid"`, "session_missing", `"/healthz"`, "204",
	}
	if len(said) != len(want)+1 {
		t.Fatalf("%d commands are printed, want %d:\n%s", len(said)-1, len(want), printed)
	}
	for i, w := range want {
		if !strings.Contains(said[i], w) || strings.Contains(said[i], "somebody-else") {
			t.Errorf("command %d says %q, want %q", i+1, said[i], w)
		}
	}
}

// notify calls seen when the word is written.
type notify struct {
	word string
	seen func()
	to   io.Writer
}

func (n *notify) Write(b []byte) (int, error) {
	n.to.Write(b)
	if bytes.Contains(b, []byte(n.word)) {
		n.seen()
	}
	return len(b), nil
}

// flaw is a fault of a gate that the walk must find.
type flaw int

const (
	none flaw = iota
	noLogin
	noIdentity
	passesToken
	guestsGetIn
	keepsForged
	addsToForged
	forgedOnPublic
	noLogout
	tokenOutlivesLogout
)

// TestWalk_FlawedGate_StepFails: each step can fail, so a walk to the end has a meaning.
func TestWalk_FlawedGate_StepFails(t *testing.T) {
	for name, tt := range map[string]struct {
		flaw flaw
		want string // begin of the error; empty for none
	}{
		"none":                   {none, ""},
		"no login":               {noLogin, "step 1"},
		"no identity":            {noIdentity, "step 2"},
		"token reaches the app":  {passesToken, "step 2"},
		"guests get in":          {guestsGetIn, "step 3"},
		"client's header wins":   {keepsForged, "step 4"},
		"client's header stays":  {addsToForged, "step 4"},
		"forged on public route": {forgedOnPublic, "step 5"},
		"no logout":              {noLogout, "step 6"},
		"token outlives logout":  {tokenOutlivesLogout, "step 7"},
	} {
		t.Run(name, func(t *testing.T) {
			checkWalk(t, &flawedGate{flaw: tt.flaw}, tt.want)
		})
	}
}

func TestWalk_NoGate_NoLogin(t *testing.T) {
	checkWalk(t, http.HandlerFunc(sampleApp), "step 1")
}

func checkWalk(t *testing.T, h http.Handler, want string) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	var out bytes.Buffer
	err := (&walk{out: &out, gate: s.URL, code: "code", openID: "o-ada"}).run(t.Context())
	if want == "" != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the walk ends with %v, want %q\n%s", err, want, &out)
	}
}

// flawedGate is a small gate before the sample app, with at most one flaw.
type flawedGate struct {
	flaw flaw
	out  bool
}

func (g *flawedGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refuse := func(code string) {
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(map[string]string{"code": code})
	}
	authorized := r.Header.Get("Authorization") != ""
	public := r.URL.Path == "/healthz"
	switch {
	case r.URL.Path == "/wx/login" && g.flaw != noLogin:
		w.Write([]byte(`{"3rd_session":"wxs_token"}`))
		return
	case r.URL.Path == "/wx/logout" && g.flaw != noLogout:
		g.out = true
		w.WriteHeader(http.StatusNoContent)
		return
	case !authorized && !public && g.flaw != guestsGetIn:
		refuse("session_missing")
		return
	case g.out && g.flaw != tokenOutlivesLogout:
		refuse("session_invalid")
		return
	}
	if g.flaw != passesToken {
		r.Header.Del("Authorization")
	}
	if public && g.flaw == forgedOnPublic ||
		g.flaw == keepsForged && r.Header.Get("X-Wx-Openid") != "" {
		sampleApp(w, r)
		return
	}
	if g.flaw != addsToForged {
		r.Header.Del("X-Wx-Openid")
		r.Header.Del("X-Wx-Unionid")
	}
	if !public && g.flaw != noIdentity {
		r.Header.Add("X-Wx-Openid", "o-ada")
	}
	sampleApp(w, r)
}
