package weixin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestThreat28_CredentialsPrintNoSecret(t *testing.T) {
	const secret, key = "canary-appsecret", "canary-session-key"
	app := weixin.Credentials{ID: "wx0123456789abcdef", Secret: secret}
	session := weixin.Session{OpenID: "o-visible", SessionKey: key, UnionID: "u-visible"}
	values := map[string]any{
		"wx0123456789abcdef": app,
		"o-visible":          session,
	}
	withTokens := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reply(200, `{"access_token":"`+secret+`","expires_in":7200}`)(w, r)
	})
	tok := token(t, withTokens)
	userKey := weixin.UserKey{Version: 1}
	copy(userKey.Key[:], key)
	copy(userKey.IV[:], secret)
	nested := []any{
		tok, &tok,
		[]weixin.AccessToken{tok},
		struct{ T weixin.AccessToken }{tok},
		map[weixin.AccessToken]bool{tok: true},
		userKey, &userKey,
		[]weixin.UserKey{userKey},
		struct{ K *weixin.UserKey }{&userKey},
		&app, &session,
		[]weixin.Credentials{app},
		[]weixin.Session{session},
		map[string]any{"a": app, "s": session},
		struct{ A weixin.Credentials }{app},
		struct{ S *weixin.Session }{&session},
	}
	var out strings.Builder
	out.WriteString(app.String() + session.String() + tok.String() + userKey.String())
	for id, v := range values {
		got := renderings(v)
		if !strings.Contains(got, id) {
			t.Errorf("%T without its id: %s", v, got)
		}
		out.WriteString(got)
	}
	for _, v := range nested {
		out.WriteString(renderings(v))
	}
	for _, c := range canaryForms(secret, key, key[:16], secret[:16]) {
		if strings.Contains(out.String(), c) {
			t.Errorf("%q leaked: %s", c, out.String())
		}
	}
}

// renderings returns v in every form in which it could reach a log.
func renderings(v any) string {
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t", "%T"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	options := &slog.HandlerOptions{Level: slog.LevelDebug}
	slog.New(slog.NewJSONHandler(&out, options)).Debug("m", "v", v)
	slog.New(slog.NewTextHandler(&out, options)).Debug("m", "v", v)
	if j, err := json.Marshal(v); err == nil {
		out.Write(j)
	}
	return out.String()
}

// canaryForms returns a secret as the renderings would show it: plain, in
// hexadecimal and as a list of bytes.
func canaryForms(secrets ...string) []string {
	var forms []string
	for _, s := range secrets {
		list := strings.Trim(fmt.Sprint([]byte(s)), "[]")
		forms = append(forms, s, fmt.Sprintf("%x", s), fmt.Sprintf("%X", s), list,
			strings.ReplaceAll(list, " ", ","))
	}
	return forms
}
