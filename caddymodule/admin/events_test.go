package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/apptest"
	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

// events returns what waits for the app, each as event, mini program and body.
func events(w *apptest.World) (all []string) {
	w.T.Helper()
	for shard := range 16 {
		due, _, err := w.Live().PushQueue().Claim(w.T.Context(), shard, time.Now().Add(time.Minute))
		if err != nil {
			w.T.Fatal(err)
		}
		for _, d := range due {
			all = append(all, d.Event+" "+d.AppID+" "+d.OpenID+" "+string(d.Body))
		}
	}
	slices.Sort(all)
	return all
}

// TestEvents_Operator_AppIsTold: of each user whom an operator forgets or blocks, durably
// before the operator hears that it is done, and of no other mini program's.
func TestEvents_Operator_AppIsTold(t *testing.T) {
	const ada = `"appid":"` + caddytest.AppID + `","openid":"ada"`
	const of = caddytest.AppID + ` ada {"event":%q,"appid":"` + caddytest.AppID +
		`","openid":"ada","unionid":"u-ada","at":`
	for _, tt := range []struct{ path, body, event, more string }{
		{"forget", `{` + ada + `}`, "forgotten", `,"reason":"operator"}`},
		{"forget", `{"unionid":"u-ada"}`, "forgotten", `,"reason":"operator"}`},
		{"block", `{` + ada + `,"reason":"x"}`, "blocked", `,"reason":"operator"}`},
		{"block", `{"unionid":"u-ada","for":"1h"}`, "blocked", `,"until":"`},
		{"revoke", `{` + ada + `}`, "", ""},
	} {
		t.Run(tt.path+tt.body, func(t *testing.T) {
			w := apptest.Started(t, apptest.WithPush(`,"events_to":"/events"`))
			for _, id := range []string{caddytest.AppID, caddytest.OtherAppID} {
				loginKnown(w, id, "ada")
			}
			status, said := adminDo(t, adminServer(t), "POST", "/wechat/"+tt.path, tt.body,
				jsonHeader())
			if status != 200 {
				t.Fatalf("%d %s", status, said)
			}
			got := events(w)
			if tt.event == "" {
				if len(got) != 0 {
					t.Errorf("got %q", got)
				}
				return
			}
			want := tt.event + " " + fmt.Sprintf(of, tt.event)
			if len(got) != 1 || !strings.HasPrefix(got[0], want) ||
				!strings.Contains(got[0], tt.more) {
				t.Errorf("got %q, want %s", got, want)
			}
		})
	}
}

// An event that cannot be kept is no success, and the repeat still finds the users.
func TestEvents_StoreDown_OperatorRepeats(t *testing.T) {
	w := apptest.Started(t, apptest.WithPush(`,"events_to":"/events"`))
	token := loginKnown(w, caddytest.AppID, "ada")
	s := adminServer(t)
	caddytest.Down.Store(true)
	defer caddytest.Down.Store(false)
	status, said := adminDo(t, s, "POST", "/wechat/forget", `{"unionid":"u-ada"}`, jsonHeader())
	if status != 503 || !strings.Contains(said, "repeat it") {
		t.Errorf("%d %s", status, said)
	}
	caddytest.Down.Store(false)
	status, said = adminDo(t, s, "POST", "/wechat/forget", `{"unionid":"u-ada"}`, jsonHeader())
	if got := events(w); status != 200 || len(got) != 1 || alive(w, token) {
		t.Errorf("%d %s, events %q", status, said, got)
	}
}
