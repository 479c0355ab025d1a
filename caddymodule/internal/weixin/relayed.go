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

// maxJudged is the longest answer that is looked at as a whole: WeChat's refusals have some hundred bytes.
const maxJudged = 4 << 10

// untraced hides the trace of whoever made the call: Caddy's hands on 1xx answers, headers and all, before anybody has looked at them.
type untraced struct{ context.Context }

func (c untraced) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(*httptrace.ClientTrace); ok {
		return nil
	}
	return v
}

// judge makes of WeChat's answer what the caller may have.
func judge(resp *http.Response, token AccessToken) (r Relayed, e *Error) {
	a := answer{status: resp.StatusCode}
	if a.status < 200 || a.status >= 300 && a.status < 400 {
		return r, a.nonsense("redirects and upgrades are not followed: check the base URL")
	}
	maps.DeleteFunc(resp.Header, func(_ string, values []string) bool { return slices.ContainsFunc(values, token.shownIn) })
	handed := *resp
	handed.Trailer = nil // net/http goes on filling resp's own
	r.Response = &handed

	var whole bool
	if a.body, whole = opening(&handed); token.shownIn(string(a.body)) {
		return r, a.nonsense("the answer shows the access token")
	}
	var env envelope
	var refused *Error
	if whole {
		refused = a.decode(&env, &env)
	}
	own := env.ErrCode != nil && (refused == nil || refused.ErrCode != 0)
	switch {
	case a.status >= http.StatusInternalServerError && !own:
		return r, a.nonsense("no answer of WeChat's API")
	case own && refused != nil && isTokenRefusal(refused.ErrCode):
		refused.Op = opRelay
		r.Refused = refused
	}
	return r, nil
}

// opening returns how an answer begins and whether that is all of it, and leaves the answer to be read as if nobody had. More than the first byte is waited for only where that begins JSON or a
// page, or the status is an error's, and no more than maxJudged: pictures and media stream through.
func opening(resp *http.Response) (b []byte, whole bool) {
	br := bufio.NewReaderSize(resp.Body, maxJudged+1)
	resp.Body = struct {
		io.Reader
		io.Closer
	}{br, resp.Body}
	if first, err := br.Peek(1); err != nil || resp.StatusCode < http.StatusBadRequest && !strings.Contains("{[<\ufeff \t\r\n", string(first)) {
		return nil, false
	}
	b, err := br.Peek(maxJudged + 1)
	return b, err == io.EOF // else too long, or broken off: its reader will see
}

// jsonEscapes undoes what encoders of JSON do to the characters of a token.
var jsonEscapes = strings.NewReplacer(`\/`, "/", `\u002b`, "+", `\u002B`, "+", `\u002f`, "/", `\u002F`, "/", `\u003d`, "=", `\u003D`, "=", `\u0026`, "&")

// shownIn reports whether a text holds the token, as it is, as it stands in a query, or as JSON may have it.
func (t AccessToken) shownIn(s string) bool {
	return strings.Contains(s, t.value) || strings.Contains(s, url.QueryEscape(t.value)) || strings.Contains(jsonEscapes.Replace(s), t.value)
}

// receivedBody keeps back what net/http says of an answer that breaks off, which may quote it.
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
		return n, context.Canceled // bare, as reverse_proxy looks for it
	}
	e := b.p.explain(b.ctx, err)
	e.Op = opRelay
	return n, e
}
