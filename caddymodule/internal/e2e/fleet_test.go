package e2e_test

import (
	"slices"
	"testing"
	"time"
)

// TestFleet_OneSession holds that a session made by one gate is good at the
// other until one of them ends it.
func TestFleet_OneSession(t *testing.T) {
	t.Parallel()
	f := newFleet(t, mixed)
	ada := f.a.who(appA, "ada")
	token := f.a.login(t, "ada")
	for _, w := range f.gates() {
		w.checkAlive(t, token, ada)
		w.call(t, "GET", "/wx/session", "", bearer(token)).made(t, 200)
	}
	f.b.post(t, "/wx/logout", "", bearer(token)).made(t, 204)
	f.b.checkDead(t, token)
	f.a.refuses(t, token)

	first, second := f.a.login(t, "ada"), f.b.login(t, "ada")
	for _, w := range f.gates() {
		w.checkAlive(t, first, ada)
		w.checkAlive(t, second, ada)
	}
	third := f.b.login(t, "ada", bearer(first))
	f.b.checkLeaving(t, first, true)
	eventually(t, "the other gate knows", func() bool { return f.a.expiresIn(t, first) <= 60 })
	f.a.checkAlive(t, second, ada)
	f.a.post(t, "/wx/logout", `{"all":true}`, bearer(second)).made(t, 204)
	for _, token := range []string{second, third} {
		f.a.checkDead(t, token)
		f.b.refuses(t, token)
	}
}

// TestFleet_OperatorsRevoke holds that a revocation at one gate ends the
// sessions at the other.
func TestFleet_OperatorsRevoke(t *testing.T) {
	t.Parallel()
	f := newFleet(t, both)
	login := func() (tokens []string) {
		for _, user := range []string{"ada", "bob"} {
			for _, app := range []string{appA, appB} {
				token := f.a.loginTo(t, app, user)
				for _, w := range f.gates() {
					w.checkAlive(t, token, w.who(app, user))
				}
				tokens = append(tokens, token)
			}
		}
		return tokens
	}
	for _, tt := range []struct {
		args []string
		dead [4]bool // ada in A and B, bob in A and B
	}{
		{
			[]string{"--appid", appA, "--openid", f.a.wechat.OpenID(appA, "ada")},
			[4]bool{true, false, false, false},
		},
		{[]string{"--unionid", f.a.wechat.UnionID("bob")}, [4]bool{false, false, true, true}},
		{[]string{"--appid", appB}, [4]bool{false, true, false, true}},
		{[]string{"--all", "--yes"}, [4]bool{true, true, true, true}},
	} {
		tokens := login()
		f.b.operate(t, append([]string{"revoke"}, tt.args...)...)
		for i, token := range tokens {
			if !tt.dead[i] {
				f.a.call(t, "GET", "/wx/session", "", bearer(token)).made(t, 200)
				continue
			}
			f.b.checkDead(t, token)
			f.a.refuses(t, token)
		}
	}
}

// TestFleet_OneCode sends a code to both gates at once, which makes one
// session.
func TestFleet_OneCode(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	for range 20 {
		body := codeBody(f.a.wechat.Code(appA, "ada"))
		replies := together(t, 2, func(i int) (addr, text string) {
			addr = f.gates()[i].addr
			return addr, request(addr, "POST", "/wx/login", body)
		})()
		if replies[0].status != 200 {
			slices.Reverse(replies)
		}
		replies[0].session(t)
		replies[1].problem(t, 401, "code_used")
	}
}

// TestP3_FleetRevocation logs how soon a gate refuses a session that the other
// has ended. It asserts no time.
func TestP3_FleetRevocation(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	ada := f.a.who(appA, "ada")
	var took []time.Duration
	for range 100 {
		token := f.a.login(t, "ada")
		f.b.checkAlive(t, token, ada)
		f.a.post(t, "/wx/logout", "", bearer(token)).made(t, 204)
		began := time.Now()
		for {
			r := f.b.call(t, "GET", "/x", "", bearer(token))
			if !r.fromApp() {
				r.problem(t, 401, "session_invalid")
				break
			}
			if time.Since(began) > patience {
				t.Fatal("the other gate still accepts the session")
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("refused by the other gate after p50 %v, p90 %v, p99 %v, at most %v",
		took[50], took[90], took[98], took[99])
}
