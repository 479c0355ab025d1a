package weixin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxBody   = 64 << 10 // an answer has some hundred bytes
	maxHeader = 64 << 10

	// busyPause separates errcode -1 ("retry later") from the retry.
	busyPause = 100 * time.Millisecond

	noRedirects = "redirect or upgrade instead of JSON" + elsewhere
)

// newTransport returns a transport for use without http.Client: it follows no
// redirect, keeps no cookie and decompresses nothing, and its errors are no
// *url.Error, which would hold the AppSecret (docs/wechat.md#secrets-in-urls).
// HTTP/1.1 only: the send-once rule of [Client.newRequest] depends on it.
func newTransport(timeout time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	half := timeout / 2 // leaves time for a second connection attempt
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: refuseProxy,
		DialContext:            (&net.Dialer{Timeout: half}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    half,
		Protocols:              protocols,
		DisableCompression:     true,
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second, // servers commonly close after 60 to 75 s
		MaxResponseHeaderBytes: maxHeader,
	}
}

// proxyRefusal is the HTTP status with which a proxy refuses a tunnel.
type proxyRefusal int

func (s proxyRefusal) Error() string { return fmt.Sprintf("HTTP %d from the proxy", int(s)) }

// refuseProxy keeps the status of a refused tunnel, of which net/http tells in
// words of the proxy only.
func refuseProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return proxyRefusal(resp.StatusCode)
}

// exchange makes at most two attempts of one call under one deadline
// (docs/wechat.md#send-once).
func (c *Client) exchange(ctx context.Context, k call, decode func(answer) *Error) *Error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	via, unsent := c.pooled, true
	for retried := false; ; retried = true {
		a, sent, e := c.send(ctx, via, k)
		if e == nil {
			e = decode(a)
			if e == nil || e.ErrCode != 0 {
				c.readClock(a.date)
			}
		}
		if unsent = unsent && !sent; e != nil {
			e.unsent = unsent
		}
		switch {
		case e == nil || retried:
			return e
		case !sent:
			via = c.fresh // another kept connection may be dead, too
		case e.ErrCode == systemBusy && !k.once && pause(ctx, busyPause):
		default:
			return e
		}
	}
}

// send makes one attempt. sent is false only if no complete request left this
// process.
func (c *Client) send(
	ctx context.Context, via *http.Transport, k call,
) (a answer, sent bool, e *Error) {
	var p progress
	resp, err := via.RoundTrip(c.newRequest(p.trace(ctx), k))
	if err != nil {
		return answer{}, p.sent.Load(), p.toError(ctx, err)
	}
	defer resp.Body.Close() // before its end, this closes the connection
	a.status, a.kind = resp.StatusCode, resp.Header.Get("Content-Type")
	a.date, _ = http.ParseTime(resp.Header.Get("Date"))
	if a.status < 200 || a.status >= 300 && a.status < 400 {
		return a, true, a.unusable(noRedirects)
	}
	limit := cmp.Or(k.limit, maxBody)
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return a, true, p.toError(ctx, err)
	}
	if len(a.body) > limit {
		return a, true, a.unusable(fmt.Sprintf("with more than %d KiB", limit>>10))
	}
	return a, true, nil
}

// newRequest builds a request that http.Transport does not repeat by itself.
// When a kept connection breaks early, the transport repeats each GET without a
// body, and would exchange the code twice (net/http: Request.isReplayable). A
// body that cannot rewind forbids that. The empty body of a GET has the transfer
// encoding "identity", which adds no header and sends no byte.
func (c *Client) newRequest(ctx context.Context, k call) *http.Request {
	u := c.base.JoinPath(k.path)
	u.RawQuery = k.query.Encode()
	body := io.NopCloser(bytes.NewReader(k.body))
	r := &http.Request{URL: u, Host: u.Host, Header: http.Header{}, Body: body}
	if k.body == nil {
		r.Method, r.TransferEncoding = http.MethodGet, []string{"identity"}
	} else {
		r.Method, r.ContentLength = http.MethodPost, int64(len(k.body))
		r.Header.Set("Content-Type", "application/json")
	}
	return r.WithContext(ctx)
}

// progress records how far one attempt came.
type progress struct {
	connected, sent, answered atomic.Bool
}

// trace returns a ctx whose request updates p. The transport calls WroteHeaders
// before it flushes the complete request head, so while sent is false, no
// complete request has left. RoundTrip returns an error only after the
// connection's writer has stopped, so sent is final then.
func (p *progress) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              func(httptrace.GotConnInfo) { p.connected.Store(true) },
		WroteHeaders:         func() { p.sent.Store(true) },
		GotFirstResponseByte: func() { p.answered.Store(true) },
	})
}

// toError converts an error of the transport. It drops the original, whose text
// may quote the answer, and an answer may echo the request. The cause is one of
// the values that hold neither.
func (p *progress) toError(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		return contextError(ctx, p.sent.Load())
	}
	e := &Error{Class: ClassUnavailable, Reason: "no connection"}
	if p.connected.Load() {
		e.Reason = "connection broken"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "proxyconnect" {
		e.Reason = "no connection to the proxy"
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		e.cause = dns
		return e
	}
	if status, ok := errors.AsType[proxyRefusal](err); ok {
		e.Reason = status.Error() + " instead of a tunnel"
		return e
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		e.cause = cert
		return e
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return contextError(ctx, p.sent.Load())
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		e.cause = errno
		return e
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.cause = io.ErrUnexpectedEOF
	case errors.Is(err, io.EOF):
		e.cause = io.EOF
	case p.answered.Load():
		e.Class, e.Reason = ClassProtocol, "the answer is not HTTP"
	case !p.connected.Load():
		e.Reason = "no connection: " + handshake(err)
	}
	return e
}

// handshake says in constant words why a connection was not made.
func handshake(err error) string {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server speaks no TLS on this port"
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		return "TLS refused: " + alert.Error()
	}
	return "TLS or proxy handshake failed"
}

// contextError returns the error of a call that its caller cancelled, or that
// ran out of time.
func contextError(ctx context.Context, sent bool) *Error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &Error{
			Class: ClassCanceled, Reason: "cancelled by the caller", cause: context.Canceled,
		}
	}
	reason := "no connection in time"
	if sent {
		reason = "no answer in time"
	}
	return &Error{Class: ClassUnavailable, Reason: reason, cause: context.DeadlineExceeded}
}

// pause reports whether d passed before the end of ctx.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
