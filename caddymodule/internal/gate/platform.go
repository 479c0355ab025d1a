package gate

import (
	"net/http"
	"strings"
)

// Canonical names of the headers that WeChat Cloud Hosting sets for its apps (WECHAT.md 8.1).
const (
	platformSource      = "X-Wx-Source"
	platformOpenID      = "X-Wx-Openid"
	platformAppID       = "X-Wx-Appid"
	platformUnionID     = "X-Wx-Unionid"
	platformFromOpenID  = "X-Wx-From-Openid"
	platformFromAppID   = "X-Wx-From-Appid"
	platformFromUnionID = "X-Wx-From-Unionid"
)

// platformHeaders is all of them. Whatever else begins with X-WX- comes from the client, some of it for the platform's own gateway (WECHAT.md 8.4).
var platformHeaders = []string{
	platformSource, platformOpenID, platformAppID, platformUnionID, platformFromOpenID, platformFromAppID, platformFromUnionID,
	"X-Wx-Env", "X-Wx-Cloudbase-Access-Token", "X-Wx-From-Cloudbase-Access-Token",
}

// localDebug is what WeChat's proxies for debugging add, which make up the openid (WECHAT.md 8.8).
const localDebug, localDebugSource = "x-wx-local-debug", "wx_localdebug"

// Platform is what WeChat Cloud Hosting says of a caller.
type Platform struct {
	// Identity is that of the caller. When one app uses the resources of another it is the identity in the calling app (WECHAT.md 8.1, 12.22). A field is empty when the platform does not tell.
	Identity Identity

	headers map[string]string // by canonical name
}

// Platform takes from r what WeChat Cloud Hosting, and nobody else, has to have said. It wants r before Clean, which removes it. The values are as good as the way to r: only where no client reaches
// the gate but through the platform are they the platform's (WECHAT.md 8.3).
//
// A request of which the platform says nothing gives the zero Platform. ErrNotPlatform means that r names somebody without X-WX-SOURCE, the platform's word for WeChat; ErrLocalDebug that its
// identity is made up; ErrAmbiguousPlatform that a header is there more than once or holds what no such header holds.
func (g *Rules) Platform(r *http.Request) (Platform, error) {
	for name := range r.Header {
		if foldsTo(name, localDebug) {
			return Platform{}, ErrLocalDebug
		}
	}
	p := Platform{headers: make(map[string]string)}
	for _, name := range platformHeaders {
		values := r.Header[name]
		if len(values) == 0 || len(values) == 1 && values[0] == "" { // nothing to tell, in two ways
			continue
		}
		v := values[0]
		if name == platformSource {
			v = strings.ReplaceAll(v, " ", "") // between the hops of a chained call
		} else if strings.Contains(v, ",") { // how a proxy joins two values
			return Platform{}, ErrAmbiguousPlatform
		}
		if len(values) > 1 || v == "" || !isVisible(v) {
			return Platform{}, ErrAmbiguousPlatform
		}
		p.headers[name] = v
	}
	source, ok := p.headers[platformSource]
	if !ok && len(p.headers) > 0 {
		return Platform{}, ErrNotPlatform
	}
	for hop := range strings.SplitSeq(source, ",") {
		if strings.EqualFold(hop, localDebugSource) {
			return Platform{}, ErrLocalDebug
		}
	}
	p.Identity = Identity{OpenID: p.headers[platformOpenID], UnionID: p.headers[platformUnionID], AppID: p.headers[platformAppID]}
	if p.Identity.OpenID == "" {
		p.Identity = Identity{OpenID: p.headers[platformFromOpenID], UnionID: p.headers[platformFromUnionID], AppID: p.headers[platformFromAppID]}
	}
	return p, nil
}

// Restore gives r, once cleaned, what the platform has said, each header with its one value.
func (p Platform) Restore(r *http.Request) {
	for name, value := range p.headers {
		r.Header[name] = []string{value}
	}
}

// Holds reports whether a header, given by its name, is one that Restore gives back.
func (p Platform) Holds(name string) bool { _, ok := p.headers[name]; return ok }
