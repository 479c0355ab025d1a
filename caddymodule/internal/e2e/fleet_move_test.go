package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestFleet_MoveFromBolt moves the sessions of a running gate from bolt to
// Redis, as the README tells. Nobody has to log in again, and nobody who logged
// out is back.
func TestFleet_MoveFromBolt(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, setup{})
	w := f.a
	later := w.setup
	w.setup = setup{}.complete()
	w.env = later.env
	w.start(t)
	key := w.database() + ".key"
	later.wechat = strings.Replace(later.wechat, "{env.WX_SEAL_KEY}", "{file."+key+"}", 1)

	kept, ended := w.login(t, "ada"), w.login(t, "ada")
	backup := filepath.Join(w.home, "before.db")
	w.operate(t, "backup", backup)
	config := w.write(t, "new.Caddyfile", w.caddyfile(later))
	migrate := func(args ...string) string {
		t.Helper()
		status, printed := w.command(t, append([]string{
			"wechat", "migrate", "--to", "redis", "--adapter", "caddyfile", "--config", config,
		}, args...)...)
		if status != 0 {
			t.Fatalf("migrate ends with %d:\n%s", status, printed)
		}
		return printed
	}
	if printed := migrate("--from", "bolt:"+backup); !strings.Contains(printed,
		"2 live sessions, 2 of them new there") {
		t.Errorf("migrate prints\n%s", printed)
	}

	between := w.login(t, "bob")
	w.post(t, "/wx/logout", "", bearer(ended)).made(t, 204)
	w.mustReload(t, later)
	w.takesLogins(t)
	w.checkAlive(t, kept, w.who(appA, "ada"))
	after := w.login(t, "cid")
	printed := migrate("--from", "bolt:"+w.database(), "--since", "bolt:"+backup)
	if !strings.Contains(printed, "1 session ended since the backup") ||
		!strings.Contains(printed, "1 live session, 1 of them new there") {
		t.Errorf("migrate prints\n%s", printed)
	}

	f.b.setup.wechat = later.wechat
	f.b.start(t)
	f.b.takesLogins(t)
	for _, w := range f.gates() {
		w.checkAlive(t, kept, w.who(appA, "ada"))
		w.checkAlive(t, between, w.who(appA, "bob"))
		w.checkAlive(t, after, w.who(appA, "cid"))
		w.refuses(t, ended)
	}
}
