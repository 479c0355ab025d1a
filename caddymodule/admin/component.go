package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// componentAnswer tells of one third-party platform.
type componentAnswer struct {
	AppID      string        `json:"appid"`
	Ready      bool          `json:"ready"` // there is a ticket or a token
	TicketCame time.Time     `json:"ticket_came,omitzero"`
	Waiting    int           `json:"codes_waiting"` // authorisations under way
	Merchants  []merchantRow `json:"merchants"`
}

type merchantRow struct {
	AppID string          `json:"appid"`
	State component.State `json:"state"`
	Since time.Time       `json:"since"`
}

// serveComponents lists the third-party platforms with their mini programs.
func serveComponents(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	answers := []componentAnswer{}
	for _, p := range live.Platforms() {
		a, err := tellComponent(r.Context(), p)
		if err != nil {
			return componentRefusal(err)
		}
		answers = append(answers, a)
	}
	return answerAdmin(w, answers)
}

func tellComponent(ctx context.Context, p *component.Platform) (a componentAnswer, err error) {
	all, err := p.Merchants(ctx)
	if err != nil {
		return a, err
	}
	h := p.Health()
	a = componentAnswer{
		AppID: p.AppID(), Ready: h.Ready, TicketCame: h.TicketCame.UTC(), Waiting: h.Waiting,
		Merchants: []merchantRow{},
	}
	for _, m := range all {
		since := m.Since.UTC().Truncate(time.Second)
		a.Merchants = append(a.Merchants, merchantRow{m.AppID, m.State, since})
	}
	slices.SortFunc(a.Merchants, func(x, y merchantRow) int {
		return cmp.Compare(x.AppID, y.AppID)
	})
	return a, nil
}

// componentRefusal is the refusal for an error about a third-party platform.
func componentRefusal(err error) error {
	switch e, ok := errors.AsType[*weixin.Error](err); {
	case errors.Is(err, session.ErrUnavailable):
		return storeRefusal(err)
	case ok && e.Class == weixin.ClassNoTicket:
		return refusal(http.StatusServiceUnavailable, e.Error(), nil)
	case ok:
		return refusal(http.StatusBadGateway, e.Error(), nil)
	case errors.Is(err, component.ErrSealed):
		return refusal(http.StatusInternalServerError, component.ErrSealed.Error(), err)
	}
	return refusal(http.StatusInternalServerError, "the call failed; the log has the reason", err)
}

// readComponent reads a body that names a platform, which may be left out where there is
// one only. The error is a refusal.
func readComponent(
	live *wechatapp.Live, w http.ResponseWriter, r *http.Request,
) (*component.Platform, reply.Object, error) {
	obj, err := readBody(w, r)
	if err != nil {
		return nil, nil, err
	}
	id, err := obj.Text("component")
	if err != nil {
		return nil, nil, problemRefusal(err)
	}
	all := live.Platforms()
	if id == "" && len(all) == 1 {
		return all[0], obj, nil
	}
	if p := live.Platform(id); p != nil {
		return p, obj, nil
	}
	what := "no such component is configured"
	if id == "" {
		what = "say which component: there is none, or more than one"
	}
	return nil, nil, refusal(http.StatusNotFound, what, nil)
}

// componentLink is where a merchant authorises a platform.
type componentLink struct {
	PC      string    `json:"pc"`
	H5      string    `json:"h5"`
	Expires time.Time `json:"expires"`
}

// serveComponentLink makes an authorisation link.
func serveComponentLink(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	p, obj, err := readComponent(live, w, r)
	if err != nil {
		return err
	}
	back, err := obj.Text("redirect_uri")
	if err != nil {
		return problemRefusal(err)
	}
	to, err := url.Parse(back)
	if err != nil || to.Scheme != "https" && to.Scheme != "http" || to.Host == "" {
		return refusal(http.StatusBadRequest, "redirect_uri is no web address: WeChat sends the "+
			"merchant back there, to a page on the domain of the platform", nil)
	}
	code, life, err := p.Link(r.Context())
	if err != nil {
		return componentRefusal(err)
	}
	wechatapp.Audit(r, "authorisation link made", nil, zap.String("component", p.AppID()))
	q := url.Values{
		"component_appid": {p.AppID()}, "pre_auth_code": {code}, "redirect_uri": {back},
		"auth_type": {"2"}, // mini programs
	}
	h5 := url.Values{"action": {"bindcomponent"}, "no_scan": {"1"}}
	return answerAdmin(w, componentLink{
		PC: "https://mp.weixin.qq.com/cgi-bin/componentloginpage?" + q.Encode(),
		H5: "https://open.weixin.qq.com/wxaopen/safe/bindcomponent?" + h5.Encode() + "&" +
			q.Encode() + "#wechat_redirect",
		Expires: time.Now().Add(life).UTC().Truncate(time.Second),
	})
}

// serveComponentRepair makes what the gate keeps of a platform agree with WeChat's list.
func serveComponentRepair(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	p, obj, err := readComponent(live, w, r)
	if err != nil {
		return err
	}
	reset, err := obj.Flag("reset")
	if err != nil {
		return problemRefusal(err)
	}
	ctx := context.WithoutCancel(r.Context())
	if err = p.Reseal(ctx, reset); err == nil {
		err = p.ReadList(ctx)
	}
	wechatapp.Audit(r, "component repaired", err,
		zap.String("component", p.AppID()), zap.Bool("reset", reset))
	if err != nil {
		return componentRefusal(err)
	}
	a, err := tellComponent(ctx, p)
	if err != nil {
		return componentRefusal(err)
	}
	return answerAdmin(w, a)
}

// componentCommand is `wxgate wechat component`, which lists.
func componentCommand() *cobra.Command {
	cmd := componentListCommand("component")
	cmd.AddCommand(
		componentListCommand("list"), componentLinkCommand(), componentRepairCommand(),
	)
	return cmd
}

func componentListCommand(name string) *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   name,
		Short: "Lists third-party platforms with their mini programs",
		Long: `
Lists each configured component, when its last ticket came, and the mini programs that
have authorised it: authorized; no_refresh_token, whose users log in while calls with an
access token fail; unauthorized, which have withdrawn.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, "GET", "/wechat/component", nil, writeComponents)
		}),
	}
	c.flags(cmd)
	return cmd
}

func writeComponents(out io.Writer, all []componentAnswer) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "No component is configured.")
		return err
	}
	for _, a := range all {
		if err := writeComponent(out, a); err != nil {
			return err
		}
	}
	return nil
}

func writeComponent(out io.Writer, a componentAnswer) error {
	state := "ready"
	if !a.Ready {
		state = "waits for its ticket"
	}
	fmt.Fprintf(out, "Component %s: %s; last ticket %s; %s waiting.\n", cli.Text(a.AppID), state,
		cli.Time(a.TicketCame), cli.Amount(a.Waiting, "authorisation"))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MINI PROGRAM\tSTATE\tSINCE")
	for _, m := range a.Merchants {
		fmt.Fprintf(t, "%s\t%s\t%s\n", cli.Text(m.AppID), cli.Text(string(m.State)),
			cli.Time(m.Since))
	}
	return t.Flush()
}

// componentFlags adds the flag that names a platform, and returns the body it makes.
func componentFlags(cmd *cobra.Command) (body func() map[string]any) {
	id := cmd.Flags().String("component", "", "`APPID` of the platform, if there are several")
	return func() map[string]any {
		if cmd.Flags().Changed("component") {
			return map[string]any{"component": *id}
		}
		return map[string]any{}
	}
}

// componentLinkCommand is `wxgate wechat component link`.
func componentLinkCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "link --redirect-uri URL [--component APPID]",
		Short: "Makes a link on which a merchant authorises the component",
		Long: `
Prints two links to WeChat's page on which the owner of a mini program authorises the
component: one for a computer, one to open in WeChat. Each is good for one authorisation,
for some minutes. WeChat sends the owner on to the redirect URI, which must be on the
domain of the component, and tells the gate by a push.
`,
		Args: cobra.NoArgs,
	}
	body := componentFlags(cmd)
	back := cmd.Flags().String("redirect-uri", "", "`URL` that WeChat sends the owner to")
	cmd.RunE = cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
		b := body()
		b["redirect_uri"] = *back
		return ask(&c, cmd, "POST", "/wechat/component/link", b, writeLink)
	})
	c.flags(cmd)
	return cmd
}

func writeLink(out io.Writer, l componentLink) error {
	_, err := fmt.Fprintf(out, "On a computer, until %s:\n\n  %s\n\nIn WeChat:\n\n  %s\n",
		cli.Time(l.Expires), cli.Text(l.PC), cli.Text(l.H5))
	return err
}

// componentRepairCommand is `wxgate wechat component repair`.
func componentRepairCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "repair [--component APPID] [--reset]",
		Short: "Reads WeChat's list of the mini programs that have authorised a component",
		Long: `
Makes what the gate keeps of a component agree with WeChat's list, for all gates of the
store: refresh tokens come back, missed authorisations and withdrawals are noticed. The
gate does so by itself at each start, every half hour, and when WeChat contradicts it.
--reset begins anew what no master key opens any more; the next ticket comes within ten
minutes.
`,
		Args: cobra.NoArgs,
	}
	body := componentFlags(cmd)
	reset := cmd.Flags().Bool("reset", false, "Begin state anew that does not open")
	cmd.RunE = cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
		b := body()
		b["reset"] = *reset
		return ask(&c, cmd, "POST", "/wechat/component/repair", b, writeComponent)
	})
	c.flags(cmd)
	return cmd
}
