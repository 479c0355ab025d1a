package e2e_test

import (
	"fmt"
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

// TestFleet_MigrateRefuses refuses a migration to a configuration whose
// seal_key lacks the master keys.
func TestFleet_MigrateRefuses(t *testing.T) {
	slow(t)
	t.Parallel()
	f := prepareFleet(t, setup{})
	w := f.a
	later := w.setup
	w.setup = setup{}.complete()
	w.env = later.env
	w.start(t)
	w.login(t, "ada")
	if n := w.gate.stop(t); n != 0 {
		t.Fatalf("the gate ended with status %d", n)
	}
	migrate := func() (int, string) {
		return w.command(t, "wechat", "migrate", "--from", "bolt:"+w.database(), "--to", "redis",
			"--adapter", "caddyfile", "--config", w.write(t, "new.Caddyfile", w.caddyfile(later)))
	}
	if status, printed := migrate(); status != 1 ||
		!strings.Contains(printed, "seal_key lacks the master keys") {
		t.Errorf("with another key: status %d:\n%s", status, printed)
	}
	written := f.redis.Do("KEYS", "wxgate:[suek]*")
	if keys, err := written.AsStrSlice(); err != nil || len(keys) > 0 {
		t.Errorf("these keys were written: %q, %v", keys, err)
	}
	later.wechat = strings.Replace(later.wechat, "{env.WX_SEAL_KEY}", "{file."+w.database()+".key}",
		1)
	f.redis.Kill()
	if status, printed := migrate(); status != 2 ||
		!strings.Contains(printed, "reaching session store") {
		t.Errorf("without a server: status %d:\n%s", status, printed)
	}
}

// TestFleet_RotateKeys adds a master key behind the old one at all gates, then
// puts it in front. Nobody is logged out, at any gate.
func TestFleet_RotateKeys(t *testing.T) {
	t.Parallel()
	f := prepareFleet(t, setup{})
	// Two that may be in one ring, as one pair in 64 may not.
	const first, next = fleetSealKey, "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	put := func(w *world, keys ...string) {
		t.Helper()
		w.write(t, "master.keys", strings.Join(keys, "\n")+"\n")
	}
	made := make(map[string]string) // users by their token
	step := func() {
		t.Helper()
		for _, w := range f.gates() {
			w.takesLogins(t)
			user := fmt.Sprint("user-", len(made))
			made[w.login(t, user)] = user
		}
		for _, w := range f.gates() {
			for token, user := range made {
				w.checkAlive(t, token, w.who(appA, user))
			}
		}
	}
	for _, w := range f.gates() {
		w.setup.wechat = strings.Replace(w.setup.wechat, "{env.WX_SEAL_KEY}",
			"{file."+filepath.Join(w.home, "master.keys")+"}", 1)
		put(w, first)
		w.start(t)
	}
	step()
	for _, keys := range [][]string{{first, next}, {next, first}} {
		for _, w := range f.gates() {
			put(w, keys...)
			w.mustReload(t, w.setup)
			step()
		}
	}
	put(f.a, next)
	if status, said := f.a.reload(t, f.a.caddyfile(f.a.setup)); status == 200 ||
		!strings.Contains(said, "needed until") {
		t.Errorf("dropping a needed key is answered with %d %s", status, said)
	}
	step()
}
