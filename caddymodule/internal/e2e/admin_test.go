package e2e_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// both is a gate for two mini programs.
var both = setup{apps: []string{appA, appB}}

// loginTo logs a user of a mini program in.
func (w *world) loginTo(tb testing.TB, appID, user string) string {
	tb.Helper()
	return w.post(tb, "/wx/login", appBody(w.wechat.Code(appID, user), appID)).session(tb).Token
}

// operate runs `wechat …` against the running gate, which must succeed, and
// returns what it printed.
func (w *world) operate(tb testing.TB, args ...string) string {
	tb.Helper()
	status, printed := w.command(tb,
		slices.Concat([]string{"wechat", args[0], "--address", w.admin}, args[1:])...)
	if status != 0 {
		tb.Fatalf("wechat %q ends with %d:\n%s", args, status, printed)
	}
	return printed
}

// operateJSON is operate with --json.
func (w *world) operateJSON(tb testing.TB, answer any, args ...string) {
	tb.Helper()
	printed := w.operate(tb, append(args, "--json")...)
	_, text, _ := strings.Cut(printed, "{\n")
	if err := json.NewDecoder(strings.NewReader("{\n" + text)).Decode(answer); err != nil {
		tb.Fatalf("%v:\n%s", err, printed)
	}
}

// nameOf is the operators' name of a token's session.
func nameOf(token string) string {
	d := sha256.Sum256([]byte(token))
	return hex.EncodeToString(d[:8])
}

func (w *world) database() string {
	return filepath.Join(w.home, "data", "caddy", "wxgate", "sessions.db")
}

// TestAdmin_Status holds that the command prints the answer of the gate, and
// exits with 2 when none runs. TestAdminStatus checks the numbers.
func TestAdmin_Status(t *testing.T) {
	slow(t)
	t.Parallel()
	w := newWorld(t, both)
	w.loginTo(t, appA, "ada")
	w.loginTo(t, appA, "ada")
	w.loginTo(t, appB, "bob")
	text := w.operate(t, "status", "--config", "Caddyfile", "--adapter", "caddyfile")
	if !strings.Contains(text, "3 sessions of 2 users") || !strings.Contains(text, w.database()) {
		t.Errorf("the table is\n%s", text)
	}
	w.gate.stop(t)
	if status, printed := w.command(t, "wechat", "status", "--address", w.admin); status != 2 {
		t.Errorf("with no gate there it ends with %d:\n%s", status, printed)
	}
}

// userSessions is what `wechat sessions --json` prints.
type userSessions struct {
	Users []struct {
		AppID, OpenID, UnionID string
		Sessions               []struct{ ID, State string }
	}
}

func (u userSessions) live() (names []string) {
	for _, user := range u.Users {
		for _, s := range user.Sessions {
			if s.State == "live" {
				names = append(names, s.ID)
			}
		}
	}
	slices.Sort(names)
	return names
}

// TestP3_AdminRevoke holds that the command lists a unionid's sessions and ends
// them, and no other, from the next request on and for good. That each target ends
// its own is TestAdminRevoke's, in package admin.
func TestP3_AdminRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, both)
	tokens := []string{
		w.loginTo(t, appA, "ada"), w.loginTo(t, appA, "ada"), w.loginTo(t, appB, "ada"),
		w.loginTo(t, appA, "bob"),
	}
	whose := []*identity{
		w.who(appA, "ada"), w.who(appA, "ada"), w.who(appB, "ada"), w.who(appA, "bob"),
	}
	var names []string
	for i, token := range tokens {
		w.checkAlive(t, token, whose[i]) // and so in the cache
		names = append(names, nameOf(token))
	}
	slices.Sort(names[:3])
	from := w.out.Len()
	ada := []string{"--unionid", w.wechat.UnionID("ada")}
	var got userSessions
	w.operateJSON(t, &got, append([]string{"sessions"}, ada...)...)
	if !slices.Equal(got.live(), names[:3]) || len(got.Users) != 2 {
		t.Errorf("the unionid's sessions are %+v", got)
	}
	w.operate(t, append([]string{"revoke", "--yes"}, ada...)...)
	check := func() {
		t.Helper()
		for _, token := range tokens[:3] {
			w.checkDead(t, token)
		}
		w.checkAlive(t, tokens[3], whose[3])
	}
	check()
	w.gate.logs(t, from, map[string]int{`"msg":"sessions revoked"`: 1})
	line := regexp.MustCompile(`"logger":"wechat.audit","msg":"sessions revoked",[^\n]*` +
		`"target":"unionid",[^\n]*"users":2,"sessions":3,"remote_addr":"127.0.0.1:`)
	if !line.MatchString(w.out.String()[from:]) {
		t.Error("the audit line does not tell who, what and how many")
	}
	w.gate.stop(t)
	w.start(t)
	check()
}

// TestThreat32_AdminDuringReloads holds that an open gate answers each admin
// call, whichever configuration comes or goes.
func TestThreat32_AdminDuringReloads(t *testing.T) {
	slow(t)
	t.Parallel()
	w := newWorld(t, setup{})
	w.login(t, "ada")
	var asked atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for target, method := range map[string]string{
		"/wechat/status": "GET", "/wechat/sessions?unionid=u": "GET", "/wechat/keys": "GET",
		"/wechat/backup": "POST",
	} {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				// A connection that the endpoint which is replaced no longer
				// takes is Caddy's; an answer is ours.
				r, err := exchange(w.admin,
					request(w.admin, method, target, "", "Content-Type: application/json"))
				if err == nil && r.status != 0 {
					asked.Add(1)
					if r.status != 200 {
						t.Errorf("%s is answered with %s", target, r)
						return
					}
				}
			}
		})
	}
	for i := range 12 {
		s := w.setup
		s.wechat = fmt.Sprintf("\t\tlogin_rate %d/m", 1000+i)
		w.mustReload(t, s)
	}
	close(stop)
	clients.Wait()
	if asked.Load() < 20 {
		t.Errorf("only %d answers: nothing is shown", asked.Load())
	}
}

// TestP2_Backup holds that a gate on a restored file knows the sessions of the
// backup, and does not start with another key. A backup under load is
// TestBackup_UnderLoad_HasAllAcknowledgedLogins of package bolt.
func TestP2_Backup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{})
	before := map[string]*identity{w.login(t, "ada"): w.who(appA, "ada")}
	backup := filepath.Join(w.home, "backup.db")
	w.operate(t, "backup", backup)
	after := w.login(t, "bob")
	restore := func() (int, string) {
		return w.command(t, "wechat", "restore", "--yes", backup, "--to", w.database())
	}
	if status, printed := restore(); status != 1 {
		t.Fatalf("restoring under a running gate ends with %d:\n%s", status, printed)
	}
	w.checkAlive(t, after, w.who(appA, "bob"))
	w.gate.stop(t)
	if status, printed := restore(); status != 0 ||
		!strings.Contains(printed, w.database()+".replaced-") {
		t.Fatalf("restoring ends with %d:\n%s", status, printed)
	}
	w.start(t)
	for token, who := range before {
		w.checkAlive(t, token, who)
	}
	w.checkAlive(t, w.login(t, "afterwards"), w.who(appA, "afterwards"))
	if testing.Short() {
		return
	}

	w.gate.stop(t)
	key := w.database() + ".key"
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	w.refusesToStart(t, key+" is missing")
	_, other := w.command(t, "wechat", "keys", "new")
	other, _, _ = strings.Cut(other, "\n")
	if err := os.WriteFile(key, []byte(other+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refusesToStart(t, "a master key is missing")
	if err := os.WriteFile(key, good, 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(t)
	for token, who := range before {
		w.checkAlive(t, token, who)
	}
}

// refusesToStart demands that the gate ends with a reason.
func (w *world) refusesToStart(tb testing.TB, reason string) {
	tb.Helper()
	status, printed := w.command(tb, "run", "--adapter", "caddyfile", "--config",
		filepath.Join(w.home, "Caddyfile"))
	if last := printed[strings.LastIndexByte(strings.TrimSpace(printed), '\n')+1:]; status == 0 ||
		!strings.Contains(last, reason) {
		tb.Errorf("it ends with %d and says at last, want %q:\n%s", status, reason, last)
	}
}

// TestAdmin_RotateKeys holds that a new key in front logs nobody out, and that
// a reload and a start without a needed key fail with its name and lose
// nothing.
func TestAdmin_RotateKeys(t *testing.T) {
	slow(t)
	t.Parallel()
	w := prepareWorld(t, setup{})
	file := filepath.Join(w.home, "master.keys")
	w.setup.wechat = "\t\tseal_key {file." + file + "}"
	newKey := func() string {
		_, printed := w.command(t, "wechat", "keys", "new")
		key, _, _ := strings.Cut(printed, "\n")
		return key
	}
	put := func(keys ...string) {
		t.Helper()
		w.write(t, "master.keys", strings.Join(keys, "\n")+"\n")
	}
	var listed struct{ Keys []struct{ ID, State string } }
	first, next := newKey(), newKey()

	put(first)
	w.start(t)
	old := w.login(t, "ada")
	w.operateJSON(t, &listed, "keys")
	if len(listed.Keys) != 1 || listed.Keys[0].State != "signs" {
		t.Fatalf("the keys are %+v", listed)
	}
	firstName := listed.Keys[0].ID

	put(next, first)
	file2 := filepath.Join(w.home, "Caddyfile")
	for {
		status, printed := w.command(t, "reload", "--force", "--address", w.admin, "--adapter",
			"caddyfile", "--config", file2)
		if status == 0 {
			break
		}
		if !strings.Contains(printed, "share the short id") { // which one pair in 64 does
			t.Fatalf("reloading ends with %d:\n%s", status, printed)
		}
		next = newKey()
		put(next, first)
	}
	w.checkAlive(t, old, w.who(appA, "ada"))
	fresh := w.login(t, "bob")
	w.operateJSON(t, &listed, "keys")
	if len(listed.Keys) != 2 || listed.Keys[0].State != "signs" || listed.Keys[0].ID == firstName ||
		listed.Keys[1].ID != firstName || listed.Keys[1].State != "needed" {
		t.Fatalf("the keys are %+v", listed)
	}

	put(next)
	if status, said := w.reload(t, w.caddyfile(w.setup)); status == 200 ||
		!strings.Contains(said, firstName) {
		t.Errorf("dropping a needed key is answered with %d %s", status, said)
	}
	checkBoth := func() {
		t.Helper()
		w.checkAlive(t, old, w.who(appA, "ada"))
		w.checkAlive(t, fresh, w.who(appA, "bob"))
	}
	checkBoth() // by the configuration that runs on
	w.gate.stop(t)
	w.refusesToStart(t, firstName)
	put(next, first)
	w.start(t)
	checkBoth()

	// Nobody is left who needs it.
	w.operate(t, "revoke", "--all", "--yes")
	put(next)
	w.mustReload(t, w.setup)
	w.checkDead(t, old)
	w.checkAlive(t, w.login(t, "ada"), w.who(appA, "ada"))
}

// TestP6_AdminShowsNoSecret searches admin answers, the output and log of the
// commands, and a backup for secrets.
func TestP6_AdminShowsNoSecret(t *testing.T) {
	slow(t)
	t.Parallel()
	s := setup{options: "\tdebug"}
	w := newWorld(t, s)
	code := w.wechat.Code(appA, "ada")
	token := w.post(t, "/wx/login", codeBody(code)).session(t).Token
	w.checkAlive(t, token, w.who(appA, "ada"))
	key, err := os.ReadFile(w.database() + ".key")
	if err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256([]byte(token))
	secrets := canaries{
		"the AppSecret": secretOf(appA), "the master key": strings.TrimSpace(string(key)),
		"a token": token, "a code": code, "a session_key": w.wechat.SessionKey(appA, "ada"),
		"the rest of a digest": hex.EncodeToString(d[8:]),
	}
	user := []string{"--appid", appA, "--openid", w.wechat.OpenID(appA, "ada")}
	backup := filepath.Join(w.home, "backup.db")
	w.login(t, "ada") // another session, to be revoked by its user
	var said strings.Builder
	for _, args := range [][]string{
		{"status"},
		{"status", "--json"},
		{"keys"},
		{"keys", "--json"},
		append([]string{"sessions"}, user...),
		append([]string{"sessions", "--json"}, user...),
		{"backup", backup},
		append([]string{"revoke", "--session", nameOf(token)}, user...),
		append([]string{"revoke", "--json"}, user...),
		append([]string{"forget", "--yes"}, user...),
	} {
		said.WriteString(w.operate(t, args...))
	}
	for _, call := range [][3]string{
		{"POST", "/wechat/revoke", `{"session":"` + token[:1] + `"}`},
		{"POST", "/wechat/revoke", `{"all":`},
		{"GET", "/wechat/nothing"},
	} {
		r := raw(t, w.admin,
			request(w.admin, call[0], call[1], call[2], "Content-Type: application/json"))
		fmt.Fprintln(&said, r)
	}
	copied, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(copied), w.wechat.OpenID(appA, "ada")) {
		t.Error("the user is not in the backup: the search would find nothing")
	}
	secrets.find(t, "what is printed", said.String())
	delete(secrets, "the rest of a digest") // what a store holds
	secrets.find(t, "the backup", string(copied))
	secrets.find(t, "the log", w.out.String())
}

// TestP2_OverwrittenFile_ReloadOpensItAgain copies a backup over the file of a running
// gate. The gate lives, status says what to do, and reload --force serves the backup.
func TestP2_OverwrittenFile_ReloadOpensItAgain(t *testing.T) {
	slow(t)
	t.Parallel()
	w := newWorld(t, mixed)
	ada := w.login(t, "ada")
	backup := filepath.Join(w.home, "backup.db")
	w.operate(t, "backup", backup)
	bob := w.login(t, "bob")
	content, err := os.ReadFile(backup)
	if err == nil {
		err = os.WriteFile(w.database(), content, 0o600) // as cp does
	}
	if err != nil {
		t.Fatal(err)
	}
	w.tryLogin(t, "cat").problem(t, 503, "store_unavailable")
	spent := w.wechat.Count(exchangePath)
	w.tryLogin(t, "cat").problem(t, 503, "store_unavailable")
	if n := w.wechat.Count(exchangePath); n != spent {
		t.Errorf("%d codes were spent for logins that nobody can have", n-spent)
	}
	for range 3 {
		if said := w.adminGet(t, "/wechat/status"); !strings.Contains(said, "reload with --force") {
			t.Errorf("status does not say what to do:\n%s", said)
		}
	}
	if said := w.operate(t, "check", "--local"); !strings.Contains(said, "degraded") {
		t.Errorf("the check says %s", said)
	}
	status, printed := w.command(t, "reload", "--force", "--address", w.admin, "--adapter",
		"caddyfile", "--config", "Caddyfile")
	if status != 0 {
		t.Fatalf("reloading ends with %d:\n%s", status, printed)
	}
	if said := w.adminGet(t, "/wechat/status"); !strings.Contains(said, `"up":true`) {
		t.Errorf("the status is %s", said)
	}
	w.checkAlive(t, ada, w.who(appA, "ada"))
	w.checkDead(t, bob) // it was made after the backup
	cat := w.login(t, "cat")
	w.gate.stop(t)
	w.start(t)
	w.checkAlive(t, ada, w.who(appA, "ada"))
	w.checkAlive(t, cat, w.who(appA, "cat"))
}
