package wechatapp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// LoginRate is the rate limits of logins. The gate asks them before it reads the body
// of a login. A rate is a number per second, minute or hour: `30/m`; `off` is no limit.
// That number may come at once. Gates that share a store count the logins per client
// together, while the store answers; each gate counts the other limits alone.
type LoginRate struct {
	// Per client address. An IPv6 address counts by its /64, and its /48 may do ten
	// times as much. The address is Caddy's `{client_ip}`: behind a load balancer set
	// `trusted_proxies`, and `trusted_proxies_strict` when it appends to
	// `X-Forwarded-For`.
	//
	// Default, for public addresses: 600/m, and 30/m for codes that WeChat refuses. So
	// a class or an office behind one address logs in at once, and a guesser does not.
	// A private or loopback address is mostly a load balancer's and stands for many
	// clients, so the default exempts it. A given rate bounds both kinds of login, of
	// every address.
	PerClient string `json:"per_client,omitempty"`

	// For all clients of this gate together. Default: 60000/m, or the rate per
	// client where that is higher.
	Global string `json:"global,omitempty"`

	// How many logins may be under way at a time at this gate. Default: 512.
	InFlight int64 `json:"in_flight,omitempty"`
}

// config returns the limits for the limiter.
func (r LoginRate) config() (limit.Config, error) {
	c := limit.Config{
		PerClient: limit.Rate{Events: 600, Per: time.Minute},
		Refused:   limit.Rate{Events: 30, Per: time.Minute},
		Total:     limit.Rate{Events: 60_000, Per: time.Minute},
		InFlight:  512,
	}
	var err error
	if r.PerClient != "" {
		if c.PerClient, err = parseRate(r.PerClient); err != nil {
			return c, fmt.Errorf("login_rate: %w", err)
		}
		c.Refused, c.PerPrivateClient, c.PrivateRefused = c.PerClient, c.PerClient, c.PerClient
		if c.PerClient.Above(c.Total) {
			c.Total = c.PerClient
		}
	}
	if r.Global != "" {
		if c.Total, err = parseRate(r.Global); err != nil {
			return c, fmt.Errorf("login_rate global: %w", err)
		}
	}
	if r.InFlight < 0 {
		return c, fmt.Errorf("login_rate in_flight %d is negative", r.InFlight)
	}
	if r.InFlight > 0 {
		c.InFlight = int(r.InFlight)
	}
	return c, nil
}

// parseRate reads 30/m and the like.
func parseRate(text string) (limit.Rate, error) {
	if text == "off" {
		return limit.Rate{}, nil
	}
	count, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseInt(count, 10, 32)
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if err != nil || n < 1 || per == 0 {
		return limit.Rate{}, fmt.Errorf(
			"%q is not a rate: write a number per s, m or h, such as 30/m, or off", text,
		)
	}
	return limit.Rate{Events: int(n), Per: per}, nil
}

// RateText is parseRate in the other direction.
func RateText(r limit.Rate) string {
	if r.Events <= 0 {
		return "off"
	}
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[r.Per]
	return fmt.Sprintf("%d/%s", r.Events, unit)
}

// unmarshal reads:
//
//	login_rate <rate> {
//		global <rate>
//		in_flight <number>
//	}
func (r *LoginRate) unmarshal(b *block.Block) error {
	if err := b.Checked(&r.PerClient, checkRate); err != nil {
		return err
	}
	in := block.New(b.D)
	for in.Next() {
		var err error
		switch in.D.Val() {
		case "global":
			err = in.Checked(&r.Global, checkRate)
		case "in_flight":
			err = in.Number(&r.InFlight)
		default:
			err = in.Unknown("global or in_flight")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkRate(text string) error {
	_, err := parseRate(text)
	return err
}

// UserLimits bounds the calls of one user for the user's own data; more sessions
// allow no more calls. It outlives configurations. The limits are fixed, far above
// what a person does with a mini program.
type UserLimits struct {
	decrypts *limit.Buckets[session.User]
	failures *limit.Buckets[session.User] // refused data: may be guesses (docs/threats.md#t29)
	phones   *limit.Buckets[session.User] // numbers cost money (docs/wechat.md#phone-code)
}

// NewUserLimits returns limits that no call has used.
func NewUserLimits() *UserLimits {
	return &UserLimits{
		decrypts: limit.NewBuckets[session.User](limit.Rate{Events: 60, Per: time.Minute}),
		failures: limit.NewBuckets[session.User](limit.Rate{Events: 10, Per: time.Minute}),
		phones:   limit.NewBuckets[session.User](limit.Rate{Events: 10, Per: time.Hour}),
	}
}

// Destruct has nothing to release.
func (*UserLimits) Destruct() error { return nil }

// AllowDecrypt takes one call of a user from the limits, before the gate reads the
// data. The call counts as refused data until DecryptSettled says otherwise, so
// that calls at the same time count in full (docs/threats.md#t41).
func (l *Live) AllowDecrypt(u session.User) (wait time.Duration, ok bool) {
	if wait, ok = l.Users.failures.Take(u); !ok {
		return limit.Spread(wait), ok
	}
	if wait, ok = l.Users.decrypts.Take(u); !ok {
		l.Users.failures.Give(u)
	}
	return limit.Spread(wait), ok
}

// DecryptSettled ends a call that AllowDecrypt allowed. Only refused data keeps
// its place in the limit of failures.
func (l *Live) DecryptSettled(u session.User, err error) {
	if !errors.Is(err, session.ErrData) {
		l.Users.failures.Give(u)
	}
}

// AllowPhone takes one telephone number of a user from the limits: that of this
// gate, then the one that all gates of the store share.
func (l *Live) AllowPhone(ctx context.Context, u session.User) (wait time.Duration, ok bool) {
	phones := l.Users.phones
	if wait, ok = phones.Take(u); !ok {
		return limit.Spread(wait), ok
	}
	return l.spend(ctx, "phone "+u.AppID+" "+u.OpenID, phones.Rate())
}
