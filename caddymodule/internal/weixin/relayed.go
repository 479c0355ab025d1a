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
)

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
