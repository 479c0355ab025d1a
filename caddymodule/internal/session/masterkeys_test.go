package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// opener opens a store on data, and returns its part in memory, too.
type opener func(*memstore.Data) (store.Store, *memstore.Store)

// stores are a store of one gate, and one that gates share.
var stores = map[string]opener{
	"one gate": func(d *memstore.Data) (store.Store, *memstore.Store) {
		s := memstore.New(d)
		return s, s
	},
	"shared": func(d *memstore.Data) (store.Store, *memstore.Store) {
		s := memstore.NewShared(d)
		return s, s.Store
	},
}

// P7: a gate that lacks a key which sessions need names it, and changes nothing.
func TestCheckMasterKeys_Rotation_NamesMissingKeys(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testRotation(t, open) })
		})
	}
}

func testRotation(t *testing.T, open opener) {
	data, masters := memstore.NewData(), newMasters(3)
	a, b, c := masters[0], masters[1], masters[2]
	start := func(ttl time.Duration, ring ...string) *gate {
		var mem *memstore.Store
		g := newGate(t, func(cc *session.CoreConfig, cfg *session.Config) {
			cc.Store, mem = open(data)
			cfg.Keys, cfg.TTL = newKeys(t, ring...), ttl
		}).steady()
		g.store = mem
		return g
	}
	check := func(ring []string, missing ...string) {
		t.Helper()
		g := start(time.Hour, ring...)
		before := maps.Clone(data.MasterKeys)
		err := g.CheckMasterKeys(t.Context())
		if !maps.Equal(data.MasterKeys, before) {
			t.Error("the check changed what is on record")
		}
		if len(missing) == 0 {
			g.must(err)
			return
		}
		if !errors.Is(err, session.ErrKeyMissing) || errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("got %v, want ErrKeyMissing", err)
		}
		for _, m := range masters {
			named := strings.Contains(err.Error(), newKeys(t, m).Signer().String())
			if named != slices.Contains(missing, m) || strings.Contains(err.Error(), m[:6]) {
				t.Fatalf("%v", err)
			}
		}
	}

	check([]string{a})
	check([]string{c}) // no session was made under a
	long := start(48*time.Hour, a).login("alice").Token
	check([]string{b}, a)
	check([]string{b, a})
	start(time.Hour, b, a).login("bob") // a longer life than now counts for a
	time.Sleep(66 * time.Minute)
	check([]string{c}, a)
	start(50*time.Hour, b, a).login("bob")
	start(50*time.Hour, c, b, a).accept(long)
	check([]string{c}, a, b)
	check([]string{a, c}, b)

	time.Sleep(47*time.Hour - 7*time.Minute)
	check([]string{c, b}, a)
	time.Sleep(2 * time.Hour) // at most an hour after alice's session
	check([]string{c, b})
	check([]string{c}, b)

	// A key that leaked goes at once, unless a gate goes on to sign with it.
	g := start(time.Hour, b)
	g.must(g.RevokeAll(t.Context()))
	check([]string{c})
	g.login("carol")
	check([]string{c}, b)

	g.store.SetDown(true)
	err := g.CheckMasterKeys(t.Context())
	if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrKeyMissing) {
		t.Errorf("without a store: %v", err)
	}
}

// keyModel has gates with a store, and the sessions that they made.
type keyModel struct {
	t       *rapid.T
	open    opener
	data    *memstore.Data
	masters []string
	nodes   []*keyNode
	made    []*keyedSession
	refused *int // starts
}

type keyNode struct {
	*session.Service
	core *session.Core
	ring *keyring.Ring
	seen int // sessions made before it passed the check
}

type keyedSession struct {
	token   string
	by      *keyNode
	key     keyring.ID
	expires time.Time
	revoked bool
}

func (m *keyModel) start(ttl time.Duration, ring []string) *keyNode {
	keys, err := keyring.Parse(strings.Join(ring, ","))
	if err != nil {
		m.t.Fatal(err)
	}
	s, _ := m.open(m.data)
	core, err := session.NewCore(session.CoreConfig{Store: s, MaxSessions: 16})
	if err != nil {
		m.t.Fatal(err)
	}
	core.SetEntries(new(steadyCache))
	cfg := session.Config{
		Core: core, WeChat: new(wechat), Apps: []weixin.Credentials{{ID: appA}},
		Keys: keys, TTL: ttl,
	}
	return &keyNode{Service: session.New(cfg), core: core, ring: keys}
}

func (m *keyModel) stop() {
	for _, n := range m.nodes {
		n.core.Close()
	}
}

func (m *keyModel) pick(t *rapid.T) int {
	return rapid.IntRange(0, len(m.nodes)-1).Draw(t, "gate")
}

func (m *keyModel) login(t *rapid.T) {
	n := m.nodes[m.pick(t)]
	l, err := n.Login(t.Context(), request(fmt.Sprint("alice#", codes.Add(1)), phone))
	if err != nil {
		t.Fatal(err)
	}
	m.made = append(m.made, &keyedSession{
		token: l.Token, by: n, key: n.ring.Signer(), expires: l.Expires,
	})
}

func (m *keyModel) revokeAll(t *rapid.T) {
	if err := m.nodes[m.pick(t)].RevokeAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range m.made {
		s.revoked = true
	}
}

// reload gives a gate another key ring. One that the check refuses has a cause.
func (m *keyModel) reload(t *rapid.T) {
	i := m.pick(t)
	ring := rapid.Permutation(m.masters).Draw(t, "ring")[:rapid.IntRange(1, 4).Draw(t, "keys")]
	ttl := time.Duration(rapid.IntRange(1, 30).Draw(t, "hours")) * time.Hour
	next := m.start(ttl, ring)
	if err := next.CheckMasterKeys(t.Context()); err != nil {
		next.core.Close()
		*m.refused++
		if !errors.Is(err, session.ErrKeyMissing) || !m.needed(next.ring) {
			t.Fatalf("refused without a cause: %v", err)
		}
		return
	}
	next.seen = len(m.made)
	m.nodes[i].core.Close()
	m.nodes[i] = next
}

// needed reports whether a ring lacks a key of a session that lives, or lived
// less than an hour ago.
func (m *keyModel) needed(ring *keyring.Ring) bool {
	return slices.ContainsFunc(m.made, func(s *keyedSession) bool {
		return !ring.Has(s.key) && !s.revoked && time.Since(s.expires) < time.Hour+time.Second
	})
}

// check demands that each gate opens the sessions that it made, and those that
// lived when it passed the check.
func (m *keyModel) check(t *rapid.T) {
	for _, n := range m.nodes {
		for i, s := range m.made {
			left := time.Until(s.expires)
			if s.revoked || left <= time.Millisecond || s.by != n && i >= n.seen {
				continue
			}
			if _, err := n.Authenticate(t.Context(), s.token); err != nil {
				t.Fatalf("logged out %v before the end: %v", left, err)
			}
		}
	}
}

// P7: whatever key rings follow each other on the gates of a store, a gate that
// passes the check opens every live session, and a refusal has a cause.
func TestCheckMasterKeysModel(t *testing.T) {
	masters := newMasters(4)
	for name, open := range stores {
		gates := map[string]int{"one gate": 1, "shared": 2}[name]
		t.Run(name, func(t *testing.T) {
			refused := 0
			rapid.Check(t, func(t *rapid.T) {
				rapid.SyncTest(t, func(t *rapid.T) {
					m := &keyModel{t: t, open: open, masters: masters, refused: &refused}
					m.data = memstore.NewData()
					for range gates {
						m.nodes = append(m.nodes, m.start(time.Hour, masters[:1]))
					}
					defer m.stop()
					t.Repeat(map[string]func(*rapid.T){
						"login": m.login,
						"wait": func(t *rapid.T) {
							minutes := rapid.IntRange(1, 180).Draw(t, "minutes")
							time.Sleep(time.Duration(minutes) * time.Minute)
						},
						"revoke all": m.revokeAll,
						"reload":     m.reload,
						"":           m.check,
					})
				})
			})
			if refused == 0 {
				t.Error("no ring was ever refused")
			}
		})
	}
}

// The same session_key seen again after a rotation is the same, and the one
// before it stays.
func TestLogin_RotatedRing_KeepsPreviousSessionKey(t *testing.T) {
	data, m := memstore.NewData(), newMasters(4)
	sessionKey := "first"
	weChat := exchanger(func(context.Context, weixin.Credentials, string) (weixin.Session, error) {
		return weixin.Session{OpenID: "alice", SessionKey: sessionKey}, nil
	})
	login := func(masters ...string) *gate {
		t.Helper()
		g := newGate(t, keeping(t, data, masters...), with(func(c *session.Config) {
			c.WeChat = weChat
		}))
		g.login("alice")
		got, err := g.keys.OpenSessionKey(keyring.User(alice), g.record(alice).Key.Box)
		if err != nil || got != sessionKey {
			t.Fatalf("the current key is %q, %v", got, err)
		}
		return g
	}
	expect := func(g *gate, version uint64, prev string, under ...string) {
		t.Helper()
		u := g.record(alice)
		if u.KeyVersion != version || (prev == "") != (u.PrevKey.Box == nil) {
			t.Fatalf("version %d, previous %x", u.KeyVersion, u.PrevKey.Box)
		}
		if prev == "" {
			return
		}
		got, err := newKeys(t, under...).OpenSessionKey(keyring.User(alice), u.PrevKey.Box)
		if err != nil || got != prev {
			t.Fatalf("previous %q, %v; want %q", got, err, prev)
		}
	}
	expect(login(m[0]), 1, "")
	sessionKey = "second"
	expect(login(m[0]), 2, "first", m[0])
	expect(login(m[1], m[0]), 2, "first", m[0])
	expect(login(m[1], m[0]), 2, "first", m[0])
	expect(login(m[2], m[1], m[0]), 2, "first", m[0])
	expect(login(m[2]), 2, "first", m[0])
	expect(login(m[0], m[2]), 2, "first", m[0]) // rolled back
	sessionKey = "third"
	expect(login(m[3], m[0]), 3, "second", m[0])
	expect(login(m[3]), 3, "second", m[0])
}
