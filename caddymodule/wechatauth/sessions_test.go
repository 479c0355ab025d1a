package wechatauth

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// call makes a call of an endpoint and returns its answer.
func (w *world) call(method, path, token string) (status int, body string) {
	w.T.Helper()
	r, rec := caddytest.Request(method, path, token)
	if err := w.gate.ServeHTTP(rec, r, new(caddytest.Next)); err != nil {
		w.T.Fatal(err)
	}
	return rec.Code, rec.Body.String()
}

// ownSessions returns what the list shows to the owner of a token.
func (w *world) ownSessions(token string) []ownSession {
	w.T.Helper()
	status, body := w.call("GET", "/wx/sessions", token)
	var got sessionsAnswer
	if err := json.Unmarshal([]byte(body), &got); status != http.StatusOK || err != nil {
		w.T.Fatalf("%d %s", status, body)
	}
	return got.Sessions
}

func (w *world) lives(token string) bool {
	w.T.Helper()
	status, _ := w.call("GET", "/wx/session", token)
	return status == http.StatusOK
}

// TestSessions_Caller_SeesOwnOnly: the list has the caller's live sessions in this mini
// program, and nothing that a token could be made of.
func TestSessions_Caller_SeesOwnOnly(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	old := w.Token(caddytest.AppID, "alice")
	gone := w.Token(caddytest.AppID, "alice")
	w.TokenFor(caddytest.AppID, "alice", -time.Minute)
	young := w.Token(caddytest.AppID, "alice")
	w.Token(caddytest.AppID, "bob")
	w.Token(caddytest.OtherAppID, "alice")
	if err := w.Live().Sessions.Logout(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	got := w.ownSessions(old)
	if len(got) != 2 || got[0].ID != session.IDOf(young) || got[0].Current ||
		got[1].ID != session.IDOf(old) || !got[1].Current {
		t.Fatalf("got %+v", got)
	}
	for _, s := range got {
		if age := time.Since(s.Created); len(s.ID) != 16 || s.LastUsed.Before(s.Created) ||
			age < 0 || age > time.Hour {
			t.Errorf("got %+v", s)
		}
	}
	_, body := w.call("GET", "/wx/sessions", young)
	if strings.Contains(body, "alice") || strings.Contains(body, "wxs_") {
		t.Errorf("the answer tells who it is: %s", body)
	}
}

// TestThreat51_Sessions_EndOther_IsRefused: an id of another user is answered like one of nobody,
// and ends nothing.
func TestThreat51_Sessions_EndOther_IsRefused(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	alice := w.Token(caddytest.AppID, "alice")
	bob := w.Token(caddytest.AppID, "bob")
	elsewhere := w.Token(caddytest.OtherAppID, "alice")
	own := session.IDOf(alice)
	for _, id := range []string{
		session.IDOf(bob), session.IDOf(elsewhere), "0123456789abcdef", "x", own[:8], own + "00",
		own[:15] + "%30", caddytest.MadeUp, strings.Repeat("0", 5000), own[:12] + "....",
	} {
		status, body := w.call("DELETE", "/wx/sessions/"+id, alice)
		if status != http.StatusNotFound || code(body) != "not_found" {
			t.Errorf("%.20s: %d %s", id, status, body)
		}
	}
	for _, token := range []string{alice, bob, elsewhere} {
		if !w.lives(token) {
			t.Error("a session has ended")
		}
	}
	for _, tt := range []struct {
		method, path, token string
		want                int
	}{
		{"DELETE", "/wx/sessions/" + own, "", 401},
		{"DELETE", "/wx/sessions/" + own, caddytest.MadeUp, 401},
		{"GET", "/wx/sessions", "", 401},
		{"GET", "/wx/sessions/" + own, alice, 405},
		{"DELETE", "/wx/sessions", alice, 405},
		{"DELETE", "/wx/sessions/", alice, 404},
		{"DELETE", "/wx/sessions/" + own + "/x", alice, 404},
	} {
		if status, body := w.call(tt.method, tt.path, tt.token); status != tt.want {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, status, body)
		}
	}
}

// TestP3_Sessions_EndOwn_AtOnce holds for another device of the user, and for the own
// one, where it is a log-out.
func TestP3_Sessions_EndOwn_AtOnce(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	phone, tablet := w.Token(caddytest.AppID, "alice"), w.Token(caddytest.AppID, "alice")
	w.warm(tablet)
	end := func(token string) {
		t.Helper()
		id := strings.ToUpper(session.IDOf(token))
		if status, body := w.call("DELETE", "/wx/sessions/"+id, phone); status != 204 {
			t.Fatalf("%d %s", status, body)
		}
	}
	end(tablet)
	if w.lives(tablet) || !w.lives(phone) || len(w.ownSessions(phone)) != 1 {
		t.Error("it should have ended the other session alone")
	}
	end(phone)
	if w.lives(phone) {
		t.Error("the own session lives")
	}
}

// TestP4_Sessions_StoreDown_503: an outage tells no user of an end.
func TestP4_Sessions_StoreDown_503(t *testing.T) {
	w := newWorld(t, &Handler{}).start()
	alice := w.Token(caddytest.AppID, "alice")
	w.warm(alice)
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	for _, c := range [][2]string{
		{"GET", "/wx/sessions"}, {"DELETE", "/wx/sessions/" + session.IDOf(alice)},
	} {
		if status, body := w.call(c[0], c[1], alice); status != 503 {
			t.Errorf("%s: %d %s", c, status, body)
		}
	}
}

// TestSessions_Cloudrun_NotThere: behind WeChat Cloud Hosting there are no sessions.
func TestSessions_Cloudrun_NotThere(t *testing.T) {
	w := newWorld(t, &Handler{Cloudrun: true})
	for _, method := range []string{"GET", "DELETE"} {
		if status, _ := w.call(method, "/wx/sessions/0123456789abcdef", ""); status != 404 {
			t.Errorf("%s: %d", method, status)
		}
	}
}
