package e2e_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// aclLine finds the rights that the README gives to the gates.
var aclLine = regexp.MustCompile(`(?m)^ACL SETUSER (.+?)( *#.*)?$`)

// TestReadme_FleetRights: with the rights that the README grants, and no
// others, everything works: the server notes no command that it had to refuse.
func TestReadme_FleetRights(t *testing.T) {
	t.Parallel()
	found := aclLine.FindAllStringSubmatch(readme(t), -1)
	if len(found) != 1 {
		t.Fatalf("the README has %d lines of that kind, want one", len(found))
	}
	rights := strings.Fields(
		strings.NewReplacer("<password>", fleetPassword, `'`, "").Replace(found[0][1]),
	)
	srv := redistest.Start(
		t, redistest.With("appendonly yes"), redistest.With("maxmemory-policy noeviction"),
	)
	srv.Do(append([]string{"ACL", "SETUSER"}, rights...)...)
	// WAIT is for these
	replica := redistest.Start(t, redistest.With("replicaof 127.0.0.1 "+srv.Port()))
	replica.Await(
		func(info string) bool { return strings.Contains(info, "master_link_status:up") }, "INFO",
		"replication",
	)

	s := both
	s.wechat = "\t\tlogin_rate 1000/s\n" // counts private addresses, too
	w := prepareWorld(t, shared(s, srv.Addr, "username "+rights[0]))
	w.start(t)
	w.takesLogins(t)
	w.operateAll(t)

	// Into a file and back.
	config := w.write(t, "Caddyfile", w.caddyfile(w.setup))
	kept := w.loginTo(t, appA, "ada")
	file := "bolt:" + w.home + "/copy.db"
	for _, args := range [][]string{
		{"--from", "redis", "--to", file}, {"--from", file, "--to", "redis"},
	} {
		if status, printed := w.command(t, append([]string{
			"wechat", "migrate", "--adapter", "caddyfile", "--config", config,
		}, args...)...); status != 0 {
			t.Fatalf("migrate %v ends with %d:\n%s", args, status, printed)
		}
	}
	w.checkAlive(t, kept, w.who(appA, "ada"))
	if n := w.gate.stop(t); n != 0 {
		t.Errorf("the gate ended with status %d", n)
	}
	w.start(t)
	w.checkAlive(t, kept, w.who(appA, "ada"))

	log := srv.Do("ACL", "LOG")
	entries, err := log.ToArray()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		m, err := e.AsMap()
		if err != nil {
			t.Fatal(err)
		}
		reason, object := m["reason"], m["object"]
		t.Errorf("refused: %s %s", text(reason), text(object))
	}
}

func text(m rueidis.RedisMessage) string {
	s, _ := m.ToString()
	return s
}

// operateAll does all that users and operators do.
func (w *world) operateAll(t *testing.T) {
	t.Helper()
	for range 12 { // more than one user may have
		w.loginTo(t, appA, "ada")
	}
	out, gone := w.loginTo(t, appA, "ada"), w.loginTo(t, appB, "bob")
	w.checkAlive(t, out, w.who(appA, "ada"))
	w.post(t, "/wx/logout", "", bearer(out)).made(t, 204)
	w.checkDead(t, out)
	for _, args := range [][]string{
		{"status"},
		{"sessions", "--appid", appA, "--openid", w.wechat.OpenID(appA, "ada")},
		{"sessions", "--unionid", w.wechat.UnionID("ada")},
		{"keys"},
		{"revoke", "--appid", appA, "--openid", w.wechat.OpenID(appA, "ada")},
		{"revoke", "--unionid", w.wechat.UnionID("ada")},
		{"forget", "--unionid", w.wechat.UnionID("ada")},
		{"revoke", "--appid", appB},
		{"revoke", "--all", "--yes"},
	} {
		w.operate(t, args...)
	}
	w.checkDead(t, gone)
}

// TestReadme_FleetOptions: the table names exactly the words that the parser knows.
func TestReadme_FleetOptions(t *testing.T) {
	around := func(lines string) string {
		return "{\nwechat {\napp " + appA + " {env.X}\nstore redis a:1 {\n" + lines + "\n}\n}\n}\n"
	}
	table := optionTable(t, readme(t), "In the block `store redis`:")
	if got, want := keys(table), standsHere(t, around("no_such_word")); !slices.Equal(got, want) {
		t.Errorf("the table names %q, the parser knows %q", got, want)
	}
	for word, inner := range table {
		_, err := adapt(around(word + " {\nno_such_word\n}"))
		if err == nil || !strings.Contains(err.Error(), "expected ") {
			if len(inner) > 0 {
				t.Errorf("the table gives %s the words %q, the parser none", word, inner)
			}
			continue
		}
		want := standsHere(t, around(word+" {\nno_such_word\n}"))
		if slices.Sort(inner); !slices.Equal(inner, want) {
			t.Errorf("the table gives %s the words %q, the parser knows %q", word, inner, want)
		}
	}
}
