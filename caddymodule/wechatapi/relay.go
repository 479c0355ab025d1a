package wechatapi

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// newAPIProxy makes Caddy's own reverse proxy with the API of WeChat as its
// upstream. The access token is added in its transport, below everything that
// logs.
func newAPIProxy(ctx caddy.Context, baseURL string) (*reverseproxy.Handler, error) {
	base, err := url.Parse(baseURL)
	if err != nil {
		return nil, errors.New("wechat_api: the base URL of the API is malformed")
	}
	no := false
	t := &reverseproxy.HTTPTransport{
		// what is compressed cannot be looked at, and nothing here is worth it
		Compression:           &no,
		Versions:              []string{"1.1"},
		MaxResponseHeaderSize: 64 << 10,
	}
	port := "80"
	if base.Scheme == "https" {
		port, t.TLS = "443", new(reverseproxy.TLSConfig)
	}
	if err := t.Provision(ctx); err != nil {
		return nil, fmt.Errorf("preparing transport of wechat_api: %w", err)
	}
	p := &reverseproxy.Handler{
		Transport: &apiTransport{t},
		Upstreams: reverseproxy.UpstreamPool{
			{Dial: net.JoinHostPort(base.Hostname(), cmp.Or(base.Port(), port))},
		},
	}
	if err := p.Provision(ctx); err != nil {
		return nil, fmt.Errorf("preparing proxy of wechat_api: %w", err)
	}
	return p, nil
}

// apiTransport carries the calls of apps: package weixin says how, Caddy's
// transport does it.
type apiTransport struct{ http *reverseproxy.HTTPTransport }

type apiCallKey struct{}

// RoundTrip implements http.RoundTripper.
func (t *apiTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := req.Context().Value(apiCallKey{}).(*apiCall)
	r, err := c.live.WeChat.Relay(t.http, c.app, req)
	if c.failed = err; err != nil {
		return nil, err
	}
	switch log := wechatapp.Logger("api"); {
	case r.Refused != nil:
		c.result = "token_refused"
		log.Error(
			"WeChat refuses the access token", zap.String("appid", c.app.ID),
			zap.String("path", req.URL.Path), zap.String("seqid", c.seqID),
			zap.Bool("repeated", r.Renewed), zap.Error(r.Refused),
		)
	case r.Renewed:
		log.Info(
			"access token renewed and call repeated", zap.String("appid", c.app.ID),
			zap.String("path", req.URL.Path), zap.String("seqid", c.seqID),
		)
	}
	r.Header.Del(seqIDHeader) // of a base URL that leads to another relay
	r.Body = watchedBody{r.Body, c}
	return r.Response, nil
}

// watchedBody keeps why an answer breaks off, which reverse_proxy does not hand on.
type watchedBody struct {
	io.ReadCloser
	call *apiCall
}

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.call.failed = err
	}
	return n, err
}

// relay sends a call to WeChat and its answer to the app. Nothing has been
// written when it returns an error.
func (h *Handler) relay(w http.ResponseWriter, r *http.Request, c *apiCall) error {
	ctx, cancel := context.WithTimeout(
		context.WithValue(r.Context(), apiCallKey{}, c), time.Duration(h.Timeout),
	)
	defer cancel()
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(time.Duration(h.Timeout)))
	defer rc.SetReadDeadline(time.Time{})

	out := r.WithContext(ctx)
	out.Trailer = nil
	release, err := h.bound(w, out)
	if err != nil {
		return err
	}
	defer release()
	nothing := func(http.ResponseWriter, *http.Request) error { return nil }
	if err := h.proxy.ServeHTTP(w, out, caddyhttp.HandlerFunc(nothing)); err != nil {
		return err
	}
	return c.failed // that the client has gone is no error to reverse_proxy
}

// maxReplayed is the longest body that is kept in memory. A longer one is kept in a
// temporary file.
const maxReplayed = 64 << 10

// bound reads the body of a call to its end. So the call has a Content-Length, since
// WeChat answers 412 to chunks, and can be repeated. release gives back the body.
func (h *Handler) bound(w http.ResponseWriter, r *http.Request) (release func(), err error) {
	if r.ContentLength > h.MaxBody {
		return nil, bodyTooLong(h.MaxBody)
	}
	body := http.MaxBytesReader(w, r.Body, h.MaxBody)
	b, err := io.ReadAll(io.LimitReader(body, maxReplayed+1))
	if err != nil {
		return nil, unread(err, h.MaxBody)
	}
	var content io.ReaderAt = bytes.NewReader(b)
	length, release := int64(len(b)), func() {}
	if length > maxReplayed {
		f, err := os.CreateTemp("", "wxgate-body-")
		if err != nil {
			return nil, fmt.Errorf("keeping the body of a call: %w", err)
		}
		release = func() {
			f.Close()
			os.Remove(f.Name())
		}
		rest := &readError{r: body}
		length, err = io.Copy(f, io.MultiReader(bytes.NewReader(b), rest))
		if err != nil {
			release()
			if rest.err != nil {
				return nil, unread(rest.err, h.MaxBody)
			}
			return nil, fmt.Errorf("keeping the body of a call: %w", err)
		}
		content = f
	}
	r.ContentLength, r.TransferEncoding = length, nil
	r.GetBody = func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(content, 0, length)), nil
	}
	r.Body, _ = r.GetBody()
	return release, nil
}

// readError remembers that reading, not writing, has ended a copy.
type readError struct {
	r   io.Reader
	err error
}

func (e *readError) Read(p []byte) (n int, err error) {
	if n, err = e.r.Read(p); err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// unread returns the problem of a body that could not be read.
func unread(err error, limit int64) error {
	if errors.As(err, new(*http.MaxBytesError)) {
		return bodyTooLong(limit)
	}
	return reply.BodyBroken
}

// bodyTooLong returns the problem of a call beyond max_body.
func bodyTooLong(limit int64) reply.Problem {
	p := reply.BodyTooLong(limit)
	p.Detail += "; max_body of wechat_api is the limit"
	return p
}
