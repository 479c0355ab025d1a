package weixin_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// platformOf is a third-party platform with a list of tokens, one after the other.
type platformOf struct {
	tokens  []string
	doubted int
}

func (*platformOf) AppID() string { return "wx9876543210fedcba" }

func (p *platformOf) ComponentToken(_ context.Context, refused string) (string, error) {
	if refused == p.tokens[0] && len(p.tokens) > 1 {
		p.tokens = p.tokens[1:]
	}
	return p.tokens[0], nil
}

func (p *platformOf) MerchantToken(ctx context.Context, _, refused string) (string, error) {
	return p.ComponentToken(ctx, refused)
}

func (p *platformOf) Doubted(string) { p.doubted++ }

// TestCode2Session_Platform: how often a code goes out, and what becomes of it.
func TestCode2Session_Platform(t *testing.T) {
	refusal := func(code string) string { return `{"errcode":` + code + `,"errmsg":"x"}` }
	for _, c := range []struct {
		name    string
		answers []string
		class   weixin.Class
		sent    int
		doubted int
	}{
		{"good", []string{goodBody}, weixin.ClassOK, 1, 0},
		{"errcode as a text", []string{refusal(`"40029"`)}, weixin.ClassCodeInvalid, 1, 0},
		{"used", []string{refusal("40163")}, weixin.ClassCodeUsed, 1, 0},
		{"not authorised", []string{refusal("61003")}, weixin.ClassUnauthorized, 1, 1},
		{"token ended", []string{refusal("42001"), goodBody}, weixin.ClassOK, 2, 0},
		{
			"tokens refused",
			[]string{refusal("40001"), refusal("40001"), goodBody},
			weixin.ClassMisconfigured, 2, 0,
		},
		{"other address", []string{refusal("61004")}, weixin.ClassMisconfigured, 1, 0},
		{"ticket", []string{refusal("61006")}, weixin.ClassNoTicket, 1, 0},
		{"odd", []string{"<html>"}, weixin.ClassProtocol, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			sent := 0
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if r.URL.Path != "/sns/component/jscode2session" || q.Has("secret") ||
					q.Get("component_appid") != "wx9876543210fedcba" ||
					q.Get("component_access_token") != fmt.Sprint("token-", sent) {
					t.Errorf("sent %s", r.URL)
				}
				fmt.Fprint(w, c.answers[sent])
				sent++
			})
			p := &platformOf{tokens: []string{"token-0", "token-1"}}
			app := weixin.Credentials{ID: testApp.ID, Platform: p}
			_, err := client.Code2Session(t.Context(), app, goodCode)
			class := weixin.ClassOK
			if e, ok := errors.AsType[*weixin.Error](err); ok {
				class = e.Class
			}
			if class != c.class || sent != c.sent || p.doubted != c.doubted {
				t.Errorf("%v, sent %d times, doubted %d times", err, sent, p.doubted)
			}
			if err != nil && (strings.Contains(err.Error(), "token-") ||
				strings.Contains(err.Error(), goodCode)) {
				t.Errorf("a secret in %v", err)
			}
			if client.BreakerOpen() {
				t.Error("the breaker is open")
			}
		})
	}
}

// TestLadder_BadAnswers_AreRefused: none of them becomes an empty token.
func TestLadder_BadAnswers_AreRefused(t *testing.T) {
	platform := weixin.Credentials{ID: "wx9876543210fedcba", Secret: testApp.Secret}
	calls := map[string]func(*weixin.Client) error{
		"component token": func(c *weixin.Client) error {
			_, err := c.ComponentToken(t.Context(), platform, "ticket")
			return err
		},
		"query auth": func(c *weixin.Client) error {
			_, err := c.QueryAuth(t.Context(), platform, "token", "code")
			return err
		},
		"merchant token": func(c *weixin.Client) error {
			_, err := c.MerchantToken(t.Context(), platform, "token", testApp.ID, "refresh")
			return err
		},
		"list": func(c *weixin.Client) error {
			_, _, err := c.Authorizers(t.Context(), platform, "token", 0)
			return err
		},
		"pre-auth code": func(c *weixin.Client) error {
			_, _, err := c.PreAuthCode(t.Context(), platform, "token")
			return err
		},
		"start push": func(c *weixin.Client) error {
			return c.StartPushTicket(t.Context(), platform)
		},
	}
	for _, body := range []string{
		"", "{}", "[]", "null", "<html>", `{"errcode":0}x`, `{"errcode":"61004"}`,
		`{"component_access_token":"","expires_in":7200}`,
		`{"component_access_token":"t","expires_in":0}`,
		`{"authorization_info":{"authorizer_appid":"a","authorizer_access_token":"t",` +
			`"expires_in":7200}}`,
		`{"total_count":-1,"list":[]}`, `{"total_count":1,"list":[{}]}`,
	} {
		client := serve(t, reply(http.StatusOK, body))
		for name, call := range calls {
			if err := call(client); err == nil {
				t.Errorf("%s: %s is taken for an answer", name, body)
			}
		}
	}
}
