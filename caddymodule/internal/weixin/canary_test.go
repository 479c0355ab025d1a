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

// The secrets have the shapes of real ones, so that a pattern cannot take them for harmless by accident.
const (
	canarySecret = "c0ffee00c0ffee00c0ffee00deadbeef"
	canaryCode   = "0canaryCODEcanaryCODEcanaryCODE1"
	canaryKey    = "Y2FuYXJ5Y2FuYXJ5IQ+/AA=="
	canaryToken  = "96_CANARYtoken-CANARYtoken_CANARYtoken"
)

// leak is a body that echoes everything, also where a request id is expected.
const leak = canarySecret + " " + canaryToken + " rid: " + canaryToken + " rid: " + canaryCode + " req_id: " + canarySecret + " " + canaryKey + " rid: " + canaryKey + " rid: " + canarySecret

func TestThreat28_FailuresTellNoSecret(t *testing.T) {
	var logged bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	app := weixin.Credentials{ID: "wx0123456789abcdef", Secret: canarySecret}
	tokenApp, _ := fileApp(t, canaryToken)
	secrets := append(canaryForms(canarySecret, canaryCode, canaryKey, canaryToken), "js_code", "secret=", "token=", "sns/", "wxa/", "cgi-bin/")
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
	check := func(t *testing.T, ctx context.Context, c *weixin.Client, app weixin.Credentials, code string) {
		t.Helper()
		s, err := c.Code2Session(ctx, app, code)
		judge(t, s, err)
		tok, err := c.Tokens().Token(ctx, app)
		judge(t, tok, err)
		user := weixin.Session{OpenID: "o1", SessionKey: canaryKey}
		phone, err := c.PhoneNumber(ctx, tokenApp, code, "o1")
		judge(t, phone, err)
		judge(t, nil, c.CheckSession(ctx, tokenApp, user))
		fresh, err := c.ResetUserSessionKey(ctx, tokenApp, user)
		judge(t, fresh, err)
		id, err := c.PaidUnionID(ctx, tokenApp, weixin.Payment{OpenID: "o1", TransactionID: canaryCode})
		judge(t, id, err)
		id, err = c.PluginOpenPID(ctx, tokenApp, code)
		judge(t, id, err)
		keys, err := c.UserEncryptKey(ctx, tokenApp, user)
		judge(t, keys, err)
	}
	plain := func(t *testing.T, c *weixin.Client) { t.Helper(); check(t, t.Context(), c, app, canaryCode) }

	for _, errcode := range []int{-1, 1, 40013, 40029, 40125, 40163, 40164, 40226, 40243, 41002, 41004, 41008, 45009, 45011, 48001, 50001, 50002} {
		for _, status := range []int{200, 500} {
			plain(t, serve(t, reply(status, fmt.Sprintf(`{"errcode":%d,"errmsg":%q,"openid":"o1","session_key":%q}`, errcode, leak, canaryKey))))
		}
	}
	for _, body := range []string{
		leak, `"` + leak + `"`, `{"errcode":"` + leak + `"}`, `{"openid":` + leak + `}`, `{"` + leak + `":1}`, `{"openid":"o1","session_key":"` + canaryKey,
		`{"openid":"` + leak + `","session_key":"` + canaryKey + `"}`, `{"openid":"o1","session_key":"` + canaryKey + `\n"}`,
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
	for name, script := range map[string]func(c *rawConn, head string){
		"echo":             func(c *rawConn, head string) { c.send(head) },
		"echo in status":   func(c *rawConn, head string) { c.send("HTTP/1.1 " + head) },
		"echo in header":   func(c *rawConn, head string) { c.send("HTTP/1.1 200 OK\r\n" + leak + "\r\n\r\n") },
		"echo in length":   func(c *rawConn, head string) { c.send("HTTP/1.1 200 OK\r\nContent-Length: " + leak + "\r\n\r\n") },
		"echo in encoding": func(c *rawConn, head string) { c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: " + leak + "\r\n\r\n") },
		"echo in chunk": func(c *rawConn, head string) {
			c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + leak + "\r\n")
		},
		"long header": func(c *rawConn, head string) {
			c.send("HTTP/1.1 200 OK\r\nX: " + strings.Repeat(leak, 1000) + "\r\n\r\n")
		},
		"truncated": func(c *rawConn, head string) { c.send("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + leak) },
		"end":       func(*rawConn, string) {},
		"reset":     func(c *rawConn, _ string) { c.reset() },
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
		check(t, ctx, c, app, canaryCode)
		gone, giveUp := context.WithCancelCause(t.Context())
		giveUp(errors.New(leak))
		check(t, gone, c, app, canaryCode)
	})
	t.Run("no connection", func(t *testing.T) {
		for _, cause := range []error{
			errors.New(leak), &net.OpError{Op: "dial", Err: errors.New(leak)}, io.EOF,
			&net.DNSError{Err: "no such host", Name: "wechat.invalid"}, &net.OpError{Op: "dial", Err: timeoutError(leak)},
			fmt.Errorf("%s: %w", leak, syscall.ECONNREFUSED), fmt.Errorf("%s: %w", leak, io.EOF), fmt.Errorf("%s: %w", leak, io.ErrUnexpectedEOF),
		} {
			c := newClient(t, weixin.Config{})
			c.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, cause })
			for range 9 { // the last one meets the open breaker
				plain(t, c)
			}
		}
	})
	t.Run("TLS", func(t *testing.T) {
		srv := httptest.NewServer(reply(200, goodBody))
		defer srv.Close()
		plain(t, newClient(t, weixin.Config{BaseURL: "https" + strings.TrimPrefix(srv.URL, "http")}))
		secure := httptest.NewUnstartedServer(reply(200, goodBody))
		secure.Config.ErrorLog = log.New(io.Discard, "", 0)
		secure.StartTLS()
		defer secure.Close()
		plain(t, newClient(t, weixin.Config{BaseURL: secure.URL}))
	})
	t.Run("impossible arguments", func(t *testing.T) {
		c := newClient(t, weixin.Config{})
		c.SetDial(func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED })
		check(t, t.Context(), c, app, canaryCode+"\n")
		check(t, t.Context(), c, app, strings.Repeat(canaryCode, 9))
		check(t, t.Context(), c, weixin.Credentials{ID: app.ID, Secret: canarySecret + "\n"}, canaryCode)
		check(t, t.Context(), c, weixin.Credentials{ID: canarySecret + " ", Secret: canarySecret}, canaryCode)
	})
}

type timeoutError string

func (e timeoutError) Error() string { return string(e) }
func (timeoutError) Timeout() bool   { return true }
