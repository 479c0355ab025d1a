package weixin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// The canaries have the shapes of real secrets, so that no pattern lets them pass
// for something else.
const (
	canarySecret = "c0ffee00c0ffee00c0ffee00deadbeef"
	canaryCode   = "0canaryCODEcanaryCODEcanaryCODE1"
	canaryKey    = "Y2FuYXJ5Y2FuYXJ5IQ+/AA=="
	canaryToken  = "96_CANARYtoken-CANARYtoken_CANARYtoken"
)

// leak echoes all canaries, also in the place of a request id.
const leak = canarySecret + " " + canaryToken + " rid: " + canaryToken + " rid: " + canaryCode +
	" req_id: " + canarySecret + " " + canaryKey + " rid: " + canaryKey + " rid: " + canarySecret

func TestThreat28_FailuresTellNoSecret(t *testing.T) {
	var logged bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	app := weixin.Credentials{ID: "wx0123456789abcdef", Secret: canarySecret}
	tokenApp, _ := fileApp(t, canaryToken)
	secrets := append(canaryForms(canarySecret, canaryCode, canaryKey, canaryToken),
		"js_code", "secret=", "token=", "sns/", "wxa/", "cgi-bin/")
	judge := func(t *testing.T, result any, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("no failure")
		}
		asError(t, err)
		out := renderings(result) + renderings(fmt.Errorf("logging in: %w", err)) + logged.String()
		for e := err; e != nil; e = errors.Unwrap(e) {
			out += renderings(e)
		}
		for _, secret := range secrets {
			if strings.Contains(out, secret) {
				t.Errorf("%q leaked: %s", secret, out)
			}
		}
	}
	check := func(
		ctx context.Context, t *testing.T, c *weixin.Client, app weixin.Credentials, code string,
	) {
		t.Helper()
		s, err := c.Code2Session(ctx, app, code)
		judge(t, s, err)
		tok, err := c.Tokens().Token(ctx, app)
		judge(t, tok, err)
		user := weixin.Session{OpenID: "o1", SessionKey: canaryKey}
		for _, o := range callAll(ctx, c, tokenApp, user, code) {
			judge(t, o.result, o.err)
		}
	}
	plain := func(t *testing.T, c *weixin.Client) {
		t.Helper()
		check(t.Context(), t, c, app, canaryCode)
	}

	for _, errcode := range []int{
		-1, 1, 40013, 40029, 40125, 40163, 40164, 40226, 40243, 41002, 41004, 41008, 45009, 45011,
		48001, 50001, 50002,
	} {
		body := fmt.Sprintf(`{"errcode":%d,"errmsg":%q,"openid":"o1","session_key":%q}`,
			errcode, leak, canaryKey)
		for _, status := range []int{200, 500} {
			plain(t, serve(t, reply(status, body)))
		}
	}
	for _, body := range []string{
		leak, `"` + leak + `"`, `{"errcode":"` + leak + `"}`, `{"openid":` + leak + `}`,
		`{"` + leak + `":1}`, `{"openid":"o1","session_key":"` + canaryKey,
		`{"openid":"` + leak + `","session_key":"` + canaryKey + `"}`,
		`{"openid":"o1","session_key":"` + canaryKey + `\n"}`,
		`{"session_key":"` + canaryKey + `"}`, leak + strings.Repeat(" ", 64<<10),
	} {
		for _, status := range []int{200, 404, 502} {
			plain(t, serve(t, reply(status, body)))
		}
	}
	t.Run("redirect", func(t *testing.T) {
		plain(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String()+"&"+canaryKey, http.StatusFound)
		}))
	})
	const ok = "HTTP/1.1 200 OK\r\n"
	send := func(text string) func(*rawConn, string) {
		return func(c *rawConn, _ string) { c.send(text) }
	}
	for name, script := range map[string]func(c *rawConn, head string){
		"echo":             func(c *rawConn, head string) { c.send(head) },
		"echo in status":   func(c *rawConn, head string) { c.send("HTTP/1.1 " + head) },
		"echo in header":   send(ok + leak + "\r\n\r\n"),
		"echo in length":   send(ok + "Content-Length: " + leak + "\r\n\r\n"),
		"echo in encoding": send(ok + "Transfer-Encoding: " + leak + "\r\n\r\n"),
		"echo in chunk":    send(ok + "Transfer-Encoding: chunked\r\n\r\n" + leak + "\r\n"),
		"long header":      send(ok + "X: " + strings.Repeat(leak, 1000) + "\r\n\r\n"),
		"truncated":        send(ok + "Content-Length: 9999\r\n\r\n" + leak),
		"end":              send(""),
		"reset":            func(c *rawConn, _ string) { c.reset() },
	} {
		t.Run(name, func(t *testing.T) {
			srv := newRawServer(t, func(c *rawConn) {
				if head, ok := c.next(); ok {
					script(c, head)
				}
			})
			plain(t, newClient(t, weixin.Config{BaseURL: srv.url()}))
		})
	}
	t.Run("time-outs", func(t *testing.T) {
		srv := newRawServer(t, func(c *rawConn) {
			_, _ = c.next()
			_, _ = c.next()
		})
		plain(t, newClient(t, weixin.Config{BaseURL: srv.url(), Timeout: 50 * time.Millisecond}))
		c := newClient(t, weixin.Config{BaseURL: srv.url()})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		check(ctx, t, c, app, canaryCode)
		gone, giveUp := context.WithCancelCause(t.Context())
		giveUp(errors.New(leak))
		check(gone, t, c, app, canaryCode)
	})
	t.Run("no connection", func(t *testing.T) {
		for _, cause := range []error{
			errors.New(leak), &net.OpError{Op: "dial", Err: errors.New(leak)}, io.EOF,
			&net.DNSError{Err: "no such host", Name: "wechat.invalid"},
			&net.OpError{Op: "dial", Err: timeoutError(leak)},
			fmt.Errorf("%s: %w", leak, syscall.ECONNREFUSED),
			fmt.Errorf("%s: %w", leak, io.EOF), fmt.Errorf("%s: %w", leak, io.ErrUnexpectedEOF),
		} {
			c := newClient(t, weixin.Config{})
			c.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, cause })
			plain(t, c)
			for !c.BreakerOpen() {
				_, _ = exchange(c)
			}
			plain(t, c)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		srv := httptest.NewServer(reply(200, goodBody))
		defer srv.Close()
		plain(t, newClient(t, weixin.Config{BaseURL: strings.Replace(srv.URL, "http", "https", 1)}))
		secure := httptest.NewUnstartedServer(reply(200, goodBody))
		secure.Config.ErrorLog = log.New(io.Discard, "", 0)
		secure.StartTLS()
		defer secure.Close()
		plain(t, newClient(t, weixin.Config{BaseURL: secure.URL}))
	})
	t.Run("impossible arguments", func(t *testing.T) {
		c := newClient(t, weixin.Config{})
		c.SetDial(func(context.Context, string, string) (net.Conn, error) {
			return nil, syscall.ECONNREFUSED
		})
		check(t.Context(), t, c, app, canaryCode+"\n")
		check(t.Context(), t, c, app, strings.Repeat(canaryCode, 9))
		bad := app
		bad.Secret += "\n"
		check(t.Context(), t, c, bad, canaryCode)
		bad = weixin.Credentials{ID: canarySecret + " ", Secret: canarySecret}
		check(t.Context(), t, c, bad, canaryCode)
	})
}

type timeoutError string

func (e timeoutError) Error() string { return string(e) }
func (timeoutError) Timeout() bool   { return true }
