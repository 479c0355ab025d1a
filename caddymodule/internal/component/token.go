package component

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// One gate of a fleet renews a token for all: it takes the lease in the record, makes the
// call, and writes the token. The others wait for the record to change.

const (
	leasePoll = 100 * time.Millisecond // between two looks at a lease of another gate

	// firstPause follows a failed renewal. Each further failure doubles it.
	firstPause, longestPause = time.Second, time.Minute

	// young is the age at which a token that WeChat refuses counts as a failure of its
	// renewal: renewing again and again would use up WeChat's quota.
	young = time.Minute

	componentPause = "component"

	opToken = "getting component_access_token"
	opCalls = "getting authorizer_access_token"
)

// pause keeps from another try after a failure.
type pause struct {
	failures int
	until    time.Time // of this process's clock
	err      error
}

// paused returns the error of the last failure while its pause lasts, else nil.
func (p *Platform) paused(what string) error {
	m := p.cfg.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if x, ok := m.pauses[what]; ok && time.Now().Before(x.until) {
		return x.err
	}
	return nil
}

// failed notes a failure, after which there is a pause.
func (p *Platform) failed(what string, err error) {
	m := p.cfg.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pauses == nil {
		m.pauses = make(map[string]pause)
	}
	n := m.pauses[what].failures + 1
	wait := min(firstPause<<min(n-1, 10), longestPause)
	wait -= rand.N(wait / 4)
	m.pauses[what] = pause{failures: n, until: time.Now().Add(wait), err: err}
}

func (p *Platform) unpause(what string) {
	m := p.cfg.Memory
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pauses, what)
}

// ComponentToken implements weixin.Platform.
func (p *Platform) ComponentToken(ctx context.Context, refused string) (string, error) {
	if k := p.cfg.Memory.hub.Load(); k != nil {
		if h := k.value; h.tokenLives(p.now()) && h.Token != refused {
			return h.Token, nil
		}
	}
	return p.share(ctx, opToken, componentPause+refused, func(ctx context.Context) (string, error) {
		return p.renewComponent(ctx, refused, false)
	})
}

// share makes one call for all who ask for the same token at the same time.
func (p *Platform) share(
	ctx context.Context, op, name string, get func(context.Context) (string, error),
) (string, error) {
	answer := p.cfg.Memory.flights.DoChan(name, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
		defer cancel()
		return get(ctx)
	})
	select {
	case r := <-answer:
		token, _ := r.Val.(string)
		return token, r.Err
	case <-ctx.Done():
		return "", late(ctx, op)
	}
}

// late is the error of a caller who waits no longer.
func late(ctx context.Context, op string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return weixin.Refusal(op, weixin.ClassCanceled, "cancelled by the caller")
	}
	return weixin.Refusal(op, weixin.ClassUnavailable, "no token in time")
}

// renewComponent returns a component_access_token that WeChat has not refused. With due
// it renews one that ends soon.
func (p *Platform) renewComponent(
	ctx context.Context, refused string, due bool,
) (string, error) {
	for {
		h, err := p.loadHub(ctx)
		if err != nil {
			return "", err
		}
		now := p.now()
		if h.Token != refused && h.tokenLives(now) && (!due || !h.due(now)) {
			return h.Token, nil
		}
		if err := p.paused(componentPause); err != nil {
			return "", err
		}
		if !h.ticketLives(now) {
			p.wake()
			return "", weixin.Refusal(opToken, weixin.ClassNoTicket, "WeChat has pushed no "+
				"component_verify_ticket for 12 hours: see that its pushes reach "+
				"<endpoints>/component/"+p.AppID()+"/events")
		}
		if !p.free(h.Lease) {
			if due && h.tokenLives(now) {
				return h.Token, nil
			}
			if err := p.await(ctx, opToken); err != nil {
				return "", err
			}
			continue
		}
		mine, got := p.lease(), false
		_, err = p.editHub(ctx, func(now *hub) bool {
			if got = now.Lease == h.Lease && now.Token == h.Token; got {
				now.Lease = mine
			}
			return got
		})
		if err != nil {
			return "", err
		}
		if got {
			return p.fetchComponent(ctx, h, mine, refused)
		}
	}
}

// await waits for another gate.
func (p *Platform) await(ctx context.Context, op string) error {
	select {
	case <-time.After(leasePoll):
		return nil
	case <-ctx.Done():
		return late(ctx, op)
	}
}

// fetchComponent asks WeChat for a token, under a lease.
func (p *Platform) fetchComponent(
	ctx context.Context, was hub, mine lease, refused string,
) (string, error) {
	g, err := p.cfg.Calls.ComponentToken(ctx, p.cfg.Credentials, was.Ticket)
	e, _ := errors.AsType[*weixin.Error](err)
	if err != nil {
		p.failed(componentPause, err)
	} else {
		p.settled(componentPause, was.tokenState, refused)
	}
	// The call is made: what it brought is kept, or others wait in vain.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	_, keepErr := p.editHub(ctx, func(h *hub) bool {
		held := h.Lease == mine
		if held {
			h.Lease = lease{}
		}
		switch {
		case err == nil && (held || h.Token == was.Token): // else another gate has a newer one
			h.tokenState = p.stateOf(g)
		case e != nil && e.Class == weixin.ClassNoTicket && h.Ticket == was.Ticket:
			h.Ticket = "" // WeChat does not take it
		}
		return true
	})
	if err != nil {
		p.wake()
		return "", err
	}
	return g.Token, keepErr
}

func (p *Platform) stateOf(g weixin.PlatformToken) tokenState {
	now := p.now()
	return tokenState{Token: g.Token, From: now.Unix(), Until: now.Add(g.Life).Unix()}
}

// settled notes that a renewal has brought a token. One that WeChat refused while it was
// young counts as a failure.
func (p *Platform) settled(what string, was tokenState, refused string) {
	age := p.now().Sub(time.Unix(was.From, 0))
	if refused == "" || was.Token != refused || age >= young {
		p.unpause(what)
		return
	}
	p.failed(what, weixin.Refusal(opToken, weixin.ClassUnavailable,
		"WeChat refuses each token soon after it has given it"))
}

// withToken makes a call with the component_access_token, and once more with another one
// when WeChat refuses it.
func (p *Platform) withToken(ctx context.Context, call func(token string) error) error {
	token, err := p.ComponentToken(ctx, "")
	if err != nil {
		return err
	}
	err = call(token)
	if e, ok := errors.AsType[*weixin.Error](err); !ok || !e.TokenRefused() {
		return err
	}
	another, tokenErr := p.ComponentToken(ctx, token)
	if tokenErr != nil {
		return err
	}
	return call(another)
}

// MerchantToken implements weixin.Platform.
func (p *Platform) MerchantToken(ctx context.Context, appID, refused string) (string, error) {
	if k := p.cfg.Memory.shards[shardOf(appID)].Load(); k != nil {
		m := k.value[appID]
		if m.Authorized && m.tokenLives(p.now()) && m.Token != refused && !m.due(p.now()) {
			return m.Token, nil
		}
	}
	return p.share(ctx, opCalls, appID+" "+refused, func(ctx context.Context) (string, error) {
		return p.renewMerchant(ctx, appID, refused)
	})
}

func (p *Platform) renewMerchant(ctx context.Context, appID, refused string) (string, error) {
	reread := false
	for {
		m, known, err := p.merchant(ctx, appID)
		if err != nil {
			return "", err
		}
		now := p.now()
		live := m.Token != refused && m.tokenLives(now)
		switch {
		case !known || !m.Authorized:
			return "", weixin.Refusal(opCalls, weixin.ClassUnauthorized,
				"the mini program has not authorised this third-party platform")
		case live && !m.due(now):
			return m.Token, nil
		}
		if err := p.paused(appID); err != nil {
			if live {
				return m.Token, nil
			}
			return "", err
		}
		if m.Refresh == "" {
			if reread {
				err := weixin.Refusal(opCalls, weixin.ClassMisconfigured, "WeChat's list has no "+
					"refresh token of the mini program: it changes what it permits to the platform")
				p.failed(appID, err)
				return "", err
			}
			if reread, err = p.awaitRefresh(ctx, appID); err != nil {
				return "", err
			}
			continue
		}
		if !p.free(m.Lease) {
			if live {
				return m.Token, nil
			}
			if err := p.await(ctx, opCalls); err != nil {
				return "", err
			}
			continue
		}
		mine, got := p.lease(), false
		err = p.editMerchant(ctx, appID, func(now *merchant) bool {
			if got = now.Lease == m.Lease && now.Token == m.Token && now.Refresh == m.Refresh; got {
				now.Lease = mine
			}
			return got
		})
		if err != nil {
			return "", err
		}
		if !got {
			continue
		}
		token, err := p.fetchMerchant(ctx, m, mine, refused)
		if e, ok := errors.AsType[*weixin.Error](err); ok && e.RefreshInvalid() && !reread {
			reread = true
			if p.ReadList(ctx) == nil {
				continue
			}
		}
		if err != nil {
			p.failed(appID, err)
		}
		if err != nil && live {
			return m.Token, nil
		}
		return token, err
	}
}

// awaitRefresh waits for the exchange of a merchant's code if there is one under way, or
// else reads WeChat's list.
func (p *Platform) awaitRefresh(ctx context.Context, appID string) (reread bool, err error) {
	h, err := p.loadHub(ctx)
	if err != nil {
		return false, err
	}
	for _, x := range h.Pending {
		if x.AppID == appID {
			p.wake()
			return false, p.await(ctx, opCalls)
		}
	}
	return true, p.ReadList(ctx)
}

// fetchMerchant asks WeChat for a token of a merchant, under a lease.
func (p *Platform) fetchMerchant(
	ctx context.Context, was merchant, mine lease, refused string,
) (string, error) {
	var g weixin.PlatformToken
	err := p.withToken(ctx, func(token string) (err error) {
		g, err = p.cfg.Calls.MerchantToken(ctx, p.cfg.Credentials, token, was.AppID, was.Refresh)
		return err
	})
	if err == nil {
		p.settled(was.AppID, was.tokenState, refused)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	keepErr := p.editMerchant(ctx, was.AppID, func(m *merchant) bool {
		if m.Lease == mine {
			m.Lease = lease{}
		}
		// An authorisation that came meanwhile has brought a newer refresh token.
		if err == nil && m.Refresh == was.Refresh && m.Authorized {
			m.tokenState = p.stateOf(g)
			if g.Refresh != "" && g.Refresh != m.Refresh {
				m.grant(g.Refresh, p.now())
			}
		}
		return true
	})
	if err != nil {
		return "", err
	}
	return g.Token, keepErr
}
