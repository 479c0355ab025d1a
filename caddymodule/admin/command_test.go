package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

func address(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

// TestAdminTables are what people read, byte for byte.
func TestAdminTables(t *testing.T) {
	at := func(text string) time.Time {
		m, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	up := statusAnswer{
		Version: versionStatus{WXGate: "v0.2.0", Caddy: "v2.11.9", Go: "go1.26.8"},
		Store: storeStatus{
			Name:   "bolt:/var/lib/wxgate/sessions.db",
			Up:     true,
			Counts: &storeCounts{Sessions: 12, Users: 1, Bytes: 32 << 20, FreeBytes: 9000},
		},
		Cache:  cacheStatus{Sessions: 7, Max: 1_000_000},
		WeChat: wechatStatus{BaseURL: "https://api.weixin.qq.com"},
		Logins: loginStatus{
			InFlight:    3,
			MaxInFlight: 512,
			PerClient:   "30/m",
			PerPrivate:  "off",
			Global:      "60000/m",
		},
		Sessions: sessionStatus{TTL: "48h0m0s", Idle: "24h0m0s", MaxPerUser: 10},
		Apps:     []string{caddytest.AppID, caddytest.OtherAppID},
	}
	lately := time.Now().Add(-time.Hour - time.Second/4)
	ahead := -90.0
	trouble := callStatus{
		State: "down", LastSuccess: &lately, LastErrorAt: &lately, Calls: 9, Failed: 8,
		LastError: "exchanging code: h: HTTP 407 from a proxy",
	}
	trouble.Since = new(at("2026-05-04T03:02:01Z"))
	refused := statusAnswer{
		Version: up.Version, Store: up.Store, Cache: up.Cache, Logins: up.Logins,
		Sessions: up.Sessions, Apps: up.Apps,
		WeChat: wechatStatus{
			BaseURL: "https://h", Logins: trouble, ClockAhead: &ahead,
			Calls: callStatus{
				State: "well", LastErrorAt: &lately, LastError: "getting access token: errcode 1",
			},
			Secrets: map[string]string{caddytest.AppID: "previous"},
		},
	}
	down := statusAnswer{
		Version: up.Version,
		Store:   storeStatus{Name: "bolt:/a b", Heard: "12.345s", Owed: 2},
		Cache:   cacheStatus{Sessions: 1, Max: 5},
		WeChat: wechatStatus{
			BaseURL: "https://api.weixin.qq.com", BreakerOpen: true, CallsRefused: true,
		},
		Logins: loginStatus{
			MaxInFlight: 512,
			PerClient:   "1/s",
			PerPrivate:  "1/s",
			Global:      "5/h",
		}, Sessions: sessionStatus{TTL: "1h0m0s"}, Apps: []string{caddytest.AppID},
	}
	users := sessionsAnswer{Users: []userAnswer{
		{
			AppID:     caddytest.AppID,
			OpenID:    "oAda",
			UnionID:   "uAda",
			LastLogin: at("2026-05-04T03:02:01Z"),
			Sessions: []sessionRow{
				{
					ID:       "0123456789abcdef",
					State:    "live",
					Created:  at("2026-05-04T03:02:01Z"),
					LastSeen: at("2026-05-04T04:00:00+01:00"),
					Expires:  at("2026-05-06T03:02:01Z"),
				},
				{
					ID:       "fedcba9876543210",
					State:    "expired",
					Created:  at("2026-05-01T03:02:01Z"),
					LastSeen: at("2026-05-01T04:00:00Z"),
					Expires:  at("2026-05-03T03:02:01Z"),
				},
			},
		},
		{
			AppID: caddytest.OtherAppID, OpenID: "o\x1b[31mBob", Sessions: []sessionRow{},
			Ends: []endRow{{
				ID: "0123456789abcdef", Reason: "evicted", Created: at("2026-05-01T03:02:01Z"),
				Ended: at("2026-05-02T03:02:01Z"),
			}},
		},
	}}
	blocks := blockedAnswer{Blocked: []session.Block{
		{
			Blocked: session.Blocked{AppID: caddytest.AppID, OpenID: "o\x1b[31mBob"},
			Since:   at("2026-05-04T03:02:01Z"), Until: at("2026-05-06T03:02:01Z"),
			Reason: "卖票 \"x\"\x1b[31m",
		},
		{
			Blocked: session.Blocked{
				Person: session.Person{UnionID: "uA", OpenPlatform: "b"},
			},
			Since: at("2026-05-01T00:00:00Z"),
		},
	}}
	keys := keysAnswer{
		Keys: []keyRow{
			{ID: "aabbccdd", State: keySigns},
			{ID: "00112233", State: keyNeeded, NeededUntil: at("2026-05-06T03:02:01Z")},
			{ID: "44556677", State: keySpare},
		},
	}
	for _, tt := range []struct {
		name  string
		write func(io.Writer) error
		want  string
	}{
		{"up", func(w io.Writer) error { return writeStatus(w, up) }, `
wxgate    v0.2.0, Caddy v2.11.9, go1.26.8
store     up, bolt:/var/lib/wxgate/sessions.db
          12 sessions of 1 user, including ended ones not yet removed
          32 MiB, 9000 B of it free
cache     7 sessions of 1000000
WeChat    logins go out, https://api.weixin.qq.com
logins    3 under way, at most 512
          limits: 30/m per client, off per private address, 60000/m for all
sessions  life 48h0m0s, idle 24h0m0s, at most 10 per user
apps      wx0123456789abcdef wxfedcba9876543210
`},
		{"down", func(w io.Writer) error { return writeStatus(w, down) }, `
wxgate    v0.2.0, Caddy v2.11.9, go1.26.8
store     DOWN, "bolt:/a b"
          heard of 12.345s ago
          2 revocations not taken by the store yet; this gate refuses them and retries
cache     1 session of 5
WeChat    DOWN: the breaker is open, logins are refused at once, https://api.weixin.qq.com
          DOWN: the breaker is open, calls for numbers, keys and access tokens are refused
logins    0 under way, at most 512
          limits: 1/s per client, 1/s per private address, 5/h for all
sessions  life 1h0m0s, no idle limit, any number per user
apps      wx0123456789abcdef
`},
		{"WeChat refused", func(w io.Writer) error { return writeStatus(w, refused) }, `
wxgate    v0.2.0, Caddy v2.11.9, go1.26.8
store     up, bolt:/var/lib/wxgate/sessions.db
          12 sessions of 1 user, including ended ones not yet removed
          32 MiB, 9000 B of it free
cache     7 sessions of 1000000
WeChat    DOWN: logins fail, https://h
          logins: last success 1h0m0s ago
          logins: last error 1h0m0s ago: exchanging code: h: HTTP 407 from a proxy
          logins: 8 of 9 failed since 2026-05-04 03:02:01Z
          other calls: last success never
          other calls: last error 1h0m0s ago: getting access token: errcode 1
          clock -90 s from this machine's: SET THIS MACHINE'S CLOCK
          previous AppSecret of wx0123456789abcdef is in use
logins    3 under way, at most 512
          limits: 30/m per client, off per private address, 60000/m for all
sessions  life 48h0m0s, idle 24h0m0s, at most 10 per user
apps      wx0123456789abcdef wxfedcba9876543210
`},
		{"sessions", func(w io.Writer) error { return writeSessions(w, users) }, `
appid       wx0123456789abcdef
openid      oAda
unionid     uAda
last login  2026-05-04 03:02:01Z
SESSION           STATE    CREATED               LAST SEEN             EXPIRES
0123456789abcdef  live     2026-05-04 03:02:01Z  2026-05-04 03:00:00Z  2026-05-06 03:02:01Z
fedcba9876543210  expired  2026-05-01 03:02:01Z  2026-05-01 04:00:00Z  2026-05-03 03:02:01Z

appid       wxfedcba9876543210
openid      "o\x1b[31mBob"
unionid     none known
last login  -
no sessions
ENDED             REASON   CREATED               ENDED AT
0123456789abcdef  evicted  2026-05-01 03:02:01Z  2026-05-02 03:02:01Z
`},
		{
			"nobody", func(w io.Writer) error { return writeSessions(w, sessionsAnswer{}) },
			"\nNo such user has logged in here.\n",
		},
		{"keys", func(w io.Writer) error { return writeKeys(w, keys) }, `
KEY       STATE       NEEDED UNTIL
aabbccdd  signs       -
00112233  needed      2026-05-06 03:02:01Z
44556677  not needed  -
`},
		{"revoked", func(w io.Writer) error {
			return writeRevoked(
				w, adminTarget{},
				revokeAnswer{Target: "unionid", Ended: &ended{Users: 2, Sessions: 1}},
			)
		}, "\nEnded 1 live session of 2 users.\n"},
		{"forgotten", func(w io.Writer) error {
			return writeForgotten(
				w, forgetAnswer{Target: "unionid", Forgotten: &ended{Users: 2, Sessions: 1}},
			)
		}, "\nForgot 2 users with 1 live session.\n"},
		{"blocked", func(w io.Writer) error { return writeBlocked(w, blocks) }, `
APPID               OPENID          UNIONID  SINCE                 UNTIL                 REASON
wx0123456789abcdef  "o\x1b[31mBob"  -        2026-05-04 03:02:01Z  2026-05-06 03:02:01Z  卖票 "x"?[31m
-                   -               uA of b  2026-05-01 00:00:00Z  -                     -
`},
		{"nobody to forget", func(w io.Writer) error {
			return writeForgotten(w, forgetAnswer{Target: "user", Forgotten: new(ended)})
		}, "\nNo such user was known.\n"},
		{
			"forgotten without a count",
			func(w io.Writer) error { return writeForgotten(w, forgetAnswer{Target: "user"}) },
			"\nForgotten.\n",
		},
		{"revoked app", func(w io.Writer) error {
			return writeRevoked(w, adminTarget{AppID: caddytest.AppID}, revokeAnswer{Target: "app"})
		}, "\nEnded every session of the mini program " + caddytest.AppID + ".\n"},
		{
			"revoked all",
			func(w io.Writer) error {
				return writeRevoked(w, adminTarget{All: true}, revokeAnswer{Target: "all"})
			},
			"\nEnded every session.\n",
		},
	} {
		var b strings.Builder
		if err := tt.write(&b); err != nil || "\n"+b.String() != tt.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tt.name, err, b.String(), tt.want)
		}
	}
}

// TestAdminCommands: what is asked, with what status it ends, and what is said.
func TestAdminCommands(t *testing.T) {
	w := apptest.Started(t)
	s := adminServer(t)
	loginKnown(w, caddytest.AppID, "ada")
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	yes := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"target":"all"}`) },
		),
	)
	defer yes.Close()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		reply.Mark(w.Header())
		io.WriteString(w, "{")
	}))
	defer cut.Close()
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tadmin "+address(s)+"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const nowhere = "--address 127.0.0.1:1"
	here, ada := "--address "+address(s), "--openid ada --appid "+caddytest.AppID
	file := filepath.Join(t.TempDir(), "b")
	// Two blanks stand for an empty value.
	for _, tt := range []struct {
		name   string
		cmd    *cobra.Command
		args   string
		status int
		want   string
	}{
		{"status", statusCommand(), here, 0, "store     up, switch:"},
		{
			"status by the configuration", statusCommand(),
			"--adapter caddyfile --config " + config, 0, "store     up, switch:",
		},
		{"sessions", sessionsCommand(), here + " " + ada, 0, "openid      ada"},
		{
			"sessions by unionid", sessionsCommand(), here + " --unionid u-ada", 0,
			"openid      ada",
		},
		{
			"sessions of an Open Platform account", sessionsCommand(),
			here + " --unionid u-ada --open-platform default", 0, "openid      ada",
		},
		{"nobody", sessionsCommand(), here + " --unionid u?&=x", 0, "No such user"},
		{"keys", keysCommand(), here, 0, "signs"},
		{"no gate", statusCommand(), nowhere, cli.Unreachable, "127.0.0.1:1"},
		{
			"no gate to revoke", revokeCommand(), nowhere + " --all --yes", cli.Unreachable,
			"reaching the gate",
		},
		{
			"no gate to back up", backupCommand(), nowhere + " " + file, cli.Unreachable,
			"reaching the gate",
		},
		{
			"no address", statusCommand(), nowhere + "-9", cli.Unreachable,
			"invalid admin address",
		},
		{
			"half an answer", statusCommand(), "--address " + address(cut), cli.Unreachable,
			"reading the gate's answer",
		},
		{
			"no configuration", statusCommand(), "--config " + config + "x", cli.Failed,
			"finding the admin address",
		},
		{
			"another program", statusCommand(), "--address " + address(plain), cli.Failed,
			"HTTP 404: does a gate run there",
		},
		{
			"a program that says yes", revokeCommand(), "--all --yes --address " + address(yes),
			cli.Failed, "is no gate",
		},
		{
			"a program that says yes, for a script", statusCommand(),
			"--json --address " + address(yes), cli.Failed, "is no gate",
		},
		{"too much", statusCommand(), here + " x", cli.Failed, "unknown command"},
		{"sessions of whom", sessionsCommand(), here, cli.Failed, "say whose"},
		{
			"sessions of an empty openid", sessionsCommand(),
			here + " --appid " + caddytest.AppID + " --openid  ", cli.Failed, "say whose",
		},
		{
			"sessions of two", sessionsCommand(),
			here + " --unionid u --appid " + caddytest.AppID, cli.Failed, "say whose",
		},
		{"revoke whom", revokeCommand(), here, cli.Failed, "say whose"},
		{
			"revoke an empty openid", revokeCommand(),
			here + " --appid " + caddytest.AppID + " --openid  ", cli.Failed, "openid is empty",
		},
		{
			"revoke two", revokeCommand(), here + " --unionid u --appid " + caddytest.AppID,
			cli.Failed, "the gate refuses: name one target",
		},
		{
			"revoke of an unknown account", revokeCommand(),
			here + " --yes --unionid u --open-platform brand", cli.Failed,
			"no such Open Platform account",
		},
		{
			"revoke of an account without yes", revokeCommand(),
			here + " --unionid u --open-platform default", cli.Failed, "--yes",
		},
		{"revoke all without yes", revokeCommand(), here + " --all", cli.Failed, "--yes"},
		{
			"revoke not all", revokeCommand(), here + " --all=false --yes", cli.Failed,
			"one target",
		},
		{
			"revoke no session", revokeCommand(), here + " --session 00000000 " + ada,
			cli.Failed, "no such session",
		},
		{
			"revoke a token", revokeCommand(), here + " --session wxs_0123456789 " + ada,
			cli.Failed, "no id of a session",
		},
		{"forget whom", forgetCommand(), here, cli.Failed, "say whom"},
		{
			"forget an empty openid", forgetCommand(),
			here + " --yes --appid " + caddytest.AppID + " --openid  ", cli.Failed,
			"openid is empty",
		},
		{
			"forget an app", forgetCommand(), here + " --yes --appid " + caddytest.AppID,
			cli.Failed, "the gate refuses: name one target",
		},
		{"block whom", blockCommand(), here + " --for 1h", cli.Failed, "say whom"},
		{
			"block an app", blockCommand(), here + " --appid " + caddytest.AppID, cli.Failed,
			"the gate refuses: name one target",
		},
		{"block for a while", blockCommand(), here + " --for soon " + ada, cli.Failed, "or 30d"},
		{"nobody blocked", blockedCommand(), here, 0, "No user is blocked."},
		{"unblock whom", unblockCommand(), here, cli.Failed, "say whom"},
		{"unblock nobody", unblockCommand(), here + " " + ada, cli.Failed, "no block of that"},
		{"block a user", blockCommand(), here + " --for 3d --reason x " + ada, 0, "ended 1 live"},
		{"block a unionid", blockCommand(), here + " --yes --unionid u-x", 0, "Blocked for good"},
		{"blocked", blockedCommand(), here, 0, "  ada     -        "},
		{"unblock", unblockCommand(), here + " " + ada, 0, "Unblocked."},
		{"no file", backupCommand(), here, cli.Failed, "accepts 1 arg"},
		{"not this store", backupCommand(), here + " " + file, cli.Failed, "its own tools"},
		{
			"revoke a user", revokeCommand(), here + " " + ada, cli.Failed,
			"nobody had a live session",
		},
		{
			"revoke a unionid", revokeCommand(), here + " --yes --unionid u-ada", cli.Failed,
			"nobody had a live session",
		},
		{
			"forget a user", forgetCommand(), here + " --yes " + ada, 0,
			"Forgot 1 user with 0 live sessions.",
		},
		{
			"forget a unionid", forgetCommand(), here + " --yes --unionid u-ada", 0,
			"No such user was known.",
		},
		{
			"revoke an app", revokeCommand(), here + " --yes --appid " + caddytest.AppID, 0,
			"Ended every session of the mini program " + caddytest.AppID,
		},
		{"revoke all", revokeCommand(), here + " --all --yes", 0, "Ended every session: 0 live"},
	} {
		args := strings.Split(strings.TrimSuffix(tt.args, " "), " ")
		status, out, said := caddytest.RunCommand(t, tt.cmd, args...)
		if status != tt.status || !strings.Contains(out+said, tt.want) ||
			(status == 0) != (out != "") {
			t.Errorf("%s: status %d, want %d with %q: %s\n%s", tt.name, status, tt.status, tt.want,
				said, out)
		}
	}
}

// TestAdminJSON: scripts get what the gate says, as it says it.
func TestAdminJSON(t *testing.T) {
	w := apptest.Started(t)
	loginKnown(w, caddytest.AppID, "ada")
	s := adminServer(t)
	get := func(cmd *cobra.Command, args ...string) string {
		t.Helper()
		status, out, said := caddytest.RunCommand(
			t,
			cmd,
			append([]string{"--json", "--address", address(s)}, args...)...)
		if status != 0 || !json.Valid([]byte(out)) {
			t.Fatalf("%d %s\n%s", status, said, out)
		}
		return out
	}
	if got := read[statusAnswer](t, get(statusCommand())); !got.Store.Up || len(got.Apps) != 2 {
		t.Errorf("%+v", got)
	}
	if got := read[sessionsAnswer](t, get(sessionsCommand(), "--unionid", "u-ada")); len(
		got.Users,
	) != 1 || len(got.Users[0].Sessions) != 1 {
		t.Errorf("%+v", got)
	}
	if got := get(sessionsCommand(), "--unionid", "nobody"); !strings.Contains(got, `"users": []`) {
		t.Errorf("%s", got)
	}
	if got := read[keysAnswer](t, get(keysCommand())); len(got.Keys) != 1 ||
		got.Keys[0].State != keySigns {
		t.Errorf("%+v", got)
	}
	forgot := get(forgetCommand(), "--yes", "--unionid", "nobody")
	if got := read[forgetAnswer](t, forgot); got.Target != "unionid" ||
		*got.Forgotten != (ended{}) {
		t.Errorf("%+v", got)
	}
	revoked := get(revokeCommand(), "--yes", "--unionid", "u-ada")
	if got := read[revokeAnswer](t, revoked); got.Target != "unionid" ||
		*got.Ended != (ended{Users: 1, Sessions: 1}) {
		t.Errorf("%+v", got)
	}
	got := read[sessionsAnswer](t, get(sessionsCommand(), "--unionid", "u-ada"))
	if u := got.Users[0]; len(u.Sessions) != 0 || len(u.Ends) != 1 ||
		u.Ends[0].Reason != "revoked" || u.Ends[0].Ended.IsZero() {
		t.Errorf("after the end of the only session: %+v", got)
	}
}

// TestRevoke_Nobody_IsStatus1: a script hears that there was nothing to end.
func TestRevoke_Nobody_IsStatus1(t *testing.T) {
	w := apptest.Started(t)
	loginKnown(w, caddytest.AppID, "ada")
	at := address(adminServer(t))
	user := []string{"--appid", caddytest.AppID, "--openid", "ada"}
	for _, tt := range []struct {
		status   int
		out, err string
		args     []string
	}{
		{1, "", "nobody had a live session", []string{"--unionid", "nobody", "--yes"}},
		{1, "", "there is no terminal", []string{"--unionid", "u-ada"}},
		{1, "", "there is no terminal", []string{"--appid", caddytest.AppID}},
		{1, "", "there is no terminal", []string{"--all"}},
		{0, "Ended 1 live session of 1 user.\n", "", user},
		{1, "", "nobody had a live session", user},
		{1, `"sessions": 0`, "nobody had a live session", append(user, "--json")},
	} {
		args := append([]string{"--address", at}, tt.args...)
		status, out, said := caddytest.RunCommand(t, revokeCommand(), args...)
		if status != tt.status || !strings.Contains(out, tt.out) ||
			!strings.Contains(said, tt.err) {
			t.Errorf("%q: %d %s\n%s", tt.args, status, said, out)
		}
	}
}

// TestCount_Targets_AreCounted: what a command tells before it asks.
func TestCount_Targets_AreCounted(t *testing.T) {
	w := apptest.Started(t, apptest.OnBolt(), apptest.OnFile(filepath.Join(t.TempDir(), "s.db")))
	loginKnown(w, caddytest.AppID, "ada")
	loginKnown(w, caddytest.AppID, "ada")
	loginKnown(w, caddytest.OtherAppID, "bob")
	c := adminClient{address: address(adminServer(t))}
	for query, want := range map[string]string{
		"appid=" + caddytest.AppID + "&openid=ada": "1 user with 2 live sessions",
		"unionid=u-bob":               "1 user with 1 live session",
		"unionid=nobody":              "0 users with 0 live sessions",
		"appid=" + caddytest.AppID:    "1 user with 2 live sessions",
		"all=true":                    "2 users with 3 live sessions",
		"all=false":                   "not known (the gate refuses: ask for ",
		"session=0123456789&all=true": "not known (the gate refuses: ask for ",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.howMany(q); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// TestKeysNew: a good key and nothing else on standard output, another each
// time, with what to write beside it.
func TestKeysNew(t *testing.T) {
	seen := make(map[string]bool)
	for range 2 {
		status, out, said := caddytest.RunCommand(t, keysCommand(), "new")
		if status != 0 || strings.Count(out, "\n") != 1 || seen[out] {
			t.Fatalf("%d %q", status, out)
		}
		seen[out] = true
		if _, err := keyring.Parse(out); err != nil {
			t.Error(err)
		}
		if strings.Contains(said, strings.TrimSpace(out)) ||
			!strings.Contains(said, "seal_key {file./etc/wxgate/master.keys}") {
			t.Errorf("it says %q", said)
		}
	}
}

// TestBackupCommand: the file is there when it is whole, its owner's only, and
// nothing that is there is overwritten.
func TestBackupCommand(t *testing.T) {
	t.Setenv("WX_SECRET", caddytest.Canary)
	dir := t.TempDir()
	db := filepath.Join(dir, "s.db")
	apptest.Started(t, apptest.OnBolt(), apptest.OnFile(db))
	s := adminServer(t)
	kept := filepath.Join(dir, "kept")
	status, out, said := caddytest.RunCommand(t, backupCommand(), "--address", address(s), kept)
	if status != 0 || !strings.Contains(out, kept+": ") ||
		!strings.Contains(out, "0 sessions of 0 users. The master key is not in it") {
		t.Fatalf("%d %s\n%s", status, said, out)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode() != fs.FileMode(0o600) {
		t.Errorf("%v, %v", info, err)
	}
	before, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	status, _, said = caddytest.RunCommand(t, backupCommand(), "--address", address(s), kept)
	if status != cli.Failed ||
		!strings.Contains(said, "there already") {
		t.Errorf("over a file: %d %s", status, said)
	}
	if after, err := os.ReadFile(kept); err != nil || !bytes.Equal(before, after) {
		t.Error("the file has changed")
	}
	busy := filepath.Join(dir, "busy")
	if err := os.WriteFile(busy+".tmp", []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, said = caddytest.RunCommand(t, backupCommand(), "--address", address(s), busy)
	if status != cli.Failed ||
		!strings.Contains(said, "remove "+busy+".tmp") {
		t.Errorf("beside another: %d %s", status, said)
	}
	if text, err := os.ReadFile(busy + ".tmp"); err != nil || string(text) != "another's" {
		t.Errorf("another's file holds %q, %v", text, err)
	}
	for name, serve := range map[string]http.HandlerFunc{
		"broken off": func(w http.ResponseWriter, _ *http.Request) {
			w.Write(before[:len(before)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"no database": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
		"half": func(
			w http.ResponseWriter, _ *http.Request,
		) {
			w.Write(before[:len(before)/2])
		},
	} {
		bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reply.Mark(w.Header())
			serve(w, r)
		}))
		path := filepath.Join(dir, name)
		args := []string{"--address", address(bad), path}
		status, out, said := caddytest.RunCommand(t, backupCommand(), args...)
		if status != cli.Failed ||
			!strings.Contains(said, "backing up") || out != "" {
			t.Errorf("%s: %d %s\n%s", name, status, said, out)
		}
		bad.Close()
		for _, left := range []string{path, path + ".tmp"} {
			if _, err := os.Stat(left); err == nil {
				t.Errorf("%s: %s is left", name, left)
			}
		}
	}
}
