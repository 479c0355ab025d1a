package weixintest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Lives of what a third-party platform gets (docs/wechat.md#component).
const (
	ticketTTL   = 12 * time.Hour
	preAuthTTL  = 30 * time.Minute
	authCodeTTL = 10 * time.Minute
)

// Component is a third-party platform (component). Every mini program of Config.Apps may
// authorise it, with Authorize.
type Component struct {
	AppID, Secret string

	// Token and AESKey (EncodingAESKey, 43 characters) sign and seal its pushes.
	Token, AESKey string

	// EventsURL receives tickets and authorisations. None go out while it is empty.
	EventsURL string
}

// platform is a third-party platform as WeChat keeps it.
type platform struct {
	Component
	tickets   map[string]time.Time // until when each is good
	token     *platformToken
	merchants map[string]*authorization // by appid
	order     []string                  // of the list
	codes     map[string]*authCode
}

type platformToken struct {
	value   string
	expires time.Time
}

// authorization is that of one mini program.
type authorization struct {
	refresh   string
	exchanged bool // its code: the list shows the refresh token
	at        time.Time
}

// authCode is an authorization_code.
type authCode struct {
	appid   string
	expires time.Time
	used    bool
}

func newPlatform(c Component) *platform {
	return &platform{
		Component: c, tickets: make(map[string]time.Time),
		merchants: make(map[string]*authorization), codes: make(map[string]*authCode),
	}
}

// platform returns the platform of the appid of a call.
func (s *Simulator) platform(q *query, appid string) (*platform, int) {
	p := s.platforms[appid]
	switch {
	case appid == "":
		return nil, 41018
	case p == nil:
		return nil, 61011
	}
	q.call.AppID = appid
	return p, 0
}

// authorizedCall reads the body of a call that needs a component_access_token. The
// documents name the parameter in two ways.
func (s *Simulator) authorizedCall(q *query, in any, appid *string) (*platform, int) {
	if code := q.decode(in); code != 0 {
		return nil, code
	}
	p, code := s.platform(q, *appid)
	if code == 0 {
		code = p.judge(q)
	}
	return p, code
}

// judge returns the errcode that the component_access_token of a call earns.
func (p *platform) judge(q *query) int {
	value := q.Get("component_access_token")
	if value == "" {
		value = q.Get("access_token")
	}
	switch {
	case value == "":
		return 41021
	case p.token == nil || p.token.value != value:
		return 40001
	case !q.now.Before(p.token.expires):
		return 42001
	}
	return 0
}

// componentToken is POST /cgi-bin/component/api_component_token. A new token ends the old
// one at once.
func (s *Simulator) componentToken(q *query) (any, int) {
	var in struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_appsecret"`
		Ticket string `json:"component_verify_ticket"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	p, code := s.platform(q, in.AppID)
	if code != 0 {
		return nil, code
	}
	until, known := p.tickets[in.Ticket]
	switch {
	case in.Secret == "":
		return nil, 41004
	case in.Secret != p.Secret:
		return nil, 40125
	case !known:
		return nil, 61006
	case !q.now.Before(until):
		return nil, 61005
	}
	p.token = &platformToken{newToken(), q.now.Add(tokenTTL)}
	return struct {
		Token     string `json:"component_access_token"`
		ExpiresIn int    `json:"expires_in"`
	}{p.token.value, int(tokenTTL / time.Second)}, 0
}

// preAuthCode is POST /cgi-bin/component/api_create_preauthcode.
func (s *Simulator) preAuthCode(q *query) (any, int) {
	var in struct {
		AppID string `json:"component_appid"`
	}
	if _, code := s.authorizedCall(q, &in, &in.AppID); code != 0 {
		return nil, code
	}
	return struct {
		Code      string `json:"pre_auth_code"`
		ExpiresIn int    `json:"expires_in"`
	}{"preauthcode@@@" + randomText(64, alphanumeric), int(preAuthTTL / time.Second)}, 0
}

// tokens are those of a mini program, as two calls answer them.
type merchantTokens struct {
	AppID     string `json:"authorizer_appid,omitempty"`
	Token     string `json:"authorizer_access_token"`
	ExpiresIn int    `json:"expires_in"`
	Refresh   string `json:"authorizer_refresh_token"`
}

// merchantToken gives a mini program an access_token, which ends the one before.
func (s *Simulator) merchantToken(appid, refresh string, now time.Time) merchantTokens {
	for _, t := range s.tokens {
		t.dead = t.dead || t.app.id == appid && t.merchant
	}
	t := &token{
		app: s.apps[appid], expires: now.Add(tokenTTL), value: newToken(), merchant: true,
	}
	s.tokens[t.value] = t
	return merchantTokens{Token: t.value, ExpiresIn: int(tokenTTL / time.Second), Refresh: refresh}
}

// queryAuth is POST /cgi-bin/component/api_query_auth.
func (s *Simulator) queryAuth(q *query) (any, int) {
	var in struct {
		AppID string `json:"component_appid"`
		Code  string `json:"authorization_code"`
	}
	p, code := s.authorizedCall(q, &in, &in.AppID)
	if code != 0 {
		return nil, code
	}
	c := p.codes[in.Code]
	switch {
	case c == nil || c.used:
		return nil, 61009
	case !q.now.Before(c.expires):
		return nil, 61010
	case p.merchants[c.appid] == nil:
		return nil, 61003
	}
	c.used = true
	m := p.merchants[c.appid]
	m.exchanged = true
	info := s.merchantToken(c.appid, m.refresh, q.now)
	info.AppID = c.appid
	return map[string]any{"authorization_info": info}, 0
}

// authorizerToken is POST /cgi-bin/component/api_authorizer_token.
func (s *Simulator) authorizerToken(q *query) (any, int) {
	var in struct {
		AppID    string `json:"component_appid"`
		Merchant string `json:"authorizer_appid"`
		Refresh  string `json:"authorizer_refresh_token"`
	}
	p, code := s.authorizedCall(q, &in, &in.AppID)
	if code != 0 {
		return nil, code
	}
	m := p.merchants[in.Merchant]
	if m == nil || m.refresh != in.Refresh {
		return nil, 61023
	}
	return s.merchantToken(in.Merchant, m.refresh, q.now), 0
}

// authorizerList is POST /cgi-bin/component/api_get_authorizer_list.
func (s *Simulator) authorizerList(q *query) (any, int) {
	var in struct {
		AppID  string `json:"component_appid"`
		Offset int    `json:"offset"`
		Count  int    `json:"count"`
	}
	p, code := s.authorizedCall(q, &in, &in.AppID)
	switch {
	case code != 0:
		return nil, code
	case in.Count > 500:
		return nil, 40170
	}
	type row struct {
		AppID    string `json:"authorizer_appid"`
		Refresh  string `json:"refresh_token"`
		AuthTime int64  `json:"auth_time"`
	}
	list := []row{}
	for _, id := range p.order[min(max(in.Offset, 0), len(p.order)):] {
		if len(list) == in.Count {
			break
		}
		m := p.merchants[id]
		r := row{AppID: id, AuthTime: m.at.Unix()}
		if m.exchanged {
			r.Refresh = m.refresh
		}
		list = append(list, r)
	}
	return map[string]any{"total_count": len(p.order), "list": list}, 0
}

// startPushTicket is POST /cgi-bin/component/api_start_push_ticket. A ticket follows.
func (s *Simulator) startPushTicket(q *query) (any, int) {
	var in struct {
		AppID  string `json:"component_appid"`
		Secret string `json:"component_secret"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	p, code := s.platform(q, in.AppID)
	switch {
	case code != 0:
		return nil, code
	case in.Secret != p.Secret:
		return nil, 40125
	}
	s.inBackground(func() { _, _ = s.PushTicket(context.Background(), p.AppID) })
	return succeeded(), 0
}

// componentCode2Session is GET /sns/component/jscode2session. Its sample shows an errcode
// as a text; so do the answers here.
func (s *Simulator) componentCode2Session(q *query) (any, int) {
	appid, value := q.Get("appid"), q.Get("js_code")
	q.call.noteCode(value)
	p, code := s.platform(q, q.Get("component_appid"))
	switch {
	case code != 0:
		return nil, code
	case appid == "":
		return nil, 41002
	case value == "":
		return nil, 41008
	case q.Get("grant_type") != "authorization_code":
		return nil, 40002
	}
	if code := p.judge(q); code != 0 {
		return nil, code
	}
	if q.call.AppID = appid; p.merchants[appid] == nil {
		return nil, 61003
	}
	return s.spend(q, s.apps[appid], value)
}

// ExpireTokens ends the component_access_token and every access_token before its time:
// calls with them are answered 42001.
func (s *Simulator) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, p := range s.platforms {
		if p.token != nil {
			p.token.expires = now
		}
	}
	for _, a := range s.apps {
		a.current = nil
	}
	for _, t := range s.tokens {
		t.expires = now
	}
}

// LoseRefreshTokens gives every mini program of a platform another refresh token, as
// WeChat does when the operator changes the address of the pushes: calls with the old one
// are answered 61023, and the list has the new ones.
func (s *Simulator) LoseRefreshTokens(component string) error {
	return s.onPlatform(component, func(p *platform) {
		for _, m := range p.merchants {
			m.refresh = newRefresh()
		}
	})
}

func newRefresh() string { return "refreshtoken@@@" + randomText(43, alphanumeric) }

// textCode makes the errcode of an answer a text where WeChat does.
func textCode(path string, code int) any {
	if path == "/sns/component/jscode2session" {
		return strconv.Itoa(code)
	}
	return code
}

func unknownComponent(appid string) error { return fmt.Errorf("unknown component %q", appid) }

// onPlatform runs f on a platform, under the lock.
func (s *Simulator) onPlatform(component string, f func(*platform)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platforms[component]
	if p == nil {
		return unknownComponent(component)
	}
	f(p)
	return nil
}

// SetEventsURL changes where the pushes of a platform go; none do while it is empty.
func (s *Simulator) SetEventsURL(component, to string) error {
	return s.onPlatform(component, func(p *platform) { p.EventsURL = to })
}

// Ticket returns a new component_verify_ticket of a platform, for a test that has no
// receiver of pushes.
func (s *Simulator) Ticket(component string) (ticket string, err error) {
	err = s.onPlatform(component, func(p *platform) { ticket = p.ticket(s.cfg.Now()) })
	return ticket, err
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
	err = s.onPlatform(component, func(p *platform) { code = p.authorize(appid, s.cfg.Now()) })
	return code, err
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
