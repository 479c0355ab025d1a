package gate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// platformSource is the header whose presence is the platform's word that WeChat
// sent the request (docs/wechat.md#cloud-headers).
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
// X-WX- come from the client (docs/wechat.md#cloud-client-headers).
var platformHeaders = slices.DeleteFunc(slices.Concat(
	[]string{
		platformSource, "X-Wx-Env",
		"X-Wx-Cloudbase-Access-Token", "X-Wx-From-Cloudbase-Access-Token",
	},
	platformCaller[:], platformFrom[:],
), func(name string) bool { return name == "" })

// localDebug is the header, and localDebugSource the source, of the debugging
// proxies that make identities up (docs/wechat.md#cloud-debug).
const localDebug, localDebugSource = "x-wx-local-debug", "wx_localdebug"

// Platform is what WeChat Cloud Hosting says of a caller.
type Platform struct {
	// Identity is the caller's: in the calling app, when one app uses the resources
	// of another (docs/wechat.md#cloud-rules). A field that the platform does not
	// send is empty.
	Identity Identity

	headers map[string]string // by canonical name
}

// Platform reads the platform's headers from r, before Clean removes them. They
// are true only where clients reach the gate through the platform alone
// (docs/wechat.md#cloud-trust). A request without them gives the zero Platform.
//
// Errors: ErrNotPlatform, ErrLocalDebug, ErrAmbiguousPlatform.
func (g *Rules) Platform(r *http.Request) (Platform, error) {
	for name := range r.Header {
		if foldsTo(name, localDebug) {
			return Platform{}, named(ErrLocalDebug, name)
		}
	}
	p := Platform{headers: make(map[string]string)}
	for _, name := range platformHeaders {
		values := r.Header[name]
		if len(values) == 0 || len(values) == 1 && values[0] == "" {
			continue // absent, in two forms
		}
		v := values[0]
		if name == platformSource {
			v = strings.ReplaceAll(v, " ", "") // between the hops of a chained call
		} else if strings.Contains(v, ",") { // a proxy joins two values in this way
			return Platform{}, named(ErrAmbiguousPlatform, name)
		}
		if len(values) > 1 || v == "" || !isVisible(v) {
			return Platform{}, named(ErrAmbiguousPlatform, name)
		}
		p.headers[name] = v
	}
	source, ok := p.headers[platformSource]
	if !ok && len(p.headers) > 0 {
		return Platform{}, fmt.Errorf("%w: no %s", ErrNotPlatform, platformSource)
	}
	for hop := range strings.SplitSeq(source, ",") {
		if strings.EqualFold(hop, localDebugSource) {
			return Platform{}, named(ErrLocalDebug, platformSource)
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

// Restore gives a cleaned r the platform's headers back, one value each.
func (p Platform) Restore(r *http.Request) {
	for name, value := range p.headers {
		r.Header[name] = []string{value}
	}
}

// Holds reports whether Restore sets the header of this name.
func (p Platform) Holds(name string) bool { _, ok := p.headers[name]; return ok }
