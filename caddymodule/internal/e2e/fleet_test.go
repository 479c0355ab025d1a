package e2e_test

import (
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
