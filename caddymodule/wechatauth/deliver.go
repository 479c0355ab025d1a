package wechatauth

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/assertion"
	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

const (
	// appPrompt is how long WeChat's push waits for the app's answer.
	appPrompt = time.Second

	// appTimeout ends an attempt before its lease does.
	appTimeout = pushbox.Lease - 5*time.Second

	// maxAppAnswer bounds the answer to a push, which WeChat reads.
	maxAppAnswer = 64 << 10

	// maxAppCalls bounds the attempts under way; other pushes wait in the queue.
	maxAppCalls = 64
)

// deliverPaths returns the paths on which the app gets pushes.
func (h *Handler) deliverPaths() []string {
	if h.app == nil {
		return nil
	}
	return h.app.DeliverPaths(h.apps)
}

// provisionDeliver makes pushes that wait come through the server of this site.
func (h *Handler) provisionDeliver(ctx caddy.Context) {
	if len(h.deliverPaths()) == 0 {
		return
	}
	h.appCalls = make(chan struct{}, maxAppCalls)
	srv, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	host := siteHost(srv)
	if host == "" && h.Assertion != nil {
		if u, err := url.Parse(h.Assertion.Issuer); err == nil {
			host = u.Hostname()
		}
	}
	h.app.DeliverPushesBy(wechatapp.PushSite{
		Server: srv, Host: cmp.Or(host, "localhost"), Endpoints: h.rules.Endpoints(),
		Serves: func(appID string) bool {
			return !h.Cloudrun && (h.merchants || slices.Contains(h.apps, appID))
		},
	})
}

// errEventsUnsigned refuses events that an app could not tell from a client's.
var errEventsUnsigned = errors.New("events_to needs assertion, whose key signs the events: " +
	"add assertion { audience <name of the app> } to wechat_auth")

// checkEvents refuses a site whose app is to get events and that signs nothing.
func (h *Handler) checkEvents() error {
	if h.Assertion != nil || h.Cloudrun || h.app == nil {
		return nil
	}
	for _, id := range append(h.app.PlatformIDs(), h.apps...) {
		if to := h.app.PushReceiver(id); to != nil && to.EventsTo != "" {
			return errEventsUnsigned
		}
	}
	return nil
}

type nextKey struct{}

// withNext returns r with the handler behind the gate, for an endpoint that asks the app.
func withNext(r *http.Request, next caddyhttp.Handler) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), nextKey{}, next))
}

// appAnswer is what the app says to a push.
type appAnswer struct {
	status int // 0: none
	body   []byte
}

// ok reports whether the app has the push.
func (a appAnswer) ok() bool { return a.status/100 == 2 }

// deliver gives a push to the app and returns the answer for WeChat. The push is durable
// first, so an app that is slow or away gets it later.
func (h *Handler) deliver(
	ctx context.Context, r *http.Request, live *wechatapp.Live, to *wechatapp.PushReceiver,
	box mailbox, in received,
) (finish func() (answer string), err error) {
	m := in.message
	d := pushbox.Due{
		ID: hex.EncodeToString(in.digest[:]), AppID: box.appID,
		OpenID: m.OpenID, UnionID: m.UnionID, From: m.OpenID + " " + m.From,
		Host: r.Host, Path: r.URL.Path,
		ContentType: m.In.ContentType(), Body: in.text,
	}
	first, err := live.PushQueue().Add(ctx, d, time.Now())
	if err != nil || !first {
		return func() string { return push.Success }, err
	}
	return func() string { return h.deliverNow(r, live, to, box, in, d) }, nil
}

// deliverNow makes the first attempt, which goes on when WeChat has had its answer.
func (h *Handler) deliverNow(
	r *http.Request, live *wechatapp.Live, to *wechatapp.PushReceiver, box mailbox, in received,
	d pushbox.Due,
) string {
	select {
	case h.appCalls <- struct{}{}:
	default:
		live.PushDone(d, false)
		return push.Success
	}
	answers := make(chan appAnswer, 1)
	go func() {
		defer func() { <-h.appCalls }()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), appTimeout)
		defer cancel()
		a := h.callApp(ctx, r, box.lines.Deliver, d)
		answers <- a
		live.PushDone(d, a.ok())
	}()
	select {
	case a := <-answers:
		text := strings.TrimSpace(string(a.body))
		if !a.ok() || text == "" || text == push.Success {
			return push.Success
		}
		if to.Plain {
			return text
		}
		return string(to.Reply(in.format, []byte(text), in.with, in.query.Nonce, time.Now()))
	case <-time.After(appPrompt):
		return push.Success
	}
}

// redeliver makes another attempt with a push that has waited, or one with an event.
func (h *Handler) redeliver(r *http.Request, box mailbox, p *wechatapp.PushAttempt) {
	path := ""
	switch {
	case box.lines == nil:
	case p.Due.Event != "":
		path = box.lines.EventsTo
	default:
		path = box.lines.Deliver
	}
	// The configuration may have lost the line since.
	p.End(path != "" && h.callApp(r.Context(), r, path, p.Due).ok())
}

// callApp sends a push to the app, through the handlers behind the gate. Nothing of r
// goes along but its server and its address.
func (h *Handler) callApp(
	ctx context.Context, r *http.Request, path string, d pushbox.Due,
) (answer appAnswer) {
	next, _ := r.Context().Value(nextKey{}).(caddyhttp.Handler)
	srv, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, path, bytes.NewReader(d.Body))
	if err != nil || next == nil {
		return appAnswer{}
	}
	req.Host, req.RequestURI, req.RemoteAddr = d.Host, path, r.RemoteAddr
	req.Header.Set("Content-Type", d.ContentType)
	id := gate.Identity{
		gate.AppID: d.AppID, gate.OpenID: d.OpenID, gate.UnionID: d.UnionID,
		gate.Source: gate.SourcePush,
	}
	if d.Event != "" {
		id[gate.Source] = gate.SourceEvent
		if id[gate.Assertion], err = h.signEvent(ctx, d); err != nil {
			return appAnswer{}
		}
	}
	h.rules.InjectPush(req, id)
	w := &appWriter{header: make(http.Header)}
	req = caddyhttp.PrepareRequest(req, caddy.NewReplacer(), w, srv)
	setPlaceholders(req, d.OpenID, d.UnionID, d.AppID)
	markJudged(req)
	defer func() {
		// reverse_proxy panics when an answer breaks off, and no server is above.
		if p := recover(); p != nil {
			answer = appAnswer{}
			if p != http.ErrAbortHandler {
				h.log.Error("panicked", zap.String("panic", fmt.Sprintf("%T", p)),
					zap.Stack("stack"))
			}
		}
	}()
	if err := next.ServeHTTP(w, req); err != nil {
		return appAnswer{}
	}
	return w.answer
}

// signEvent returns the proof that an event is the gate's.
func (h *Handler) signEvent(ctx context.Context, d pushbox.Due) (string, error) {
	if h.signer == nil {
		return "", errEventsUnsigned
	}
	live, err := h.app.Live(ctx)
	if err != nil {
		return "", err
	}
	return h.signer.Event(live.Assertions, assertion.User{
		OpenID: d.OpenID, AppID: d.AppID, UnionID: d.UnionID,
	}, d.Event, strings.TrimPrefix(d.ID, "event "), d.Body)
}

// appWriter keeps the beginning of an answer.
type appWriter struct {
	header http.Header
	answer appAnswer
}

// Header implements http.ResponseWriter.
func (w *appWriter) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. The first final status counts.
func (w *appWriter) WriteHeader(status int) {
	if w.answer.status == 0 && status >= http.StatusOK {
		w.answer.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *appWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if len(w.answer.body)+len(p) > maxAppAnswer {
		w.answer.body = nil // too long for WeChat; the app has the push all the same
		return len(p), nil
	}
	w.answer.body = append(w.answer.body, p...)
	return len(p), nil
}
