package component

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Run does the work that no caller waits for, of whichever gate began it, until ctx ends:
// it renews the token, exchanges codes, ends sessions, reads WeChat's list and asks for a
// ticket when none comes.
func (p *Platform) Run(ctx context.Context) {
	var told sync.Map // texts of errors in the log
	for {
		if err := p.work(ctx); err != nil && ctx.Err() == nil {
			if _, again := told.LoadOrStore(err.Error(), true); !again {
				p.log().Warn("work for third-party platform failed; trying again", zap.Error(err))
			}
		} else {
			told.Clear()
		}
		select {
		case <-ctx.Done():
			return
		case <-p.kick:
		case <-time.After(tick):
		}
	}
}

func (p *Platform) log() *zap.Logger {
	return p.cfg.Log.With(zap.String("component", p.AppID()))
}

// work does what there is to do once. What fails does not keep the rest from being done.
func (p *Platform) work(ctx context.Context) error {
	h, err := p.loadHub(ctx)
	if err != nil {
		return err
	}
	var failed []error
	try := func(err error) { failed = append(failed, err) }
	try(p.endSessions(ctx, h))
	try(p.askTicket(ctx, h))
	if !p.resealed.Load() {
		err := p.Reseal(ctx, false)
		p.resealed.Store(err == nil)
		try(err)
	}
	if h.ticketLives(p.now()) && h.due(p.now()) {
		_, err := p.renewComponent(ctx, "", true)
		try(err)
	}
	if h, err = p.loadHub(ctx); err != nil {
		return err
	}
	if h.tokenLives(p.now()) {
		try(p.exchange(ctx, h))
		if p.listDue(h) {
			try(p.ReadList(ctx))
		}
	}
	return errors.Join(failed...)
}

// askTicket asks WeChat for a ticket once when none has come for a while, or ever.
func (p *Platform) askTicket(ctx context.Context, h hub) error {
	now := p.now()
	again := time.Hour
	if p.cfg.Memory.startsAsking() {
		again = 10 * time.Minute // a ticket would have come within it
	}
	quiet := now.Sub(time.Unix(h.TicketCame, 0)) >= silence
	asked := h.AskedTicket >= h.TicketCame && h.AskedTicket > 0
	if h.ticketLives(now) && (!quiet || asked) ||
		now.Sub(time.Unix(h.AskedTicket, 0)) < again || p.paused("ask") != nil {
		return nil
	}
	if h.ticketLives(now) {
		p.log().Warn("no ticket for half an hour; asking WeChat",
			zap.Time("last", time.Unix(h.TicketCame, 0)))
	}
	mine := false
	_, err := p.editHub(ctx, func(now *hub) bool {
		if mine = now.AskedTicket == h.AskedTicket; mine {
			now.AskedTicket = p.now().Unix()
		}
		return mine
	})
	if err != nil || !mine {
		return err
	}
	if err = p.cfg.Calls.StartPushTicket(ctx, p.cfg.Credentials); err == nil {
		p.unpause("ask")
		p.cfg.Memory.mu.Lock()
		p.cfg.Memory.asked = true
		p.cfg.Memory.mu.Unlock()
		return nil
	}
	p.failed("ask", err)
	_, editErr := p.editHub(context.WithoutCancel(ctx), func(now *hub) bool {
		now.AskedTicket = h.AskedTicket
		return true
	})
	return errors.Join(err, editErr)
}

func (m *Memory) startsAsking() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.asked
}

// endSessions ends the sessions of merchants that have withdrawn.
func (p *Platform) endSessions(ctx context.Context, h hub) error {
	for _, appID := range h.Ending {
		if p.cfg.EndSessions != nil {
			if err := p.cfg.EndSessions(ctx, appID); err != nil {
				return err
			}
		}
		_, err := p.editHub(ctx, func(h *hub) bool {
			i := slices.Index(h.Ending, appID)
			if i >= 0 {
				h.Ending = slices.Delete(h.Ending, i, i+1)
			}
			return i >= 0
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// exchange exchanges the codes that wait.
func (p *Platform) exchange(ctx context.Context, h hub) error {
	group := new(errgroup.Group)
	group.SetLimit(8)
	for _, x := range h.Pending {
		group.Go(func() error { return p.exchangeOne(ctx, x) })
	}
	return group.Wait()
}

// exchangeOne exchanges a code unless another gate does. A code that WeChat may have had
// before goes out again only when WeChat's list shows that it was not exchanged; else the
// list has the refresh token.
func (p *Platform) exchangeOne(ctx context.Context, x pending) error {
	if !p.free(x.Lease) || p.paused("code "+x.AppID) != nil {
		return nil
	}
	sent := x.Sent
	claimed, err := p.claim(ctx, &x)
	if err != nil || !claimed {
		return err
	}
	if sent {
		switch known, err := p.foundInList(ctx, x); {
		case err != nil:
			return p.release(ctx, x, true, err)
		case known || p.now().Unix() >= x.Ends:
			return p.settlePending(ctx, x)
		}
	}
	var a weixin.Authorization
	err = p.withToken(ctx, func(token string) (err error) {
		a, err = p.cfg.Calls.QueryAuth(ctx, p.cfg.Credentials, token, x.Code)
		return err
	})
	e, _ := errors.AsType[*weixin.Error](err)
	switch {
	case err == nil:
		return p.keepAuthorization(context.WithoutCancel(ctx), x, a)
	case e != nil && (e.Unsent() || e.ErrCode == -1 || e.TokenRefused()):
		return p.release(ctx, x, false, err)
	}
	return p.release(ctx, x, true, err)
}

// claim takes the lease of a code, which counts as sent from then on.
func (p *Platform) claim(ctx context.Context, x *pending) (ok bool, err error) {
	mine := p.lease()
	_, err = p.editHub(ctx, func(h *hub) bool {
		ok = false
		for i := range h.Pending {
			if h.Pending[i] == *x {
				h.Pending[i].Lease, h.Pending[i].Sent = mine, true
				ok = true
			}
		}
		return ok
	})
	x.Lease, x.Sent = mine, true
	return ok, err
}

// release gives the lease of a code back after a failure.
func (p *Platform) release(ctx context.Context, x pending, sent bool, cause error) error {
	p.failed("code "+x.AppID, cause)
	_, err := p.editHub(context.WithoutCancel(ctx), func(h *hub) bool {
		for i := range h.Pending {
			if h.Pending[i] == x {
				h.Pending[i].Lease, h.Pending[i].Sent = lease{}, sent
			}
		}
		return true
	})
	return errors.Join(cause, err)
}

// keepAuthorization makes the tokens of a merchant durable.
func (p *Platform) keepAuthorization(
	ctx context.Context, x pending, a weixin.Authorization,
) error {
	if a.AppID != x.AppID {
		p.log().Error("authorization_code is another mini program's; it is dropped",
			zap.String("appid", x.AppID), zap.String("of", a.AppID))
		return p.settlePending(ctx, x)
	}
	now := p.now()
	err := p.editMerchant(ctx, x.AppID, func(m *merchant) bool {
		if m.EventAt > x.At { // it has withdrawn meanwhile
			return false
		}
		m.authorize(true, now)
		m.grant(a.Refresh, now)
		m.tokenState = p.stateOf(a.PlatformToken)
		return true
	})
	if err != nil {
		return err // the lease ends, and WeChat's list has the refresh token
	}
	p.unpause(x.AppID)
	p.log().Info("mini program authorised", zap.String("appid", x.AppID))
	return p.settlePending(ctx, x)
}

// foundInList reports whether WeChat's list has a refresh token of a merchant.
func (p *Platform) foundInList(ctx context.Context, x pending) (bool, error) {
	if err := p.ReadList(ctx); err != nil {
		return false, err
	}
	m, _, err := p.merchant(ctx, x.AppID)
	if err == nil && m.Refresh == "" && p.now().Unix() >= x.Ends {
		p.log().Error("authorisation of mini program is without a refresh token",
			zap.String("appid", x.AppID), zap.String("cure", "users log in; for calls with a "+
				"token the mini program changes what it permits to the platform"))
	}
	return m.Refresh != "", err
}

// settlePending removes a code that is done with.
func (p *Platform) settlePending(ctx context.Context, x pending) error {
	p.unpause("code " + x.AppID)
	_, err := p.editHub(ctx, func(h *hub) bool {
		before := len(h.Pending)
		h.Pending = slices.DeleteFunc(h.Pending, func(y pending) bool {
			return y.AppID == x.AppID && y.Code == x.Code
		})
		return len(h.Pending) != before
	})
	return err
}

// Doubted implements weixin.Platform: the list will tell.
func (p *Platform) Doubted(appID string) {
	m := p.cfg.Memory
	m.mu.Lock()
	first := m.doubts.IsZero()
	if first {
		m.doubts = time.Now()
	}
	m.mu.Unlock()
	if first {
		p.log().Warn("mini program has not authorised the platform",
			zap.String("appid", appID))
		p.wake()
	}
}

// listDue reports whether to read WeChat's list: at the start of a process, from time to
// time, and when WeChat contradicts the state, at most once a minute.
func (p *Platform) listDue(h hub) bool {
	age := p.now().Sub(time.Unix(h.Listed, 0))
	m := p.cfg.Memory
	m.mu.Lock()
	due := !m.listed || age >= listEvery || !m.doubts.IsZero() && age >= time.Minute
	m.mu.Unlock()
	return due && p.paused("list") == nil
}
