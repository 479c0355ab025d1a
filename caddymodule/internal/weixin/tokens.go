package weixin

import (
	"context"
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

const (
	// renewalLead is how long before its end a token is renewed at the latest. Up to renewalSpread more keep several gates apart.
	// WeChat itself hands out a successor in the last 5 minutes, during which both are good; before, it answers with the token it
	// gave already (WECHAT.md 5.1), so from here on it is asked every renewalPoll.
	renewalLead   = 5 * time.Minute
	renewalSpread = time.Minute
	renewalPoll   = 30 * time.Second

	// firstPause lies between two requests for a token; it doubles with each failure up to longestPause.
	firstPause   = time.Second
	longestPause = time.Minute

	// maxTokenLife is the longest that WeChat promises (WECHAT.md 5.1).
	maxTokenLife = 2 * time.Hour

	// maxToken bounds the text of a token; WeChat asks for room for 512 characters.
	maxToken = 2048

	opToken = "getting access token"
)

// AccessToken is what a mini program shows to use most calls of the API. It is opaque and comparable; printing, logging or marshalling it
// shows nothing of it.
type AccessToken struct {
	unprintable

	value string
	cloud bool
}

// addTo puts the token into the query of a call. A token of WeChat Cloud Hosting under the ordinary name is refused with 40001
// (WECHAT.md 8.5).
func (t AccessToken) addTo(query url.Values) {
	if t.cloud {
		query.Set("cloudbase_access_token", t.value)
	} else {
		query.Set("access_token", t.value)
	}
}

// Tokens keeps one access token for each mini program. It asks for stable tokens in normal mode, which leaves those of other processes
// alone, and never forces a refresh (WECHAT.md 5.1, 12.20). It is safe for concurrent use.
type Tokens struct {
	client *Client
	ctx    context.Context // of the renewals; ends with close
	cancel context.CancelFunc
	work   sync.WaitGroup // renewals

	mu      sync.Mutex
	keepers map[Credentials]*keeper // by credentials, so that a new AppSecret begins with a clean slate
}

// keeper is the token of one mini program; Tokens.mu guards it.
type keeper struct {
	token   AccessToken
	end     time.Time // dead from here on
	renewAt time.Time // to be renewed from here on
	refused bool      // a call came back with it

	renewal  *renewal  // under way, or nil
	failures int       // in a row
	next     time.Time // no request before
	err      error     // of the last request
}

// renewal is one request for a token, valid when done is closed.
type renewal struct {
	done  chan struct{}
	token AccessToken
	err   error
}

func newTokens(c *Client) *Tokens {
	ctx, cancel := context.WithCancel(context.Background())
	return &Tokens{client: c, ctx: ctx, cancel: cancel, keepers: make(map[Credentials]*keeper)}
}

// close gives up the renewals under way and waits for their end.
func (t *Tokens) close() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.work.Wait()
}

// Token returns the access token of a mini program. Any error is an [*Error].
//
// A token is renewed some minutes before its end, while Token goes on returning it at once; if WeChat does not give another, it is
// returned until its end. Without one, or after a refusal, Token waits for WeChat. After a failure WeChat is given a pause of 1 s at
// first and 1 min at last, during which Token fails at once. The token of a TokenFile is read at each call.
func (t *Tokens) Token(ctx context.Context, app Credentials) (AccessToken, error) {
	if app.TokenFile.Path != "" {
		return t.fromFile(app)
	}
	if e := checkApp(opToken, app); e != nil {
		return AccessToken{}, e
	}
	token, r, err := t.look(app)
	if r == nil {
		return token, err
	}
	select {
	case <-r.done:
		return r.token, r.err
	case <-ctx.Done():
		e := ended(ctx, false)
		e.Op = opToken
		return AccessToken{}, e
	}
}

// Rejected tells that WeChat refused a call with errcode 40001, 40014 or 42001 because of a token that Token returned. If it is still the
// one kept, the next Token asks WeChat. The answer is the same token for as long as WeChat holds it good, and then nothing is gained by
// another attempt with it.
func (t *Tokens) Rejected(app Credentials, token AccessToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.keepers[app]; k != nil && k.token == token {
		k.refused = true
	}
}

// keeper returns the keeper of a mini program, under the lock.
func (t *Tokens) keeper(app Credentials) *keeper {
	k := t.keepers[app]
	if k == nil {
		k = new(keeper)
		t.keepers[app] = k
	}
	return k
}

// look decides what a call of Token gets: what is here, or the outcome of a renewal. A renewal is begun under the lock that found the
// need for it, so that there is one, and on a goroutine of its own, since it serves others than the caller.
func (t *Tokens) look(app Credentials) (AccessToken, *renewal, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k, now := t.keeper(app), time.Now()
	live := now.Before(k.end)
	due := !live || k.refused || !now.Before(k.renewAt)
	paused := now.Before(k.next) && (live || k.err != nil)
	if due && !paused && k.renewal == nil && t.ctx.Err() == nil {
		r := &renewal{done: make(chan struct{})}
		k.renewal = r
		t.work.Go(func() { t.renew(app, r) })
	}
	switch {
	case live && (!k.refused || k.renewal == nil):
		return k.token, nil, nil
	case k.renewal != nil:
		return AccessToken{}, k.renewal, nil
	case k.err != nil:
		return AccessToken{}, nil, k.err
	default:
		return AccessToken{}, nil, &Error{Op: opToken, Class: ClassCanceled, Reason: "the client is closed", cause: context.Canceled}
	}
}

// renew asks WeChat and publishes the outcome.
func (t *Tokens) renew(app Credentials, r *renewal) {
	asked := time.Now()
	token, life, err := t.client.stableToken(t.ctx, app)
	t.mu.Lock()
	defer t.mu.Unlock()
	k, now := t.keeper(app), time.Now()
	k.renewal, k.err = nil, err
	switch {
	case err != nil:
		k.failures++
	case k.refused && token == k.token:
		k.failures++ // as good as none: WeChat sees nothing wrong with it
	default:
		k.failures = 0
	}
	k.next = now.Add(pauseAfter(k.failures))
	if err == nil && !k.refused {
		k.next = now // a token that is refused right away is renewed right away, once
	}
	r.token, r.err = k.token, nil
	switch {
	case err == nil:
		k.hold(token, asked.Add(life), now)
		r.token = token
	case !now.Before(k.end):
		r.token, r.err = AccessToken{}, err
	}
	close(r.done)
}

// hold keeps a token that was just answered.
func (k *keeper) hold(token AccessToken, end, now time.Time) {
	k.token, k.end, k.refused = token, end, false
	k.renewAt = end.Add(-renewalLead - rand.N(renewalSpread))
	if poll := now.Add(renewalPoll); k.renewAt.Before(poll) {
		k.renewAt = poll
	}
}

// pauseAfter returns how long WeChat is left alone after so many failures in a row.
func pauseAfter(failures int) time.Duration {
	d := min(firstPause<<min(max(failures-1, 0), 10), longestPause)
	return d - rand.N(d/4)
}
