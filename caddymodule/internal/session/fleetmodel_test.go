package session_test

import (
	"context"
	"errors"
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

// TestP3_P4_TwoGates drives two gates over one shared store through random
// schedules of logins, checks and revocations. Their caches do everything
// wrong, reports come, come late or get lost, and a gate cannot reach the
// store, or not write to it. A session:
//
//   - is never accepted where its revocation has returned, done or not;
//   - is never accepted elsewhere after the report, or after max_staleness;
//   - is never accepted anywhere when Grace has passed since it was presented with
//     a login;
//   - is never refused without one of these, at most unavailable, and that only
//     where the store cannot be reached;
//   - and every revocation is durable when all is well again.
func TestP3_P4_TwoGates(t *testing.T) {
	for range 10 { // more than rapid does by itself: what is looked for is rare
		rapid.Check(t, func(t *rapid.T) {
			rapid.SyncTest(t, func(t *rapid.T) {
				m := newFleetModel(t)
				defer m.stop()
				t.Repeat(map[string]func(*rapid.T){
					"login":        m.login,
					"login again":  m.login,
					"login a lot":  m.login,
					"same code":    m.sameCode,
					"":             m.checkAll,
					"log out":      m.logout,
					"revoke user":  m.revokeUser,
					"revoke app":   m.revokeApp,
					"revoke all":   m.revokeAll,
					"revoke union": m.revokeUnion,
					"wait":         m.wait,
					"wait it out":  func(t *rapid.T) { time.Sleep(staleness + 1); synctest.Wait() },
					"drop cache":   func(t *rapid.T) { m.draw(t).cache.drop() },
					"reports":      m.setReports,
					"reports come": func(t *rapid.T) { m.setReportsOf(m.draw(t), memstore.Come) },
					"break":        m.breakStore,
					"mend":         func(t *rapid.T) { m.mend(m.draw(t)) },
				})
				m.settle()
			})
		})
	}
}

// fleetModel is two gates and what is known about them.
type fleetModel struct {
	t        *rapid.T
	data     *memstore.Data
	nodes    [2]*fleetNode
	sessions []*fleetSession

	mu     sync.Mutex // for what follows: the gates retry on goroutines of their own
	alive  map[store.Digest]session.User
	deaths []death // that the model has not looked at yet
}

// death is the end of a session in the store.
type death struct {
	digest   store.Digest
	at       time.Time
	reported [2]bool
}

// fleetNode is one gate.
type fleetNode struct {
	*session.Service
	link     *memstore.Shared
	core     *session.Core
	cache    *faultCache
	down     bool // the store cannot be reached from here
	readOnly bool // it can be read
	pending  []pendingEnd
}

// pendingEnd is a revocation that a gate was asked for and could not carry out.
type pendingEnd struct {
	before time.Time // it covers what was created until then
	hit    func(*fleetSession) bool
	wide   bool // its carrying out ends also what was created since
}

type fleetSession struct {
	token   string
	digest  store.Digest
	user    session.User
	created time.Time
	may     bool      // something was asked for that ends it
	died    time.Time // when it ended in the store; the zero time while it lives
	over    time.Time // Grace after it was presented; the zero time if it was not
	must    [2]bool   // must be refused by that gate: it was revoked there, or the report has come
	doubt   [2]bool   // may be refused by that gate, since clocks do not tell
}

func newFleetModel(t *rapid.T) *fleetModel {
	m := &fleetModel{t: t, data: memstore.NewData(), alive: make(map[store.Digest]session.User)}
	seed := rapid.Uint64().Draw(t, "cache seed") // before anything runs: a draw may end the test
	keys, err := keyring.Parse(keyring.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	m.data.Watch(m.died)
	w := new(onceOnly)
	for i := range m.nodes {
		n := &fleetNode{link: memstore.NewShared(m.data), cache: newFaultCache(seed + uint64(i))}
		n.core, err = session.NewCore(session.CoreConfig{Store: n.link, MaxSessions: 16})
		if err != nil {
			t.Fatal(err)
		}
		n.core.SetEntries(n.cache)
		n.Service = session.New(session.Config{
			Core: n.core, WeChat: w, Apps: []weixin.Credentials{{ID: appA}, {ID: appB}}, Keys: keys,
			TTL: 48 * time.Hour, MaxStaleness: staleness,
		})
		m.nodes[i] = n
	}
	return m
}

func (m *fleetModel) stop() {
	for _, n := range m.nodes {
		if err := n.core.Close(); err != nil {
			m.t.Error(err)
		}
	}
}

// died notes which sessions a change in the store has ended. It runs with the
// data locked, before the change is reported.
func (m *fleetModel) died(store.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d, user := range m.alive {
		ses, ok := m.data.Sessions[d]
		if ok && ses.Epochs == (store.Epochs{
			Global: m.data.Global, App: m.data.Apps[user.AppID], User: m.data.Users[user].Epoch,
		}) {
			continue
		}
		delete(m.alive, d)
		x := death{digest: d, at: time.Now()}
		for i, n := range m.nodes {
			x.reported[i] = n.link.Reports() == memstore.Come
		}
		m.deaths = append(m.deaths, x)
	}
}

// bury looks at what has died since the last time.
func (m *fleetModel) bury() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.deaths {
		named := func(s *fleetSession) bool { return s.digest == x.digest }
		s := m.sessions[slices.IndexFunc(m.sessions, named)]
		if s.died = x.at; !s.may {
			m.t.Fatalf("a session of %v ended and nobody asked for it", s.user)
		}
		for i, reported := range x.reported {
			s.must[i] = s.must[i] || reported
		}
	}
	m.deaths = nil
}

func (m *fleetModel) draw(t *rapid.T) *fleetNode {
	return m.nodes[rapid.IntRange(0, 1).Draw(t, "gate")]
}

func (m *fleetModel) index(n *fleetNode) int { return slices.Index(m.nodes[:], n) }

func (m *fleetModel) pick(t *rapid.T) *fleetSession {
	if len(m.sessions) == 0 {
		t.Skip("no session")
	}
	// Mostly a late one: the early ones are long over.
	return m.sessions[max(0, len(m.sessions)-1-rapid.IntRange(0, 6).Draw(t, "session"))]
}

func (m *fleetModel) wait(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 5000).Draw(t, "ms")) * time.Millisecond
	if rapid.Bool().Draw(t, "long") {
		d *= 8
	}
	time.Sleep(d)
	synctest.Wait()
}

func (m *fleetModel) setReports(t *rapid.T) {
	n := m.draw(t)
	m.setReportsOf(n, memstore.Reports(rapid.IntRange(1, 2).Draw(t, "slow or lost")))
}

func (m *fleetModel) setReportsOf(n *fleetNode, how memstore.Reports) {
	n.link.SetReports(how)
	m.bury()
	for _, s := range m.sessions {
		i := m.index(n)
		s.must[i] = s.must[i] || how == memstore.Come && !s.died.IsZero()
	}
}

func (m *fleetModel) breakStore(t *rapid.T) {
	n := m.draw(t)
	if rapid.Bool().Draw(t, "altogether") {
		n.down = true
		n.link.SetDown(true)
	} else {
		n.readOnly = true
		n.link.SetReadOnly(true)
	}
}

func (m *fleetModel) mend(n *fleetNode) {
	n.down, n.readOnly = false, false
	n.link.SetDown(false)
	n.link.SetReadOnly(false)
}

func (m *fleetModel) login(t *rapid.T) {
	n := m.draw(t)
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	union := rapid.SampledFrom([]string{"", "", "u1", "u2"}).Draw(t, "unionid")
	m.loginAt(t, n, id, session.LoginRequest{AppID: id.AppID, Code: newCode(id, union)}, true)
}

func (m *fleetModel) loginAt(
	t *rapid.T, n *fleetNode, id session.User, req session.LoginRequest, presents bool,
) bool {
	var presented *fleetSession
	if presents && len(m.sessions) > 0 && rapid.Bool().Draw(t, "presents") {
		presented = m.pick(t)
		req.Presented = presented.token
		presented.may = true
	}
	l, err := n.Login(context.Background(), req)
	if n.down || n.readOnly {
		if !errors.Is(err, session.ErrUnavailable) {
			t.Fatalf("login without a store: %v", err)
		}
		if m.bury(); presented != nil && presented.died.IsZero() {
			presented.may = !presented.over.IsZero() || m.covered(presented)
		}
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if presented != nil && presented.over.IsZero() {
		presented.over = milli(time.Now().Add(store.Grace))
	}
	s := &fleetSession{token: l.Token, digest: l.Digest, user: id, created: milli(time.Now())}
	s.may = m.covered(s)
	m.sessions = append(m.sessions, s)
	m.mu.Lock()
	m.alive[s.digest] = id
	m.mu.Unlock()
	return true
}

// covered reports whether a pending revocation may end a session, and notes
// where it may be refused for it.
func (m *fleetModel) covered(s *fleetSession) (may bool) {
	for i, n := range m.nodes {
		if st, _ := n.Stats(context.Background()); st.Pending == 0 {
			n.pending = nil
		}
		for _, p := range n.pending {
			soon := !s.created.After(milli(p.before))
			if p.hit(s) && (soon || p.wide) {
				may = true
				s.doubt[i] = s.doubt[i] || soon
			}
		}
	}
	return may
}

// sameCode sends a code to both gates.
func (m *fleetModel) sameCode(t *rapid.T) {
	id := rapid.SampledFrom(modelUsers).Draw(t, "user")
	req := session.LoginRequest{AppID: id.AppID, Code: newCode(id, "")}
	first := rapid.IntRange(0, 1).Draw(t, "first")
	spent := m.loginAt(t, m.nodes[first], id, req, false)
	second := m.nodes[1-first]
	if !spent {
		m.loginAt(t, second, id, req, false)
		return
	}
	_, err := second.Login(context.Background(), req)
	e, ok := errors.AsType[*weixin.Error](err)
	switch broken := second.down || second.readOnly; {
	case ok && e.Class == weixin.ClassCodeUsed:
	case broken && errors.Is(err, session.ErrUnavailable):
	default:
		t.Fatalf("the second gate: %v", err)
	}
}

// checkAll follows each step.
func (m *fleetModel) checkAll(t *rapid.T) {
	for _, s := range m.sessions[max(0, len(m.sessions)-8):] {
		for _, n := range m.nodes {
			m.checkAt(t, n, s)
		}
	}
}

func (m *fleetModel) checkAt(t *rapid.T, n *fleetNode, s *fleetSession) {
	id, err := n.Authenticate(context.Background(), s.token)
	m.bury()
	i, now := m.index(n), time.Now()
	over := !s.over.IsZero() && !now.Before(s.over)
	switch {
	case err == nil && over:
		t.Fatalf("gate %d accepts a session %v too long after it was presented", i, now.Sub(s.over))
	case err == nil && s.must[i]:
		t.Fatalf("gate %d accepts a session whose end it knows; it died %v ago", i, now.Sub(s.died))
	case err == nil && !s.died.IsZero() && now.Sub(s.died) > staleness:
		t.Fatalf("gate %d accepts a session that ended %v ago", i, now.Sub(s.died))
	case errors.Is(err, session.ErrInvalid) && !over && !s.must[i] && s.died.IsZero() &&
		!s.doubt[i]:
		t.Fatalf("gate %d refuses a session that nothing was to end: %v", i, err)
	case errors.Is(err, session.ErrUnavailable) && n.down:
		return
	case err != nil && !errors.Is(err, session.ErrInvalid):
		t.Fatalf("gate %d: neither accepted nor refused: %v", i, err)
	case err != nil:
		return
	}
	if id.AppID != s.user.AppID || id.OpenID != s.user.OpenID {
		t.Fatalf("%+v for a session of %v", id, s.user)
	}
	if n.link.Reports() == memstore.Come && id.UnionID != m.data.Users[s.user].UnionID {
		t.Fatalf("gate %d: unionid %q, want %q", i, id.UnionID, m.data.Users[s.user].UnionID)
	}
}

// revoke carries out a revocation at a gate. known: the gate can tell which
// sessions are meant without a store, too.
func (m *fleetModel) revoke(
	t *rapid.T, n *fleetNode, call func() error, hit func(*fleetSession) bool, wide, known bool,
) {
	var hits []*fleetSession
	for _, s := range m.sessions {
		if hit(s) {
			s.may = true
			hits = append(hits, s)
		}
	}
	err := call()
	m.bury()
	broken := n.down || n.readOnly
	if broken != errors.Is(err, session.ErrUnavailable) || !broken && err != nil {
		t.Fatalf("store broken %v: %v", broken, err)
	}
	i := m.index(n)
	for _, s := range hits {
		s.must[i] = s.must[i] || known || !n.down
		s.doubt[i] = true
	}
	if broken {
		n.pending = append(n.pending, pendingEnd{time.Now().Add(time.Second), hit, wide})
	}
}

func (m *fleetModel) logout(t *rapid.T) {
	n, s := m.draw(t), m.pick(t)
	call := func() error { return n.Logout(context.Background(), s.token) }
	m.revoke(t, n, call, func(o *fleetSession) bool { return o == s }, false, true)
}

func (m *fleetModel) revokeUser(t *rapid.T) {
	n, id := m.draw(t), rapid.SampledFrom(modelUsers).Draw(t, "user")
	call := func() error { return n.RevokeUser(context.Background(), id, endRevoked) }
	m.revoke(t, n, call, func(s *fleetSession) bool { return s.user == id }, false, true)
}

func (m *fleetModel) revokeApp(t *rapid.T) {
	n, app := m.draw(t), rapid.SampledFrom([]string{appA, appB}).Draw(t, "app")
	call := func() error { return n.RevokeApp(context.Background(), app) }
	m.revoke(t, n, call, func(s *fleetSession) bool { return s.user.AppID == app }, true, true)
}

func (m *fleetModel) revokeAll(t *rapid.T) {
	n := m.draw(t)
	call := func() error { return n.RevokeAll(context.Background()) }
	m.revoke(t, n, call, func(*fleetSession) bool { return true }, true, true)
}

// revokeUnion must hit the users who have that unionid. Without a store it may
// also hit those who get it before it is carried out.
func (m *fleetModel) revokeUnion(t *rapid.T) {
	n, union := m.draw(t), rapid.SampledFrom([]string{"u1", "u2"}).Draw(t, "unionid")
	call := func() error {
		_, err := n.RevokeUnionID(context.Background(), person(union), endRevoked)
		return err
	}
	has := func(s *fleetSession) bool { return m.data.Users[s.user].UnionID == union }
	switch {
	case n.down:
		all := func(*fleetSession) bool { return true }
		m.revoke(t, n, call, all, false, false)
	case n.readOnly && !slices.ContainsFunc(m.sessions, has):
		t.Skip("nobody")
	default:
		var users []session.User
		for _, s := range m.sessions {
			if has(s) {
				users = append(users, s.user)
			}
		}
		hit := func(s *fleetSession) bool { return slices.Contains(users, s.user) }
		m.revoke(t, n, call, hit, false, true)
	}
}

// settle mends everything and expects that the revoked sessions are over at
// both gates, and no others.
func (m *fleetModel) settle() {
	for _, n := range m.nodes {
		m.mend(n)
		m.setReportsOf(n, memstore.Come)
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	m.bury()
	for _, s := range m.sessions {
		over := !s.over.IsZero() && !time.Now().Before(s.over)
		if revoked := s.must[0] || s.must[1]; revoked && s.died.IsZero() && !over {
			m.t.Fatalf("a revocation was forgotten: a session of %v lives on", s.user)
		}
		for i, n := range m.nodes {
			s.doubt[i] = false
			m.checkAt(m.t, n, s)
		}
	}
	for i, n := range m.nodes {
		if st, err := n.Stats(context.Background()); err != nil || st.Pending != 0 {
			m.t.Fatalf("gate %d: %+v, %v", i, st, err)
		}
	}
}
