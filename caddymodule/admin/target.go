package admin

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// adminTarget is who a call of the operator is about. Its members say the same in JSON.
type adminTarget struct {
	AppID   string `json:"appid,omitempty"`
	OpenID  string `json:"openid,omitempty"`
	Session string `json:"session,omitempty"`
	UnionID string `json:"unionid,omitempty"`
	All     bool   `json:"all,omitempty"`

	OpenPlatform string `json:"open_platform,omitempty"` // may go with unionid
}

func (t adminTarget) user() session.User { return session.User{AppID: t.AppID, OpenID: t.OpenID} }

func (t adminTarget) person() session.Person {
	return session.Person{UnionID: t.UnionID, OpenPlatform: t.OpenPlatform}
}

// resolve finds by App.Person or App.FormerPerson the Open Platform account of a
// unionid. The error is a refusal.
func (t *adminTarget) resolve(
	person func(unionID, platform string) (session.Person, error),
) error {
	if t.UnionID == "" {
		return nil
	}
	who, err := person(t.UnionID, t.OpenPlatform)
	if err != nil {
		return refusal(http.StatusBadRequest, err.Error(), nil)
	}
	t.OpenPlatform = who.OpenPlatform
	return nil
}

// targetKinds are the kinds of targets by the members that name them, exactly
// these and no other.
var targetKinds = map[string][]string{
	"session": {"appid", "openid", "session"},
	"user":    {"appid", "openid"},
	"unionid": {"unionid"},
	"app":     {"appid"},
	"all":     {"all"},
}

// readTarget reads a body that names exactly one target of one of these kinds.
// The error is a refusal.
func readTarget(
	w http.ResponseWriter, r *http.Request, kinds ...string,
) (kind string, t adminTarget, err error) {
	obj, err := readBody(w, r)
	if err != nil {
		return "", t, err
	}
	return matchTarget(obj, kinds...)
}

// readBody reads a body. The error is a refusal.
func readBody(w http.ResponseWriter, r *http.Request) (reply.Object, error) {
	if err := requireJSON(r); err != nil {
		return nil, err
	}
	obj, err := reply.ReadObject(w, r, reply.MaxBody)
	return obj, problemRefusal(err)
}

// problemRefusal makes a refusal of a problem, and leaves another error as it is.
func problemRefusal(err error) error {
	if p, ok := errors.AsType[reply.Problem](err); ok {
		return refusal(p.Status, p.Detail, nil)
	}
	return err
}

// matchTarget reads the target that the members of a body name. The error is a refusal.
func matchTarget(obj reply.Object, kinds ...string) (kind string, t adminTarget, err error) {
	if err := t.read(obj); err != nil {
		return "", t, problemRefusal(err)
	}
	var forms []string
	for _, kind := range kinds {
		members := targetKinds[kind]
		missing := func(name string) bool { _, ok := obj[name]; return !ok }
		want := len(members)
		if _, given := obj["open_platform"]; given && kind == "unionid" {
			want++
		}
		if len(obj) == want && !slices.ContainsFunc(members, missing) &&
			t.All == (kind == "all") {
			return kind, t, nil
		}
		forms = append(forms, strings.Join(members, " + "))
	}
	return "", t, refusal(
		http.StatusBadRequest, "name one target and nothing else: "+strings.Join(forms, ", or "),
		nil,
	)
}

// read takes the members of a body. The error is a problem.
func (t *adminTarget) read(obj reply.Object) (err error) {
	for name, dst := range map[string]*string{
		"appid": &t.AppID, "openid": &t.OpenID, "unionid": &t.UnionID, "session": &t.Session,
		"open_platform": &t.OpenPlatform,
	} {
		if *dst, err = obj.Text(name); err != nil {
			return err
		}
		if _, given := obj[name]; given && *dst == "" {
			return reply.Invalid(http.StatusBadRequest, name+" is empty")
		}
	}
	if t.Session != "" &&
		!sessionName.MatchString(t.Session) { // it may be a token, and what follows would log it
		return reply.Invalid(
			http.StatusBadRequest,
			"session is no id of a session, which has 8 to 64 hex digits: `wechat "+
				"sessions` lists them",
		)
	}
	t.All, err = obj.Flag("all")
	return err
}

// checkApp refuses a mini program that nothing knows. One taken out of the configuration
// may have sessions. While the store does not answer, the call itself says so.
func (t adminTarget) checkApp(ctx context.Context, live *wechatapp.Live) error {
	if t.AppID == "" || slices.Contains(live.App.AppIDs(), t.AppID) {
		return nil
	}
	if known, err := live.Sessions.KnowsApp(ctx, t.AppID); err != nil || known {
		return nil
	}
	return refusal(http.StatusNotFound,
		"no such mini program is configured, and the store knows no user of it", nil)
}

// sessionName is how operators call a session: by the beginning of its digest.
var sessionName = regexp.MustCompile(`^[0-9a-fA-F]{8,64}$`)

// given returns the members that were given as flags, be they empty: an unset
// variable of a script must not widen the target.
func (t adminTarget) given(cmd *cobra.Command) map[string]any {
	body := make(map[string]any)
	for name, value := range map[string]any{
		"appid": t.AppID, "openid": t.OpenID, "session": t.Session, "unionid": t.UnionID,
		"open_platform": t.OpenPlatform, "all": t.All,
	} {
		if cmd.Flags().Changed(strings.ReplaceAll(name, "_", "-")) {
			body[name] = value
		}
	}
	return body
}

// userFlags adds the flags that name a user, or all with a unionid.
func (t *adminTarget) userFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.AppID, "appid", "", "`APPID` of the mini program")
	f.StringVar(&t.OpenID, "openid", "", "`OPENID` of the user")
	unionIDFlags(cmd, &t.UnionID, &t.OpenPlatform)
}

// unionIDFlags adds the flags that name all users with a unionid.
func unionIDFlags(cmd *cobra.Command, unionID, platform *string) {
	f := cmd.Flags()
	f.StringVar(unionID, "unionid", "", "`UNIONID` of the user, in all mini programs")
	f.StringVar(platform, "open-platform", "", "`NAME` of the Open Platform account that the "+
		"unionid belongs to, or the appid of a merchant; needed where there are several")
}

// whom is given for commands that are about a user, who must be named.
func (t adminTarget) whom(cmd *cobra.Command) (map[string]any, error) {
	body := t.given(cmd)
	if len(body) == 0 {
		return nil, errors.New("say whom: --appid and --openid, or --unionid; see --help")
	}
	return body, nil
}

// audit writes what was done to a target to the log.
func (t adminTarget) audit(
	r *http.Request, what, kind string, n *ended, err error, more ...zap.Field,
) {
	fields := append(more, zap.String("target", kind))
	for name, value := range map[string]string{
		"appid": t.AppID, "openid": t.OpenID, "unionid": t.UnionID, "session": t.Session,
		"open_platform": t.OpenPlatform,
	} {
		if value != "" {
			fields = append(fields, zap.String(name, value))
		}
	}
	if n != nil {
		fields = append(fields, zap.Int("users", n.Users), zap.Int("sessions", n.Sessions))
	}
	wechatapp.Audit(r, what, err, fields...)
}

// requireJSON refuses a change that is not declared as JSON. A form of another site can
// send text/plain without asking the browser; this type it cannot
// (docs/threats.md#t31).
func requireJSON(r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return refusal(
			http.StatusUnsupportedMediaType, "the body must be application/json", nil,
		)
	}
	return nil
}
