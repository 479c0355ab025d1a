// Package weixin is the client of api.weixin.qq.com: typed calls, typed errors, one shared transport with deadline, permitted retry and
// circuit breaker, and the access tokens that most calls need.
//
// It owns the rules of that conversation: what may be sent again (WECHAT.md 12.1), how an answer is judged (WECHAT.md 2.2, 12.4), when an
// access_token is renewed (WECHAT.md 5.1, 12.20) and that no AppSecret, code, session_key, access_token or request URL leaves it
// through an error (THREATS.md 28). It knows nothing of sessions, HTTP clients of the gate, stores or Caddy, writes no log and counts
// no metric; [Config.Observe] tells the owner what happened.
package weixin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	defaultBaseURL = "https://api.weixin.qq.com"
	defaultTimeout = 5 * time.Second
)

// Config configures a [Client]. The zero value is complete and means production.
type Config struct {
	// BaseURL is where the API lives: http or https, a host, optionally a path prefix. Empty means https://api.weixin.qq.com;
	// WECHAT.md 2.1 lists the other official hosts.
	BaseURL string

	// Timeout bounds a whole call, the permitted retry and the wait for an access_token included. Zero means 5 seconds.
	Timeout time.Duration

	// TripAfter is the number of consecutive availability failures that opens a circuit breaker. There are two: that of code2Session,
	// and that of all other calls, whose trouble is then no reason to refuse a login. Zero means 8.
	TripAfter uint32

	// OpenFor is how long an open breaker refuses every call before it lets one probe through. Zero means 2 seconds.
	OpenFor time.Duration

	// Observe, if set, is told of every finished call (not of every attempt), calls refused by the open breaker included. It may run on
	// several goroutines at once. An argument that is refused for its shape is no call; the repetition after a refused access_token is
	// one of its own.
	Observe func(Call)
}

// Call is what [Config.Observe] learns. It holds nothing secret and nothing of unbounded cardinality.
type Call struct {
	Name     string // last part of the API's path: "code2session", "stable_token", "getuserphonenumber" …
	Class    Class
	Duration time.Duration
}

// Client calls api.weixin.qq.com. It is safe for concurrent use.
type Client struct {
	base    *url.URL
	timeout time.Duration
	observe func(Call)
	login   *breaker // of code2Session
	other   *breaker // of everything else
	tokens  *Tokens
	pooled  *http.Transport // keeps connections
	fresh   *http.Transport // never reuses one
}

// New returns a client, or an error that says what to write instead. It opens no connection.
func New(cfg Config) (*Client, error) {
	base, err := parseBaseURL(cfg.BaseURL)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 || cfg.OpenFor < 0 {
		return nil, errors.New("configuring the WeChat API: timeout and breaker time must not be negative: leave them out for the defaults")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	c := &Client{
		base:    base,
		timeout: cfg.Timeout,
		observe: cfg.Observe,
		login:   newBreaker(cfg.TripAfter, cfg.OpenFor),
		other:   newBreaker(cfg.TripAfter, cfg.OpenFor),
		pooled:  newTransport(cfg.Timeout),
		fresh:   newTransport(cfg.Timeout),
	}
	c.fresh.DisableKeepAlives = true
	c.tokens = newTokens(c)
	return c, nil
}

// Tokens returns the keeper of the access tokens that the calls of this client use.
func (c *Client) Tokens() *Tokens { return c.tokens }

// Close ends the renewals of access tokens that are under way and closes the idle connections. Calls in flight end by themselves within
// the timeout.
func (c *Client) Close() {
	c.tokens.close()
	c.pooled.CloseIdleConnections()
}

// BreakerOpen reports whether a code2Session made now would be refused at once.
func (c *Client) BreakerOpen() bool {
	return c.login.refusing()
}

// OtherBreakerOpen reports the same of all other calls that the gate makes for itself.
func (c *Client) OtherBreakerOpen() bool {
	return c.other.refusing()
}

// parseBaseURL never repeats its input: a URL with a password in it is one of the mistakes it reports.
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
		u.Path = "/" // or url.JoinPath would make relative paths of it
	}
	return u, nil
}

func baseURLError(problem string) error {
	return fmt.Errorf("configuring the WeChat API: base URL: %s; write it like %s", problem, defaultBaseURL)
}

// call describes one call of the API, whatever the number of its attempts.
type call struct {
	name  string // for Observe
	op    string // for Error.Op
	path  string
	query url.Values
	body  []byte // JSON; makes the call a POST
	once  bool   // not even repeated after errcode -1
}

// do makes one call under a breaker. decode judges an answer and keeps what it holds.
func (c *Client) do(ctx context.Context, b *breaker, k call, decode func(answer) *Error) error {
	start := time.Now()
	e := b.run(ctx, func() *Error { return c.exchange(ctx, k, decode) })
	class := ClassOK
	if e != nil {
		e.Op, class = k.op, e.Class
	}
	if c.observe != nil {
		c.observe(Call{Name: k.name, Class: class, Duration: time.Since(start)})
	}
	if e == nil {
		return nil
	}
	return e
}
