package weixin

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const opRelay = "relaying call"

// relayedHeaders are the headers that WeChat gets of a relayed call. All others
// stay here: cookies, credentials and identity headers.
var relayedHeaders = []string{
	"Accept", "Accept-Language", "Content-Type", "Range", "User-Agent",
}

// apiSecurityHeaders is the prefix of the headers of WeChat's optional API
// security (docs/wechat.md#api-security).
const apiSecurityHeaders = "Wechatmp-"

// Relayed is WeChat's answer to a relayed call.
type Relayed struct {
	*http.Response

	// Renewed says that WeChat refused the access token of the first attempt and
	// that this is the answer to the second.
	Renewed bool

	// Refused is set when this answer refuses the access token.
	Refused *Error
}

// Relay sends a call of another program to WeChat through via. It takes from req
// the method, path, query, body and relayedHeaders, and adds the access token of
// the mini program. When WeChat refuses the token, Relay sends the call once more
// if it gets another token and the body allows it, which needs req.GetBody.
//
// It returns the answer with its body unread. These answers are errors: a
// redirect, a status from 500 on without an errcode, and one that shows the
// access token in its first 4 KiB of text. Headers that show it, trailers and 1xx
// answers are dropped.
//
// The context of req limits the time. Any error is an [*Error], also one of
// reading the body; only a cancelled reader gets context.Canceled. ClassCanceled
// with an *http.MaxBytesError means that req's body was too long.
func (c *Client) Relay(via http.RoundTripper, app Credentials, req *http.Request) (Relayed, error) {
	start, k := time.Now(), call{name: "relayed"}
	ctx, traced := c.trace(req.Context(), k)
	if ctx != req.Context() {
		req = req.WithContext(ctx)
	}
	r, err := c.relay(via, app, req)
	e, _ := errors.AsType[*Error](err)
	if r.Refused != nil {
		e = r.Refused
	}
	c.report(k, e, start)
	traced.End(outcomeName(e), judgeOutcome(err) == outcomeFailed)
	return r, err
}

func (c *Client) relay(
	via http.RoundTripper, app Credentials, req *http.Request,
) (r Relayed, err error) {
	token, err := c.tokens.Token(req.Context(), app)
	if err != nil {
		return r, err
	}
	r, err = c.try(via, req, token)
	if err != nil || r.Refused == nil {
		return r, err
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		c.tokens.Invalidate(app, token)
		return r, nil
	}
	another, ok := c.tokens.replace(req.Context(), app, token)
	if !ok {
		return r, nil
	}
	r.Body.Close()
	r, err = c.try(via, req, another)
	r.Renewed = true
	return r, err
}

// try sends the call once.
func (c *Client) try(via http.RoundTripper, req *http.Request, token AccessToken) (Relayed, error) {
	out, body, e := c.outgoing(req, token)
	if e != nil {
		return Relayed{}, e
	}
	p, ctx := new(progress), req.Context()
	resp, err := via.RoundTrip(out.WithContext(p.trace(untraced{ctx})))
	if err != nil {
		return Relayed{}, p.toRelayError(ctx, err, body)
	}
	resp.Body = receivedBody{resp.Body, p, ctx}
	r, e := judge(resp, token)
	if e != nil {
		resp.Body.Close()
		e.Op = opRelay
		return Relayed{}, e
	}
	r.Request = req // the request that was sent has the token
	return r, nil
}

// outgoing builds the request of one attempt.
func (c *Client) outgoing(req *http.Request, token AccessToken) (*http.Request, *sentBody, *Error) {
	u := c.base.JoinPath(req.URL.EscapedPath())
	query := req.URL.Query()
	maps.DeleteFunc(query, func(name string, _ []string) bool { return isTokenName(name) })
	token.addTo(query)
	u.RawQuery = query.Encode()
	out := &http.Request{
		Method: req.Method, URL: u, Host: u.Host,
		Header: selectHeaders(req.Header), ContentLength: req.ContentLength,
	}
	if req.Body == nil || req.Body == http.NoBody {
		return out, nil, nil
	}
	body := &sentBody{ReadCloser: req.Body}
	if req.GetBody != nil {
		again, err := req.GetBody()
		if err != nil {
			return nil, nil, &Error{
				Op: opRelay, Class: ClassCanceled,
				Reason: "the body cannot be read again",
			}
		}
		body.ReadCloser = again
	}
	out.Body = body
	return out, body, nil
}

func isTokenName(name string) bool {
	return strings.EqualFold(name, "access_token") ||
		strings.EqualFold(name, "cloudbase_access_token")
}

func selectHeaders(h http.Header) http.Header {
	out := http.Header{"User-Agent": {""}} // keeps net/http from adding its own
	for name, values := range h {
		if slices.Contains(relayedHeaders, name) || strings.HasPrefix(name, apiSecurityHeaders) {
			out[name] = slices.Clone(values)
		}
	}
	return out
}

// sentBody records an error of reading the caller's body, which the transport
// reports like a broken connection.
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

// toRelayError is toError for a call with the body of its caller.
func (p *progress) toRelayError(ctx context.Context, err error, body *sentBody) *Error {
	if body != nil {
		if failed := body.failed.Load(); failed != nil {
			e := &Error{
				Op: opRelay, Class: ClassCanceled,
				Reason: "the caller's body ended with an error",
			}
			if tooLong, ok := errors.AsType[*http.MaxBytesError](*failed); ok {
				e.Reason, e.cause = "the caller's body is too long", tooLong
			}
			return e
		}
	}
	e := p.toError(ctx, err)
	e.Op = opRelay
	if e.cause == nil && !p.connected.Load() {
		e.Reason = "no connection" // via may report no more
	}
	return e
}

// maxJudged limits the answers that judge reads as a whole. WeChat's refusals
// have some hundred bytes.
const maxJudged = 4 << 10

// untraced hides the trace of the caller's context. Caddy's trace forwards 1xx
// answers with their headers before judge sees them.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(*httptrace.ClientTrace); ok {
		return nil
	}
	return v
}

// judge returns the part of WeChat's answer that the caller may get.
func judge(resp *http.Response, token AccessToken) (r Relayed, e *Error) {
	a := answer{status: resp.StatusCode}
	if a.status < 200 || a.status >= 300 && a.status < 400 {
		return r, a.unusable(noRedirects)
	}
	maps.DeleteFunc(resp.Header, func(_ string, values []string) bool {
		return slices.ContainsFunc(values, token.appearsIn)
	})
	passed := *resp
	passed.Trailer = nil // net/http fills the trailer of resp
	r.Response = &passed

	var whole bool
	if a.body, whole = peek(&passed); token.appearsIn(string(a.body)) {
		return r, a.unusable("that shows the access token")
	}
	var env envelope
	var refused *Error
	if whole {
		refused = a.decode(&env, &env)
	}
	own := env.ErrCode != nil && (refused == nil || refused.ErrCode != 0) // WeChat sent it
	switch {
	case a.status >= http.StatusInternalServerError && !own:
		return r, a.unusable("without an errcode")
	case own && refused != nil && isTokenRefusal(refused.ErrCode):
		refused.Op = opRelay
		r.Refused = refused
	}
	return r, nil
}

// peek returns the start of a text and whether that is all of it, and leaves the
// body unread. Pictures and other media stream through: unless the status is an
// error's, it waits only for the first byte of what is neither JSON nor a page.
func peek(resp *http.Response) (b []byte, whole bool) {
	br := bufio.NewReaderSize(resp.Body, maxJudged+1)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{br, resp.Body}
	first, err := br.Peek(1)
	if err != nil || resp.StatusCode < http.StatusBadRequest &&
		!strings.Contains("{[<\ufeff \t\r\n", string(first)) {
		return nil, false
	}
	b, err = br.Peek(maxJudged + 1)
	return b, err == io.EOF // the reader of the body gets any other error
}

// jsonEscapes decodes the escapes of JSON for the characters of a token.
var jsonEscapes = strings.NewReplacer(
	`\/`, "/", `\u002b`, "+", `\u002B`, "+", `\u002f`, "/", `\u002F`, "/",
	`\u003d`, "=", `\u003D`, "=", `\u0026`, "&",
)

// appearsIn reports whether s holds the token: literally, in the form of a query
// or in JSON.
func (t AccessToken) appearsIn(s string) bool {
	return strings.Contains(s, t.value) || strings.Contains(s, url.QueryEscape(t.value)) ||
		strings.Contains(jsonEscapes.Replace(s), t.value)
}

// receivedBody replaces the errors of net/http, which may quote the answer.
type receivedBody struct {
	io.ReadCloser
	p   *progress
	ctx context.Context
}

func (b receivedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	switch {
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(b.ctx.Err(), context.Canceled):
		return n, context.Canceled // bare, as reverse_proxy expects it
	}
	e := b.p.toError(b.ctx, err)
	e.Op = opRelay
	return n, e
}
