package weixin

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const opRelay = "relaying call"

// relayedHeaders are the headers of somebody else's call that WeChat gets to see. All others are between the caller and the gate: cookies, credentials, identity headers.
var relayedHeaders = []string{"Accept", "Accept-Language", "Content-Type", "Range", "User-Agent"}

// apiSecurityHeaders begins the names of those that WeChat's optional API security adds to calls and answers (WECHAT.md 5.5).
const apiSecurityHeaders = "Wechatmp-"

// Relayed is WeChat's answer to a call that somebody else has made.
type Relayed struct {
	*http.Response

	// Renewed says that WeChat refused the access token of the first attempt, and that this is the answer to the second.
	Renewed bool

	// Refused is set when this answer says that the access token is worth nothing.
	Refused *Error
}

// Relay makes a call for somebody else: of req it takes the method, path, query, body and the headers that WeChat needs, and it adds the access token of the mini program, whatever token was
// there. via carries it, and may be shared. The answer comes as it is, body unread, except that a redirect is an error, and a status from 500 on unless an errcode says that it is WeChat's own.
// Where an answer begins like JSON or a page, or has a status from 400 on, its first 4 KiB are looked at: when they show the access token, that is an error. Headers that show it, trailers and
// 1xx answers stay here. When an answer of at most 4 KiB refuses the token, the call was not carried out: it is made once more if another token is to be had (WECHAT.md 5.3, 12.20) and the body
// can be sent again, which needs req.GetBody. The time is the caller's to limit, by req's context. Any error is an [*Error], one from reading the answer too, but that is context.Canceled when
// the caller has gone; one of ClassCanceled with an *http.MaxBytesError in it means that req's body was too long.
func (c *Client) Relay(via http.RoundTripper, app Credentials, req *http.Request) (Relayed, error) {
	start := time.Now()
	r, e := c.relay(via, app, req)
	class := ClassOK
	switch {
	case e != nil:
		class = e.Class
	case r.Refused != nil:
		class = r.Refused.Class
	}
	if c.observe != nil {
		c.observe(Call{Name: "relayed", Class: class, Duration: time.Since(start)})
	}
	if e == nil {
		return r, nil
	}
	return r, e
}

func (c *Client) relay(via http.RoundTripper, app Credentials, req *http.Request) (r Relayed, e *Error) {
	ctx := req.Context()
	token, err := c.tokens.Token(ctx, app)
	if err != nil {
		return r, asError(err)
	}
	r, e = c.pass(via, req, token)
	if e != nil || r.Refused == nil {
		return r, e
	}
	c.tokens.Rejected(app, token)
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return r, nil
	}
	another, err := c.tokens.Token(ctx, app)
	if err != nil || another == token {
		return r, nil
	}
	r.Body.Close()
	r, e = c.pass(via, req, another)
	r.Renewed = true
	return r, e
}

// asError returns what Tokens.Token failed with, which is always an *Error.
func asError(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// pass makes one attempt.
func (c *Client) pass(via http.RoundTripper, req *http.Request, token AccessToken) (Relayed, *Error) {
	out, body, e := c.outgoing(req, token)
	if e != nil {
		return Relayed{}, e
	}
	p, ctx := new(progress), req.Context()
	resp, err := via.RoundTrip(out.WithContext(p.watch(untraced{ctx})))
	if err != nil {
		return Relayed{}, p.explainRelay(ctx, err, body)
	}
	resp.Body = receivedBody{resp.Body, p, ctx}
	r, e := judge(resp, token)
	if e != nil {
		resp.Body.Close()
		e.Op = opRelay
		return Relayed{}, e
	}
	r.Request = req // the other one has the token
	return r, nil
}

// outgoing builds the request of one attempt.
func (c *Client) outgoing(req *http.Request, token AccessToken) (*http.Request, *sentBody, *Error) {
	u := c.base.JoinPath(req.URL.EscapedPath())
	query := req.URL.Query()
	maps.DeleteFunc(query, func(name string, _ []string) bool { return isTokenName(name) })
	token.addTo(query)
	u.RawQuery = query.Encode()
	out := &http.Request{Method: req.Method, URL: u, Host: u.Host, Header: relayedHeader(req.Header), ContentLength: req.ContentLength}
	if req.Body == nil || req.Body == http.NoBody {
		return out, nil, nil
	}
	body := &sentBody{ReadCloser: req.Body}
	if req.GetBody != nil {
		again, err := req.GetBody()
		if err != nil {
			return nil, nil, &Error{Op: opRelay, Class: ClassCanceled, Reason: "the body is gone"}
		}
		body.ReadCloser = again
	}
	out.Body = body
	return out, body, nil
}

func isTokenName(name string) bool {
	return strings.EqualFold(name, "access_token") || strings.EqualFold(name, "cloudbase_access_token")
}

func relayedHeader(h http.Header) http.Header {
	out := http.Header{"User-Agent": {""}} // or net/http would add its own
	for name, values := range h {
		if slices.Contains(relayedHeaders, name) || strings.HasPrefix(name, apiSecurityHeaders) {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// sentBody tells a body that could not be read from a connection that broke.
type sentBody struct {
	io.ReadCloser
	failed atomic.Pointer[error]
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// explainRelay is explain for a call whose body comes from somebody else.
func (p *progress) explainRelay(ctx context.Context, err error, body *sentBody) *Error {
	if body != nil {
		if failed := body.failed.Load(); failed != nil {
			e := &Error{Op: opRelay, Class: ClassCanceled, Reason: "the caller's body could not be read to its end"}
			if tooLong, ok := errors.AsType[*http.MaxBytesError](*failed); ok {
				e.Reason, e.cause = "the caller's body is too long", tooLong
			}
			return e
		}
	}
	e := p.explain(ctx, err)
	e.Op = opRelay
	if e.cause == nil && !p.connected.Load() {
		e.Reason = "no connection" // via may hide why
	}
	return e
}
