package weixintest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"
)

func unknownComponent(appid string) error { return fmt.Errorf("unknown component %q", appid) }

// SetEventsURL changes where the pushes of a platform go; none do while it is empty.
func (s *Simulator) SetEventsURL(component, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platforms[component]
	if p == nil {
		return unknownComponent(component)
	}
	p.EventsURL = to
	return nil
}

// Ticket returns a new component_verify_ticket of a platform, for a test that has no
// receiver of pushes.
func (s *Simulator) Ticket(component string) (ticket string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platforms[component]
	if p == nil {
		return "", unknownComponent(component)
	}
	return p.ticket(s.cfg.Now()), nil
}

func (p *platform) ticket(now time.Time) string {
	ticket := "ticket@@@" + randomText(80, alphanumeric)
	p.tickets[ticket] = now.Add(ticketTTL)
	return ticket
}

// PushTicket makes a new component_verify_ticket of a platform and pushes it. WeChat does
// so every ten minutes; the simulator leaves the times to its user.
func (s *Simulator) PushTicket(ctx context.Context, component string) (Pushed, error) {
	return s.pushEvent(ctx, component, func(p *platform, now time.Time) members {
		return members{
			{"InfoType", "component_verify_ticket"}, {"ComponentVerifyTicket", p.ticket(now)},
		}
	})
}

// AuthorizationCode makes a mini program authorise a platform, or change what it permits,
// and returns the code, for a test that has no receiver of pushes.
func (s *Simulator) AuthorizationCode(component, appid string) (code string, err error) {
	if err := s.checkApp(appid); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platforms[component]
	if p == nil {
		return "", unknownComponent(component)
	}
	return p.authorize(appid, s.cfg.Now()), nil
}

// authorize returns the code of a new authorisation.
func (p *platform) authorize(appid string, now time.Time) string {
	if p.merchants[appid] == nil {
		p.order = append(p.order, appid)
	}
	p.merchants[appid] = &authorization{refresh: newRefresh(), at: now}
	value := "queryauthcode@@@" + randomText(64, alphanumeric)
	p.codes[value] = &authCode{appid: appid, expires: now.Add(authCodeTTL)}
	return value
}

// Authorize makes a mini program authorise a platform, or change what it permits when it
// has done so before, and pushes that.
func (s *Simulator) Authorize(ctx context.Context, component, appid string) (Pushed, error) {
	if err := s.checkApp(appid); err != nil {
		return Pushed{}, err
	}
	return s.pushEvent(ctx, component, func(p *platform, now time.Time) members {
		info := "updateauthorized"
		if p.merchants[appid] == nil {
			info = "authorized"
		}
		return members{
			{"InfoType", info},
			{"AuthorizerAppid", appid},
			{"AuthorizationCode", p.authorize(appid, now)},
			{"AuthorizationCodeExpiredTime", now.Add(authCodeTTL).Unix()},
			{"PreAuthCode", "preauthcode@@@" + randomText(64, alphanumeric)},
		}
	})
}

// Unauthorize makes a mini program withdraw from a platform, which ends its tokens, and
// pushes that.
func (s *Simulator) Unauthorize(ctx context.Context, component, appid string) (Pushed, error) {
	if err := s.checkApp(appid); err != nil {
		return Pushed{}, err
	}
	return s.pushEvent(ctx, component, func(p *platform, _ time.Time) members {
		delete(p.merchants, appid)
		p.order = slices.DeleteFunc(p.order, func(id string) bool { return id == appid })
		for _, t := range s.tokens {
			t.dead = t.dead || t.merchant && t.app.id == appid
		}
		return members{{"InfoType", "unauthorized"}, {"AuthorizerAppid", appid}}
	})
}

// pushEvent does what fields says of it under the lock, and pushes it until it is answered
// 200, three times at most. The error means that nothing could be sent.
func (s *Simulator) pushEvent(
	ctx context.Context, component string, fields func(*platform, time.Time) members,
) (Pushed, error) {
	s.mu.Lock()
	p, now := s.platforms[component], s.cfg.Now()
	if p == nil {
		s.mu.Unlock()
		return Pushed{}, unknownComponent(component)
	}
	message := append(members{{"AppId", component}, {"CreateTime", now.Unix()}},
		fields(p, now)...)
	to := p.Component
	s.mu.Unlock()
	if to.EventsURL == "" {
		return Pushed{}, nil
	}
	settings := PushSettings{URL: to.EventsURL, Token: to.Token}
	out, _, err := repeat(ctx, func() (int, []byte, error) {
		encrypt, err := sealPush(to.AESKey, randomBytes(16), message.xml(), component)
		if err != nil {
			return 0, nil, err
		}
		body := members{{"AppId", component}, {"Encrypt", encrypt}}.xml()
		return call(ctx, http.MethodPost, to.EventsURL, s.signed(settings, encrypt), body,
			"text/xml")
	})
	return out, err
}

// inBackground runs f while the simulator is open. The caller holds the lock.
func (s *Simulator) inBackground(f func()) {
	if !s.closed() {
		s.busy.Go(f)
	}
}
