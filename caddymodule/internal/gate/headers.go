package gate

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
)

// Header describes one header that tells the app who is calling. The rows of
// Headers are all of them: a further header is one row and one index.
type Header struct {
	Word      string // names the header in a Caddyfile and in JSON
	Default   string // is the header's name unless the configuration gives another
	WhenKnown bool   // leaves the header out when there is no value

	constant string // is the value for every caller
	lenient  bool   // leaves a malformed value out: it does not say who is calling
	platform bool   // WeChat Cloud Hosting sets this header, too
}

// The indexes of Headers and of an Identity.
const (
	OpenID = iota
	UnionID
	AppID
	Source
	Phone
	Assertion
)

// Headers is the table of identity headers. The names are those of WeChat Cloud
// Hosting (docs/wechat.md#cloud-headers), but for the last two, which are ours.
var Headers = [...]Header{
	OpenID:  {Word: "openid", Default: "X-WX-OPENID", platform: true},
	UnionID: {Word: "unionid", Default: "X-WX-UNIONID", WhenKnown: true, platform: true},
	AppID:   {Word: "appid", Default: "X-WX-APPID", platform: true},
	Source:  {Word: "source", Default: "X-WX-SOURCE", constant: "wx_client"},
	Phone:   {Word: "phone", Default: "X-WX-PHONE", WhenKnown: true, lenient: true},

	Assertion: {Word: "assertion", Default: "X-WX-ASSERTION", WhenKnown: true},
}

// Identity holds what the app is told about the caller, by the index of the
// header. An empty value is unknown.
type Identity [len(Headers)]string

// headerNames returns the canonical name of each header. The configured names
// are keyed by word.
func headerNames(configured map[string]string) (names [len(Headers)]string, err error) {
	for word := range configured {
		if !IsHeaderWord(word) {
			return names, fmt.Errorf("headers: unknown word %q; use %s", word, HeaderWords())
		}
	}
	for i, h := range Headers {
		name := cmp.Or(configured[h.Word], h.Default)
		if err := ValidateHeaderName(name); err != nil {
			return names, err
		}
		names[i] = http.CanonicalHeaderKey(name)
	}
	return names, nil
}

// IsHeaderWord reports whether Headers has a row for word.
func IsHeaderWord(word string) bool {
	return slices.ContainsFunc(Headers[:], func(h Header) bool { return h.Word == word })
}

// HeaderWords lists the words of Headers for a message.
func HeaderWords() string {
	words := ""
	for i, h := range Headers {
		switch i {
		case 0:
		case len(Headers) - 1:
			words += " or "
		default:
			words += ", "
		}
		words += h.Word
	}
	return words
}

// Inject sets the identity headers of a cleaned request, one value each. It is
// all or nothing, since an app may take half an identity for a whole one: without
// an openid or appid, or with a value that is not visible ASCII, it returns
// ErrBadIdentity and leaves r as it was. A malformed phone is left out.
func (g *Rules) Inject(r *http.Request, id Identity) error {
	values := id // one array for all; the capacities below keep an Add out of the neighbour
	for i := range Headers {
		h := &Headers[i]
		if h.constant != "" {
			values[i] = h.constant
		}
		visible := isVisible(values[i])
		switch {
		case !visible && h.lenient:
			values[i] = ""
		case !visible || values[i] == "" && !h.WhenKnown:
			return ErrBadIdentity
		}
	}
	for i, name := range g.headers {
		if values[i] == "" {
			delete(r.Header, name)
		} else {
			r.Header[name] = values[i : i+1 : i+1]
		}
	}
	return nil
}

// Values of X-WX-SOURCE that no client gets.
const (
	SourcePush  = "wx_push"  // a push of WeChat's
	SourceEvent = "wx_event" // an event of the gate's
)

// InjectPush sets the identity headers of a request that the gate makes of a push or an
// event: its mini program, and the user where it names one. A value that is not visible
// ASCII is left out.
func (g *Rules) InjectPush(r *http.Request, values Identity) {
	for i, name := range g.headers {
		if values[i] == "" || !isVisible(values[i]) {
			delete(r.Header, name)
		} else {
			r.Header[name] = []string{values[i]}
		}
	}
}

// Show copies the identity headers of a judged r to an answer, each of them, empty
// when r has none: some proxies leave a client's own header in place otherwise
// (docs/threats.md#t48). It appends the names of the empty ones to empty. Without
// Config.Signed there is no assertion among them.
func (g *Rules) Show(answer http.Header, r *http.Request, empty []string) []string {
	for i, name := range g.headers {
		if i == Assertion && !g.signed {
			continue
		}
		value := r.Header[name]
		if len(value) == 0 {
			value = []string{""}
			empty = append(empty, name)
		}
		answer[name] = value
	}
	return empty
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
