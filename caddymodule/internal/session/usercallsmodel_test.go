package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/memstore"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// Two gates, whose rings have another first key each, log one user in, reset
// the session_key, open data and ask for telephone numbers, while answers of
// WeChat come late and answers of the store get lost. The store keeps the
// session_key that was committed last and the one before
// (docs/stores.md#two-keys). Data opens under these two and no other, and every
// gate shows what was found last.
func TestUserCallsModel(t *testing.T) {
	masters := newMasters(3)
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := newCallsModel(t, masters)
			defer m.stop()
			t.Repeat(map[string]func(*rapid.T){
				"login":       m.login,
				"late login":  m.lateLogin,
				"reset":       m.reset,
				"late reset":  m.lateReset,
				"arrive":      m.arrive,
				"renew key":   func(*rapid.T) { m.made = append(m.made, m.wx.renew("alice")) },
				"open":        m.openData,
				"open again":  m.openData,
				"phone":       m.phone,
				"lose answer": func(*rapid.T) { m.lose = true },
				"revoke":      m.revoke,
				"":            m.check,
			})
		})
	})
}

// callsModel is what the gates should know of alice.
type callsModel struct {
	t     *rapid.T
	data  *memstore.Data
	wx    *platform
	gates []*session.Service
	cores []*session.Core
	rings []*keyring.Ring

	lose bool        // the store loses its next answer to a change of alice
	late []*lateCall // WeChat holds their answers back
	held chan struct{}

	made            []string // every session_key so far
	current, before string
	version         uint64
	unionID, number string
	tokens          []string // of the live sessions
	first           bool     // no login yet
}

// lateCall is a login or a reset that WeChat has carried out and not answered
// yet.
type lateCall struct {
	release chan struct{}
	done    chan error
	login   *session.Login // nil: a reset
	was     string         // the key that a reset replaces
	key     string         // the key that the call got
}

func newCallsModel(t *rapid.T, masters []string) *callsModel {
	m := &callsModel{t: t, data: memstore.NewData(), wx: newPlatform(), first: true}
	m.made = append(m.made, m.wx.key("alice"))
	m.wx.answered = func(context.Context, string) error {
		if held := m.held; held != nil {
			m.held = nil
			<-held
		}
		return nil
	}
	for i := range 2 {
		ring, err := keyring.Parse(masters[i] + "," + masters[1-i] + "," + masters[2])
		if err != nil {
			t.Fatal(err)
		}
		s := memstore.NewShared(m.data)
		s.After = func(_ context.Context, op string) error {
			if m.lose && op == "Amend" {
				m.lose = false
				return store.ErrUnavailable
			}
			return nil
		}
		core, err := session.NewCore(session.CoreConfig{Store: s, MaxSessions: 16})
		if err != nil {
			t.Fatal(err)
		}
		core.SetEntries(newFaultCache(uint64(i)))
		m.rings, m.cores = append(m.rings, ring), append(m.cores, core)
		m.gates = append(m.gates, session.New(session.Config{
			Core: core, WeChat: m.wx, Calls: m.wx, Apps: []weixin.Credentials{{ID: appA}},
			Keys: ring, TTL: 1 << 50, MaxStaleness: staleness, RememberPhone: true,
		}))
	}
	return m
}

func (m *callsModel) stop() {
	for _, l := range m.late {
		close(l.release)
		<-l.done
	}
	for _, c := range m.cores {
		if err := c.Close(); err != nil {
			m.t.Error(err)
		}
	}
}

func (m *callsModel) gate(t *rapid.T) *session.Service {
	return rapid.SampledFrom(m.gates).Draw(t, "gate")
}

// commit is what a login does to the keys.
func (m *callsModel) commit(key string) {
	if key != m.current {
		m.current, m.before = key, m.current
		m.version++
	}
	m.first = false
}

func (m *callsModel) login(t *rapid.T) {
	key := m.wx.key("alice")
	code := fmt.Sprint("alice#", codes.Add(1))
	l, err := m.gate(t).Login(context.Background(), request(code, phone))
	if err != nil {
		t.Fatal(err)
	}
	m.tokens = append(m.tokens, l.Token)
	m.commit(key)
}

// begin lets WeChat carry out a call and holds its answer back.
func (m *callsModel) begin(l *lateCall, f func() error) {
	l.release, l.done = make(chan struct{}), make(chan error, 1)
	m.held = l.release
	go func() { l.done <- f() }()
	synctest.Wait()
	if m.held = nil; len(l.done) > 0 {
		m.t.Fatalf("it was not held back: %v", <-l.done)
	}
	m.late = append(m.late, l)
}

func (m *callsModel) lateLogin(t *rapid.T) {
	g, l := m.gate(t), &lateCall{login: new(session.Login), key: m.wx.key("alice")}
	m.begin(l, func() (err error) {
		code := fmt.Sprint("alice#", codes.Add(1))
		*l.login, err = g.Login(context.Background(), request(code, phone))
		return err
	})
}

func (m *callsModel) lateReset(t *rapid.T) {
	if m.current != m.wx.key("alice") {
		t.Skip("WeChat would refuse it")
	}
	g, l := m.gate(t), &lateCall{was: m.current}
	m.begin(l, func() error { return g.ResetSessionKey(context.Background(), alice) })
	l.key = m.wx.key("alice")
	m.made = append(m.made, l.key)
}

// arrive releases one of the answers, in any order.
func (m *callsModel) arrive(t *rapid.T) {
	if len(m.late) == 0 {
		t.Skip("nothing is under way")
	}
	i := rapid.IntRange(0, len(m.late)-1).Draw(t, "answer")
	l := m.late[i]
	m.late = slices.Delete(m.late, i, i+1)
	lost := m.lose
	close(l.release)
	err := <-l.done
	if l.login != nil {
		if err != nil {
			t.Fatal(err)
		}
		m.tokens = append(m.tokens, l.login.Token)
		m.commit(l.key)
		return
	}
	m.resetDone(t, l.was, l.key, err, lost)
}

func (m *callsModel) reset(t *rapid.T) {
	was, lost := m.wx.key("alice"), m.lose
	err := m.gate(t).ResetSessionKey(context.Background(), alice)
	switch {
	case m.first:
		if !errors.Is(err, session.ErrUnknownUser) {
			t.Fatalf("reset for an unknown user: %v", err)
		}
	case was != m.current:
		if e, ok := errors.AsType[*weixin.Error](err); !ok || e.Class != weixin.ClassKeyStale {
			t.Fatalf("reset of a key that WeChat does not have: %v", err)
		}
	default:
		m.made = append(m.made, m.wx.key("alice"))
		m.resetDone(t, was, m.wx.key("alice"), err, lost)
	}
}

// resetDone: a reset keeps its key unless a login has brought another in
// between.
func (m *callsModel) resetDone(t *rapid.T, was, fresh string, err error, lost bool) {
	lost = lost && !m.lose
	if (err != nil) != lost || lost && !errors.Is(err, session.ErrUnavailable) {
		t.Fatalf("reset: %v; answer lost: %v", err, lost)
	}
	kept, _ := m.rings[0].OpenSessionKey(keyring.User(alice), m.data.Users[alice].Key.Box)
	if lost && kept != fresh {
		return // the lost answer was that to an attempt too late
	}
	if m.current == was {
		m.commit(fresh)
	}
}

// openData opens data under any key so far, at any gate.
func (m *callsModel) openData(t *rapid.T) {
	latest := m.made[max(0, len(m.made)-3):] // twice as likely
	key := rapid.SampledFrom(slices.Concat(m.made, latest)).Draw(t, "key")
	unionID := rapid.SampledFrom([]string{"", "", "u1", "u2"}).Draw(t, "unionid")
	text := object(alice, unionID)
	d := seal(key, text)
	if rapid.Bool().Draw(t, "signed") {
		d = sign(d, key, text)
	}
	lost := m.lose
	got, err := m.gate(t).OpenData(context.Background(), alice, d)
	lost = lost && !m.lose
	switch {
	case m.first:
		if !errors.Is(err, session.ErrUnknownUser) {
			t.Fatalf("for an unknown user: %v", err)
		}
		return
	case key != m.current && key != m.before:
		e, ok := errors.AsType[*session.DataError](err)
		if !ok || !e.LoginAgain || e.Reason == opendata.ReasonSessionKey {
			t.Fatalf("data under another key: %v", err)
		}
		return
	case lost:
		if !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("binding whose answer was lost: %v", err)
		}
	case err != nil || string(got) != text:
		t.Fatalf("opened %q, %v", got, err)
	}
	if unionID != "" {
		m.unionID = unionID
	}
}

func (m *callsModel) phone(t *rapid.T) {
	n := rapid.SampledFrom([]string{"13580006666", "10000000000"}).Draw(t, "number")
	_, err := m.gate(t).Phone(context.Background(), alice, n)
	switch {
	case m.first:
		if !errors.Is(err, session.ErrUnknownUser) {
			t.Fatalf("for an unknown user: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		m.number = n
	}
}

func (m *callsModel) revoke(t *rapid.T) {
	if err := m.gate(t).RevokeUser(context.Background(), alice, endRevoked); err != nil {
		t.Fatal(err)
	}
	for _, token := range m.tokens {
		for _, g := range m.gates {
			_, err := g.Authenticate(context.Background(), token)
			if !errors.Is(err, session.ErrInvalid) {
				t.Fatalf("after a revocation: %v", err)
			}
		}
	}
	m.tokens = nil
}

func (m *callsModel) check(t *rapid.T) {
	for _, token := range m.tokens {
		for i, g := range m.gates {
			id, err := g.Authenticate(context.Background(), token)
			if err != nil || id.UnionID != m.unionID || id.Phone != m.number {
				t.Fatalf("gate %d shows %+v, %v; want %q, %q", i, id, err, m.unionID, m.number)
			}
		}
	}
	u, known := m.data.Users[alice]
	if !known {
		return
	}
	for _, ring := range m.rings {
		cur, err := ring.OpenSessionKey(keyring.User(alice), u.Key.Box)
		if err != nil || cur != m.current || u.KeyVersion != m.version {
			t.Fatalf("the current key is the one committed last: %v, %v; version %d, want %d",
				cur == m.current, err, u.KeyVersion, m.version)
		}
		if m.before == "" {
			continue
		}
		before, err := ring.OpenSessionKey(keyring.User(alice), u.PrevKey.Box)
		if err != nil || before != m.before {
			t.Fatalf("the previous key is the one before that: %v, %v", before == m.before, err)
		}
	}
}
