package wechatauth

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// componentEndpoints take WeChat's pushes to a third-party platform: component/<appid>/…
var componentEndpoints = map[string]endpoint{
	"/events": {
		method: http.MethodPost, open: true,
		ask:   "WeChat sends its pushes to a component here, by POST",
		serve: (*Handler).serveComponentEvents,
	},
	"/callback/": {
		method: http.MethodPost, open: true, app: true,
		ask:   "WeChat sends the pushes for an authorised mini program here, by POST",
		serve: (*Handler).serveComponentCallback,
	},
}

const componentPrefix = "component/"

// componentEndpointNames lists the endpoints of the platforms that are configured.
func (h *Handler) componentEndpointNames() (names []string) {
	if h.app == nil {
		return nil
	}
	for _, id := range h.app.PlatformIDs() {
		for tail := range componentEndpoints {
			names = append(names, componentPrefix+id+tail)
		}
	}
	return names
}

// endpointOf returns the endpoint of a name.
func endpointOf(name string) endpoint {
	if rest, ok := strings.CutPrefix(name, componentPrefix); ok {
		_, tail, _ := strings.Cut(rest, "/")
		return componentEndpoints["/"+tail]
	}
	return endpoints[name]
}

// componentOf returns the platform in the path of a push, and what follows its AppID.
func componentOf(r *http.Request) (appID, tail string) {
	_, rest, _ := strings.Cut(r.URL.Path, "/"+componentPrefix)
	appID, tail, _ = strings.Cut(rest, "/")
	return appID, tail
}

// serveComponentEvents answers POST /wx/component/<appid>/events: tickets and
// authorisations.
func (h *Handler) serveComponentEvents(w http.ResponseWriter, r *http.Request, _ string) error {
	id, _ := componentOf(r)
	to := h.app.PushReceiver(id)
	if to == nil {
		return h.refusePush(w, r, id, push.ErrReceiver)
	}
	return h.receive(w, r, to, mailbox{appID: id}, // tickets and codes are not the app's
		func(ctx context.Context, live *wechatapp.Live, in received) error {
			p := live.Platform(id)
			if p == nil {
				return push.ErrReceiver
			}
			return p.Take(ctx, in.message)
		})
}

// serveComponentCallback answers POST /wx/component/<appid>/callback/<appid>: the pushes
// for an authorised mini program. The message ends with the AppID of the platform, so the
// path alone says whose it is, and that one must have authorised the platform.
func (h *Handler) serveComponentCallback(w http.ResponseWriter, r *http.Request, _ string) error {
	id, tail := componentOf(r)
	merchant := strings.TrimPrefix(tail, "callback/")
	to := h.app.PushReceiver(id)
	if to == nil || !h.merchants && !slices.Contains(h.apps, merchant) {
		return h.refusePush(w, r, id, push.ErrReceiver)
	}
	box := mailbox{merchant, to}
	if own := h.app.PushReceiver(merchant); own != nil {
		box.lines = own // its own lines hold
	}
	return h.receive(w, r, to, box,
		func(ctx context.Context, live *wechatapp.Live, in received) error {
			if err := authorised(ctx, live.Platform(id), merchant); err != nil {
				return err
			}
			return consume(ctx, r, live, box, in)
		})
}

// authorised refuses a mini program that does not authorise a platform.
func authorised(ctx context.Context, p *component.Platform, appID string) error {
	if p == nil {
		return push.ErrReceiver
	}
	ok, err := p.Allows(ctx, appID)
	if err == nil && !ok {
		err = push.ErrReceiver
	}
	return err
}
