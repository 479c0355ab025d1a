package gate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ownedPrefix, folded, begins every name that WeChat's gateway owns, and so do
// we. The gateway drops such headers from clients, too
// (docs/wechat.md#donut-gateway).
const ownedPrefix = "x-wx-"

// foldTable lower-cases letters, keeps digits and maps every other byte to a
// hyphen. CGI-like servers map all punctuation to one character, so names that
// differ only in it may meet again in the app (docs/threats.md#t2).
var foldTable = func() (t [256]byte) {
	for i := range t {
		switch c := byte(i); {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			t[i] = c
		case 'A' <= c && c <= 'Z':
			t[i] = c + 'a' - 'A'
		default:
			t[i] = '-'
		}
	}
	return t
}()

func fold(name string) string {
	b := []byte(name)
	for i, c := range b {
		b[i] = foldTable[c]
	}
	return string(b)
}

// foldsTo reports whether fold(name) == folded, without building it.
func foldsTo(name, folded string) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range len(name) {
		if foldTable[name[i]] != folded[i] {
			return false
		}
	}
	return true
}

func hasOwnedPrefix(name string) bool {
	return len(name) >= len(ownedPrefix) && foldTable[name[0]] == ownedPrefix[0] &&
		foldsTo(name[:len(ownedPrefix)], ownedPrefix)
}

// kind is the meaning of a header name to Clean.
type kind uint8

const (
	ordinary      kind = iota
	owned              // only the gate may set it
	credential         // may carry a token when spelled canonically
	connection         // Connection
	upgrade            // Upgrade
	h2cSettings        // HTTP2-Settings
	pseudo             // :protocol, which net/http keeps among the headers
	trailerHeader      // Trailer, where net/http did not consume it
	routing            // may lead an app elsewhere than the path
)

type namedKind struct {
	folded, canonical string
	kind              kind
}

// routingNames are the headers, folded, by which some apps route in place of path and
// method.
var routingNames = []string{
	"x-original-url", "x-original-uri", "x-original-path", "x-original-method",
	"x-rewrite-url", "x-rewrite-uri", "x-rewrite-path", "x-override-url", "x-override-uri",
	"x-http-method-override", "x-http-method", "x-method-override", "x-override-method",
	"x-http-path-override", "x-path-override",
	"x-forwarded-uri", "x-forwarded-url", "x-forwarded-path", "x-forwarded-method",
	"unencoded-url",
}

// nameTable classifies header names by their fold. It lists them by length, which
// spares most names the search; the last list is that of all longer ones.
type nameTable [48][]namedKind

func newNameTable(identity []string, sources []source) *nameTable {
	t := new(nameTable)
	t.add("connection", "Connection", connection)
	t.add("upgrade", "Upgrade", upgrade)
	t.add("http2-settings", "Http2-Settings", h2cSettings)
	t.add("-protocol", ":protocol", pseudo)
	t.add("trailer", "Trailer", trailerHeader)
	for _, s := range sources {
		t.add(fold(s.name), s.name, credential)
	}
	for _, name := range identity {
		if !hasOwnedPrefix(name) {
			t.add(fold(name), name, owned)
		}
	}
	for _, name := range routingNames { // last: a name above may be one of these
		t.add(name, "", routing)
	}
	return t
}

// ofLength returns the list for a name.
func (t *nameTable) ofLength(name string) *[]namedKind { return &t[min(len(name), len(t)-1)] }

func (t *nameTable) add(folded, canonical string, k kind) {
	list := t.ofLength(folded)
	*list = append(*list, namedKind{folded, canonical, k})
}

// classify returns what name means and, for a listed name, whether it is
// spelled canonically.
func (t *nameTable) classify(name string) (k kind, canonical bool) {
	if hasOwnedPrefix(name) {
		return owned, false
	}
	list := *t.ofLength(name)
	for i := range list {
		if n := &list[i]; foldsTo(name, n.folded) {
			return n.kind, name == n.canonical
		}
	}
	return ordinary, false
}

// reserved reports whether no trailer may have this name.
func (t *nameTable) reserved(name string) bool {
	k, _ := t.classify(name)
	return k == owned || k == credential
}

// Names, folded, with a meaning in HTTP, the proxy or the gate. A family is all
// names with that prefix.
var (
	takenNames = []string{
		"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
		"http2-settings", "host", "cookie", "set-cookie", "authorization", "forwarded",
		"x-real-ip", "x-wxgate",
	}
	takenFamilies = []string{"proxy-", "content-", "sec-", "x-forwarded-"}
)

// ValidateHeaderName reports why an identity header may not have this name, and
// what to write instead (docs/threats.md#t7).
func ValidateHeaderName(name string) error {
	if fault := nameFault(name); fault != "" {
		return fmt.Errorf("header name %q: %s; use another, such as X-WX-OPENID", name, fault)
	}
	return nil
}

// ValidateTokenHeader reports why a header of this name may not carry the token,
// and what to write instead.
func ValidateTokenHeader(name string) error {
	if strings.EqualFold(name, authorization) {
		return nil
	}
	fault := nameFault(name)
	if fault == "" && hasOwnedPrefix(name) {
		fault = "names beginning with X-WX- are removed from every request, " +
			"here and by WeChat's own gateway"
	}
	if fault != "" {
		return fmt.Errorf("token header %q: %s; use %s or %s",
			name, fault, thirdSession, authorization)
	}
	return nil
}

func nameFault(name string) string {
	if !isToken(name) {
		return "not an HTTP field name (letters, digits and hyphens)"
	}
	folded := fold(name)
	inFamily := func(f string) bool { return strings.HasPrefix(folded, f) }
	if slices.Contains(takenNames, folded) || slices.ContainsFunc(takenFamilies, inFamily) {
		return "it has a meaning of its own in HTTP or in the proxy"
	}
	return ""
}

// checkCollisions refuses two names that some server may take for one.
func checkCollisions(identity []string, sources []source) error {
	seen := make(map[string]string)
	for _, s := range sources {
		seen[fold(s.name)] = "the token's " + strconv.Quote(s.name)
	}
	for _, name := range identity {
		if other, ok := seen[fold(name)]; ok {
			return fmt.Errorf("header name %q: it reads the same as %s once punctuation and "+
				"case are ignored; give each value a name of its own", name, other)
		}
		seen[fold(name)] = strconv.Quote(name)
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; foldTable[c] == '-' && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
