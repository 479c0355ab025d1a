package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const explainConfig = `{
	wechat {
		app wx0123456789abcdef {env.WXGATE_TEST_NOT_SET}
		phone {
			remember
		}
	}
}

api.example.com {
	wechat_auth {
		public /assets/*
		optional /feed
		headers {
			openid X-User
		}
	}
	reverse_proxy 127.0.0.1:8080
}

cloud.example.com {
	wechat_auth {
		cloudrun
		optional /push
		public /open
	}
}

*.example.org {
	handle /inner/* {
		wechat_auth {
			endpoints /inner/wx
		}
	}
	handle {
		reverse_proxy 127.0.0.1:8081
	}
}

http://:8082 {
	rewrite /old/* /new{uri}
	@internal remote_ip 10.0.0.0/8
	reverse_proxy @internal 127.0.0.1:8083
	basic_auth {
		ada JDJhJDE0JE1lTnFJTEU0UEFOaGZBM1ZBcjNGcmV6Tk5CQ0FLbmU2Q2pIRmpKSUxXNE1iTzJCNkVwZ0dH
	}
	wechat_auth
	reverse_proxy 127.0.0.1:8083
}
`

// TestExplainCommand holds that explain prints the decision with its cause, for the
// gates of the requested host, and never prints a token.
func TestExplainCommand(t *testing.T) {
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte(explainConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	const token = "wxs_aLCk9sbUIbg6iKtucS4QY2g93_L1qiZAkViJD_Lqa"
	for _, tt := range []struct {
		name string
		args []string
		want []string // in the output, or in the error when it begins with "!"
	}{
		{"required", []string{"GET", "https://api.example.com/orders"}, []string{"site        api.example.com on :443", "needs a session: no rule opens it", "token       none", "401 session_missing"}},
		{"public", []string{"GET", "https://api.example.com/assets/a.png"}, []string{"public: opened by the rule /assets/*", "on to the app, with no identity"}},
		{"guest", []string{"GET", "https://api.example.com/feed"}, []string{"open to guests: opened by the rule /feed", "as a guest"}},
		{"trick", []string{"GET", "https://api.example.com/assets/../admin"}, []string{"needs a session: ", "dot segment", "401 session_missing"}},
		{"endpoint", []string{"POST", "https://api.example.com/wx/login"}, []string{"endpoint: the gate answers it itself", "decision    answered by the gate"}},
		{"not found", []string{"POST", "https://api.example.com/WX/login"}, []string{"404 not_found"}},
		{"token", []string{"GET", "https://api.example.com/orders", "-H", "Authorization: Bearer " + token}, []string{"present; only the running gate", "X-User, X-WX-APPID", "X-WX-UNIONID when it is known, and so X-WX-PHONE", "else 401 session_invalid", "the app never sees it"}},
		{"token on a public path", []string{"GET", "https://api.example.com/assets/a", "-H", "X-3rd-Session: " + token}, []string{"present, not looked at", "with no identity"}},
		{"cloudrun", []string{"GET", "https://cloud.example.com/x", "-H", "x-wx-source: wx_client", "-H", "x-wx-openid: o", "-H", "x-wx-appid: wx", "-H", "X-WX-Other: 1"}, []string{"removed     X-Wx-Other: ", "decision    on to the app with what WeChat Cloud Hosting says"}},
		{"cloudrun, forged", []string{"GET", "https://cloud.example.com/push", "-H", "x-wx-openid: o"}, []string{"removed     X-Wx-Openid: ", "403 identity_refused: identity headers that are not those"}},
		{"cloudrun, nobody", []string{"GET", "https://cloud.example.com/x", "-H", "Authorization: Bearer " + token}, []string{"403 identity_missing", "the app never sees it"}},
		{"cloudrun, guest", []string{"GET", "https://cloud.example.com/push"}, []string{"as a guest"}},
		{"cloudrun, public", []string{"GET", "https://cloud.example.com/open"}, []string{"with no identity"}},
		{"cloudrun, login", []string{"POST", "https://cloud.example.com/wx/login"}, []string{"404 not_found: behind WeChat Cloud Hosting there is no login endpoint"}},
		{"cloudrun, trailer", []string{"GET", "https://cloud.example.com/x", "-H", "Trailer: X-WX-OPENID"}, []string{"400 invalid_request"}},
		{"two tokens", []string{"GET", "https://api.example.com/orders", "-H", "X-3rd-Session: a", "-H", "X-3rd-Session: b"}, []string{"two different ones", "400 ambiguous_credentials"}},
		{"trailer", []string{"POST", "https://api.example.com/orders", "-H", "Trailer: X-Wx-Openid"}, []string{"400 invalid_request: trailer declared"}},
		{"forged", []string{"GET", "https://api.example.com/orders", "-H", "X_WX_OPENID: me", "-H", "X~User: me"}, []string{"X_wx_openid: only the gate sets", "X~user: only the gate sets"}},
		{"nested, wildcard host", []string{"GET", "https://www.example.org:443/inner/wx/login"}, []string{"*.example.org", "endpoint"}},
		{"every gate", []string{"GET", "/orders"}, []string{"api.example.com", "*.example.org"}},
		{"beside the gate", []string{"GET", "https://www.example.org/api;x/orders"}, []string{
			"on to the app WITHOUT a gate", "*.example.org",
		}},
		{"rewritten", []string{"GET", "http://any:8082/old/x"}, []string{
			"needs a session", "unsure      authentication may answer",
		}},
		{"long method", []string{strings.Repeat("A", 40), "http://any:8082/"}, []string{
			"before any handler", "longer than 32",
		}},
		{"other port", []string{"GET", "http://api.example.com:8888/"}, []string{"!no wechat_auth guards"}},
		{"other host", []string{"GET", "https://example.net/"}, []string{"!no wechat_auth guards the host example.net"}},
		{"no header", []string{"GET", "/", "-H", "nonsense"}, []string{"!write 'Name: value'"}},
		{"no request", []string{"GE T", "/"}, []string{"!no server would read this"}},
		{"arguments", []string{"GET"}, []string{"!accepts 2 arg(s)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := explainCommand()
			var out bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&out)
			cmd.SetArgs(append([]string{"--config", config, "--adapter", "caddyfile"}, tt.args...))
			err := cmd.Execute()
			for _, want := range tt.want {
				if e, ok := strings.CutPrefix(want, "!"); ok {
					if err == nil || !strings.Contains(err.Error(), e) {
						t.Errorf("error %v, want %q", err, e)
					}
				} else if err != nil || !strings.Contains(out.String(), want) {
					t.Errorf("%q is not in (%v):\n%s", want, err, out.String())
				}
			}
			if strings.Contains(out.String(), token) {
				t.Error("the token is shown")
			}
		})
	}
}
