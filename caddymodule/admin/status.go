package admin

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// modulePath is the Go module that this package belongs to.
const modulePath = "github.com/wxgate/wxgate"

// statusAnswer is what GET /wechat/status tells.
type statusAnswer struct {
	Version  versionStatus       `json:"version"`
	Ready    wechatapp.Readiness `json:"ready"` // as readyz tells it
	Store    storeStatus         `json:"store"`
	Cache    cacheStatus         `json:"cache"`
	WeChat   wechatStatus        `json:"wechat"`
	Logins   loginStatus         `json:"logins"`
	Sessions sessionStatus       `json:"sessions"`
	Apps     []string            `json:"apps"`
}

type versionStatus struct {
	WXGate string `json:"wxgate"`
	Caddy  string `json:"caddy"`
	Go     string `json:"go"`
}

type storeStatus struct {
	Name   string       `json:"name"` // kind and place
	Up     bool         `json:"up"`
	Cause  string       `json:"cause,omitempty"` // why it is not up, and what to do
	ID     string       `json:"id,omitempty"`
	Since  string       `json:"created,omitempty"`   // absent when older than its id
	Heard  string       `json:"heard_ago,omitempty"` // of a store that gates share: how long ago
	Owed   int          `json:"pending_revocations"` // that it has not taken yet
	Counts *storeCounts `json:"counts,omitempty"`    // absent when the store does not answer

	Contact *contactStatus `json:"contact,omitempty"`

	// MissingKeys are the master keys that sessions of other gates need and this one
	// lacks.
	MissingKeys []string `json:"missing_keys,omitempty"`
}

type storeCounts struct {
	Sessions  int64 `json:"sessions"` // including ended ones not yet removed
	Users     int64 `json:"users"`
	Bytes     int64 `json:"bytes"`
	FreeBytes int64 `json:"free_bytes"` // of Bytes
}

type cacheStatus struct {
	Sessions int64 `json:"sessions"`
	Max      int64 `json:"max"`
}

type wechatStatus struct {
	BaseURL     string `json:"base_url"`
	BreakerOpen bool   `json:"breaker_open"` // logins are answered in its stead
	// likewise calls for telephone numbers, keys and access tokens
	CallsRefused bool `json:"api_breaker_open"`

	Logins callStatus `json:"logins"`
	Calls  callStatus `json:"api"` // all but logins
	// of WeChat's clock; absent before WeChat has answered
	ClockAhead *float64 `json:"clock_ahead_seconds,omitempty"`
	// "current" or "previous", by AppID, where two AppSecrets are configured
	Secrets map[string]string `json:"secrets,omitempty"`
}

// callStatus is how one kind of WeChat's calls fares.
type callStatus struct {
	State       string     `json:"state"` // well, partly or down
	LastSuccess *time.Time `json:"last_success,omitempty"`
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	Since       *time.Time `json:"failing_since,omitempty"`
	Calls       int        `json:"calls_since,omitempty"`
	Failed      int        `json:"failed_since,omitempty"`
}

func weChatStatus(live *wechatapp.Live) wechatStatus {
	c := live.WeChat
	s := wechatStatus{
		BaseURL:      live.App.API.BaseURL,
		BreakerOpen:  c.BreakerOpen(),
		CallsRefused: c.OtherBreakerOpen(),
		Logins:       statusOfCalls(c.Logins()),
		Calls:        statusOfCalls(c.OtherCalls()),
	}
	if clock := c.Clock(); !clock.At.IsZero() {
		ahead := clock.Ahead.Seconds()
		s.ClockAhead = &ahead
	}
	for _, m := range live.App.MiniPrograms() {
		if m.Previous == "" {
			continue
		}
		if s.Secrets == nil {
			s.Secrets = make(map[string]string)
		}
		s.Secrets[m.ID] = string(c.SecretInUse(m))
	}
	return s
}

func statusOfCalls(h weixin.Health) callStatus {
	s := callStatus{
		State:       h.State.String(),
		LastSuccess: someTime(h.LastSuccess), LastErrorAt: someTime(h.LastErrorAt),
	}
	if h.LastError != nil {
		s.LastError = h.LastError.Error()
	}
	if h.State != weixin.Well {
		s.Since, s.Calls, s.Failed = someTime(h.Since), h.Calls, h.Failed
	}
	return s
}

// someTime returns t in UTC, or nil for none.
func someTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Round(time.Millisecond)
	return &t
}

type loginStatus struct {
	InFlight    int64  `json:"in_flight"`
	MaxInFlight int    `json:"max_in_flight"`
	PerClient   string `json:"per_client"`
	// for addresses that are mostly a load balancer's
	PerPrivate string `json:"per_private_client"`
	Global     string `json:"global"`
}

type sessionStatus struct {
	TTL        string `json:"ttl"`
	Idle       string `json:"idle,omitempty"`
	MaxPerUser int    `json:"max_per_user"` // 0: no limit
}

// serveStatus answers also when the store does not: that is when it is asked.
func serveStatus(live *wechatapp.Live, w http.ResponseWriter, r *http.Request) error {
	a, limits := live.App, live.App.LoginLimits()
	stats, err := live.Sessions.Stats(r.Context())
	ready, trouble := live.Readiness(r.Context())
	identity, _ := live.Sessions.StoreIdentity(r.Context()) // of a store that answers
	answer := statusAnswer{
		Version: versions(), Ready: ready,
		Store: storeStatus{
			Name: a.Opener().Identity(),
			Up:   trouble == nil,
			Owed: stats.Pending,
		},
		Cache:  cacheStatus{Sessions: stats.CacheEntries, Max: stats.CacheMax},
		WeChat: weChatStatus(live),
		Logins: loginStatus{
			InFlight: wechatapp.LoginsInFlight(), MaxInFlight: limits.InFlight,
			PerClient: wechatapp.RateText(
				limits.PerClient,
			), PerPrivate: wechatapp.RateText(
				limits.PerPrivateClient,
			), Global: wechatapp.RateText(limits.Total),
		},
		Apps: a.AppIDs(),
		Sessions: sessionStatus{
			TTL:        time.Duration(a.Session.TTL).String(),
			MaxPerUser: max(a.Session.MaxPerUser, 0),
		},
	}
	if trouble != nil {
		answer.Store.Cause = trouble.Error()
	}
	answer.Store.ID = identity.ID
	if !identity.Created.IsZero() {
		answer.Store.Since = identity.Created.UTC().Format(time.RFC3339)
	}
	answer.Store.Contact = contactOf(stats.Contact)
	if needs, err := live.Sessions.MasterKeys(r.Context()); err == nil {
		for _, k := range missingKeys(a.KeyRing(), needs) {
			answer.Store.MissingKeys = append(answer.Store.MissingKeys, k.ID)
		}
	}
	if !stats.Heard.IsZero() {
		answer.Store.Heard = time.Since(stats.Heard).Round(time.Millisecond).String()
	}
	if err == nil {
		st := stats.Store
		answer.Store.Counts = &storeCounts{
			Sessions:  st.Sessions,
			Users:     st.Users,
			Bytes:     st.Bytes,
			FreeBytes: st.FreeBytes,
		}
	}
	if a.Session.Idle > 0 {
		answer.Sessions.Idle = time.Duration(a.Session.Idle).String()
	}
	return answerAdmin(w, answer)
}

// versions tells what is running.
func versions() versionStatus {
	v := versionStatus{WXGate: "unknown", Go: runtime.Version()}
	v.Caddy, _ = caddy.Version()
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, m := range append(bi.Deps, &bi.Main) {
		if m.Path == modulePath && m.Version != "" {
			v.WXGate = m.Version
		}
	}
	return v
}

// statusCommand is `wxgate wechat status`.
func statusCommand() *cobra.Command {
	var c adminClient
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tells how the running gate does",
		Long: `
Asks the running gate for its store, cache, logins, limits and versions, and whether
WeChat answers. The exit status is 0 when the gate answers, whatever it says, 1 when it
refuses, 2 when it is unreachable.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			return ask(&c, cmd, "GET", "/wechat/status", nil, writeStatus)
		}),
	}
	c.flags(cmd)
	return cmd
}

func writeStatus(out io.Writer, s statusAnswer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s%s\n", name, fmt.Sprintf(format, args...))
	}
	row("wxgate", "%s, Caddy %s, %s", s.Version.WXGate, s.Version.Caddy, s.Version.Go)
	row(
		"store", "%s, %s", map[bool]string{true: "up", false: "DOWN"}[s.Store.Up],
		cli.Text(s.Store.Name),
	)
	if s.Store.Cause != "" {
		row("", "%s", cli.Text(s.Store.Cause))
	}
	if s.Store.ID != "" {
		row("", "id %s, %s", s.Store.ID, sinceText(s.Store.Since))
	}
	if n := s.Store.Counts; n != nil {
		row(
			"", "%s of %s, including ended ones not yet removed",
			cli.Amount(int(n.Sessions), "session"), cli.Amount(int(n.Users), "user"),
		)
		row("", "%s, %s of it free", cli.Size(n.Bytes), cli.Size(n.FreeBytes))
	}
	s.Store.Contact.write(row)
	if keys := s.Store.MissingKeys; len(keys) > 0 {
		row("", "MISSING master keys %s: this gate refuses sessions of another",
			strings.Join(keys, " "))
	}
	if s.Store.Heard != "" {
		row("", "heard of %s ago", s.Store.Heard)
	}
	if s.Store.Owed > 0 {
		row(
			"", "%s not taken by the store yet; this gate refuses them and retries",
			cli.Amount(s.Store.Owed, "revocation"),
		)
	}
	row("cache", "%s of %d", cli.Amount(int(s.Cache.Sessions), "session"), s.Cache.Max)
	s.WeChat.write(row)
	row("logins", "%d under way, at most %d", s.Logins.InFlight, s.Logins.MaxInFlight)
	row(
		"", "limits: %s per client, %s per private address, %s for all", s.Logins.PerClient,
		s.Logins.PerPrivate, s.Logins.Global,
	)
	idle := "no idle limit"
	if s.Sessions.Idle != "" {
		idle = "idle " + s.Sessions.Idle
	}
	row("sessions", "life %s, %s, %s", s.Sessions.TTL, idle, atMost(s.Sessions.MaxPerUser))
	row("apps", "%s", strings.Join(s.Apps, " "))
	_, err := io.WriteString(out, b.String())
	return err
}

// write writes the rows of WeChat.
func (s wechatStatus) write(row func(name, format string, args ...any)) {
	logins := map[string]string{
		"partly": "PARTLY DOWN: some logins fail", "down": "DOWN: logins fail",
	}[s.Logins.State]
	if logins == "" && s.Logins.lastFailed() {
		logins = "the last login FAILED"
	}
	if s.BreakerOpen {
		logins = "DOWN: the breaker is open, logins are refused at once"
	}
	row("WeChat", "%s, %s", cmp.Or(logins, "logins go out"), cli.Text(s.BaseURL))
	s.Logins.write("logins", row)
	if s.CallsRefused {
		row("", "DOWN: the breaker is open, calls for numbers, keys and access tokens are refused")
	}
	s.Calls.write("other calls", row)
	if a := s.ClockAhead; a != nil {
		differs := ""
		if *a < -5 || *a > 5 {
			differs = ": SET THIS MACHINE'S CLOCK"
		}
		row("", "clock %+.0f s from this machine's%s", *a, differs)
	}
	for _, id := range slices.Sorted(maps.Keys(s.Secrets)) {
		row("", "%s AppSecret of %s is in use", s.Secrets[id], id)
	}
}

// lastFailed reports whether no call has succeeded after the last error.
func (s callStatus) lastFailed() bool {
	return s.LastErrorAt != nil && (s.LastSuccess == nil || s.LastSuccess.Before(*s.LastErrorAt))
}

// write writes a row of the last success and, after it, one of the last error.
func (s callStatus) write(what string, row func(name, format string, args ...any)) {
	ago := func(t *time.Time) string {
		if t == nil {
			return "never"
		}
		return time.Since(*t).Round(time.Second).String() + " ago"
	}
	if s.LastSuccess != nil || s.LastError != "" {
		row("", "%s: last success %s", what, ago(s.LastSuccess))
	}
	if s.LastError != "" {
		row("", "%s: last error %s: %s", what, ago(s.LastErrorAt), s.LastError)
	}
	if s.Since != nil {
		row("", "%s: %d of %d failed since %s", what, s.Failed, s.Calls, cli.Time(*s.Since))
	}
}

func sinceText(created string) string {
	if created == "" {
		return "made by an earlier release"
	}
	return "created " + created
}

func atMost(n int) string {
	if n == 0 {
		return "any number per user"
	}
	return fmt.Sprintf("at most %d per user", n)
}

// Summary is what the status of a running gate comes to.
type Summary struct {
	Version string
	Ready   wechatapp.Readiness
	Store   string // kind and place
	StoreUp bool
	WeChat  string // why logins fail now; empty when they do not
}

// AskStatus asks the running gate at the admin endpoint that Caddy's flags name. After
// an error, status is the exit status of the command: cli.Unreachable when no gate
// answers.
func AskStatus(address, config, adapter string) (sum Summary, status int, err error) {
	c := adminClient{address: address, config: config, adapter: adapter}
	resp, status, err := c.send(http.MethodGet, "/wechat/status", nil)
	if err != nil {
		return sum, status, err
	}
	defer resp.Body.Close()
	var s statusAnswer
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return sum, cli.Failed, fmt.Errorf("reading the gate's status: %w", err)
	}
	sum = Summary{
		Version: s.Version.WXGate, Ready: s.Ready, Store: s.Store.Name, StoreUp: s.Store.Up,
	}
	if s.WeChat.Logins.State != weixin.Well.String() {
		sum.WeChat = s.WeChat.Logins.LastError
	}
	return sum, 0, nil
}

// contactStatus is the state of the connection to a store that gates share.
type contactStatus struct {
	Since       time.Time `json:"since,omitzero"` // it has been up, or down
	LastSuccess time.Time `json:"last_success,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	ClockAhead  string    `json:"clock_ahead,omitempty"` // of the server's; empty when they agree
}

// contactOf returns nil for a store without a connection.
func contactOf(c store.Contact) *contactStatus {
	if c.Since.IsZero() && c.LastError == nil {
		return nil
	}
	at := func(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
	s := &contactStatus{Since: at(c.Since), LastSuccess: at(c.LastSuccess)}
	if c.LastError != nil {
		s.LastError, s.LastErrorAt = c.LastError.Error(), at(c.LastErrorAt)
	}
	if c.ClockAhead != 0 {
		s.ClockAhead = c.ClockAhead.Round(time.Millisecond).String()
	}
	return s
}

// write prints the state for a person.
func (s *contactStatus) write(row func(name, format string, args ...any)) {
	if s == nil {
		return
	}
	if !s.Since.IsZero() {
		row("", "so since %s", s.Since.Format(time.RFC3339))
	}
	if s.ClockAhead != "" {
		row("", "the clock of this machine is %s ahead of the server's", s.ClockAhead)
	}
	if s.LastError != "" {
		row("", "last error %s: %s", s.LastErrorAt.Format(time.RFC3339), s.LastError)
	}
}
