package command

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

func init() { caddy.RegisterModule(new(shelf)) }

// shelf stands for a store that gates share: a configuration has to name it,
// and it keeps no key.
type shelf struct {
	Path string `json:"path"`
}

func (shelf) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "wechat.stores.shelf",
		New: func() caddy.Module { return new(shelf) },
	}
}

func (s *shelf) Identity() string { return "shelf:" + s.Path }

func (s *shelf) Open(*zap.Logger) (store.Store, error) {
	return bolt.Open(bolt.Config{Path: s.Path})
}

// migrateWorld is a database and a configuration with another store.
type migrateWorld struct {
	t      testing.TB
	dir    string
	config string
}

func newMigrateWorld(t testing.TB) *migrateWorld {
	t.Helper()
	caddytest.SetSecrets(t)
	w := &migrateWorld{t: t, dir: t.TempDir()}
	w.config = w.configure("caddy.json", "shelf", "{env.WX_SEAL_KEY}")
	w.open("sessions.db", func(s store.Store) {
		ended := map[store.MasterKeyID]time.Time{{9}: time.Now().Add(-time.Hour)}
		if err := s.(store.Loader).NeedMasterKeys(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
	})
	return w
}

func (w *migrateWorld) path(name string) string { return filepath.Join(w.dir, name) }

// configure writes a configuration and returns its path.
func (w *migrateWorld) configure(name, kind, sealKey string) string {
	text := fmt.Sprintf(`{"apps":{"wechat":{
		"apps":[{"appid":%q,"secret":"{env.WX_SECRET}"}],
		"seal_key":%q,
		"store":{"type":%q,"path":%q}
	}}}`, caddytest.AppID, sealKey, kind, w.path("shelf.db"))
	if err := os.WriteFile(w.path(name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.path(name)
}

// open opens a store of the world for as long as f runs.
func (w *migrateWorld) open(name string, f func(store.Store)) {
	w.t.Helper()
	s, err := bolt.Open(bolt.Config{Path: w.path(name)})
	if err != nil {
		w.t.Fatal(err)
	}
	f(s)
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// userOf returns the user with an OpenID.
func userOf(openID string) store.UserID {
	return store.UserID{AppID: caddytest.AppID, OpenID: openID}
}

// login makes sessions of users, named by user and number.
func (w *migrateWorld) login(name string, who ...string) {
	w.t.Helper()
	w.open(name, func(s store.Store) {
		for _, n := range who {
			openID, _, _ := strings.Cut(n, ".")
			now := time.Now()
			l := store.Login{
				User:      userOf(openID),
				Digest:    digestOf(n),
				MasterKey: signingKey(w.t),
				Created:   now,
				Expires:   now.Add(time.Hour),
				Key:       store.SealedKey{Tag: [8]byte{1}, Box: []byte("box")},
			}
			if _, err := s.Login(w.t.Context(), l); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

func (w *migrateWorld) end(name string, who ...string) {
	w.t.Helper()
	w.open(name, func(s store.Store) {
		for _, n := range who {
			if err := s.End(w.t.Context(), digestOf(n), store.EndLogout); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

// check demands that of the sessions given those hold that want names.
func (w *migrateWorld) check(name string, all, want string) {
	w.t.Helper()
	w.open(name, func(s store.Store) {
		var got []string
		for n := range strings.FieldsSeq(all) {
			rec, err := s.Lookup(w.t.Context(), digestOf(n))
			if err == nil && rec.Current == rec.Session.Epochs {
				got = append(got, n)
			}
		}
		if strings.Join(got, " ") != want {
			w.t.Errorf("in %s these hold: %q, want %q", name, got, want)
		}
	})
}

func (w *migrateWorld) run(args ...string) (status int, out, said string) {
	w.t.Helper()
	return caddytest.RunCommand(w.t, migrateCommand(), args...)
}

// must runs the command, which must succeed, and returns its result.
func (w *migrateWorld) must(args ...string) (r migrated) {
	w.t.Helper()
	status, out, said := w.run(append(args, "--json", "--config", w.config)...)
	if status != 0 {
		w.t.Fatalf("status %d: %s", status, said)
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	return r
}

// signingKey names the key of seal_key.
func signingKey(t testing.TB) store.MasterKeyID {
	t.Helper()
	ring, err := keyring.Parse(caddytest.SealKey)
	if err != nil {
		t.Fatal(err)
	}
	return store.MasterKeyID(ring.Signer())
}

func TestMigrate(t *testing.T) {
	w := newMigrateWorld(t)
	w.login("sessions.db", "ada.1", "ada.2", "bob.1", "eve.1")
	w.end("sessions.db", "eve.1")
	db := "bolt:" + w.path("sessions.db")
	key := signingKey(t).String()

	status, out, said := w.run("--from", db, "--to", "shelf", "--config", w.config)
	want := fmt.Sprintf("From %s to shelf:%s.\n"+
		"3 users, 3 of them new there; 3 live sessions, 3 of them new there.\n"+
		"The gates need the master keys of these sessions, %s, "+
		"in seal_key until `wxgate wechat keys` no longer calls them needed.\n",
		db, w.path("shelf.db"), key)
	if status != 0 || out != want {
		t.Errorf("status %d, %s\nprinted %s\nwant    %s", status, said, out, want)
	}
	w.check("shelf.db", "ada.1 ada.2 bob.1 eve.1", "ada.1 ada.2 bob.1")
	w.open("shelf.db", func(s store.Store) {
		keys, err := s.MasterKeys(t.Context())
		if until := keys[signingKey(t)]; err != nil || len(keys) != 1 ||
			until.Before(time.Now().Add(30*time.Minute)) {
			t.Errorf("the keys on record are %v, %v", keys, err)
		}
	})

	r := w.must("--from", db, "--to", "shelf")
	if r.Users != (migratedAmount{3, 0}) || r.Sessions != (migratedAmount{3, 0}) ||
		len(r.Keys) != 1 || r.Keys[0] != key || r.Ended != 0 || r.Damaged != 0 {
		t.Errorf("the second time it did %+v", r)
	}
	_, out, _ = w.run("--from", db, "--to", "shelf", "--config", w.config)
	if !strings.Contains(out, "--since <backup> prevents that") {
		t.Errorf("it does not warn:\n%s", out)
	}
}

// TestMigrateBack: and from there into a file.
func TestMigrateBack(t *testing.T) {
	w := newMigrateWorld(t)
	w.login("sessions.db", "ada.1", "bob.1")
	w.must("--from", "bolt:"+w.path("sessions.db"), "--to", "shelf")
	w.login("shelf.db", "ada.2")
	w.end("shelf.db", "bob.1")
	r := w.must("--from", "shelf", "--to", "bolt:"+w.path("new.db"))
	if r.Users != (migratedAmount{2, 2}) || r.Sessions != (migratedAmount{2, 2}) {
		t.Errorf("it did %+v", r)
	}
	w.check("new.db", "ada.1 ada.2 bob.1", "ada.1 ada.2")
	w.open("new.db", func(s store.Store) {
		if keys, err := s.MasterKeys(t.Context()); err != nil || keys[signingKey(t)].IsZero() {
			t.Errorf("the keys on record are %v, %v", keys, err)
		}
	})
}

// TestMigrateSince is the move of a gate that goes on running: what happens
// between backup and switch is carried over, and what happens behind the switch
// stays.
func TestMigrateSince(t *testing.T) {
	w := newMigrateWorld(t)
	const all = "ada.1 ada.2 ada.3 bob.1 bob.2 cid.1 dan.1 eve.1"
	w.login("sessions.db", "ada.1", "ada.2", "bob.1", "dan.1")
	backup, err := os.ReadFile(w.path("sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("before.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("--from", "bolt:"+w.path("before.db"), "--to", "shelf")

	w.login("sessions.db", "ada.3", "cid.1") // the gate still has its file
	w.end("sessions.db", "ada.1")
	w.open("sessions.db", func(s store.Store) {
		if err := s.RevokeUser(t.Context(), userOf("dan"), store.EndRevoked); err != nil {
			t.Fatal(err)
		}
	})
	w.login("shelf.db", "bob.2", "eve.1") // it has switched
	w.end("shelf.db", "bob.1")
	w.check("shelf.db", all, "ada.1 ada.2 bob.2 dan.1 eve.1")

	since := []string{
		"--from",
		"bolt:" + w.path("sessions.db"),
		"--since",
		"bolt:" + w.path("before.db"),
		"--to",
		"shelf",
	}
	for range 2 {
		r := w.must(since...)
		if r.Ended != 2 || r.Sessions.Read != 2 {
			t.Errorf("it did %+v", r)
		}
		w.check("shelf.db", all, "ada.2 ada.3 bob.2 cid.1 eve.1")
	}
	_, out, _ := w.run(append(since, "--config", w.config)...)
	if !strings.Contains(out, "2 sessions ended since the backup, and now there too.") {
		t.Errorf("it prints\n%s", out)
	}
}

// TestMigrateSinceForgotten: who was forgotten after the backup, in the old
// store or in the new one, is not brought back.
func TestMigrateSinceForgotten(t *testing.T) {
	w := newMigrateWorld(t)
	const all = "ada.1 bob.1 bob.2 cid.1 dan.1 eve.1 eve.2"
	w.login("sessions.db", "ada.1", "bob.1", "cid.1", "dan.1", "eve.1")
	backup, err := os.ReadFile(w.path("sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("before.db"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("--from", "bolt:"+w.path("before.db"), "--to", "shelf")
	forget := func(db string, users ...string) {
		w.open(db, func(s store.Store) {
			for _, u := range users {
				if err := s.Forget(t.Context(), userOf(u), store.EndForgotten); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	forget("sessions.db", "ada", "bob", "eve") // the gate still has its file
	w.login("sessions.db", "bob.2")            // as a new user
	forget("shelf.db", "cid")                  // it has switched
	w.login("shelf.db", "eve.2")               // as a new user, too
	for range 2 {
		w.must("--from", "bolt:"+w.path("sessions.db"), "--since", "bolt:"+w.path("before.db"),
			"--to", "shelf")
		w.check("shelf.db", all, "bob.2 dan.1 eve.2")
		w.open("shelf.db", func(s store.Store) {
			for _, u := range []string{"ada", "cid"} {
				got, err := s.User(t.Context(), userOf(u))
				if !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s is known as %+v, %v", u, got, err)
				}
			}
		})
	}
}

func TestMigrateRefuses(t *testing.T) {
	w := newMigrateWorld(t)
	w.login("sessions.db", "ada.1")
	db := "bolt:" + w.path("sessions.db")
	other := keyring.NewMasterKey()
	t.Setenv("OTHER_KEY", other)
	junk := w.path("junk.db")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	noStore := "a store is bolt:<file>"
	noKey := w.configure("empty.json", "shelf", "{env.NO_SUCH_KEY}")
	otherKey := w.configure("other.json", "shelf", "{env.OTHER_KEY}")
	switched := w.configure("switch.json", "switch", "{env.WX_SEAL_KEY}")
	fleet := w.configure("fleet.json", "fleet", "{env.WX_SEAL_KEY}")
	url := "redis://:" + caddytest.Canary + "@localhost"
	for _, tt := range []struct {
		name          string
		from, to      string
		since, config string
		want          string
	}{
		{name: "nothing", want: `"from", "to" not set`},
		{name: "the same", from: db, to: db, want: "are the same store"},
		{name: "no store", from: db, to: "file:x", want: noStore},
		{name: "bolt without file", from: "bolt", to: "shelf", want: noStore},
		{name: "bolt with an empty file", from: "bolt:", to: "shelf", want: noStore},
		{name: "a URL", from: db, to: url, want: noStore},
		{
			name: "another store", from: db, to: "redis",
			want: "the store of the configuration is shelf, not redis",
		},
		{
			name: "target cannot load", from: db, to: "switch", config: switched,
			want: "the store switch cannot be added to",
		},
		{
			name: "source cannot dump", from: "fleet", to: db, config: fleet,
			want: "the store fleet cannot be read out",
		},
		{
			name: "no configuration", from: db, to: "shelf", config: w.path("none.json"),
			want: "none.json",
		},
		{
			name: "empty seal_key", from: db, to: "shelf", config: noKey,
			want: "seal_key {env.NO_SUCH_KEY} is empty here",
		},
		{
			name: "another seal_key", from: db, to: "shelf", config: otherKey,
			want: signingKey(t).String() + "): put the content of <database>.key",
		},
		{name: "no file", from: "bolt:" + w.path("none.db"), to: "shelf", want: "none.db"},
		{
			name: "no store in the file", from: "bolt:" + junk, to: "shelf",
			want: "junk.db: the file is damaged or not a session store",
		},
		{
			name: "since no file", from: db, to: "shelf", since: "shelf",
			want: "--since takes a backup",
		},
		{
			name: "since of no file", from: "shelf", to: "bolt:" + w.path("new.db"), since: db,
			want: "--since takes a backup",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var args []string
			if tt.from != "" {
				config := cmp.Or(tt.config, w.config)
				args = []string{"--from", tt.from, "--to", tt.to, "--config", config}
			}
			if tt.since != "" {
				args = append(args, "--since", tt.since)
			}
			status, out, said := w.run(args...)
			if status != cli.Failed || out != "" || !strings.Contains(said, tt.want) {
				t.Errorf("status %d, printed %q, said\n%s\nwant %q", status, out, said, tt.want)
			}
			for _, secret := range []string{caddytest.SealKey, other, caddytest.Canary} {
				if strings.Contains(said, secret) {
					t.Error("a secret is shown")
				}
			}
		})
	}
	w.open("sessions.db", func(store.Store) {
		var said strings.Builder
		m := migration{
			from:     db,
			to:       "shelf",
			config:   w.config,
			progress: &said,
			patience: time.Second + time.Millisecond,
		}
		if _, err := m.run(t.Context()); err == nil ||
			!strings.Contains(err.Error(), "another running instance") ||
			!strings.Contains(said.String(), "waiting for the gate") {
			t.Errorf("while a gate has the file: %v, said %q", err, &said)
		}
	})
	w.check("shelf.db", "ada.1", "")
	if _, err := os.Stat(w.path("none.db")); err == nil {
		t.Error("a file was made of the one to read")
	}
}

func TestMigrateProgress(t *testing.T) {
	w := newMigrateWorld(t)
	w.login("sessions.db", "ada.1", "ada.2", "bob.1")
	var said strings.Builder
	m := migration{
		from:     "bolt:" + w.path("sessions.db"),
		to:       "shelf",
		config:   w.config,
		progress: &said,
	}
	if _, err := m.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(said.String(), "\n"); len(lines) != 3 ||
		lines[1] != "2 of 2 users, 3 sessions" {
		t.Errorf("it says\n%s", &said)
	}
}

// away is a store whose server comes, or does not.
type away struct {
	store.Store
	from time.Time
}

func (a away) Health(context.Context) error {
	if time.Now().Before(a.from) {
		return fmt.Errorf("%w: connection refused", store.ErrUnavailable)
	}
	return nil
}

// TestMigrateReach: a store is opened before its server was reached, which may
// take a moment, and is not waited for long.
func TestMigrateReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := reach(t.Context(), away{from: time.Now().Add(3 * time.Second)}); err != nil {
			t.Error(err)
		}
		err := reach(t.Context(), away{from: time.Now().Add(time.Hour)})
		if !errors.Is(err, store.ErrUnavailable) ||
			!strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := reach(ctx, away{from: time.Now().Add(time.Hour)}); err == nil ||
			time.Since(began) > time.Second {
			t.Errorf("got %v after an interrupt", err)
		}
	})
}

func digestOf(name string) store.Digest { return sha256.Sum256([]byte(name)) }

// TestMigrate_Blocks_GoAlong: those that hold, and none that was in the backup before.
func TestMigrate_Blocks_GoAlong(t *testing.T) {
	w := newMigrateWorld(t)
	const fact, since = "blocks 7f", `"since":"2026-01-31T15:04:05Z"`
	set := func(name, value string) {
		w.open(name, func(s store.Store) {
			was, err := s.Fact(t.Context(), fact)
			if err == nil {
				_, err = s.SetFact(t.Context(), fact, was, []byte(value))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	check := func(want ...string) {
		t.Helper()
		w.open("shelf.db", func(s store.Store) {
			got, err := s.Fact(t.Context(), fact)
			if err != nil || strings.Count(string(got), "unionid") != len(want) {
				t.Errorf("there is %s, %v, want %v", got, err, want)
			}
			for _, unionID := range want {
				if !strings.Contains(string(got), `"`+unionID+`"`) {
					t.Errorf("%s is not in %s", unionID, got)
				}
			}
		})
	}
	set("before.db", `[{"unionid":"old",`+since+`}]`)
	set("sessions.db", `[{"unionid":"old",`+since+`},{"unionid":"new",`+since+`},
		{"unionid":"over",`+since+`,"until":"2026-01-31T15:04:06Z"}]`)
	set("shelf.db", `[{"unionid":"there",`+since+`}]`)
	from := []string{"--from", "bolt:" + w.path("sessions.db"), "--to", "shelf"}
	r := w.must(append(from, "--since", "bolt:"+w.path("before.db"))...)
	if r.Blocks != 1 {
		t.Errorf("copied %d", r.Blocks)
	}
	check("there", "new")
	for range 2 {
		if r := w.must(from...); r.Blocks != 2 {
			t.Errorf("copied %d", r.Blocks)
		}
		check("there", "new", "old")
	}
}

// TestMigrate_AssertionKeys_GoAlong: verifiers see no change, unless the target signs
// with keys of its own, or seal_key does not open those of the source.
func TestMigrate_AssertionKeys_GoAlong(t *testing.T) {
	w := newMigrateWorld(t)
	keys := func(name, sealKey string) string {
		ring, err := keyring.Parse(sealKey)
		if err != nil {
			t.Fatal(err)
		}
		var k assertion.Keys
		w.open(name, func(s store.Store) {
			if err := k.Load(t.Context(), assertion.Box{Facts: s, Ring: ring}, false); err != nil {
				t.Fatal(err)
			}
		})
		return k.List()[0].ID
	}
	from := []string{"--from", "bolt:" + w.path("sessions.db"), "--to", "shelf"}
	if r := w.must(from...); r.AssertionKeys {
		t.Error("copied from a store without any")
	}
	keys("foreign.db", keyring.NewMasterKey())
	if r := w.must("--from", "bolt:"+w.path("foreign.db"), "--to", "shelf"); r.AssertionKeys {
		t.Error("copied what seal_key does not open")
	}
	ours := keys("sessions.db", caddytest.SealKey)
	for _, want := range []bool{true, true} { // again after an error
		if r := w.must(from...); r.AssertionKeys != want {
			t.Errorf("copied: %v, want %v", r.AssertionKeys, want)
		}
	}
	if got := keys("shelf.db", caddytest.SealKey); got != ours {
		t.Errorf("the target signs with %s, want %s", got, ours)
	}
	keys("other.db", caddytest.SealKey)
	if r := w.must("--from", "bolt:"+w.path("other.db"), "--to", "shelf"); r.AssertionKeys {
		t.Error("replaced the keys of the target")
	}
	if got := keys("shelf.db", caddytest.SealKey); got != ours {
		t.Errorf("the target signs with %s, want %s", got, ours)
	}
}
