package component

import (
	"context"
	"fmt"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
)

// maxTicket bounds a ticket and a code, in bytes: those seen have some 100.
const maxTicket = 1024

// errIncomplete refuses a notice that lacks what its kind needs.
var errIncomplete = fmt.Errorf("%w: a field of the notice is missing or too long",
	push.ErrMalformed)

// Take does what a verified notice for the platform says. What it changes is durable when
// Take returns; notices of other kinds change nothing. The error wraps push.ErrReceiver or
// push.ErrMalformed, or is the store's.
func (p *Platform) Take(ctx context.Context, m push.Message) error {
	if m.AppID != p.AppID() {
		return push.ErrReceiver
	}
	now := p.now()
	at := m.CreateTime
	if at.IsZero() || at.After(now) {
		at = now
	}
	fits := func(s string) bool { return s != "" && len(s) <= maxTicket }
	switch m.InfoType {
	case push.VerifyTicket:
		if !fits(m.ComponentVerifyTicket) {
			return errIncomplete
		}
		return p.ticket(ctx, m.ComponentVerifyTicket, at.Unix())
	case push.Authorized, push.UpdateAuthorized:
		if !fits(m.AuthorizerAppID) || !fits(m.AuthorizationCode) {
			return errIncomplete
		}
		ends := m.AuthorizationCodeExpires
		if ends.IsZero() {
			ends = now.Add(codeLife)
		}
		return p.authorized(ctx, pending{
			AppID: m.AuthorizerAppID, Code: m.AuthorizationCode, Ends: ends.Unix(), At: at.Unix(),
		})
	case push.Unauthorized:
		if !fits(m.AuthorizerAppID) {
			return errIncomplete
		}
		return p.unauthorized(ctx, m.AuthorizerAppID, at.Unix())
	}
	return nil
}

// codeLife is how long an authorization_code is good that does not say it.
const codeLife = 10 * time.Minute

// ticket keeps a ticket that WeChat made at a time. An older one than the present changes
// nothing.
func (p *Platform) ticket(ctx context.Context, ticket string, made int64) error {
	_, err := p.editHub(ctx, func(h *hub) bool {
		if made < h.TicketMade || h.Ticket == ticket {
			return false
		}
		h.Ticket, h.TicketMade, h.TicketCame = ticket, made, p.now().Unix()
		return true
	})
	if err == nil {
		p.unpause(componentPause)
		p.wake()
	}
	return err
}

// authorized notes that a merchant has authorised the platform, or has changed what it
// permits. Run exchanges the code at once. An event older than the last of the merchant
// changes nothing.
func (p *Platform) authorized(ctx context.Context, next pending) error {
	m, _, err := p.merchant(ctx, next.AppID)
	if err != nil || next.At < m.EventAt {
		return err
	}
	// The code comes first: a gate that dies between the two has lost nothing.
	_, err = p.editHub(ctx, func(h *hub) bool {
		for _, x := range h.Pending {
			if x.AppID == next.AppID && (x.Code == next.Code || x.At > next.At) {
				return false // another attempt of WeChat's
			}
		}
		h.dropPending(next.AppID)
		h.Pending = append(h.Pending, next)
		return true
	})
	if err == nil {
		err = p.editMerchant(ctx, next.AppID, func(m *merchant) bool {
			if next.At < m.EventAt {
				return false
			}
			m.authorize(true, p.now())
			m.EventAt = next.At
			return true
		})
	}
	p.wake()
	return err
}

// unauthorized notes that a merchant has withdrawn: its users log in no more, and their
// sessions end if the operator says so.
func (p *Platform) unauthorized(ctx context.Context, appID string, made int64) error {
	m, known, err := p.merchant(ctx, appID)
	if err != nil || !known || made < m.EventAt {
		return err
	}
	return p.close(ctx, appID, func(m *merchant) bool {
		if made < m.EventAt {
			return false
		}
		m.EventAt, m.Refresh, m.tokenState = made, "", tokenState{}
		return true
	})
}

// close ends the authorisation of a merchant, if may says so.
func (p *Platform) close(ctx context.Context, appID string, may func(*merchant) bool) error {
	_, err := p.editHub(ctx, func(h *hub) bool {
		h.dropPending(appID)
		if p.cfg.EndSessions != nil {
			h.addEnding(appID)
		}
		return true
	})
	if err == nil {
		err = p.editMerchant(ctx, appID, func(m *merchant) bool {
			if !may(m) {
				return false
			}
			m.authorize(false, p.now())
			return true
		})
	}
	p.wake()
	return err
}
