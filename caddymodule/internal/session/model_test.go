package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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

// TestP3_Model drives random schedules of everything that a gate does over a
// cache that does everything wrong, with look-ups that the store answers late.
// The model decides which sessions are accepted and refused. One that was
// refused for the idle timeout, which does not change, is never let in again.
func TestP3_Model(t *testing.T) {
	for range 5 { // more than rapid does by itself: what is looked for is rare
		rapid.Check(t, func(t *rapid.T) {
			rapid.SyncTest(t, func(t *rapid.T) {
				m := newModel(t, modelIdle)
				defer m.stop()
				t.Repeat(map[string]func(*rapid.T){
					"login":        m.login,
					"login again":  m.login,
					"check":        m.check,
					"check again":  m.check,
					"begin check":  m.beginCheck,
					"finish check": m.finishCheck,
					"log out":      m.logout,
					"log out all":  m.logoutAll,
					"revoke user":  m.revokeUser,
					"forget":       m.forget,
					"revoke app":   m.revokeApp,
					"revoke union": m.revokeUnion,
					"end by id":    m.endByID,
					"show user":    m.showUser,
					"revoke all":   m.revokeAll,
					"wait": func(t *rapid.T) {
						ms := time.Duration(rapid.IntRange(1, 40_000).Draw(t, "ms"))
						time.Sleep(ms * 50 * time.Millisecond)
					},
					"drop cache":     func(*rapid.T) { m.cache.drop() },
					"reload":         func(*rapid.T) { m.newService() },
					"restart":        func(*rapid.T) { m.restart() },
					"store down":     func(*rapid.T) { m.store.SetDown(true); m.down = true },
					"store up":       func(*rapid.T) { m.up() },
					"store up again": func(*rapid.T) { m.up() },
				})
			})
		})
	}
}

// TestModelLimits is a smaller model whose reloads and restarts bring other
// idle timeouts: none ends a session in use, or lets one in for longer than an
// hour more.
func TestModelLimits(t *testing.T) {
	for range 5 {
		rapid.Check(t, func(t *rapid.T) {
			rapid.SyncTest(t, func(t *rapid.T) {
				m := newModel(t, modelIdle, 0, 4*time.Minute)
				defer m.stop()
				t.Repeat(map[string]func(*rapid.T){
					"login":       m.login,
					"check":       m.check,
					"check again": m.check,
					"check a lot": m.checkALot,
					"show user":   m.showUser,
					"wait": func(t *rapid.T) {
						ms := time.Duration(rapid.IntRange(1, 2000).Draw(t, "ms"))
						time.Sleep(ms * 100 * time.Millisecond)
					},
					"drop cache": func(*rapid.T) { m.cache.drop() },
					"reload":     func(*rapid.T) { m.newService() },
					"restart":    func(*rapid.T) { m.restart() },
				})
			})
		})
	}
}

const (
	modelTTL  = 90 * time.Minute
	modelIdle = 40 * time.Minute
	modelMax  = 3

	modelTouch = 2 * time.Minute // a twentieth of modelIdle
)

// modelInterval is the touch interval of a configuration with an idle timeout.
func modelInterval(idle time.Duration) time.Duration {
	if idle == 0 {
		return modelTTL / 20
	}
	return max(time.Minute, idle/20)
}

var modelUsers = []session.User{
	{AppID: appA, OpenID: "alice"}, {AppID: appA, OpenID: "bob"}, {AppID: appB, OpenID: "alice"},
}

// newCode is a code that nobody has used, of a user.
func newCode(id session.User, unionID string) string {
	return fmt.Sprintf("%s/%s#%d", id.OpenID, unionID, codes.Add(1))
}

// model is a gate and what is known about it.
type model struct {
	t     *rapid.T
	data  *memstore.Data
	store *memstore.Store
	cache *faultCache
	core  *session.Core
	gate  *session.Service
	keys  *keyring.Ring
	down  bool
	idles []time.Duration // limits that a configuration may have
	idle  time.Duration   // limit of the one that runs

	revoking bool // a revocation is under way

	hooks               sync.Mutex // the gate retries on a goroutine of its own
	stallNext, failNext string     // method that the store answers late, or not at all
	stalled             []chan struct{}

	checks []*pending

	sessions []*modelSession
	unionIDs map[session.User]string
}

type modelSession struct {
	token   string
	user    session.User
	created time.Time
	expires time.Time // in milliseconds
	used    time.Time // last accepted check
	until   time.Time // no note says that it was used after that
	touched time.Time // the store knows of a use no longer than a touch interval before
	lost    time.Time // last use that the store was not told of, since it was down
	ended   bool
	pending bool // ended as far as this gate knows: the store was down
}

// pending is a check under way.
type pending struct {
	s        *modelSession
	idle     time.Duration // limit of the configuration that it began under
	mustFail bool          // ended before the check began
	done     chan struct{}
	id       session.Identity
	err      error
}

func newModel(t *rapid.T, idles ...time.Duration) *model {
	m := &model{
		t: t, data: memstore.NewData(), unionIDs: make(map[session.User]string),
		idles: idles, idle: idles[0],
	}
	keys, err := keyring.Parse(keyring.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	m.keys = keys
	m.open()
	return m
}

func (m *model) open() {
	seed := rapid.Uint64().Draw(m.t, "cache seed") // before anything runs: a draw may end the test
	m.store = memstore.New(m.data)
	m.store.After = m.hook
	m.store.SetDown(m.down)
	core, err := session.NewCore(session.CoreConfig{Store: m.store, MaxSessions: 16})
	if err != nil {
		m.t.Fatal(err)
	}
	m.cache = newFaultCache(seed)
	core.SetEntries(m.cache)
	m.core = core
	m.newService()
}

func (m *model) newService() {
	m.idle = rapid.SampledFrom(m.idles).Draw(m.t, "idle")
	m.gate = session.New(session.Config{
		Core: m.core, WeChat: new(wechat), Keys: m.keys,
		Apps: []weixin.Credentials{{ID: appA}, {ID: appB}},
		TTL:  modelTTL, Idle: m.idle, MaxPerUser: modelMax,
	})
}

// up lets the store work again, and the gate do what is pending.
func (m *model) up() {
	m.store.SetDown(false)
	m.down = false
	time.Sleep(10 * time.Second)
	for _, s := range m.sessions {
		s.ended, s.pending = s.ended || s.pending, false
	}
}

// restart forgets what was pending.
func (m *model) restart() {
	for _, s := range m.sessions {
		s.pending = false
	}
	m.stop()
	m.open()
}

// stop lets everything under way end and closes the core.
func (m *model) stop() {
	m.arm("", "")
	m.letCome(true)
	m.collect()
	if err := m.core.Close(); err != nil {
		m.t.Error(err)
	}
	m.gate = nil
}

// hook holds back or spoils the answer of a method that has already taken
// effect.
func (m *model) hook(_ context.Context, op string) error {
	m.hooks.Lock()
	var held chan struct{}
	if op == m.stallNext {
		m.stallNext = ""
		held = make(chan struct{})
		m.stalled = append(m.stalled, held)
	}
	fails := op == m.failNext
	if fails {
		m.failNext = ""
	}
	m.hooks.Unlock()
	if held != nil {
		<-held
	}
	if fails {
		return fmt.Errorf("%w: the answer got lost", store.ErrUnavailable)
	}
	return nil
}

// arm says what is to go wrong next.
func (m *model) arm(stall, fail string) {
	m.hooks.Lock()
	defer m.hooks.Unlock()
	m.stallNext, m.failNext = stall, fail
}

// letCome lets the late answers come, all or the oldest, and reports whether
// there was one.
func (m *model) letCome(all bool) (came bool) {
	m.hooks.Lock()
	defer m.hooks.Unlock()
	for len(m.stalled) > 0 && (all || !came) {
		close(m.stalled[0])
		m.stalled, came = m.stalled[1:], true
	}
	return came
}

// drive runs f to its end. Should it wait for an answer that is held back, that
// one comes.
func (m *model) drive(f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	for {
		synctest.Wait()
		select {
		case <-done:
			return
		default:
			m.release()
		}
	}
}

// release lets the oldest late answer come and judges the checks that end with
// it.
func (m *model) release() (came bool) {
	came = m.letCome(false)
	m.collect()
	return came
}

func (m *model) pick(t *rapid.T) *modelSession {
	if len(m.sessions) == 0 {
		t.Skip("no session")
	}
	// Mostly a late one: the early ones are long over.
	return m.sessions[max(0, len(m.sessions)-1-rapid.IntRange(0, 6).Draw(t, "session"))]
}

func (m *model) login(t *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	union := rapid.SampledFrom([]string{"", "", "u1", "u2"}).Draw(t, "unionid")
	req := session.LoginRequest{AppID: id.AppID, Code: newCode(id, union)}
	var presented *modelSession
	if len(m.sessions) > 0 && rapid.Bool().Draw(t, "presents") {
		presented = m.pick(t)
		req.Presented = presented.token
	}
	var l session.Login
	var err error
	m.drive(func() { l, err = m.gate.Login(context.Background(), req) })
	if m.down {
		if !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("login without a store: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	soon := milli(now.Add(store.Grace))
	if presented != nil && presented.expires.After(soon) {
		presented.expires = soon
	}
	var live []*modelSession
	staying := 1 // the new session
	for _, s := range m.sessions {
		if s.user == id && !s.ended && s.expires.After(now) {
			live = append(live, s)
			if s.expires.After(now.Add(store.Grace)) {
				staying++
			}
		}
	}
	for i, s := range live {
		stays := s.expires.After(now.Add(store.Grace))
		old := !s.created.After(now.Add(-store.Grace))
		if len(live)+1-i > 2*modelMax || staying > modelMax && stays && old {
			s.ended = true
			if stays {
				staying--
			}
		}
	}
	if union != "" {
		m.unionIDs[id] = union
	}
	m.sessions = append(m.sessions, &modelSession{
		token: l.Token, user: id, created: now, expires: milli(now.Add(modelTTL)),
		used: milli(now), touched: milli(now), until: milli(now.Add(modelInterval(m.idle))),
	})
}

func (m *model) begin(s *modelSession) *pending {
	p := &pending{s: s, idle: m.idle, mustFail: s.ended || s.pending, done: make(chan struct{})}
	gate := m.gate
	go func() {
		defer close(p.done)
		p.id, p.err = gate.Authenticate(context.Background(), s.token)
	}()
	synctest.Wait()
	return p
}

func (m *model) check(t *rapid.T) {
	p := m.begin(m.pick(t))
	m.drive(func() { <-p.done })
	m.judge(p, false)
}

// checkALot is a session in use.
func (m *model) checkALot(t *rapid.T) {
	s := m.pick(t)
	pace := time.Duration(rapid.IntRange(1, 60).Draw(t, "pace")) * time.Second
	for range rapid.IntRange(1, 20).Draw(t, "checks") {
		p := m.begin(s)
		m.drive(func() { <-p.done })
		m.judge(p, false)
		time.Sleep(pace)
	}
}

// beginCheck leaves a check waiting for an answer that was read but has not
// arrived.
func (m *model) beginCheck(t *rapid.T) {
	m.arm("Lookup", "")
	p := m.begin(m.pick(t))
	m.arm("", "")
	m.checks = append(m.checks, p)
	m.collect()
}

// collect judges the checks that have come to their end.
func (m *model) collect() {
	synctest.Wait()
	m.checks = slices.DeleteFunc(m.checks, func(p *pending) bool {
		select {
		case <-p.done:
			m.judge(p, true)
			return true
		default:
			return false
		}
	})
}

func (m *model) finishCheck(t *rapid.T) {
	if !m.release() {
		t.Skip("nothing is under way")
	}
}

// judge compares the outcome of a check with the session. A late one may be
// answered as of any instant of its way.
func (m *model) judge(p *pending, late bool) {
	s, now := p.s, milli(time.Now())
	mustFail := p.mustFail || !now.Before(s.expires) || m.idled(s, p.idle)
	mustPass := m.alive(s, p.idle) && !m.revoking && !p.mustFail
	switch {
	case p.err == nil && mustFail && !late:
		m.t.Fatalf("accepted: ended %v, expires in %v, used %v ago",
			s.ended, s.expires.Sub(now), now.Sub(s.used))
	case p.err == nil && late && p.mustFail:
		m.t.Fatal("accepted: the session had ended when the check began")
	case mustPass && errors.Is(p.err, session.ErrInvalid):
		m.t.Fatalf("refused: %v; expires in %v, touched %v ago",
			p.err, s.expires.Sub(now), now.Sub(s.touched))
	case errors.Is(p.err, session.ErrUnavailable) && (m.down || late):
		return
	case p.err != nil && !errors.Is(p.err, session.ErrInvalid):
		m.t.Fatalf("neither accepted nor refused: %v", p.err)
	case p.err != nil:
		return
	}
	who := session.User{AppID: p.id.AppID, OpenID: p.id.OpenID}
	if who != s.user || !late && !p.id.Expires.Equal(s.expires) {
		m.t.Fatalf("%+v for a session of %v", p.id, s.user)
	}
	if want := m.unionIDs[s.user]; !late && p.id.UnionID != want {
		m.t.Fatalf("unionid %q, want %q", p.id.UnionID, want)
	}
	s.used = now
	if until := now.Add(modelInterval(p.idle)); until.After(s.until) {
		s.until = until
	}
	switch {
	case m.down:
		s.lost = now
	case now.Sub(s.lost) >= modelTouch:
		s.touched = now
	}
}

// idled reports whether a session must be refused for an idle timeout.
func (m *model) idled(s *modelSession, idle time.Duration) bool {
	return idle > 0 && !milli(time.Now()).Before(s.until.Add(idle-modelInterval(idle)))
}

// alive reports whether a check of s must not be refused.
func (m *model) alive(s *modelSession, idle time.Duration) bool {
	now := milli(time.Now())
	used := idle == 0 || now.Sub(s.touched) < idle-modelInterval(idle)
	return !s.ended && !s.pending && now.Before(s.expires) && used
}

// revoke carries out a revocation whose answer may get lost, and ends the
// sessions in the model.
func (m *model) revoke(t *rapid.T, op string, call func() error, hit func(*modelSession) bool) {
	lost := rapid.IntRange(0, 4).Draw(t, "answer lost") == 0
	if lost {
		m.arm("", op)
	}
	var err error
	m.revoking = true
	m.drive(func() { err = call() })
	m.revoking = false
	m.arm("", "")
	switch {
	case m.down || lost:
		if !errors.Is(err, session.ErrUnavailable) || errors.Is(err, session.ErrInvalid) {
			t.Fatalf("%s whose answer did not come: %v", op, err)
		}
	case err != nil:
		t.Fatal(err)
	}
	for _, s := range m.sessions {
		if hit(s) {
			s.ended, s.pending = s.ended || !m.down, m.down
		}
	}
	if lost && !m.down {
		time.Sleep(10 * time.Second) // until it was carried out again
	}
}

func (m *model) logout(t *rapid.T) {
	s := m.pick(t)
	call := func() error { return m.gate.Logout(context.Background(), s.token) }
	m.revoke(t, "End", call, func(o *modelSession) bool { return o == s })
}

func (m *model) logoutAll(t *rapid.T) {
	s := m.pick(t)
	if m.down {
		t.Skip("may pass by the cache or not")
	}
	over := s.ended
	var err error
	m.revoking = true
	m.drive(func() { err = logoutAll(context.Background(), m.gate, s.token) })
	m.revoking = false
	switch {
	case err == nil:
		if over {
			t.Fatal("an ended session ended the others")
		}
		for _, o := range m.sessions {
			if o.user == s.user {
				o.ended = true
			}
		}
	case !errors.Is(err, session.ErrInvalid) && !errors.Is(err, session.ErrUnavailable):
		t.Fatal(err)
	case m.alive(s, m.idle):
		t.Fatalf("refused: %v", err)
	}
}

func (m *model) revokeUser(t *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	call := func() error { return m.gate.RevokeUser(context.Background(), id, endRevoked) }
	m.revoke(t, "RevokeUser", call, func(s *modelSession) bool { return s.user == id })
}

// forget leaves nothing known, but while the store is away only ends the
// sessions.
func (m *model) forget(t *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	call := func() error { return m.gate.Forget(context.Background(), id, endForgotten) }
	m.revoke(t, "Forget", call, func(s *modelSession) bool { return s.user == id })
	if !m.down {
		delete(m.unionIDs, id)
	}
}

func (m *model) revokeUnion(t *rapid.T) {
	unionID := rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "unionid")
	hit := func(s *modelSession) bool { return m.unionIDs[s.user] == unionID }
	if !m.down && !slices.ContainsFunc(m.sessions, hit) {
		t.Skip("nobody") // whose answer could get lost
	}
	m.revoke(t, "RevokeUser", func() error {
		_, err := m.gate.RevokeUnionID(context.Background(), person(unionID), endRevoked)
		return err
	}, hit)
}

func (m *model) endByID(t *rapid.T) {
	s := m.pick(t)
	id := fmt.Sprintf("%x", session.DigestOf(s.token))[:rapid.IntRange(10, 64).Draw(t, "digits")]
	if s.ended && !m.down {
		err := m.gate.EndByID(context.Background(), s.user, id, endRevoked)
		if err != nil && !errors.Is(err, session.ErrUnknown) {
			t.Fatalf("ending an ended session: %v", err)
		}
		return
	}
	if now := time.Now(); !now.Before(s.expires) {
		t.Skip("may have been removed")
	}
	call := func() error { return m.gate.EndByID(context.Background(), s.user, id, endRevoked) }
	m.revoke(t, "End", call, func(o *modelSession) bool {
		return o == s && !m.down // without a store it is not known which one is meant
	})
}

// showUser: what is shown of a session agrees with what a check would say.
func (m *model) showUser(t *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	var u session.UserInfo
	var err error
	m.drive(func() { u, err = m.gate.User(context.Background(), id) })
	if m.down {
		if !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("user without a store: %v", err)
		}
		return
	}
	if err != nil && !errors.Is(err, session.ErrUnknownUser) {
		t.Fatal(err)
	}
	if u.UnionID != m.unionIDs[id] {
		t.Fatalf("unionid %q, want %q", u.UnionID, m.unionIDs[id])
	}
	live := make(map[string]bool)
	for _, i := range u.Sessions {
		live[i.ID] = i.State == session.StateLive
	}
	now := milli(time.Now())
	for _, s := range m.sessions {
		if s.user != id {
			continue
		}
		over := s.ended || !now.Before(s.expires) || m.idled(s, m.idle)
		got := live[fmt.Sprintf("%x", session.DigestOf(s.token))[:16]]
		if got && over || !got && m.alive(s, m.idle) {
			t.Fatalf("shown as live: %v; ended %v, expires in %v, used %v ago",
				got, s.ended, s.expires.Sub(now), now.Sub(s.used))
		}
	}
}

func (m *model) revokeApp(t *rapid.T) {
	app := rapid.SampledFrom([]string{appA, appB}).Draw(t, "app")
	call := func() error { return m.gate.RevokeApp(context.Background(), app) }
	m.revoke(t, "RevokeApp", call, func(s *modelSession) bool { return s.user.AppID == app })
}

func (m *model) revokeAll(t *rapid.T) {
	call := func() error { return m.gate.RevokeAll(context.Background()) }
	m.revoke(t, "RevokeAll", call, func(*modelSession) bool { return true })
}
