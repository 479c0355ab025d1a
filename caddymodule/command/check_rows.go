package command

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// checksOf returns the rows of checks of a configuration.
func checksOf(raw []byte, app *wechatapp.App) []func(context.Context, *checks) {
	rows := []func(context.Context, *checks){
		func(ctx context.Context, c *checks) { checkWeChat(ctx, c, app) },
		func(ctx context.Context, c *checks) { checkStore(ctx, c, app) },
	}
	for _, dial := range upstreamsOf(raw) {
		rows = append(rows, func(ctx context.Context, c *checks) { checkUpstream(ctx, c, dial) })
	}
	return rows
}

// checkWeChat follows the way to WeChat hop by hop, then asks about each mini program.
func checkWeChat(ctx context.Context, c *checks, app *wechatapp.App) {
	base, err := url.Parse(app.API.BaseURL)
	if err != nil || !checkHops(ctx, c, base) {
		return
	}
	client, err := weixin.New(weixin.Config{BaseURL: app.API.BaseURL, Timeout: checkTime})
	if c.begin("WeChat", base.Host); err != nil {
		c.end(checkedFailed, "%s", err)
		return
	}
	defer client.Close()
	for _, m := range app.MiniPrograms() {
		checkMiniProgram(ctx, c, client, m)
	}
	checkClock(c, base.Host, client.Clock())
}

// checkHops checks DNS, the connection and TLS of WeChat's host, or of the proxy
// before it.
func checkHops(ctx context.Context, c *checks, base *url.URL) bool {
	to, prefix := base, ""
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: base})
	if c.begin("proxy", ""); err != nil {
		c.end(checkedFailed, "%s", "HTTPS_PROXY is not a URL")
		return false
	}
	if proxy != nil {
		to, prefix = proxy, "proxy "
	}
	host, port := to.Hostname(), to.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080"}[to.Scheme]
	}
	c.begin(prefix+"dns", host)
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if !c.passes(err, "%s", strings.Join(addresses, " ")) {
		return false
	}
	address := net.JoinHostPort(host, port)
	c.begin(prefix+"connect", address)
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return false
	}
	defer conn.Close()
	c.end(checkedOK, "connected to %s", conn.RemoteAddr())
	if proxy != nil || to.Scheme != "https" {
		return true // the login that follows covers TLS behind a proxy
	}
	c.begin("tls", address)
	secure := tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
	if err := secure.HandshakeContext(ctx); err != nil {
		c.end(checkedFailed, "%s", err)
		return false
	}
	ends := secure.ConnectionState().PeerCertificates[0].NotAfter
	c.end(checkedOK, "certificate valid until %s", ends.UTC().Format(time.DateOnly))
	return true
}

// checkMiniProgram checks a mini program with each AppSecret that it has. One that
// works is enough.
func checkMiniProgram(
	ctx context.Context, c *checks, client *weixin.Client, m weixin.Credentials,
) {
	secrets := []string{m.Secret}
	if m.Previous != "" {
		secrets = append(secrets, m.Previous)
	}
	m.Previous = ""
	verdicts, details := make([]verdict, len(secrets)), make([]string, len(secrets))
	works := -1
	for i, secret := range secrets {
		m.Secret = secret
		c.begin("login", m.ID) // for the case that it never ends
		if verdicts[i], details[i] = checkSecret(ctx, client, m); works < 0 &&
			verdicts[i] != checkedFailed {
			works = i
		}
	}
	for i, name := range []string{"login", "login, previous secret"}[:len(secrets)] {
		c.begin(name, m.ID)
		if works >= 0 && verdicts[i] == checkedFailed {
			verdicts[i], details[i] = checkedWarning, "the other secret works: "+details[i]
		}
		c.end(verdicts[i], "%s", details[i])
	}
	if works < 0 {
		return
	}
	m.Secret = secrets[works]
	c.begin("access token", m.ID)
	if _, err := client.Tokens().Token(ctx, m); err != nil {
		c.end(checkedWarning, "logins work; calls for telephone numbers and of "+
			"wechat_api will fail: %s", err)
		return
	}
	c.end(checkedOK, "WeChat gives one")
}

// checkSecret sends a made-up code: WeChat judges AppID, AppSecret and IP address
// before it looks at the code.
func checkSecret(
	ctx context.Context, client *weixin.Client, m weixin.Credentials,
) (verdict, string) {
	_, err := client.Code2Session(ctx, m, "0"+rand.Text())
	e, ok := errors.AsType[*weixin.Error](err)
	switch {
	case !ok:
		return checkedWarning, "WeChat accepts a made-up code: is base_url a simulator?"
	case e.Class == weixin.ClassCodeInvalid || e.Class == weixin.ClassCodeUsed:
		return checkedOK, "WeChat accepts AppID, AppSecret and this machine's IP address"
	case e.Class == weixin.ClassRateLimited:
		return checkedWarning, e.Cause()
	}
	return checkedFailed, e.Cause()
}

// checkClock compares the clock with WeChat's.
func checkClock(c *checks, host string, clock weixin.Clock) {
	if clock.At.IsZero() {
		return // WeChat has not answered
	}
	judgeClock(c, host, clock.Ahead)
}

// judgeClock judges how far another clock is ahead of this machine's.
func judgeClock(c *checks, whose string, ahead time.Duration) {
	const differs, wrong = 5 * time.Second, time.Minute
	c.begin("clock", whose)
	text := fmt.Sprintf("%+.0f s from this machine's", ahead.Seconds())
	switch d := ahead.Abs(); {
	case d > wrong:
		c.end(checkedFailed, "%s; set this machine's clock, with NTP", text)
	case d > differs:
		c.end(checkedWarning, "%s; set this machine's clock, with NTP", text)
	default:
		c.end(checkedOK, "%s", text)
	}
}

// localStore is a store on this machine, which a check must not make or open.
type localStore interface {
	CheckPlace() (state string, err error)
	CheckKey() (state string, err error)
}

// checkStore checks the store and the master keys.
func checkStore(ctx context.Context, c *checks, app *wechatapp.App) {
	opener := app.Opener()
	c.begin("store", opener.Identity())
	if local, ok := opener.(localStore); ok {
		state, err := local.CheckPlace()
		c.passes(err, "%s", state)
		c.begin("master key", "")
		if app.KeyRing() == nil && app.SealKey == "" {
			state, err := local.CheckKey()
			c.passes(err, "%s", state)
			return
		}
		checkRing(c, app, nil)
		return
	}
	st, err := opener.Open(zap.NewNop())
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return
	}
	defer st.Close()
	if !c.passes(awaitStore(ctx, st), "takes writes") {
		return
	}
	c.begin("master key", "")
	needs, err := st.MasterKeys(ctx)
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return
	}
	checkRing(c, app, needs)
	checkStoreClock(c, opener.Identity(), st)
}

// checkStoreClock compares the clock with that of the store's server, which gates go
// by. A server that may not tell the time is not judged.
func checkStoreClock(c *checks, whose string, st store.Store) {
	clocked, ok := st.(store.Clocked)
	if !ok {
		return
	}
	if clock := clocked.Clock(); clock != nil {
		judgeClock(c, whose, clock.Server.Sub(clock.Local.Round(0)))
	}
}

// awaitStore waits for a store that connects after it is opened.
func awaitStore(ctx context.Context, st store.Store) error {
	for {
		err := st.Health(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 2*time.Second {
			return err
		}
	}
}

// checkRing compares the configured master keys with those that the store needs.
func checkRing(c *checks, app *wechatapp.App, needs map[store.MasterKeyID]time.Time) {
	ring := app.KeyRing()
	if ring == nil {
		c.end(checkedFailed, "seal_key is empty")
		return
	}
	for id, until := range needs {
		if until.After(time.Now()) && !ring.Has(keyring.ID(id)) {
			c.end(checkedFailed, "key %s is missing in seal_key and needed until %s",
				keyring.ID(id), cli.Time(until))
			return
		}
	}
	c.end(checkedOK, "seal_key holds %s", cli.Amount(len(ring.IDs()), "key"))
}

// checkUpstream connects to an upstream of the configuration.
func checkUpstream(ctx context.Context, c *checks, dial string) {
	c.begin("upstream", dial)
	if strings.Contains(dial, "{") {
		c.end(checkedSkipped, "its address is known with a request only")
		return
	}
	a, err := caddy.ParseNetworkAddress(dial)
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return
	}
	network := a.Network
	if network == "" {
		network = "tcp"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, a.JoinHostPort(0))
	if err != nil {
		c.end(checkedFailed, "%s", err)
		return
	}
	conn.Close()
	c.end(checkedOK, "connected")
}

// upstreamsOf returns the addresses of all reverse proxies of a configuration.
func upstreamsOf(raw []byte) (dials []string) {
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if v["handler"] == "reverse_proxy" {
				dials = append(dials, dialsOf(v["upstreams"])...)
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	var config struct {
		Apps struct {
			HTTP any `json:"http"`
		} `json:"apps"`
	}
	if json.Unmarshal(raw, &config) == nil {
		walk(config.Apps.HTTP)
	}
	slices.Sort(dials)
	return slices.Compact(dials)
}

func dialsOf(upstreams any) (dials []string) {
	list, _ := upstreams.([]any)
	for _, u := range list {
		m, _ := u.(map[string]any)
		if dial, ok := m["dial"].(string); ok {
			dials = append(dials, dial)
		}
	}
	return dials
}
