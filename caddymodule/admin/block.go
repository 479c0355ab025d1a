package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
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
			return ask(&c, cmd, "POST", "/wechat/block", body, writeBlock)
		}),
	}
	t.userFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&life, "for", "", "`DURATION`, as 90m, 72h or 30d; for good, if not given")
	f.StringVar(&reason, "reason", "", "`TEXT` that says why, for the list of blocks and the log")
	consent.Flag(cmd)
	c.flags(cmd)
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

// unblockAnswer is what POST /wechat/unblock tells when it is done.
type unblockAnswer struct {
	Target string `json:"target"` // user or unionid
}

// serveUnblock takes any mini program, one that is no longer configured, too.
func serveUnblock(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "unionid")
	if err != nil {
		return err
	}
	if err := t.resolve(live.App.FormerPerson); err != nil {
		return err
	}
	held, err := live.Sessions.Unblock(context.WithoutCancel(r.Context()), t.blocked())
	if err == nil && !held {
		return refusal(http.StatusNotFound,
			"no block of that "+kind+" holds: `wechat blocked` lists those that do", nil)
	}
	t.audit(r, "user unblocked", kind, nil, err)
	if err != nil {
		return storeRefusal(err)
	}
	return answerAdmin(w, unblockAnswer{Target: kind})
}

// unblockCommand is `wxgate wechat unblock`.
func unblockCommand() *cobra.Command {
	var c adminClient
	var t adminTarget
	cmd := &cobra.Command{
		Use:   "unblock {--appid APPID --openid OPENID | --unionid UNIONID}",
		Short: "Lets a blocked user log in again",
		Long: `
Removes the block of a user, or of a unionid, as it was made: a block by unionid does not
end with the openid of one user. The exit status is 1 when there is no such block.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			body, err := t.whom(cmd)
			if err != nil {
				return cli.Failed, err
			}
			return ask(&c, cmd, "POST", "/wechat/unblock", body, writeUnblocked)
		}),
	}
	t.userFlags(cmd)
	c.flags(cmd)
	return cmd
}

func writeUnblocked(out io.Writer, _ unblockAnswer) error {
	_, err := fmt.Fprintln(out, "Unblocked.")
	return err
}

// blockedAnswer is what GET /wechat/blocked tells.
type blockedAnswer struct {
	Blocked []session.Block `json:"blocked"` // newest first; never null
}

func serveBlocked(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	all, err := live.Sessions.Blocks(r.Context())
	if err != nil {
		return storeRefusal(err)
	}
	return answerAdmin(w, blockedAnswer{Blocked: append([]session.Block{}, all...)})
}

// blockedCommand is `wxgate wechat blocked`.
func blockedCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "blocked",
		Short: "Lists the users who are kept from logging in",
		Args:  cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, "GET", "/wechat/blocked", nil, writeBlocked)
		}),
	}
	c.flags(cmd)
	return cmd
}

func writeBlocked(out io.Writer, a blockedAnswer) error {
	if len(a.Blocked) == 0 {
		_, err := fmt.Fprintln(out, "No user is blocked.")
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "APPID\tOPENID\tUNIONID\tSINCE\tUNTIL\tREASON")
	for _, b := range a.Blocked {
		name := func(s string) string { return cli.Text(cmp.Or(s, "-")) }
		reason := strings.Map(func(c rune) rune {
			if notShown(c) {
				return '?'
			}
			return c
		}, b.Reason)
		unionID := name(b.UnionID)
		if b.OpenPlatform != "" {
			unionID += " of " + cli.Text(b.OpenPlatform)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name(b.AppID), name(b.OpenID),
			unionID, cli.Time(b.Since), cli.Time(b.Until), cmp.Or(reason, "-"))
	}
	return t.Flush()
}
