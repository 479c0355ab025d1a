package wechatauth

import (
	"encoding/json"
	"slices"
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/forwardauth"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// TestThreat36_Order holds that the gate runs after what only looks at the request, and
// before each handler that may send it on.
func TestThreat36_Order(t *testing.T) {
	out, _, err := caddytest.Adapt(
		"{\n\twechat {\n\t\tapp " + caddytest.AppID + " {env.A}\n\t}\n}\n" +
			":80 {\n\treverse_proxy 127.0.0.1:1\n\trequest_header X-A b\n" +
			"\tforward_auth 127.0.0.1:1 {\n" +
			"\t\turi /check\n\t}\n\twechat_auth\n" +
			"\tbasic_auth {\n\t\tbob $2a$14$x\n\t}\n\theader X-A b\n" +
			"\trewrite * /x\n}\n",
	)
	if err != nil {
		t.Fatal(err)
	}
	var cfg struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Routes []struct {
						Handle []struct{ Handler string }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(out, &cfg); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range cfg.Apps.HTTP.Servers["srv0"].Routes {
		for _, h := range r.Handle {
			got = append(got, h.Handler)
		}
	}
	want := []string{
		"headers", "rewrite", "authentication", "wechat_auth",
		"reverse_proxy", // of forward_auth
		"headers", "reverse_proxy",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
