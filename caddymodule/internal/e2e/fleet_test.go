package e2e_test

import (
	"crypto/sha256"
	"fmt"
	"testing"
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

// TestFleet_Block_HoldsAtEachGate: a block at one gate ends the user's sessions at the
// other, keeps the user out, and outlives a restart and forget.
func TestFleet_Block_HoldsAtEachGate(t *testing.T) {
	slow(t)
	t.Parallel()
	f := newFleet(t, mixed)
	token, bob := f.b.login(t, "ada"), f.b.login(t, "bob")
	f.b.checkAlive(t, token, f.b.who(appA, "ada"))
	target := []string{"--unionid", f.a.wechat.UnionID("ada")}
	block := []string{"block", "--yes", "--for", "72h", "--reason", "spam"}
	f.a.operate(t, append(block, target...)...)
	f.b.refuses(t, token)
	f.b.operate(t, append([]string{"forget", "--yes"}, target...)...)
	f.b.gate.stop(t)
	f.b.start(t)
	f.b.takesLogins(t)
	for _, w := range f.gates() {
		r := w.post(t, "/wx/login", appBody(w.wechat.Code(appA, "ada"), appA))
		r.problem(t, 403, "user_blocked")
		w.checkAlive(t, bob, w.who(appA, "bob"))
	}
	f.b.operate(t, append([]string{"unblock"}, target...)...)
	f.a.checkAlive(t, f.a.login(t, "ada"), f.a.who(appA, "ada"))
}

// TestThreat37_RecordOfAnother_OpensNothing: another tenant of the Redis puts the
// record of ada's session behind a token of its own.
func TestThreat37_RecordOfAnother_OpensNothing(t *testing.T) {
	t.Parallel()
	f := newFleet(t, mixed)
	ada, mallory := f.a.login(t, "ada"), f.a.login(t, "mallory")
	key := func(token string) string {
		return fmt.Sprintf("wxgate:s:{%x}", sha256.Sum256([]byte(token)))
	}
	f.redis.Do("COPY", key(ada), key(mallory), "REPLACE")
	f.b.checkDead(t, mallory)
	f.b.checkAlive(t, ada, f.b.who(appA, "ada"))
	f.b.checkAlive(t, f.b.login(t, "mallory"), f.b.who(appA, "mallory"))
	if m := f.b.metrics(t)["caddy_wechat_foreign_records_total"]; m != 1 {
		t.Errorf("counted %v", m)
	}
}
