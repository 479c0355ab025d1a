package wechatapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// defaultPaths is what the app of a mini program needs of WeChat: messages,
// codes and links, content checks, media, and what WeChat tells of a user. It
// holds nothing that administers the account.
var defaultPaths = []string{
	"/cgi-bin/media/get",
	"/cgi-bin/media/upload",
	"/cgi-bin/message/*",
	"/cgi-bin/wxaapp/createwxaqrcode",
	"/wxa/business/checkencryptedmsg",
	"/wxa/business/getuserphonenumber",
	"/wxa/generate_urllink",
	"/wxa/generatescheme",
	"/wxa/genwxashortlink",
	"/wxa/getpaidunionid",
	"/wxa/getpluginopenpid",
	"/wxa/getuserriskrank",
	"/wxa/getwxacode",
	"/wxa/getwxacodeunlimit",
	"/wxa/img_sec_check",
	"/wxa/media_check_async",
	"/wxa/msg_sec_check",
	"/wxa/query_urllink",
	"/wxa/queryscheme",
}

// refusedPaths lead to what the gate is there to keep from apps. No
// configuration opens them.
var refusedPaths = []struct{ prefix, why string }{
	{"/cgi-bin/token", "access tokens stay in the gate, which adds one to each call"},
	{"/cgi-bin/stable_token", "access tokens stay in the gate, which adds one to each call"},
	{
		"/cgi-bin/component",
		"calls with a platform's own token or secret do not go through the gate",
	},
	{"/cgi-bin/clear_quota/v2", "calls with an AppSecret do not go through the gate"},
	{"/sns", "logins are the gate's, and so are session_keys"},
	{
		"/wxa/checksession",
		"it is signed with the session_key, which stays in the gate: POST " +
			userPrefix + "checksession",
	},
	{
		"/wxa/resetusersessionkey",
		"it answers a session_key, which stays in the gate: POST " +
			userPrefix + "resetusersessionkey",
	},
	{
		"/wxa/business/getuserencryptkey",
		"it is signed with the session_key, which stays in the gate: POST " +
			userPrefix + "getuserencryptkey",
	},
}

// refusedPath tells why no app may call a decoded path, or nothing. It compares
// as loosely as any server might.
func refusedPath(decoded string) (why string) {
	for _, p := range refusedPaths {
		if gate.Under(decoded, p.prefix) {
			return p.why
		}
	}
	return ""
}

// pathList is a list of path patterns, each written out or ending in /*.
type pathList []string

// match returns the pattern that covers a canonical path, the most telling one
// first: written out, then the longest.
func (l pathList) match(escaped string) (pattern string, ok bool) {
	for _, p := range l {
		prefix, below := strings.CutSuffix(p, "*")
		if p == escaped {
			return p, true
		}
		if below && strings.HasPrefix(escaped, prefix) && len(p) > len(pattern) {
			pattern, ok = p, true
		}
	}
	return pattern, ok
}

// newPathList expands the word default, sorts and removes what stands twice.
func newPathList(words []string) pathList {
	if len(words) == 0 {
		words = []string{allowDefault}
	}
	var l pathList
	for _, w := range words {
		if w == allowDefault {
			l = append(l, defaultPaths...)
		} else {
			l = append(l, w)
		}
	}
	slices.Sort(l)
	return slices.Compact(l)
}

// allowDefault stands for defaultPaths in the configuration.
const allowDefault = "default"

// checkAllow says what is wrong with a word of the allow-list.
func checkAllow(word string) error {
	if word == allowDefault {
		return nil
	}
	if err := gate.ValidatePattern(word); err != nil {
		return err
	}
	decoded, err := url.PathUnescape(strings.TrimSuffix(strings.TrimSuffix(word, "*"), "/"))
	if err != nil {
		return err
	}
	if why := refusedPath(decoded); why != "" {
		return fmt.Errorf("path pattern %q: this is refused in any case: %s", word, why)
	}
	return nil
}
