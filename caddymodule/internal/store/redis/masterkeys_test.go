package redis

import (
	"fmt"
	"maps"
	"regexp"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// oldGate reads and writes needs as gates of the first release do.
type oldGate struct {
	t   *testing.T
	srv *redistest.Server
	cfg Config
}

var firstNeed = regexp.MustCompile(`^[0-9a-f]{8} [0-9]+$`)

func (f oldGate) read() map[string]time.Time {
	f.t.Helper()
	res := f.srv.Do("HGETALL", f.cfg.Prefix+"k")
	fields, err := res.AsStrMap()
	must(f.t, err)
	needs := make(map[string]time.Time)
	for field, v := range fields {
		if !firstNeed.MatchString(field + " " + v) {
			f.t.Errorf("the first release takes %q: %q for damaged", field, v)
		}
		var ms int64
		_, err := fmt.Sscan(v, &ms)
		must(f.t, err)
		needs[field] = time.UnixMilli(ms)
	}
	return needs
}

func (f oldGate) replace(needs map[string]time.Time) {
	f.t.Helper()
	args := []string{"HSET", f.cfg.Prefix + "k"}
	for field, until := range needs {
		args = append(args, field, fmt.Sprint(until.UnixMilli()))
	}
	del := f.srv.Do("DEL", f.cfg.Prefix+"k")
	must(f.t, del.Error())
	set := f.srv.Do(args...)
	must(f.t, set.Error())
}

func needsOf(t *testing.T, s store.Store) map[store.MasterKeyID]time.Time {
	t.Helper()
	needs, err := s.MasterKeys(t.Context())
	must(t, err)
	return needs
}

// P7: gates of the first release and of this one see each other's needs, and
// neither takes one away from the other.
func TestMasterKeys_BesideFirstRelease_SeeEachOther(t *testing.T) {
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s := mustOpen(t, cfg)
	old := oldGate{t, srv, cfg}
	mine, theirs := store.MasterKeyID{1}, store.MasterKeyID{0xab}
	at := time.UnixMilli(time.Now().Add(50 * time.Hour).UnixMilli())
	login := func(openID string) store.Login {
		t.Helper()
		l := newLogin(userOf(openID), func(l *store.Login) { l.MasterKey = mine })
		mustLogin(t, s, l)
		return l
	}

	old.replace(map[string]time.Time{theirs.String(): at})
	l := login("oAlice")
	if needs := needsOf(t, s); !needs[theirs].Equal(at) || needs[mine].Before(l.Expires) {
		t.Errorf("needed are %v", needs)
	}
	needs := old.read()
	if !needs[theirs.String()].Equal(at) || needs[mine.String()].Before(l.Expires) {
		t.Errorf("to the first release, needed are %v", needs)
	}
	at = at.Add(time.Hour)
	old.replace(map[string]time.Time{theirs.String(): at}) // read before the login
	if needs := needsOf(t, s); !needs[theirs].Equal(at) || needs[mine].Before(l.Expires) {
		t.Errorf("after a change by the first release, needed are %v", needs)
	}

	must(t, s.RevokeAll(t.Context()))
	for who, until := range map[string]time.Time{
		"the first release": old.read()[theirs.String()],
		"this release":      needsOf(t, s)[theirs],
	} {
		left := time.Until(until)
		if left < time.Minute || left > 2*time.Minute { // its gates record again within a minute
			t.Errorf("after RevokeAll, a key is needed for %v to %s", left, who)
		}
	}
	l = login("oAlice")
	if needs = old.read(); needs[mine.String()].Before(l.Expires) {
		t.Errorf("to the first release, needed are %v after the next login", needs)
	}

	// As when a gate of the first release revokes all sessions.
	moved := srv.Do("SET", cfg.Prefix+"e:{all}", "0123456789abcdef")
	must(t, moved.Error())
	l = login("oBob")
	if needs := needsOf(t, s); needs[mine].Before(l.Expires) {
		t.Errorf("needed are %v", needs)
	}
}

// What cannot be read is logged and hides nothing else; needs that have ended
// long ago go with the next change.
func TestMasterKeys_DamagedOrEnded_AreSkipped(t *testing.T) {
	srv := redistest.Start(t)
	core, logs := observer.New(zap.WarnLevel)
	cfg := config(srv.Addr)
	cfg.Logger = zap.New(core)
	s := mustOpen(t, cfg)
	l := newLogin(userOf("oAlice"))
	mustLogin(t, s, l)
	want := needsOf(t, s)
	ended := fmt.Sprint(time.Now().Add(-25 * time.Hour).UnixMilli())
	for _, key := range []string{"k", "m"} {
		res := srv.Do("HSET", cfg.Prefix+key,
			"01020304", "soon", "x", "5000000000000", "0102030405060708090a0b0c", ended)
		must(t, res.Error())
	}
	if got := needsOf(t, s); !maps.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("needed are %v, want %v", got, want)
	}
	if logs.FilterMessageSnippet("damaged record").Len() == 0 {
		t.Errorf("logged %v", logs.All())
	}
	l = newLogin(userOf("oBob"), func(l *store.Login) { l.Expires = l.Created.Add(9 * time.Hour) })
	mustLogin(t, s, l)
	for _, key := range []string{"k", "m"} {
		res := srv.Do("HGETALL", cfg.Prefix+key)
		fields, err := res.AsStrMap()
		must(t, err)
		if _, there := fields["0102030405060708090a0b0c"]; there || len(fields) != 3 {
			t.Errorf("%s holds %v", key, fields)
		}
	}
}

// A server may lose a need that it acknowledged. The next logins record it again.
func TestMasterKeys_LostNeed_IsRecordedAgain(t *testing.T) {
	srv := redistest.Start(t)
	cfg := config(srv.Addr)
	s := mustOpen(t, cfg)
	login := func() store.Login {
		t.Helper()
		l := newLogin(userOf("oAlice"))
		_, err := s.Login(t.Context(), l)
		must(t, err)
		return l
	}
	login()
	for _, key := range []string{"k", "m"} {
		res := srv.Do("DEL", cfg.Prefix+key)
		must(t, res.Error())
	}
	await(t, "the need is recorded", func() bool {
		l := login()
		return !needsOf(t, s)[l.MasterKey].Before(l.Expires)
	})
}
