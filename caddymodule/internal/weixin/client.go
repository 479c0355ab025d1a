// Package weixin is the client of api.weixin.qq.com: typed calls, typed errors,
// one shared transport with deadline, retry and circuit breaker, and the access
// tokens that most calls need.
//
// It owns the rules of that conversation (docs/wechat.md#rules): which request
// may be sent again, how an answer is judged and when an access token is
// renewed. No AppSecret, code, session_key, access token or request URL leaves
// it through an error (docs/threats.md#t28). It does not know sessions, stores
// or Caddy, and it writes no log: [Config.Observe] reports each call, and
// [Config.LoginsChanged] each change that lasts.
package weixin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/span"
)

const (
	defaultBaseURL = "https://api.weixin.qq.com"
	defaultTimeout = 5 * time.Second
)

// Config configures a [Client]. The zero value is complete and means production.
type Config struct {
	// BaseURL is the address of the API: http or https, a host and optionally a
	// path prefix. Empty means https://api.weixin.qq.com.
	BaseURL string

	// Timeout limits a whole call, with the retry and the wait for an access
	// token. Zero means 5 seconds.
	Timeout time.Duration

	// TripAfter is the number of consecutive failures that opens a circuit
	// breaker. code2Session has a breaker of its own, so that trouble with other
	// calls does not stop logins. Zero means 8.
	TripAfter uint32

	// OpenFor is the time for which an open breaker refuses all calls before it
	// admits one probe. Zero means 2 seconds.
	OpenFor time.Duration

	// Observe, if set, receives each finished call, also one that an open breaker
	// refused. It may run on several goroutines at once. Malformed arguments make
	// no call; the retry after a refused access token is a call of its own.
	Observe func(Call)

	// LoginsChanged and CallsChanged, if set, receive the transitions of
	// code2Session and of all other calls, relayed ones excepted: a path of an
	// app's choice says nothing of the others.
	LoginsChanged, CallsChanged func(Transition)

	// SecretChanged, if set, receives each change of the AppSecret in use of a
	// mini program that has two.
	SecretChanged func(appID string, in SecretInUse)
}

// Call describes a finished call. It holds no secret.
type Call struct {
	Name     string // last part of the API's path: "code2session", "stable_token" …
	AppID    string // empty for a relayed call
	Class    Class
	Err      *Error // nil with ClassOK
	Refused  bool   // by the open breaker: nothing was sent
	Duration time.Duration
}

// Client calls api.weixin.qq.com. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	timeout time.Duration
	observe func(Call)
	secrets secrets
	clock   atomic.Pointer[Clock]
	login   *breaker // of code2Session
	other   *breaker // of all other calls
	tokens  *Tokens
	pooled  *http.Transport // keeps connections
	fresh   *http.Transport // opens a connection for each request
}

// New returns a client and opens no connection. An error says what to change.
func New(cfg Config) (*Client, error) {
	base, err := parseBaseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 || cfg.OpenFor < 0 {
		return nil, errors.New("configuring the WeChat API: timeout and breaker time " +
			"must not be negative; leave them out for the defaults")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{
		base:    base,
		timeout: cfg.Timeout,
		observe: cfg.Observe,
		secrets: secrets{tell: cfg.SecretChanged},
		login:   newBreaker(cfg.TripAfter, cfg.OpenFor, cfg.LoginsChanged),
		other:   newBreaker(cfg.TripAfter, cfg.OpenFor, cfg.CallsChanged),
		pooled:  newTransport(cfg.Timeout),
		fresh:   newTransport(cfg.Timeout),
	}
	c.fresh.DisableKeepAlives = true
	c.tokens = newTokens(c)
	return c, nil
}

// Tokens returns the access tokens that the calls of this client use.
func (c *Client) Tokens() *Tokens { return c.tokens }

// Close cancels token renewals and closes idle connections. Calls in flight end
// within the timeout.
func (c *Client) Close() {
	c.tokens.close()
	c.login.health.close()
	c.other.health.close()
	c.pooled.CloseIdleConnections()
}

// BreakerOpen reports whether the breaker would refuse a code2Session now.
func (c *Client) BreakerOpen() bool { return c.login.refuses() }

// OtherBreakerOpen reports whether the breaker would refuse any other call now.
func (c *Client) OtherBreakerOpen() bool { return c.other.refuses() }

// Logins returns how code2Session fares.
func (c *Client) Logins() Health { return c.login.health.get() }

// OtherCalls returns how all calls but code2Session and relayed ones fare.
func (c *Client) OtherCalls() Health { return c.other.health.get() }

// NoAnswer returns an error when code2Session would have to wait in vain: its
// breaker is open, or calls have waited for a while without any answer. Else nil.
func (c *Client) NoAnswer() *Error {
	const silence = 500 * time.Millisecond
	if !c.login.refuses() && !c.login.health.silent(silence) {
		return nil
	}
	return &Error{
		Op: opExchange, Class: ClassUnavailable, Host: c.base.Host,
		Reason: "not tried: WeChat answers none of the logins under way", unsent: true,
	}
}

// Clock compares WeChat's clock with that of this machine.
type Clock struct {
	Ahead time.Duration // of WeChat's, to about a second
	At    time.Time     // when it was compared
}

// Clock returns the comparison with WeChat's last answer, zero before there is one.
func (c *Client) Clock() Clock {
	if read := c.clock.Load(); read != nil {
		return *read
	}
	return Clock{}
}

// readClock compares the clocks. A date has whole seconds, cut off.
func (c *Client) readClock(date time.Time) {
	if date.IsZero() {
		return
	}
	now := time.Now()
	ahead := date.Add(time.Second / 2).Sub(now).Round(time.Second)
	c.clock.Store(&Clock{Ahead: ahead, At: now})
}

// parseBaseURL never repeats its input, which may hold a password.
func parseBaseURL(s string) (*url.URL, error) {
	if s == "" {
		s = defaultBaseURL
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, baseURLError("not a URL")
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, baseURLError("the scheme must be http or https")
	case u.User != nil:
		return nil, baseURLError("it must hold no user name or password")
	case u.Hostname() == "":
		return nil, baseURLError("the host is missing")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, baseURLError("it must have no query: remove everything from '?' on")
	case u.Fragment != "":
		return nil, baseURLError("it must have no fragment: remove everything from '#' on")
	}
	if u.Path == "" {
		u.Path = "/" // makes url.JoinPath return an absolute path
	}
	return u, nil
}

func baseURLError(problem string) error {
	return fmt.Errorf("configuring the WeChat API: base URL: %s; write it like %s", problem,
		defaultBaseURL)
}

// call describes one call of the API.
type call struct {
	name  string // for Observe
	app   string // likewise
	op    string // for Error.Op
	path  string
	query url.Values
	body  []byte // JSON; makes the call a POST
	once  bool   // forbids the retry after errcode -1
	odd   bool   // a filter may refuse what the client has sent
	limit int    // bytes of the answer; 0: maxBody
}

// do makes one call under a breaker. decode judges an answer and returns its
// content.
func do[T any](
	ctx context.Context, c *Client, b *breaker, k call, decode func(answer) (T, *Error),
) (result T, err error) {
	start := time.Now()
	ctx, traced := c.trace(ctx, k)
	e := b.run(ctx, func() *Error {
		e := c.exchange(ctx, k, func(a answer) (e *Error) {
			result, e = decode(a)
			return e
		})
		c.finish(e, k)
		return e
	})
	if e != nil {
		c.finish(e, k) // if the breaker or ctx ended it
		err = e
	}
	c.report(k, e, start)
	traced.End(outcomeName(e), judgeOutcome(err) == outcomeFailed)
	return result, err
}

// trace begins the span of a call.
func (c *Client) trace(ctx context.Context, k call) (context.Context, span.Call) {
	ctx, traced := span.Start(ctx, "wechat", k.name)
	traced.About("server.address", c.base.Host)
	if k.app != "" {
		traced.About("wechat.appid", k.app)
	}
	return ctx, traced
}

// outcomeName names the end of a call in its span.
func outcomeName(e *Error) string {
	switch {
	case e == nil:
		return ClassOK.String()
	case e.refused:
		return "breaker_open"
	}
	return e.Class.String()
}

// finish completes the error of a call, once: others may read it from then on.
func (c *Client) finish(e *Error, k call) {
	if e == nil || e.Op != "" {
		return
	}
	e.Op = k.op
	if e.Class != ClassUnavailable && e.Class != ClassProtocol || e.refused {
		return
	}
	e.blameless = k.odd && e.Class == ClassProtocol
	if e.ErrCode == 0 {
		e.Host = c.base.Host
	}
}

func (c *Client) report(k call, e *Error, start time.Time) {
	if c.observe == nil {
		return
	}
	report := Call{Name: k.name, AppID: k.app, Err: e, Duration: time.Since(start)}
	if e != nil {
		report.Class, report.Refused = e.Class, e.refused
	}
	c.observe(report)
}

// authorized makes a call that carries the mini program's access token. A call
// whose token WeChat refuses was not executed, so authorized repeats it when it
// gets another token (docs/wechat.md#token-rules). One deadline covers all.
func authorized[T any](
	ctx context.Context, c *Client, app Credentials, k call, decode func(answer) (T, *Error),
) (result T, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	token, err := c.tokens.Token(ctx, app)
	if err != nil {
		return result, err
	}
	if k.app = app.ID; k.query == nil {
		k.query = make(url.Values)
	}
	token.addTo(k.query)
	result, err = do(ctx, c, c.other, k, decode)
	if e, ok := errors.AsType[*Error](err); !ok || !isTokenRefusal(e.ErrCode) {
		return result, err
	}
	another, ok := c.tokens.replace(ctx, app, token)
	if !ok {
		return result, err
	}
	another.addTo(k.query)
	return do(ctx, c, c.other, k, decode)
}
