package weixin

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

const (
	maxBody   = 64 << 10 // an answer has some hundred bytes
	maxHeader = 64 << 10

	// busyPause is given to WeChat between errcode -1 ("retry later") and the one retry.
	busyPause = 100 * time.Millisecond
)

// newTransport returns a transport without the conveniences of http.Client: it follows no redirect, keeps no cookie, decompresses nothing,
// and its errors are not wrapped in a *url.Error, which would carry the AppSecret (WECHAT.md 11.17). HTTP/1.1 only, since the proof
// of [Client.send] rests on how it handles connections.
func newTransport(timeout time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	half := timeout / 2 // leaves a second connection attempt its share of the call's deadline
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: half}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    half,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second, // below the 60 to 75 s after which servers commonly hang up
		MaxResponseHeaderBytes: maxHeader,
	}
}

// exchange makes the attempts of one call, at most two, under one deadline (WECHAT.md 12.1).
func (c *Client) exchange(ctx context.Context, k call, decode func(answer) *Error) *Error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	via, unsent := c.pooled, true
	for retried := false; ; retried = true {
		a, sent, e := c.send(ctx, via, k)
		if e == nil {
			e = decode(a)
		}
		if unsent = unsent && !sent; e != nil {
			e.unsent = unsent
		}
		switch {
		case e == nil || retried:
			return e
		case !sent:
			via = c.fresh // where one kept connection was dead, the next may be
		case e.ErrCode == systemBusy && !k.once && pause(ctx, busyPause):
		default:
			return e
		}
	}
}

// send makes one attempt. sent is false only if no complete request can have left this process.
func (c *Client) send(ctx context.Context, via *http.Transport, k call) (a answer, sent bool, e *Error) {
	var p progress
	resp, err := via.RoundTrip(c.request(p.watch(ctx), k))
	if err != nil {
		return answer{}, p.sent.Load(), p.explain(ctx, err)
	}
	// Closing a body before its end drops the connection instead of draining it.
	defer resp.Body.Close()
	a.status = resp.StatusCode
	if a.status < 200 || a.status >= 300 && a.status < 400 {
		return a, true, a.nonsense("redirects and upgrades are not followed: check the base URL")
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return a, true, p.explain(ctx, err)
	}
	if len(a.body) > maxBody {
		return a, true, a.nonsense("the answer is larger than 64 KiB")
	}
	return a, true, nil
}

// request builds a request that http.Transport will not send twice by itself. When a reused connection breaks before the first byte of
// the answer, the transport silently repeats a request that it takes for idempotent, and every GET without a body is one: the code
// would then be exchanged twice (net/http: Request.isReplayable, persistConn.shouldRetryRequest). A body that cannot be rewound
// forbids that. That of a GET is empty; "identity" lets the transport write these zero bytes as they are, without probing the body on
// a goroutine and a timer and without a Content-Length or Transfer-Encoding header.
func (c *Client) request(ctx context.Context, k call) *http.Request {
	u := c.base.JoinPath(k.path)
	u.RawQuery = k.query.Encode()
	r := &http.Request{URL: u, Host: u.Host, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(k.body))}
	if k.body == nil {
		r.Method, r.TransferEncoding = http.MethodGet, []string{"identity"}
	} else {
		r.Method, r.ContentLength = http.MethodPost, int64(len(k.body))
		r.Header.Set("Content-Type", "application/json")
	}
	return r.WithContext(ctx)
}

// progress is how far one attempt came.
type progress struct {
	connected, sent, answered atomic.Bool
}

// watch returns a ctx whose request keeps p up to date. The transport calls WroteHeaders when the request head is complete in its buffer
// and before it flushes that buffer, so while sent is false no complete request has been written. RoundTrip returns an error only
// after the connection's writer has stopped, so sent is final then.
func (p *progress) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { p.connected.Store(true) },
		WroteHeaders:         func() { p.sent.Store(true) },
		GotFirstResponseByte: func() { p.answered.Store(true) },
	})
}

// pause waits unless ctx ends first, and reports whether it waited to the end.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
