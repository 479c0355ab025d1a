package weixin_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// fileApp has its token in a file with the given text.
func fileApp(t *testing.T, text string) (app weixin.Credentials, write func(string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	write = func(s string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	return weixin.Credentials{ID: testApp.ID, TokenFile: weixin.TokenFile{Path: path}}, write
}

// tokenEcho answers checksession with 40001 unless the token is good, and keeps
// the queries.
func tokenEcho(t *testing.T, good string) (c *weixin.Client, queries func() []string) {
	var seen []string
	c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		plain, cloud := q.Get("access_token"), q.Get("cloudbase_access_token")
		seen = append(seen, plain+"/"+cloud)
		if plain+cloud != good {
			reply(200, `{"errcode":40001}`)(w, r)
			return
		}
		reply(200, `{"errcode":0}`)(w, r)
	})
	return c, func() []string { return seen }
}

func TestTokenFile_IsReadForEachCall(t *testing.T) {
	c, queries := tokenEcho(t, "second")
	app, write := fileApp(t, "\ufefffirst")
	if err := c.CheckSession(t.Context(), app, goodSession); err == nil {
		t.Error("a token with a byte order mark passed")
	}
	write(" first\r\n")
	wantClass(t, c.CheckSession(t.Context(), app, goodSession), weixin.ClassMisconfigured)
	write("second\n") // rewritten by its owner
	if err := c.CheckSession(t.Context(), app, goodSession); err != nil {
		t.Error(err)
	}
	app.TokenFile.Cloud = true
	if err := c.CheckSession(t.Context(), app, goodSession); err != nil {
		t.Error(err)
	}
	want := []string{
		"first/", // once: the file holds the same token after the refusal
		"second/",
		"/second",
	}
	if got := queries(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("sent %q", got)
	}
}

func TestTokenFile_RewrittenDuringACall_RepeatsIt(t *testing.T) {
	var write func(string)
	requests := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests++; r.URL.Query().Get("access_token") == "old" {
			write("new")
			reply(200, `{"errcode":42001}`)(w, r)
			return
		}
		reply(200, `{"errcode":0}`)(w, r)
	})
	var app weixin.Credentials
	app, write = fileApp(t, "old")
	if err := c.CheckSession(t.Context(), app, goodSession); err != nil || requests != 2 {
		t.Errorf("%v after %d requests", err, requests)
	}
}

func TestTokenFile_Damaged_ServesFor10s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, weixin.Config{})
		app, write := fileApp(t, "token")
		get := func() (weixin.AccessToken, error) { return c.Tokens().Token(t.Context(), app) }
		good, err := get()
		if err != nil {
			t.Fatal(err)
		}
		for name, spoil := range map[string]func(){
			"gone":      func() { _ = os.Remove(app.TokenFile.Path) },
			"empty":     func() { write("") },
			"space":     func() { write(" \n") },
			"two words": func() { write("a b") },
			"binary":    func() { write("a\x00b") },
			"too long":  func() { write(strings.Repeat("t", 2049)) },
			"huge":      func() { write(strings.Repeat("t", 1<<20)) },
		} {
			write("token")
			if tok, err := get(); err != nil || tok != good {
				t.Fatalf("%s: before: %v", name, err)
			}
			spoil()
			time.Sleep(10*time.Second - 1)
			if tok, err := get(); err != nil || tok != good {
				t.Errorf("%s: not borne for a moment: %v", name, err)
			}
			time.Sleep(1 * time.Nanosecond)
			_, err := get()
			e := wantClass(t, err, weixin.ClassMisconfigured)
			if e.Op != "getting access token" ||
				!strings.Contains(e.Error(), filepath.Base(app.TokenFile.Path)) {
				t.Errorf("%s: unhelpful: %v", name, err)
			}
			if errors.Is(err, fs.ErrNotExist) != (name == "gone") {
				t.Errorf("%s: cause: %v", name, err)
			}
		}
		write(strings.Repeat("t", 2048) + "\r\n")
		if _, err := get(); err != nil {
			t.Errorf("longest token: %v", err)
		}
		app.TokenFile.Path = filepath.Dir(app.TokenFile.Path)
		_, err = get()
		wantClass(t, err, weixin.ClassMisconfigured)
		_, err = c.Tokens().Token(t.Context(), weixin.Credentials{TokenFile: app.TokenFile})
		wantClass(t, err, weixin.ClassMisconfigured)
	})
}
