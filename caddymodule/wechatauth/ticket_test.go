package wechatauth

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

const ticketSite = "http:// {\nwechat_auth {\ntickets\npublic /open/*\noptional /feed/*\n}\necho\n}"

// postTicket asks for a ticket with alice's token.
func (s *server) postTicket(body string) (status int, answer ticketAnswer, said string) {
	s.T.Helper()
	status, _, said = s.send(fmt.Sprintf("POST /wx/ticket HTTP/1.1\r\nHost: {host}\r\n"+
		"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", len(body), body))
	if status == http.StatusOK {
		if err := json.Unmarshal([]byte(said), &answer); err != nil {
			s.T.Fatal(err)
		}
	}
	return status, answer, said
}

// ticket returns a link to a path.
func (s *server) ticket(path string) string {
	s.T.Helper()
	status, answer, said := s.postTicket(`{"path":"` + path + `"}`)
	if status != http.StatusOK || answer.ExpiresIn != 300 {
		s.T.Fatalf("%s: %d %s", path, status, said)
	}
	return answer.URL
}

// TestTicket_ItsPath_OpensIt: the app gets the user and no ticket.
func TestTicket_ItsPath_OpensIt(t *testing.T) {
	s := newServer(t, ticketSite)
	for path, want := range map[string]string{
		"/files/a.jpg":     "/files/a.jpg",
		"/":                "/",
		"/files/图 1.jpg":   "/files/%E5%9B%BE%201.jpg",
		"/files/%e5%9b%be": "/files/%E5%9B%BE",
		"/download?id=5":   "/download?id=5",
	} {
		link := s.ticket(path)
		if !strings.HasPrefix(link, want) {
			t.Errorf("the link to %s is %s", path, link)
		}
		for range 2 { // any number of times
			status, h, body := s.send(get(link, ""))
			if status != 200 || !strings.HasPrefix(body, "GET "+want+"\nuser <alice>\n") ||
				!strings.Contains(body, "X-Wx-Openid: alice\n") ||
				strings.Contains(body, "ticket") {
				t.Errorf("GET %s: %d %s", path, status, body)
			}
			if h.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("the address is in the Referer of what the page loads: %v", h)
			}
		}
		head := "HEAD " + link + " HTTP/1.1\r\nHost: {host}\r\n\r\n"
		if status, _, _ := s.send(head); status != 200 {
			t.Errorf("HEAD %s: %d", path, status)
		}
	}
	// A spelling that all servers read in the same way is the same path.
	link := s.ticket("/~ada/a.jpg")
	status, _, body := s.send(get(strings.Replace(link, "~", "%7E", 1), ""))
	if status != 200 {
		t.Errorf("%%7E: %d %s", status, body)
	}
}

func TestTicket_AnythingElse_Is401(t *testing.T) {
	s := newServer(t, ticketSite)
	link := s.ticket("/files/a.jpg")
	_, ticket, _ := strings.Cut(link, "=")
	changed := []byte(ticket)
	changed[len(changed)/2] ^= 1
	for target, want := range map[string]string{
		"/files/b.jpg?wx_ticket=" + ticket:                          "session_invalid",
		"/files/A.jpg?wx_ticket=" + ticket:                          "session_invalid",
		"/files/a.jpg/?wx_ticket=" + ticket:                         "session_invalid",
		"//files/a.jpg?wx_ticket=" + ticket:                         "session_invalid",
		"/files/./a.jpg?wx_ticket=" + ticket:                        "session_invalid",
		"/files/a.jpg;x?wx_ticket=" + ticket:                        "session_invalid",
		"/files/a%2ejpg?wx_ticket=" + ticket:                        "session_invalid",
		"/files/a.jpg?admin=1&wx_ticket=" + ticket:                  "session_invalid",
		"/files/a.jpg?wx_ticket=" + string(changed):                 "session_invalid",
		"/files/a.jpg?wx_ticket=" + ticket + "A":                    "session_invalid",
		"/files/a.jpg?wx_ticket=x":                                  "session_invalid",
		"/feed/x?wx_ticket=" + ticket:                               "session_invalid",
		"/files/a.jpg?wx_ticket=" + ticket + "&wx_ticket=" + ticket: "session_missing",
		"/files/a.jpg?wx_ticket=":                                   "session_missing",
		"/files/a.jpg":                                              "session_missing",
		"/wx/session?wx_ticket=" + ticket:                           "session_missing",
	} {
		if status, _, body := s.send(get(target, "")); status != 401 || code(body) != want {
			t.Errorf("%.60s: %d %s, want %s", target, status, body, want)
		}
	}
	for _, method := range []string{"POST", "DELETE", "OPTIONS"} {
		text := method + " " + link + " HTTP/1.1\r\nHost: {host}\r\n\r\n"
		if status, _, body := s.send(text); status != 401 || code(body) != "session_missing" {
			t.Errorf("%s: %d %s", method, status, body)
		}
	}
	// The token of the header counts when there is one.
	status, _, _ := s.send(get("/files/b.jpg?wx_ticket=x", "X-3rd-Session: {token}\r\n"))
	if status != 200 {
		t.Errorf("with a token: %d", status)
	}
	if status, _, _ := s.send(get(link, "X-3rd-Session: "+caddytest.MadeUp+"\r\n")); status != 401 {
		t.Errorf("with a bad token: %d", status)
	}
	for _, target := range []string{"/open/x", "/feed/x"} { // the ticket never reaches the app
		_, _, body := s.send(get(target+"?a=1&wx_ticket=&b=2&%77x_ticket="+ticket+"x", ""))
		if code(body) != "session_invalid" && !strings.HasPrefix(body, "GET "+target+"?a=1&b=2\n") {
			t.Errorf("%s: %s", target, body)
		}
	}
	s.send("POST /wx/logout HTTP/1.1\r\nHost: {host}\r\nX-3rd-Session: {token}\r\n" +
		"Content-Length: 0\r\n\r\n")
	if status, _, body := s.send(get(link, "")); status != 401 || code(body) != "session_invalid" {
		t.Errorf("after log-out: %d %s", status, body)
	}
}

func TestTicket_BadRequest_Is400(t *testing.T) {
	s := newServer(t, ticketSite)
	for _, body := range []string{
		`{}`, `{"path":""}`, `{"path":5}`, `{"path":"files"}`, `{"path":"//evil.com/x"}`,
		`{"path":"https://evil.com/x"}`, `{"path":"/a/../b"}`, `{"path":"/a//b"}`,
		`{"path":"/a%2fb"}`, `{"path":"/a%2e"}`, `{"path":"/a\\b"}`, `{"path":"/a#b"}`,
		`{"path":"/a?"}`, `{"path":"/a?b#c"}`, `{"path":"/a?wx_ticket=x"}`, `{"path":"/a?b c"}`,
		`{"path":"/wx/session"}`, `{"path":"/WX/x"}`, `{"path":"/a\u0000"}`,
		`{"path":"/a","expires_in":0}`, `{"path":"/a","expires_in":-5}`,
		`{"path":"/a","expires_in":86401}`, `{"path":"/a","expires_in":"x"}`,
		`{"path":"/a","expires_in":1.5}`,
	} {
		if status, _, said := s.postTicket(body); status != 400 || code(said) != "invalid_request" {
			t.Errorf("%s: %d %s", body, status, said)
		}
	}
	status, answer, said := s.postTicket(`{"path":"/a","expires_in":60}`)
	if status != 200 || answer.ExpiresIn != 60 {
		t.Errorf("60 s: %d %s", status, said)
	}
	status, answer, _ = s.postTicket(`{"path":"/a","expires_in":86400}`)
	if status != 200 || answer.ExpiresIn > 3600 {
		t.Errorf("a ticket outlives its session of an hour: %d %+v", status, answer)
	}
}

func TestTicket_WithoutTheWord_ParameterIsTheApps(t *testing.T) {
	off := newServer(t, "http:// {\nwechat_auth\necho\n}")
	if status, _, said := off.postTicket(`{"path":"/a"}`); status != 404 {
		t.Errorf("without the word: %d %s", status, said)
	}
	_, _, body := off.send(get("/a?wx_ticket=mine", "X-3rd-Session: {token}\r\n"))
	if !strings.HasPrefix(body, "GET /a?wx_ticket=mine\n") {
		t.Errorf("without the word the parameter is the app's: %s", body)
	}
}
