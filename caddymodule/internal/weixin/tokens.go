package weixin

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/span"
)

const (
	// renewalLead is the time before its end at which a token is renewed; up to
	// renewalSpread more keeps several gates apart. WeChat hands out a successor
	// only in the last 5 minutes, when both are good, and the same token before
	// (docs/wechat.md#stable-token), so the renewal repeats every renewalPoll.
	renewalLead   = 5 * time.Minute
	renewalSpread = time.Minute
	renewalPoll   = 30 * time.Second

	// firstPause follows a failed request for a token. Each further failure
	// doubles it, up to longestPause.
	firstPause   = time.Second
	longestPause = time.Minute

	// maxTokenLife is the longest life that WeChat promises.
	maxTokenLife = 2 * time.Hour

	// maxToken limits the length of a token; WeChat asks for room for 512 characters.
	maxToken = 2048

	opToken = "getting access token"
)

// AccessToken authorizes a mini program's calls. It is opaque and comparable;
// printing, logging or marshalling it shows nothing of it.
type AccessToken struct {
	unprintable

	value string
	cloud bool
}

// addTo adds the token to the query of a call. WeChat refuses a token of Cloud
// Hosting under the ordinary name (docs/wechat.md#cloud-token).
func (t AccessToken) addTo(query url.Values) {
	if t.cloud {
		query.Set("cloudbase_access_token", t.value)
	} else {
		query.Set("access_token", t.value)
	}
}

// Tokens caches one access token for each mini program. It requests stable
// tokens in normal mode and never forces a refresh, so the tokens of other
// processes stay good (docs/wechat.md#token-rules). It is safe for concurrent
// use.
type Tokens struct {
	client *Client
	ctx    context.Context // of the renewals; ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup // renewals

	mu    sync.Mutex
	slots map[Credentials]*slot // a new AppSecret gets a new slot
}

// slot holds the token of one mini program. Tokens.mu guards it.
type slot struct {
	token   AccessToken
	expires time.Time
	renewAt time.Time
	refused bool // WeChat refused a call with the token

	renewal  *renewal  // under way, or nil
	failures int       // consecutive
	next     time.Time // earliest time of the next request
	err      error     // of the last request
}

// renewal is one request for a token; token and err are valid when done is closed.
type renewal struct {
	done  chan struct{}
	token AccessToken
	err   error
}

func newTokens(c *Client) *Tokens {
	ctx, cancel := context.WithCancel(context.Background())
	return &Tokens{client: c, ctx: ctx, cancel: cancel, slots: make(map[Credentials]*slot)}
}

// close cancels the renewals under way and waits for their end.
func (t *Tokens) close() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.work.Wait()
}

// Token returns the access token of a mini program. Any error is an [*Error].
//
// Token renews a token some minutes before its end and meanwhile returns it at
// once. Without a token, or after a refusal, it waits for WeChat. After a failed
// request it makes no other for 1 s at first and 1 min at last, and returns the
// error at once.
func (t *Tokens) Token(ctx context.Context, app Credentials) (AccessToken, error) {
	if app.Platform != nil {
		return merchantToken(ctx, app, AccessToken{})
	}
	if app.TokenFile.Path != "" {
		return t.readFile(app)
	}
	if e := checkSecret(opToken, app); e != nil {
		return AccessToken{}, e
	}
	token, r, err := t.tokenOrRenewal(ctx, app)
	if r == nil {
		return token, err
	}
	select {
	case <-r.done:
		return r.token, r.err
	case <-ctx.Done():
		e := contextError(ctx, false)
		e.Op = opToken
		return AccessToken{}, e
	}
}

// Invalidate reports that WeChat refused a token of Token. If it is still the
// cached one, the next Token asks WeChat, which may return the same token; another
// attempt with it is then useless.
func (t *Tokens) Invalidate(app Credentials, token AccessToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.slots[app]; s != nil && s.token == token {
		s.refused = true
	}
}

// merchantToken returns the token of a mini program of a third-party platform, another
// one than old.
func merchantToken(
	ctx context.Context, app Credentials, old AccessToken,
) (AccessToken, error) {
	value, err := app.Platform.MerchantToken(ctx, app.ID, old.value)
	return AccessToken{value: value}, err
}

// replace invalidates a token and returns another one, if there is one.
func (t *Tokens) replace(
	ctx context.Context, app Credentials, old AccessToken,
) (AccessToken, bool) {
	if app.Platform != nil {
		another, err := merchantToken(ctx, app, old)
		return another, err == nil && another != old
	}
	t.Invalidate(app, old)
	another, err := t.Token(ctx, app)
	return another, err == nil && another != old
}

// slot returns the slot of a mini program. The caller holds the lock.
func (t *Tokens) slot(app Credentials) *slot {
	s := t.slots[app]
	if s == nil {
		s = new(slot)
		t.slots[app] = s
	}
	return s
}

// tokenOrRenewal returns the cached token, or the renewal to wait for, or an
// error. It starts a renewal under the lock, so that there is one, and on a
// goroutine of its own, since it serves more than one caller.
func (t *Tokens) tokenOrRenewal(
	ctx context.Context, app Credentials,
) (AccessToken, *renewal, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, now := t.slot(app), time.Now()
	live := now.Before(s.expires)
	due := !live || s.refused || !now.Before(s.renewAt)
	paused := now.Before(s.next) && (live || s.err != nil)
	if due && !paused && s.renewal == nil && t.ctx.Err() == nil {
		r := &renewal{done: make(chan struct{})}
		s.renewal = r
		t.work.Go(func() { t.renew(span.Under(t.ctx, ctx), app, r) })
	}
	switch {
	case live && (!s.refused || s.renewal == nil):
		return s.token, nil, nil
	case s.renewal != nil:
		return AccessToken{}, s.renewal, nil
	case s.err != nil:
		return AccessToken{}, nil, s.err
	default:
		return AccessToken{}, nil, &Error{
			Op: opToken, Class: ClassCanceled,
			Reason: "the client is closed", cause: context.Canceled,
		}
	}
}

// renew requests a token and publishes the outcome.
func (t *Tokens) renew(ctx context.Context, app Credentials, r *renewal) {
	asked := time.Now()
	g, err := t.client.requestToken(ctx, app)
	t.mu.Lock()
	defer t.mu.Unlock()
	s, now := t.slot(app), time.Now()
	s.renewal, s.err = nil, err
	if err != nil || s.refused && g.token == s.token { // the refused token again is no success
		s.failures++
	} else {
		s.failures = 0
	}
	s.next = now.Add(pauseAfter(s.failures))
	if err == nil && !s.refused {
		s.next = now // allows one immediate renewal if WeChat refuses the new token
	}
	r.token, r.err = s.token, nil
	switch {
	case err == nil:
		s.set(g.token, asked.Add(g.life), now)
		r.token = g.token
	case !now.Before(s.expires):
		r.token, r.err = AccessToken{}, err
	}
	close(r.done)
}

func (s *slot) set(token AccessToken, expires, now time.Time) {
	s.token, s.expires, s.refused = token, expires, false
	s.renewAt = expires.Add(-renewalLead - rand.N(renewalSpread))
	if poll := now.Add(renewalPoll); s.renewAt.Before(poll) {
		s.renewAt = poll
	}
}

// pauseAfter returns the pause after so many consecutive failures.
func pauseAfter(failures int) time.Duration {
	d := min(firstPause<<min(max(failures-1, 0), 10), longestPause)
	return d - rand.N(d/4)
}

// grant is a token and its remaining life.
type grant struct {
	token AccessToken
	life  time.Duration
}

// requestToken requests the access token of a mini program. It leaves out
// force_refresh, which is false then.
func (c *Client) requestToken(ctx context.Context, app Credentials) (grant, error) {
	return withSecret(ctx, c, app, func(ctx context.Context, secret string) (grant, error) {
		k := call{name: "stable_token", app: app.ID, op: opToken, path: "cgi-bin/stable_token"}
		k.body, _ = json.Marshal(struct { // strings always marshal
			GrantType string `json:"grant_type"`
			AppID     string `json:"appid"`
			Secret    string `json:"secret"`
		}{"client_credential", app.ID, secret})
		return do(ctx, c, c.other, k, decodeGrant)
	})
}

// decodeGrant accepts a token with a life, which it cuts to maxTokenLife.
func decodeGrant(a answer) (grant, *Error) {
	var r struct {
		envelope
		AccessToken text    `json:"access_token"`
		ExpiresIn   integer `json:"expires_in"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return grant{}, e
	}
	if !isVisible(string(r.AccessToken), maxToken) {
		return grant{}, a.unusable("without a usable access_token")
	}
	if r.ExpiresIn <= 0 {
		return grant{}, a.unusable("without a usable expires_in")
	}
	seconds := min(int64(r.ExpiresIn), int64(maxTokenLife/time.Second))
	token := AccessToken{value: string(r.AccessToken)}
	return grant{token, time.Duration(seconds) * time.Second}, nil
}
