package e2e_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// canaries are secrets by their names. None may be found where
// operators, attackers or other programs look.
type canaries map[string]string

// find reports every canary in a text, in any of the forms in which a printer
// could have written it.
func (c canaries) find(tb testing.TB, where, text string) {
	tb.Helper()
	for what, secret := range c {
		quoted := quote(secret)
		forms := []string{
			secret, url.QueryEscape(secret), url.PathEscape(secret), quoted[1 : len(quoted)-1],
			hex.EncodeToString([]byte(secret)),
			base64.StdEncoding.EncodeToString([]byte(secret)),
			base64.RawURLEncoding.EncodeToString([]byte(secret)), fmt.Sprint([]byte(secret)),
		}
		slices.Sort(forms)
		for _, form := range slices.Compact(forms) {
			if i := strings.Index(text, form); i >= 0 {
				tb.Errorf("%s holds %s: …%s…", where, what,
					text[max(i-200, 0):min(i+len(form)+80, len(text))])
				break
			}
		}
	}
}

// TestP6_NoSecretIsShown exercises logins, failures of every kind, an outage,
// reloads and refused configurations at debug level, with access log and
// traces, and searches all output, answers, metrics and files for secrets.
func TestP6_NoSecretIsShown(t *testing.T) {
	t.Parallel()
	var seal [32]byte
	rand.Read(seal[:])
	literal := "canary" + hex.EncodeToString(seal[:13]) // an AppSecret as careless people write it
	secrets := canaries{
		"the AppSecret": secretOf(appA), "the seal_key": base64.StdEncoding.EncodeToString(seal[:]),
		"a literal secret": literal,
	}
	s := mixed
	s.timeout = "1s"
	s.options = "\tdebug\n\tmetrics\n\tservers {\n\t\ttrace\n\t}"
	s.site = "\ttracing\n\tlog {\n\t\tlevel DEBUG\n\t}"
	s.wechat = "\t\tseal_key {env.WX_SEAL}"
	traces := newTraceSink(t)
	s.env = append(traces.env(), "WX_SEAL="+secrets["the seal_key"], "WX_LITERAL="+literal)
	w := newWorld(t, s)
	var answers strings.Builder // of the gate to clients, logins apart

	note := func(what, secret string) { secrets[fmt.Sprintf("%s %d", what, len(secrets))] = secret }
	login := func(user string, headers ...string) reply {
		code := w.wechat.Code(appA, user)
		note("a code", code)
		note("a session_key", w.wechat.SessionKey(appA, user))
		r := w.post(t, "/wx/login", codeBody(code), headers...)
		if r.status != 200 {
			fmt.Fprintln(&answers, r)
			return r
		}
		note("a token", r.session(t).Token)
		return r
	}
	exercise := func() {
		token := login("ada").session(t).Token
		w.checkAlive(t, token, w.who(appA, "ada"))
		next := login("ada", bearer(token)).session(t).Token
		for _, r := range []reply{
			w.call(t, "GET", "/dead", "", bearer(token)),
			w.call(t, "GET", "/wx/session", "", bearer(next)),
			w.call(t, "GET", "/wx/login", "", bearer(next)),
			w.call(t, "GET", "/app/x", "", bearer(next[:44])),
			w.call(t, "GET", "/app/x", "", bearer(next), bearer(token)),
			w.post(t, "/wx/logout", `{"all":1}`, bearer(next)),
			w.post(t, "/wx/logout", "", bearer(next)),
			w.post(t, "/wx/login", `{"code":"`+next+` `+token+`"}`),
		} {
			fmt.Fprintln(&answers, r)
		}
		w.call(t, "GET", "/public/x", "", bearer(next))
		w.exerciseUserData(t, note)
		for _, f := range faults {
			f.inject.Path = exchangePath
			f.inject.ErrMsg = "echo of " + secretOf(appA)
			if f.inject.Kind == weixintest.FaultBody && f.code != "" {
				f.inject.Body = strings.Replace(f.inject.Body, "}", `,"echo":"`+secretOf(appA)+`"}`,
					1)
			}
			w.wechat.Inject(f.inject)
			login("user of " + f.name)
		}
		w.wechat.Reset()
		w.wechat.Inject(weixintest.Fault{Kind: weixintest.FaultReset, Times: -1})
		for range 12 {
			login("outage")
		}
		w.wechat.Reset()
		eventually(t, "logins work again", func() bool { return login("outage").status == 200 })
	}
	exercise()
	w.mustReload(t, s)

	// Configurations that are refused, by the adapter and by the module.
	said := new(strings.Builder)
	refuse := func(text, contentType string) {
		status, answer := w.load(t, contentType, text)
		said.WriteString(answer)
		if status == 200 {
			t.Error("a configuration with a literal secret is accepted")
		}
	}
	good := w.caddyfile(s)
	for _, bad := range []string{
		strings.Replace(good, "{env.WX_SECRET_0}", literal, 1),
		strings.Replace(good, "{env.WX_SECRET_0}", "{"+literal+"}", 1),
		strings.Replace(good, "{env.WX_SECRET_0}", "{$WX_LITERAL}", 1),
		strings.Replace(good, "{env.WX_SECRET_0}", "{env.WX_SECRET_0} "+literal, 1),
		strings.Replace(good, "{env.WX_SEAL}", literal, 1),
		strings.Replace(good, "{env.WX_SEAL}", "{env.WX_LITERAL}", 1),
	} {
		refuse(bad, "text/caddyfile")
	}
	current := w.adminGet(t, "/config/")
	for _, placeholder := range []string{"{env.WX_SECRET_0}", "{env.WX_SEAL}"} {
		refuse(strings.ReplaceAll(current, placeholder, literal), "application/json")
		refuse(strings.ReplaceAll(current, placeholder, "{"+literal+"}"), "application/json")
		refuse(strings.ReplaceAll(current, placeholder, "{x."+literal+"}"), "application/json")
	}
	if !testing.Short() {
		exercise()
	}

	file := filepath.Join(w.home, "Caddyfile")
	for _, args := range [][]string{
		{"validate"},
		{"adapt", "--pretty"},
		{"adapt", "--validate"},
		{"reload", "--force", "--address", w.admin},
	} {
		status, printed := w.command(t, append(args, "--adapter", "caddyfile", "--config", file)...)
		if status != 0 {
			t.Errorf("%q ends with %d:\n%s", args, status, printed)
		}
		said.WriteString(printed)
	}
	bad := w.write(t, "bad.caddyfile", strings.Replace(good, "{env.WX_SECRET_0}", literal, 1))
	for _, command := range []string{"validate", "adapt", "run"} {
		_, printed := w.command(t, command, "--adapter", "caddyfile", "--config", bad)
		said.WriteString(printed)
	}
	for _, path := range []string{
		"/config/", "/metrics", "/reverse_proxy/upstreams", "/debug/vars",
		"/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline",
	} {
		got := w.adminGet(t, path)
		if path == "/metrics" && !strings.Contains(got, "caddy_wechat_logins_total") {
			t.Error("the metrics are not there")
		}
		secrets.find(t, path, got)
	}
	if n := w.gate.stop(t); n != 0 {
		t.Errorf("the gate ends with %d", n)
	}

	printed := w.out.String()
	for _, kind := range []string{
		`"level":"debug"`, "handled request", `"msg":"login"`, "login refused", "decrypt refused",
		"phone refused", "phone number given", "unionid changed", "WeChat is unavailable",
		"\"user_id\":\"" + w.wechat.OpenID(appA, "ada"),
	} {
		if !strings.Contains(printed, kind) {
			t.Errorf("the log does not hold %q: the search would find nothing", kind)
		}
	}
	secrets.find(t, "the log", printed)
	spans := traces.below("handler")
	for _, name := range []string{
		"wechat code2session", "wechat stable_token", "wechat getuserphonenumber",
		"session store lookup", "session store login",
	} {
		if spans[name] == "" {
			t.Errorf("no span is named %q: the search would find nothing", name)
		}
	}
	traced := maps.Clone(secrets)
	traced["an openid"] = w.wechat.OpenID(appA, "ada")
	traced.find(t, "a span", traces.text())
	secrets.find(t, "what commands and refusals say", said.String())
	secrets.find(t, "an answer", answers.String())
	w.searchFiles(t, secrets)
	t.Logf("%d secrets, %d bytes of log", len(secrets), len(printed))
}

// exerciseUserData has open data opened and numbers fetched, well and not, and
// notes what nobody but the client may see of it.
func (w *world) exerciseUserData(t *testing.T, note func(what, secret string)) {
	t.Helper()
	user := "user of " + rand.Text()
	code := w.wechat.Code(appA, user)
	token := w.post(t, "/wx/login", codeBody(code)).session(t).Token
	note("a code", code)
	note("a session_key", w.wechat.SessionKey(appA, user))
	note("a token", token)
	unionID, name := "u-"+rand.Text(), "canary-"+rand.Text()
	note("open data", name)
	good := w.openData(t, appA, user, fmt.Sprintf(`{"openId":%q,"unionId":%q,"nickName":%q}`,
		w.wechat.OpenID(appA, user), unionID, name))
	var sealed weixintest.OpenData
	if err := json.Unmarshal([]byte(good), &sealed); err != nil {
		t.Fatal(err)
	}
	note("sealed data", sealed.EncryptedData)
	note("a signature", sealed.Signature)
	bad := strings.Replace(good, `"signature":"`, `"signature":"0`, 1)
	foreign := w.openData(t, appA, user,
		fmt.Sprintf(`{"nickName":%q,"watermark":{"timestamp":1,"appid":%q}}`, name, appB))
	for _, body := range []string{
		good, bad, foreign, name, `{"encryptedData":"` + name + `","iv":"` + name + `"}`,
	} {
		w.post(t, "/wx/decrypt", body, bearer(token))
	}
	for i, fault := range []weixintest.Fault{
		{},
		{Kind: weixintest.FaultErrCode, ErrCode: 40029},
		{Kind: weixintest.FaultErrCode, ErrCode: 40001},
		{Kind: weixintest.FaultErrCode, ErrCode: -1},
		{Kind: weixintest.FaultHTML},
		{Kind: weixintest.FaultReset},
	} {
		number := fmt.Sprintf("852-%08d", mathrand.IntN(1e8))
		code := w.wechat.PhoneCode(appA, number)
		if i > 0 {
			fault.Path, fault.ErrMsg = phonePath, "echo of "+number
			w.wechat.Inject(fault)
		}
		r := w.post(t, "/wx/phone", codeBody(code), bearer(token))
		if given := r.status == 200; i == 0 && !given {
			t.Errorf("no number is given: %s", r)
		}
		note("a code", code)
		note("a number", strings.TrimPrefix(number, "852-"))
	}
	note("an access_token", w.stableToken(t))
}

// searchFiles looks through what the processes left on the disk: autosave,
// database, keys.
func (w *world) searchFiles(t *testing.T, secrets canaries) {
	t.Helper()
	var files []string
	err := filepath.WalkDir(w.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == "bad.caddyfile" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files = append(files, filepath.Base(path))
		for what, secret := range secrets {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %s", path, what)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{"autosave.json", "sessions.db"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not among %q", want, files)
		}
	}
}

// TestP6_TheSearchFinds holds that the search finds each form of a secret.
func TestP6_TheSearchFinds(t *testing.T) {
	const secret = "s/cr+t\"=ü"
	for _, text := range []string{
		secret, "x" + secret + "y", url.QueryEscape(secret), quote(secret),
		hex.EncodeToString([]byte(secret)), base64.StdEncoding.EncodeToString([]byte(secret)),
	} {
		if !finds(canaries{"it": secret}, text) {
			t.Errorf("it is not found in %q", text)
		}
	}
	if finds(canaries{"it": secret}, "nothing") {
		t.Error("it is found in nothing")
	}
}

// finds runs a search apart from the test.
func finds(c canaries, text string) bool {
	r := &recorder{}
	c.find(r, "text", text)
	return r.failed
}

type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
