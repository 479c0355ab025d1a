// Package component owns what a third-party platform of WeChat keeps: its ticket, its
// tokens, and the mini programs that have authorised it, called merchants here
// (docs/wechat.md#component). All of it lies in facts of the store, sealed, so a fleet
// shares it and a restart loses nothing.
//
// It must not know sessions, HTTP or Caddy.
package component

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

const (
	// TicketLife is how long WeChat takes a component_verify_ticket.
	TicketLife = 12 * time.Hour

	// silence is how long no ticket comes before the platform asks WeChat for one: WeChat
	// pushes one every ten minutes, and stops after errors.
	silence = 30 * time.Minute

	// leaseLife is how long one gate of a fleet has to make a call for all: longer than
	// the timeout of a call.
	leaseLife = 15 * time.Second

	// renewalLead is the time before its end at which a token is renewed.
	renewalLead = 10 * time.Minute

	tick      = 5 * time.Second  // between two looks at the work that another gate left
	listEvery = 30 * time.Minute // between two readings of WeChat's list
	callTime  = 30 * time.Second // bounds work that no caller waits for alone
)

// Calls are the calls of WeChat (weixin.Client). Their errors are *weixin.Error.
type Calls interface {
	ComponentToken(
		_ context.Context, _ weixin.Credentials, ticket string,
	) (weixin.PlatformToken, error)
	QueryAuth(
		_ context.Context, _ weixin.Credentials, token, code string,
	) (weixin.Authorization, error)
	MerchantToken(
		_ context.Context, _ weixin.Credentials, token, appID, refresh string,
	) (weixin.PlatformToken, error)
	Authorizers(
		_ context.Context, _ weixin.Credentials, token string, offset int,
	) (page []weixin.Authorizer, total int, err error)
	PreAuthCode(
		_ context.Context, _ weixin.Credentials, token string,
	) (code string, life time.Duration, err error)
	StartPushTicket(context.Context, weixin.Credentials) error
}

// Config is what one configuration of the gate says about a platform.
type Config struct {
	Credentials weixin.Credentials // its appid and AppSecret

	Memory *Memory
	Facts  store.Facts
	Ring   *keyring.Ring
	Calls  Calls
	Shared bool             // other gates use the same facts
	Now    func() time.Time // the clock that they share
	Log    *zap.Logger

	// EndSessions ends the sessions of a merchant that has withdrawn; nil: they stay.
	EndSessions func(ctx context.Context, appID string) error
}

// Memory is what a process remembers of a platform over its configurations: the last
// state that it has read. The zero value remembers nothing. It is safe for concurrent
// use.
type Memory struct {
	hub    atomic.Pointer[kept[hub]]
	shards [shards]atomic.Pointer[kept[merchants]]

	named sync.Once
	name  string // of the process

	flights singleflight.Group

	mu     sync.Mutex
	pauses map[string]pause // after failures, by what failed
	asked  bool             // this process has asked for a ticket
	listed bool             // this process has read WeChat's list
	doubts time.Time        // since WeChat has contradicted the state; zero: it has not
}

// Platform is a third-party platform under one configuration. It is safe for concurrent
// use, and implements weixin.Platform.
type Platform struct {
	cfg  Config
	kick chan struct{} // there is work

	resealed atomic.Bool // all state is under the first master key
}

// New returns the platform of cfg.
func New(cfg Config) *Platform {
	return &Platform{cfg: cfg, kick: make(chan struct{}, 1)}
}

// self names this process in leases.
func (p *Platform) self() string {
	m := p.cfg.Memory
	m.named.Do(func() { m.name = rand.Text() })
	return m.name
}

// AppID returns the appid of the platform.
func (p *Platform) AppID() string { return p.cfg.Credentials.ID }

func (p *Platform) now() time.Time { return p.cfg.Now() }

// wake makes Run look for work.
func (p *Platform) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// State is what a platform knows of a merchant.
type State string

// The states.
const (
	Authorized   State = "authorized"
	NoToken      State = "no_refresh_token" // users log in; calls with a token fail
	Unauthorized State = "unauthorized"
)

// States lists the states.
var States = []State{Authorized, NoToken, Unauthorized}

// Merchant tells of one mini program.
type Merchant struct {
	AppID string
	State State
	Since time.Time // it authorised, or withdrew
}

func (m merchant) tell() Merchant {
	out := Merchant{AppID: m.AppID, State: Authorized, Since: time.UnixMilli(m.Since)}
	switch {
	case !m.Authorized:
		out.State = Unauthorized
	case m.Refresh == "":
		out.State = NoToken
	}
	return out
}

// Allows reports whether a mini program authorises the platform, by the store. The error
// is that of the store.
func (p *Platform) Allows(ctx context.Context, appID string) (bool, error) {
	m, _, err := p.merchant(ctx, appID)
	return m.Authorized, err
}

// Knows reports whether a mini program authorises the platform or did so once: its
// sessions may live. It asks the store only for one of which this process has not heard.
func (p *Platform) Knows(ctx context.Context, appID string) (bool, error) {
	if k := p.cfg.Memory.shards[shardOf(appID)].Load(); k != nil {
		if _, ok := k.value[appID]; ok {
			return true, nil
		}
	}
	_, known, err := p.merchant(ctx, appID)
	return known, err
}

// Merchants lists all merchants, those that have withdrawn among them, in no order.
func (p *Platform) Merchants(ctx context.Context) (all []Merchant, err error) {
	for i := range p.cfg.Memory.shards {
		s, err := p.loadShard(ctx, i)
		if err != nil {
			return nil, err
		}
		for _, m := range s {
			all = append(all, m.tell())
		}
	}
	return all, nil
}

// Health tells of a platform what this process has read last. It asks nothing.
type Health struct {
	TicketCame time.Time // zero: none has come
	Ready      bool      // there is a ticket that WeChat takes, or a token
	Waiting    int       // authorisations whose code is not exchanged yet
	Counts     map[State]int
}

// Health returns the health of the platform.
func (p *Platform) Health() Health {
	out := Health{Counts: make(map[State]int)}
	if k := p.cfg.Memory.hub.Load(); k != nil {
		h := k.value
		if h.TicketCame > 0 {
			out.TicketCame = time.Unix(h.TicketCame, 0)
		}
		now := p.now()
		out.Ready = h.ticketLives(now) || h.tokenLives(now)
		out.Waiting = len(h.Pending)
	}
	for i := range p.cfg.Memory.shards {
		if k := p.cfg.Memory.shards[i].Load(); k != nil {
			for _, m := range k.value {
				out.Counts[m.tell().State]++
			}
		}
	}
	return out
}

// Link returns a pre_auth_code for the page on which a mini program authorises the
// platform, and how long it is good.
func (p *Platform) Link(ctx context.Context) (code string, life time.Duration, err error) {
	err = p.withToken(ctx, func(token string) (err error) {
		code, life, err = p.cfg.Calls.PreAuthCode(ctx, p.cfg.Credentials, token)
		return err
	})
	return code, life, err
}
