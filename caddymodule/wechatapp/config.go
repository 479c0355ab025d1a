package wechatapp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// MiniProgram is one mini program.
type MiniProgram struct {
	// The AppID: `wx` and 16 letters or digits. May be a placeholder.
	AppID string `json:"appid,omitempty"`

	// The AppSecret, as a placeholder: `{env.WX_SECRET}` or `{file./run/secrets/wx}`.
	Secret string `json:"secret,omitempty"`

	// Another AppSecret, as a placeholder: the one that a reset in the WeChat console
	// ends. The gate tries it when WeChat refuses the other, so the new secret may be
	// configured before or after the reset.
	PreviousSecret string `json:"previous_secret,omitempty"`

	// A file that holds the access_token and nothing else, written by another
	// program. The gate reads it at each call. Default: the gate asks WeChat for a
	// token itself.
	TokenFile string `json:"token_file,omitempty"`

	// The same for the token that WeChat Cloud Hosting mounts into its
	// containers, `/.tencentcloudbase/wx/cloudbase_access_token`.
	CloudTokenFile string `json:"cloud_token_file,omitempty"`

	// The WeChat Open Platform account that the mini program's unionids belong to, by a
	// name of your choice. A unionid means the same person only in the mini programs of
	// one name: revocation, blocks, forget and lists by unionid stay within it. Default:
	// `default`, one account for all mini programs without a name.
	OpenPlatform string `json:"open_platform,omitempty"`

	// Message push. Default: the gate receives none.
	Push *Push `json:"push,omitempty"`
}

// tokenFile returns where the access token is read, if anywhere.
func (m MiniProgram) tokenFile() (weixin.TokenFile, error) {
	path := m.TokenFile + m.CloudTokenFile
	switch {
	case path == "":
		return weixin.TokenFile{}, nil
	case m.TokenFile != "" && m.CloudTokenFile != "":
		return weixin.TokenFile{}, errors.New(errTwoTokens)
	}
	return weixin.TokenFile{Path: path, Cloud: m.CloudTokenFile != ""}, checkTokenFile(path)
}

// API is how the gate reaches WeChat.
type API struct {
	// Where the API lives. Default: https://api.weixin.qq.com.
	BaseURL string `json:"base_url,omitempty"`

	// How long one call may take, retry included. Default: 5s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// SessionLimits is how long sessions live.
type SessionLimits struct {
	// Life of a session, counted from the login. Default: 48h. WeChat's staff
	// give a session_key three days, so more than 72h is a warning.
	TTL caddy.Duration `json:"ttl,omitempty"`

	// Idle timeout: a session without a request for this long ends. The gate notes
	// requests lazily, so the end may come a twentieth of the time early (a quarter,
	// for a few minutes). Default: none.
	Idle caddy.Duration `json:"idle,omitempty"`

	// How many sessions one user may have at a time; the oldest goes. Default:
	// 10. Negative: no limit.
	MaxPerUser int `json:"max_per_user,omitempty"`

	// How long the gate replays the answer of a login when the same client sends the
	// same code again, since answers get lost on mobile networks. Default: 10s.
	// Negative: never.
	Replay caddy.Duration `json:"replay,omitempty"`
}

// Cache is the cache in front of the store.
type Cache struct {
	// How many sessions it holds, at about 0.4 KiB each. Should exceed the
	// number of users active at a time. Default: 1000000.
	MaxSessions int64 `json:"max_sessions,omitempty"`
}

// Phone configures telephone numbers from the endpoint `phone`.
type Phone struct {
	// Keep a user's number, encrypted, and send it to the apps as `X-WX-PHONE` from
	// the next request on. Default: only the client gets it. While this is off the
	// gate sends no number that it kept before; it removes the number with the user,
	// half a year after the last login.
	Remember bool `json:"remember,omitempty"`
}

// Decrypt bounds the open data that the gate accepts.
type Decrypt struct {
	// Refuse data with an older watermark than this. Default: no limit, but the gate
	// must still know the session_key that sealed the data: the current or the
	// previous one of the user. In any case the gate refuses data more than 10
	// minutes ahead of its clock, and keeps its unionid when the data is more than
	// 10 minutes older than the last login.
	MaxAge caddy.Duration `json:"max_age,omitempty"`
}

const defaultTTL = caddy.Duration(48 * time.Hour)

func (a *App) setDefaults() {
	def := func(d *caddy.Duration, v time.Duration) {
		if *d == 0 {
			*d = caddy.Duration(v)
		}
	}
	def(&a.API.Timeout, 5*time.Second)
	def(&a.Session.TTL, time.Duration(defaultTTL))
	def(&a.Session.Replay, 10*time.Second)
	def(&a.MaxStaleness, 30*time.Second)
	if a.Session.MaxPerUser == 0 {
		a.Session.MaxPerUser = 10
	}
	if a.Cache.MaxSessions == 0 {
		a.Cache.MaxSessions = 1_000_000
	}
	if a.API.BaseURL == "" {
		a.API.BaseURL = "https://api.weixin.qq.com"
	}
}

// appIDPattern is the form of every AppID known
// (docs/wechat.md#code2session-request). Stray spaces and cut-off ends are the
// common mistakes (docs/wechat.md#appid-typos).
var appIDPattern = regexp.MustCompile(`^wx[0-9a-z]{16}$`)

// CheckAppID refuses a text that is no AppID. It shows the text only when it begins
// with wx: any other may be an AppSecret in the wrong place.
func CheckAppID(id string) error {
	if appIDPattern.MatchString(id) {
		return nil
	}
	shown := "this"
	if strings.HasPrefix(strings.ToLower(strings.TrimSpace(id)), "wx") {
		shown = strconv.Quote(id)
	}
	return fmt.Errorf("%s is not an AppID: it is wx followed by "+
		"16 lower-case letters or digits, as the WeChat console shows it", shown)
}

// inClear reports whether calls go to a public host without TLS.
func (c API) inClear() bool {
	u, err := url.Parse(c.BaseURL)
	if err != nil || u.Scheme != "http" {
		return false
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		return limit.IsPublic(addr)
	}
	return strings.Contains(u.Hostname(), ".")
}

// checkBaseURL refuses a base URL that the client refuses. It opens nothing.
func checkBaseURL(base string) error {
	c, err := weixin.New(weixin.Config{BaseURL: base})
	if err == nil {
		c.Close()
	}
	return err
}

// CheckSiteApp is CheckAppID for a list of a site, where a placeholder may stand
// until the configuration is loaded.
func CheckSiteApp(id string) error {
	if strings.HasPrefix(id, "{") {
		return nil
	}
	return CheckAppID(id)
}

// defaultOpenPlatform is what operators call the group of the mini programs without a line
// open_platform. Its name at rest is empty, as in the blocks of earlier releases.
const defaultOpenPlatform = "default"

var openPlatformPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$`)

// checkOpenPlatform refuses a name that is no name of a group. An AppID names the group of
// a merchant.
func checkOpenPlatform(name string) error {
	if !openPlatformPattern.MatchString(name) || appIDPattern.MatchString(name) {
		return fmt.Errorf("open_platform %q is no name of 1 to 32 letters, digits, - and _, "+
			"or is an AppID: choose any other name for the Open Platform account", name)
	}
	return nil
}

// group returns the name of the mini program's group at rest.
func (m MiniProgram) group() string {
	if m.OpenPlatform == defaultOpenPlatform {
		return ""
	}
	return m.OpenPlatform
}

// groups returns which mini programs share unionids: nil when all do.
func (a *App) groups() *session.Groups {
	names := make(map[string]string, len(a.apps))
	several := len(a.Components) > 0
	for i, m := range a.Apps { // a.apps has the same order
		names[a.apps[i].ID] = m.group()
		several = several || m.group() != ""
	}
	if !several {
		return nil
	}
	return &session.Groups{Names: names}
}

// accounts returns the names of the configured groups, sorted.
func (a *App) accounts() (names []string) {
	for _, m := range a.Apps {
		names = append(names, cmp.Or(m.OpenPlatform, defaultOpenPlatform))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Person returns whom an operator means by a unionid and the name of an Open Platform
// account, which is empty where there is one account only. The name may be the appid of
// a mini program that is not configured: of a merchant, or of one configured earlier.
func (a *App) Person(unionID, platform string) (session.Person, error) {
	who := session.Person{UnionID: unionID}
	names, merchants := a.accounts(), len(a.Components) > 0
	choice := strings.Join(names, ", ")
	if merchants {
		choice = strings.Join(append(names, "the appid of a merchant"), ", ")
	}
	switch {
	case platform == "" && len(names) == 1 && !merchants:
		platform = names[0]
	case platform == "":
		return who, errors.New("a unionid means a person of one Open Platform account, and " +
			"there are several: name one with open_platform: " + choice)
	case slices.Contains(names, platform):
	case appIDPattern.MatchString(platform) && a.groups().Of(platform) == platform:
	default:
		return who, errors.New("no such Open Platform account is configured: there is " + choice)
	}
	who.OpenPlatform = MiniProgram{OpenPlatform: platform}.group()
	return who, nil
}

// FormerPerson is Person that takes any name of an account, be it configured or not.
func (a *App) FormerPerson(unionID, platform string) (session.Person, error) {
	if platform == "" {
		return a.Person(unionID, platform)
	}
	group := MiniProgram{OpenPlatform: platform}.group()
	return session.Person{UnionID: unionID, OpenPlatform: group}, nil
}
