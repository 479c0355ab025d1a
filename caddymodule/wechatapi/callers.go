package wechatapi

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/reply"
)

// relayMarks are the headers that a proxy adds to what it passes on, and no
// client sends by itself.
var relayMarks = []string{
	"Cf-Connecting-Ip", "Forwarded", "True-Client-Ip", "Via", "X-Forwarded-For", "X-Forwarded-Host",
	"X-Forwarded-Proto", "X-Original-Forwarded-For", "X-Real-Ip",
}

// barred returns why the gate refuses the caller, or "".
func (h *Handler) barred(r *http.Request) (why string) {
	switch page := pageMark(r); {
	case page != "":
		return "the call comes from a web page, as its header " + page +
			" says, and this is for programs alone"
	case !h.knows(r):
		return "the header " + secretHeader + " does not hold the secret of this wechat_api"
	case h.AllowRemote:
		return ""
	}
	if why = foreign(r); why != "" {
		why += ", and this is for the app beside the gate alone; allow_remote changes that"
	}
	return why
}

// secretHeader carries the secret that caller and gate share.
const secretHeader = "X-Wxgate-Secret"

// knows reports whether the caller shows the secret, and removes it. Without a value
// behind its placeholder no caller does.
func (h *Handler) knows(r *http.Request) bool {
	shown := r.Header[secretHeader]
	delete(r.Header, secretHeader)
	if h.Secret == "" {
		return true
	}
	return len(shown) == 1 && h.secret != "" &&
		subtle.ConstantTimeCompare([]byte(shown[0]), []byte(h.secret)) == 1
}

// pageMark returns the header by which a browser says that a web page asks, or "".
// Sec-Fetch-Mode says nothing: fetch of Node.js sends it, too, without the others.
func pageMark(r *http.Request) string {
	for _, name := range []string{"Origin", "Sec-Fetch-Site", "Sec-Fetch-Dest"} {
		if r.Header[name] != nil {
			return name
		}
	}
	return ""
}

// foreign returns why a request may come from outside this machine, or "". The
// connection decides. A proxy on this machine connects from here, too, and passes on
// calls of any client: its headers tell. So does a browser, for a page whose name
// resolves to this machine (DNS rebinding): for a GET over plain HTTP only Host
// tells.
func foreign(r *http.Request) (why string) {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	socket := ok && strings.HasPrefix(addr.Network(), "unix")
	if !socket {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().Unmap().IsLoopback() {
			return "the caller is on another machine"
		}
	}
	for _, name := range relayMarks {
		if r.Header[name] != nil {
			return "the call came through a proxy, as its header " + name + " says"
		}
	}
	if !socket && !unpublished(r.Host) {
		return "the Host of the call is a name that a web page could have: use an IP " +
			"address, localhost, a name without a dot or one under .internal"
	}
	return ""
}

// privateZones are the zones without names in the public DNS (RFC 6761, 6762 and
// 8375, ICANN for .internal; no registry has .lan), and that of WeChat's API, for
// apps whose network resolves its name to the gate.
var privateZones = []string{
	".home.arpa",
	".internal",
	".lan",
	".local",
	".localhost",
	".test",
	".weixin.qq.com",
}

// unpublished reports whether a Host is none that a stranger's page can have:
// nothing, an IP address, a name without a dot, or one in a private zone.
func unpublished(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimPrefix(strings.TrimSuffix(host, "]"), "[")
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return !strings.Contains(host, ".") || slices.ContainsFunc(
		privateZones, func(zone string) bool { return strings.HasSuffix(host, zone) },
	)
}

func callerRefused(why string) reply.Problem {
	return reply.Problem{Status: http.StatusForbidden, Code: "caller_not_allowed", Detail: why}
}
