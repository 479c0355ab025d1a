package gate

import (
	"net/http"
	"slices"
	"strings"
)

// platformSource is the header whose presence is the platform's word that WeChat
// sent the request (WECHAT.md 8.1).
const platformSource = "X-Wx-Source"

// The names of the platform's headers for an Identity: the caller's, and the
// caller's in the calling app when one app uses the resources of another.
var (
	platformCaller = platformNames("X-Wx-")
	platformFrom   = platformNames("X-Wx-From-")
)

func platformNames(prefix string) (names [len(Headers)]string) {
	for i, h := range Headers {
		if h.platform {
			names[i] = http.CanonicalHeaderKey(prefix + h.Word)
		}
	}
	return names
}

// platformHeaders lists all headers of the platform. All others that begin with
// X-WX- come from the client, some of them for the platform's own gateway
// (WECHAT.md 8.4).
var platformHeaders = slices.DeleteFunc(slices.Concat(
	[]string{platformSource, "X-Wx-Env", "X-Wx-Cloudbase-Access-Token", "X-Wx-From-Cloudbase-Access-Token"},
	platformCaller[:], platformFrom[:],
), func(name string) bool { return name == "" })

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
	p.readIdentity(platformCaller)
	if p.Identity[OpenID] == "" {
		p.readIdentity(platformFrom)
	}
	return p, nil
}

func (p *Platform) readIdentity(names [len(Headers)]string) {
	for i, name := range names {
		p.Identity[i] = p.headers[name]
	}
}

// Restore gives r, once cleaned, what the platform has said, each header with its one value.
func (p Platform) Restore(r *http.Request) {
	for name, value := range p.headers {
		r.Header[name] = []string{value}
	}
}

// Holds reports whether a header, given by its name, is one that Restore gives back.
func (p Platform) Holds(name string) bool { _, ok := p.headers[name]; return ok }
