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
)

type needs = map[store.MasterKeyID]time.Time

func needsOf(t *testing.T, s store.Store) needs {
	t.Helper()
	n, err := s.MasterKeys(t.Context())
	must(t, err)
	return n
}

var firstNeed = regexp.MustCompile(`^[0-9a-f]{8} [0-9]+$`)

// firstNeeds reads needs as gates of the first release do.
func (f *fixture) firstNeeds() map[string]time.Time {
	f.t.Helper()
	fields, err := f.do("HGETALL", f.cfg.Prefix+"k").AsStrMap()
	must(f.t, err)
	needs := make(map[string]time.Time)
	for field, v := range fields {
		if !firstNeed.MatchString(field + " " + v) {
			f.t.Errorf("to the first release, %q: %q is damaged", field, v)
		}
		var ms int64
		_, err := fmt.Sscan(v, &ms)
		must(f.t, err)
		needs[field] = time.UnixMilli(ms)
	}
	return needs
}

// replaceFirstNeeds writes needs as gates of the first release do.
func (f *fixture) replaceFirstNeeds(id store.MasterKeyID, until time.Time) {
	f.t.Helper()
	f.do("DEL", f.cfg.Prefix+"k")
	f.do("HSET", f.cfg.Prefix+"k", id.String(), fmt.Sprint(until.UnixMilli()))
}

// P7: gates of the first release and of this one see each other's needs, and neither
// removes one of the other's.
func TestMasterKeys_BesideFirstRelease_SeeEachOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mine, theirs := store.MasterKeyID{1}, store.MasterKeyID{0xab}
	at := time.UnixMilli(time.Now().Add(50 * time.Hour).UnixMilli())
	login := func(openID string) store.Login {
		t.Helper()
		l := newLogin(userOf(openID), func(l *store.Login) { l.MasterKey = mine })
		return mustLogin(t, f, l)
	}
	check := func(when string, l store.Login, at time.Time) {
		t.Helper()
		if n := needsOf(t, f); !n[theirs].Equal(at) || n[mine].Before(l.Expires) {
			t.Errorf("%s: needs %v", when, n)
		}
	}
	f.replaceFirstNeeds(theirs, at)
	l := login("oAlice")
	check("after a login", l, at)
	first := f.firstNeeds()
	if !first[theirs.String()].Equal(at) || first[mine.String()].Before(l.Expires) {
		t.Errorf("to the first release, needs %v", first)
	}
	at = at.Add(time.Hour)
	f.replaceFirstNeeds(theirs, at) // which that gate has read before the login
	check("after a change by the first release", l, at)

	must(t, f.RevokeAll(t.Context()))
	for who, until := range map[string]time.Time{
		"the first release": f.firstNeeds()[theirs.String()],
		"this release":      needsOf(t, f)[theirs],
	} {
		left := time.Until(until)
		if left < time.Minute || left > freeAfter { // its gates record again within a minute
			t.Errorf("after RevokeAll, to %s, a key is needed for %v", who, left)
		}
	}
	l = login("oAlice")
	if first = f.firstNeeds(); first[mine.String()].Before(l.Expires) {
		t.Errorf("after the next login, to the first release, needs %v", first)
	}

	// As when a gate of the first release revokes all sessions.
	f.do("SET", f.cfg.Prefix+"e:{all}", "0123456789abcdef")
	l = login("oBob")
	if n := needsOf(t, f); n[mine].Before(l.Expires) {
		t.Errorf("after a foreign RevokeAll, needs %v", n)
	}
}

// A damaged need is logged and hides no other one. A change removes needs that have
// ended long ago.
func TestMasterKeys_DamagedOrEnded_AreSkipped(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	f := newFixture(t, func(c *Config) { c.Logger = zap.New(core) })
	mustLogin(t, f, newLogin(userOf("oAlice")))
	want := needsOf(t, f)
	const old = "0102030405060708090a0b0c"
	ended := fmt.Sprint(time.Now().Add(-25 * time.Hour).UnixMilli())
	for _, key := range []string{"k", "m"} {
		f.do("HSET", f.cfg.Prefix+key, "01020304", "soon", "x", "5000000000000", old, ended)
	}
	if got := needsOf(t, f); !maps.EqualFunc(got, want, time.Time.Equal) {
		t.Errorf("needs %v, want %v", got, want)
	}
	if logs.FilterMessageSnippet("damaged record").Len() == 0 {
		t.Errorf("logged %v", logs.All())
	}
	mustLogin(t, f, newLogin(userOf("oBob"), func(l *store.Login) {
		l.Expires = l.Created.Add(9 * time.Hour)
	}))
	for _, key := range []string{"k", "m"} {
		fields, err := f.do("HGETALL", f.cfg.Prefix+key).AsStrMap()
		must(t, err)
		if _, there := fields[old]; there || len(fields) != 3 {
			t.Errorf("%s holds %v", key, fields)
		}
	}
}

// A server may lose an acknowledged need. The next logins record it again.
func TestMasterKeys_LostNeed_IsRecordedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mustLogin(t, f, newLogin(userOf("oAlice")))
	f.do("DEL", f.cfg.Prefix+"k", f.cfg.Prefix+"m")
	await(t, "the need is recorded", func() bool {
		l := mustLogin(t, f, newLogin(userOf("oAlice")))
		return !needsOf(t, f)[l.MasterKey].Before(l.Expires)
	})
}
