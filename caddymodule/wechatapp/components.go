package wechatapp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Component is a third-party platform. The mini programs that have authorised it need no
// entry of their own.
type Component struct {
	// The AppID of the platform. May be a placeholder.
	AppID string `json:"appid,omitempty"`

	// The AppSecret of the platform, as a placeholder.
	Secret string `json:"secret,omitempty"`

	// Its pushes, which bring the ticket, and those for its mini programs. The mode is
	// always secure.
	Push

	// What happens to the sessions of a mini program that withdraws: with
	// `end_sessions` they end. Default: they live on, and nobody logs in any more.
	OnUnauthorized string `json:"on_unauthorized,omitempty"`

	// How many logins one mini program may have in a time at each gate, so that one
	// with many does not take the room of the others. Default: 3000/m.
	MerchantRate string `json:"merchant_rate,omitempty"`
}

const (
	endSessions = "end_sessions"

	defaultMerchantRate = "3000/m"
)

// errComponentForm shows the form of the word component. It is a text, since the
// Dispenser adds the place.
const errComponentForm = "component takes an appid, the placeholder of its secret and a block: " +
	"component wx9876543210fedcba {env.WX_COMPONENT_SECRET} { token {env.WX_COMPONENT_TOKEN} " +
	"aes_key {env.WX_COMPONENT_KEY} }"

func (a *App) unmarshalComponent(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err(errComponentForm)
	}
	c := Component{AppID: args[0], Secret: args[1]}
	in := block.New(d)
	if !strings.HasPrefix(c.AppID, "{") {
		if err := CheckAppID(c.AppID); err != nil {
			return d.WrapErr(err)
		}
	}
	if err := block.CheckSecret("the secret", c.Secret); err != nil {
		return d.WrapErr(err)
	}
	if slices.ContainsFunc(a.Components, func(o Component) bool { return o.AppID == c.AppID }) {
		return d.Errf("component %s is given twice", c.AppID)
	}
	for in.Next() {
		if err := c.unmarshalLine(in); err != nil {
			return err
		}
	}
	if err := c.check(); err != nil {
		return d.WrapErr(err)
	}
	a.Components = append(a.Components, c)
	return nil
}

func (c *Component) unmarshalLine(in *block.Block) error {
	switch in.D.Val() {
	case "on_unauthorized":
		return in.Checked(&c.OnUnauthorized, checkOnUnauthorized)
	case "merchant_rate":
		return in.Checked(&c.MerchantRate, checkRate)
	}
	return c.Push.unmarshalLine(in,
		"token, aes_key, forget, deliver, events_to, on_unauthorized or merchant_rate")
}

func checkOnUnauthorized(v string) error {
	if v != endSessions {
		return fmt.Errorf("on_unauthorized takes end_sessions, not %q: "+
			"leave the line out to keep the sessions", v)
	}
	return nil
}

// check refuses a platform that could not receive its ticket.
func (c *Component) check() error {
	if c.Mode != "" {
		return errors.New("a component knows secure mode only: take out the mode")
	}
	if err := c.Push.check(); err != nil {
		return fmt.Errorf("its ticket comes by push: %w", err)
	}
	if c.OnUnauthorized != "" {
		return checkOnUnauthorized(c.OnUnauthorized)
	}
	return nil
}

// componentSetup is a Component with its placeholders resolved.
type componentSetup struct {
	weixin.Credentials
	endSessions bool
	rate        limit.Rate
}

// provisionComponents resolves and checks the platforms.
func (a *App) provisionComponents() error {
	for _, c := range a.Components {
		s, err := a.provisionComponent(c)
		if err != nil {
			return err
		}
		a.platforms = append(a.platforms, s)
	}
	return nil
}

func (a *App) provisionComponent(c Component) (s componentSetup, err error) {
	if s.ID, err = a.appID(c.AppID); err != nil {
		return s, err
	}
	same := func(o componentSetup) bool { return o.ID == s.ID }
	mini := func(m weixin.Credentials) bool { return m.ID == s.ID }
	switch {
	case slices.ContainsFunc(a.platforms, same):
		return s, fmt.Errorf("component %s is configured twice", s.ID)
	case slices.ContainsFunc(a.apps, mini):
		return s, fmt.Errorf("%s is configured as a mini program and as a component: "+
			"take out the line app", s.ID)
	}
	if err := c.check(); err != nil {
		return s, fmt.Errorf("component %s: %w", s.ID, err)
	}
	if s.Secret, err = a.secret("secret of component "+s.ID, c.Secret); err != nil {
		return s, err
	}
	if err := a.provisionPush("component", s.ID, &c.Push); err != nil {
		return s, err
	}
	s.endSessions = c.OnUnauthorized == endSessions
	s.rate, err = parseRate(cmp.Or(c.MerchantRate, defaultMerchantRate))
	return s, err
}

// componentMemory names, in the pool, what a process remembers of a platform.
type componentMemory struct{ store, appID string }

type pooledComponent struct{ component.Memory }

// Destruct has nothing to release.
func (*pooledComponent) Destruct() error { return nil }

// platform is a third-party platform of a started App.
type platform struct {
	*component.Platform
	logins *limit.Buckets[string] // nil: no limit
}

// openPlatforms makes the platforms. It opens nothing: their work begins with
// runPlatforms.
func (a *App) openPlatforms(live *Live) error {
	for _, s := range a.platforms {
		memory, err := take(&a.held, componentMemory{a.opener.Identity(), s.ID},
			func() (*pooledComponent, error) { return new(pooledComponent), nil })
		if err != nil {
			return err
		}
		cfg := component.Config{
			Credentials: s.Credentials, Memory: &memory.Memory,
			Facts: live.Core, Ring: a.ring, Calls: live.WeChat,
			Shared: live.Core.Shared(), Now: live.Core.Now, Log: Logger("component"),
		}
		if s.endSessions {
			cfg.EndSessions = live.endSessions
		}
		p := platform{Platform: component.New(cfg)}
		if s.rate.Events > 0 {
			p.logins = limit.NewBuckets[string](s.rate)
		}
		live.platforms = append(live.platforms, p)
	}
	return nil
}

// endSessions ends the sessions of a mini program that has withdrawn.
func (l *Live) endSessions(ctx context.Context, appID string) error {
	err := l.Sessions.RevokeApp(ctx, appID)
	Logger("audit").Info("mini program withdrew; sessions ended",
		zap.String("appid", appID), zap.Error(err))
	return err
}

// runPlatforms does the work of the platforms until stepDown.
func (a *App) runPlatforms() {
	for _, p := range a.live.Load().platforms {
		a.background.run(p.Run)
	}
}

// Platforms returns the third-party platforms.
func (l *Live) Platforms() (all []*component.Platform) {
	for _, p := range l.platforms {
		all = append(all, p.Platform)
	}
	return all
}

// HasPlatforms reports whether a third-party platform is configured, so that mini
// programs without an entry of their own may be served.
func (a *App) HasPlatforms() bool { return len(a.platforms) > 0 }

// PlatformIDs returns the AppIDs of the third-party platforms.
func (a *App) PlatformIDs() (ids []string) {
	for _, p := range a.platforms {
		ids = append(ids, p.ID)
	}
	return ids
}

// Platform returns the third-party platform with an AppID, or nil.
func (l *Live) Platform(appID string) *component.Platform {
	for _, p := range l.platforms {
		if p.AppID() == appID {
			return p.Platform
		}
	}
	return nil
}

// Merchant returns the credentials of a mini program that authorises a platform. The
// error wraps session.ErrUnknownApp or session.ErrUnavailable.
func (l *Live) Merchant(ctx context.Context, appID string) (weixin.Credentials, error) {
	for _, p := range l.platforms {
		switch ok, err := p.Allows(ctx, appID); {
		case err != nil:
			return weixin.Credentials{}, storeTrouble(err)
		case ok:
			return weixin.Credentials{ID: appID, Platform: p.Platform}, nil
		}
	}
	return weixin.Credentials{}, session.ErrUnknownApp
}

// Serves reports whether a session of a mini program without an entry of its own may
// live: it authorises a platform, or did so once. The error wraps
// session.ErrUnavailable.
func (l *Live) Serves(ctx context.Context, appID string) (bool, error) {
	for _, p := range l.platforms {
		if ok, err := p.Knows(ctx, appID); ok || err != nil {
			return ok, storeTrouble(err)
		}
	}
	return false, nil
}

// storeTrouble makes state that does not open an outage: no user is to blame.
func storeTrouble(err error) error {
	if err == nil || errors.Is(err, session.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", session.ErrUnavailable, err)
}

// AllowMerchant takes one login of a mini program without an entry of its own from its
// rate limit.
func (l *Live) AllowMerchant(appID string) (wait time.Duration, ok bool) {
	for _, p := range l.platforms {
		if p.logins != nil {
			if wait, ok := p.logins.Take(appID); !ok {
				return limit.Spread(wait), false
			}
		}
	}
	return 0, true
}

// WithTickets returns the state of the gate, given that of the store, and which platforms
// wait for their ticket. The gate is not ready while every mini program needs one.
func (l *Live) WithTickets(state Readiness) (_ Readiness, waiting []string) {
	for _, p := range l.platforms {
		if !p.Health().Ready {
			waiting = append(waiting, "component_verify_ticket of "+p.AppID())
		}
	}
	switch {
	case len(waiting) == 0 || state != Ready && state != Degraded:
	case len(waiting) == len(l.platforms) && len(l.App.apps) == 0:
		state = Starting
	default:
		state = Degraded
	}
	return state, waiting
}

// componentGauges collects the state of the third-party platforms, by what this process
// has read last. No label names a merchant: there may be thousands.
type componentGauges struct{}

var (
	merchantsDesc = describe("component_merchants",
		"Mini programs of a third-party platform by state.", "component", "state")
	ticketDesc = describe("component_ticket_timestamp_seconds",
		"Unix time of the last component_verify_ticket; absent before the first.", "component")
	codesDesc = describe("component_codes_waiting",
		"Authorisations whose code is not exchanged yet.", "component")
)

// Describe implements prometheus.Collector.
func (componentGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- merchantsDesc
	ch <- ticketDesc
	ch <- codesDesc
}

// Collect implements prometheus.Collector.
func (componentGauges) Collect(ch chan<- prometheus.Metric) {
	live := current()
	if live == nil {
		return
	}
	gauge := gaugesTo(ch)
	for _, p := range live.platforms {
		h := p.Health()
		for _, state := range component.States {
			gauge(merchantsDesc, float64(h.Counts[state]), p.AppID(), string(state))
		}
		gauge(codesDesc, float64(h.Waiting), p.AppID())
		if !h.TicketCame.IsZero() {
			gauge(ticketDesc, float64(h.TicketCame.Unix()), p.AppID())
		}
	}
}
