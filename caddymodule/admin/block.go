package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// blockAnswer is what POST /wechat/block tells when it is done.
type blockAnswer struct {
	Target string    `json:"target"`          // user or unionid
	Until  time.Time `json:"until,omitzero"`  // absent: for good
	Ended  *ended    `json:"ended,omitempty"` // absent when it could not be found out before
}

// maxReason bounds the bytes of a reason, which stand in the record and in the log.
const maxReason = 200

func serveBlock(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	obj, err := readBody(w, r)
	if err != nil {
		return err
	}
	b, err := readBlock(obj)
	if err != nil {
		return problemRefusal(err)
	}
	kind, t, err := matchTarget(obj, "user", "unionid")
	if err != nil {
		return err
	}
	if err := t.checkApp(r.Context(), live); err != nil {
		return err
	}
	if err := t.resolve(live.App.Person); err != nil {
		return err
	}
	b.Blocked = t.blocked()
	n, err := block(context.WithoutCancel(r.Context()), live, kind, t, b)
	more := []zap.Field{zap.String("reason", b.Reason)}
	if !b.Until.IsZero() {
		more = append(more, zap.Time("until", b.Until))
	}
	t.audit(r, "user blocked", kind, n, err, more...)
	switch {
	case errors.Is(err, session.ErrUnavailable):
		return refusal(http.StatusServiceUnavailable,
			"the session store does not answer: the user may not be blocked: repeat it", err)
	case err != nil:
		return storeRefusal(err)
	}
	return answerAdmin(w, blockAnswer{Target: kind, Until: b.Until, Ended: n})
}

func (t adminTarget) blocked() session.Blocked {
	return session.Blocked{AppID: t.AppID, OpenID: t.OpenID, Person: t.person()}
}

// readBlock takes what a body says of a block, all but the target. The error is a
// problem.
func readBlock(obj reply.Object) (b session.Block, err error) {
	life, err := obj.Text("for")
	if err == nil {
		b.Reason, err = obj.Text("reason")
	}
	if err != nil {
		return b, err
	}
	b.Since = time.Now().UTC().Truncate(time.Second)
	if _, given := obj["for"]; given {
		d, err := caddy.ParseDuration(life)
		if err != nil || d < time.Second {
			return b, reply.Invalid(http.StatusBadRequest,
				"for is no time of a second or more: write it as 90m, 72h or 30d")
		}
		b.Until = b.Since.Add(d.Truncate(time.Second))
	}
	if len(b.Reason) > maxReason || strings.ContainsFunc(b.Reason, notShown) {
		return b, reply.Invalid(http.StatusBadRequest, fmt.Sprintf(
			"reason is longer than %d bytes, or has characters that cannot be shown", maxReason))
	}
	delete(obj, "for")
	delete(obj, "reason")
	return b, nil
}

func notShown(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar }

// block keeps a target out, and returns how many sessions that ended.
func block(
	ctx context.Context, live *wechatapp.Live, kind string, t adminTarget, b session.Block,
) (*ended, error) {
	users, unknown := known(ctx, live, kind, t)
	_, err := live.Sessions.Block(ctx, b)
	if err == nil {
		err = tell(ctx, live, wechatapp.EventBlocked, kind, t, users, unknown, b.Until)
	}
	if err != nil || unknown != nil {
		return nil, err
	}
	return countLive(users...), nil
}

// blockCommand is `wxgate wechat block`.
func blockCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	var life, reason string
	var consent cli.Consent
	cmd := &cobra.Command{
		Use: "block {--appid APPID --openid OPENID | --unionid UNIONID} " +
			"[--for DURATION] [--reason TEXT]",
		Short: "Keeps a user from logging in",
		Long: `
Ends every session of a user of one mini program, or of all users with a unionid, and
refuses their logins with the code user_blocked, at all gates that share the store. A
second block of the same user replaces the first.

A block by unionid keeps out users of other mini programs too, also at their first login,
as soon as WeChat tells their unionid. Where it tells none, block the openid. The command
tells how many users that are and asks; without a terminal it needs --yes.

forget leaves a block in place: a forgotten user stays blocked.
`,
		Example: `  wxgate wechat block --appid wx0123456789abcdef --openid oUser1 --for 72h
  wxgate wechat block --unionid uUser1 --reason "sells tickets" --yes`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body, err := t.whom(cmd)
			if err != nil {
				return cli.Failed, err
			}
			for name, value := range map[string]string{"for": life, "reason": reason} {
				if cmd.Flags().Changed(name) {
					body[name] = value
				}
			}
			if t.UnionID != "" {
				err := c.askFirst(cmd, &consent, "This keeps out all with the unionid", body)
				if err != nil {
					return cli.Failed, err
				}
			}
			return ask(
				&c, cmd,
				func() (*http.Response, int, error) {
					return c.send("POST", "/wechat/block", body)
				},
				writeBlock,
			)
		}),
	}
	t.userFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&life, "for", "", "`DURATION`, as 90m, 72h or 30d; for good, if not given")
	f.StringVar(&reason, "reason", "", "`TEXT` that says why, for the list of blocks and the log")
	consent.Flag(cmd)
	c.flags(cmd)
	c.jsonFlag(cmd)
	return cmd
}

func writeBlock(out io.Writer, a blockAnswer) error {
	said := "Blocked for good"
	if !a.Until.IsZero() {
		said = "Blocked until " + cli.Time(a.Until)
	}
	if a.Ended != nil {
		said += "; ended " + cli.Amount(a.Ended.Sessions, "live session") + " of " +
			cli.Amount(a.Ended.Users, "user")
	}
	_, err := fmt.Fprintln(out, said+".")
	return err
}
