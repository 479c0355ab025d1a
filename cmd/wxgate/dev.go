package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
	"github.com/wxgate/wxgate/cmd/internal/playground"
)

// devOptions is the command line of wxgate dev.
type devOptions struct {
	upstream, file    string // one of them; file is a Caddyfile
	users             []string
	listen, simListen string // loopback addresses
	page              string // of the playground; empty for any that is free
	keep              string // directory; empty for a temporary one
	once              bool
}

// dev is a running simulator and gate in front of the app of a developer.
type dev struct {
	devOptions
	dir       string
	wechat    *weixintest.Simulator
	wechatURL string
	play      playground.Server
	apps      []string // AppIDs
	sites     []*site  // those with a gate first
	client    *http.Client
	ends      []func() error
}

func (o *devOptions) check() error {
	if (o.upstream == "") == (o.file == "") {
		return errors.New("give the app's address or --caddyfile, not both")
	}
	for _, u := range o.users {
		if !playground.UserShape.MatchString(u) {
			return fmt.Errorf("--user %q: a name has letters, digits and any of . _ -", u)
		}
	}
	if o.file != "" {
		return nil
	}
	o.upstream = strings.TrimSuffix(strings.TrimPrefix(o.upstream, "http://"), "/")
	host, port, err := net.SplitHostPort(o.upstream)
	_, badPort := strconv.ParseUint(port, 10, 16)
	if err != nil || badPort != nil || strings.ContainsAny(host, " \t\r\n{}\"`/#") {
		return fmt.Errorf("upstream %q is no address; write it as 127.0.0.1:8080", o.upstream)
	}
	if o.upstream == o.listen {
		return fmt.Errorf("upstream %s is the gate's own address; choose another with --listen",
			o.upstream)
	}
	return nil
}

// runDev serves until ctx ends.
func runDev(ctx context.Context, out io.Writer, o devOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	d := &dev{devOptions: o, client: &http.Client{
		Transport: &http.Transport{},
		Timeout:   20 * time.Second,
	}}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(); err != nil {
		return fmt.Errorf("starting dev: %w", err)
	}
	d.describe(out)
	d.logIn(ctx, out)
	if d.once {
		return nil
	}
	url, err := d.openPage()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nIn your browser, a pretend phone to try it with: %s\n\n"+
		"It stays up until you press Ctrl-C.\n", url)
	for _, app := range d.upstreams() {
		waitFor(ctx, out, app)
	}
	<-ctx.Done()
	fmt.Fprintln(out)
	return nil
}

const devCaddyfile = `{
	wechat {
		app ` + demoApp + ` {env.WX_SECRET}
	}
}

:80 {
	wechat_auth
	reverse_proxy %s
}
`

// start runs the simulator and then the gate.
func (d *dev) start() (err error) {
	text := []byte(fmt.Sprintf(devCaddyfile, d.upstream))
	if d.file != "" {
		if text, err = os.ReadFile(d.file); err != nil {
			return err
		}
	}
	if d.dir = d.keep; d.keep != "" {
		err = os.MkdirAll(d.keep, 0o700)
	} else if d.dir, err = os.MkdirTemp("", "wxgate-dev-*"); err == nil {
		d.ends = append(d.ends, func() error { return os.RemoveAll(d.dir) })
	}
	if err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	l, err := listen(d.simListen, "choose another with --sim-listen")
	if err != nil {
		return err
	}
	d.ends = append(d.ends, func() error { l.Close(); return nil })
	d.wechatURL = "http://" + l.Addr().String()
	config, err := adapt(text, d.file)
	if err != nil {
		return err
	}
	if config, err = d.rewrite(config); err != nil {
		return err
	}
	d.simulate(l)
	d.ends = append(d.ends, caddy.Stop)
	return load(config)
}

// simulate serves WeChat for the mini programs of the configuration.
func (d *dev) simulate(l net.Listener) {
	secrets := make(map[string]string)
	for _, id := range d.apps {
		secrets[id] = demoSecret
	}
	d.wechat = weixintest.New(weixintest.Config{Apps: secrets})
	srv := &http.Server{Handler: d.play.WeChat(d.wechat), ReadHeaderTimeout: 10 * time.Second}
	go srv.Serve(l)
	d.ends = append(d.ends, func() error {
		err := srv.Close()
		d.wechat.Close()
		return err
	})
}

// openPage serves the playground and returns its URL.
func (d *dev) openPage() (string, error) {
	cfg := playground.Config{Users: d.users, WeChat: d.wechat}
	for _, s := range d.sites {
		if s.gate != nil {
			cfg.Sites = append(cfg.Sites, playground.Site{
				Name: s.name, URL: s.url(), Prefix: s.prefix(), Token: s.header(),
				Apps: slices.DeleteFunc(slices.Clone(d.apps), func(appID string) bool {
					return !s.takes(appID)
				}),
			})
		}
	}
	url, stop, err := servePage(&d.play, d.page, cfg)
	if err == nil {
		d.ends = append(d.ends, stop)
	}
	return url, err
}

func (d *dev) stop() error {
	d.client.CloseIdleConnections()
	var errs []error
	for _, end := range slices.Backward(d.ends) {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

// log returns the path of the gate's log.
func (d *dev) log() string { return filepath.Join(d.dir, "gate.log") }

func (d *dev) describe(out io.Writer) {
	fmt.Fprintf(out, "WeChat, simulated   %s\n", d.wechatURL)
	if d.upstream != "" {
		fmt.Fprintf(out, "your app            http://%s\n", d.upstream)
	}
	for _, s := range d.sites {
		label, name := "the gate", ""
		if s.gate == nil {
			label = "without a gate"
		}
		if s.name != "" {
			name = "   for " + s.name
		}
		fmt.Fprintf(out, "%-19s %s%s\n", label, s.url(), name)
	}
	fmt.Fprintf(out, "its log             %s\n", d.log())
}

// logIn logs each user in to each mini program, and prints lines to paste.
func (d *dev) logIn(ctx context.Context, out io.Writer) {
	for _, appID := range d.apps {
		s := d.siteFor(appID)
		if s == nil {
			fmt.Fprintf(out, "\nNo site takes sessions of %s.\n", appID)
			continue
		}
		for _, user := range d.users {
			fmt.Fprintf(out, "\n%s of %s has the openid %s\n", user, appID,
				d.wechat.OpenID(appID, user))
			token, err := d.token(ctx, s, appID, user)
			if err != nil {
				fmt.Fprintf(out, "  no token: %v\n", err)
				continue
			}
			fmt.Fprintf(out, "  curl %s/ -H '%s%s'\n", s.url(), s.header(), token)
		}
		fmt.Fprintf(out, newLogin, d.wechatURL, appID, d.users[0], s.login())
	}
}

const newLogin = `
Another login, as the mini program does it:
  CODE=$(curl -s %[1]s/_sim/code -d '{"appid":"%[2]s","user":"%[3]s"}' | cut -d'"' -f4)
  curl -s %[4]s -H 'Content-Type: application/json' ` +
	`-d "{\"appid\":\"%[2]s\",\"code\":\"$CODE\"}"
`

// siteFor returns the first site that takes sessions of a mini program, or nil.
func (d *dev) siteFor(appID string) *site {
	for _, s := range d.sites {
		if s.takes(appID) {
			return s
		}
	}
	return nil
}

// takes reports whether users of a mini program log in at the site.
func (s *site) takes(appID string) bool {
	if s.gate == nil || s.gate["cloudrun"] == true {
		return false
	}
	accepted, _ := s.gate["apps"].([]any)
	return len(accepted) == 0 || slices.ContainsFunc(accepted, func(v any) bool {
		return caddy.NewReplacer().ReplaceAll(fmt.Sprint(v), "") == appID
	})
}

// login returns the URL of the site's login.
func (s *site) login() string { return s.url() + s.prefix() + "/login" }

// prefix returns the path below which the site's endpoints lie.
func (s *site) prefix() string {
	prefix, _ := s.gate["endpoints"].(string)
	return cmp.Or(prefix, "/wx")
}

// header returns the header that carries a token, up to the token.
func (s *site) header() string {
	if name, _ := s.gate["token_header"].(string); name != "" {
		return name + ": "
	}
	return "Authorization: Bearer "
}

// token logs a user in through the gate.
func (d *dev) token(ctx context.Context, s *site, appID, user string) (string, error) {
	body, err := json.Marshal(map[string]string{
		"appid": appID, "code": d.wechat.Code(appID, user),
	})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.login(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var session struct {
		Token  string `json:"3rd_session"`
		Detail string `json:"detail"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&session)
	if err != nil || session.Token == "" {
		return "", fmt.Errorf("POST %s: status %d; %s", s.login(), resp.StatusCode, session.Detail)
	}
	return session.Token, nil
}

// upstreams returns the addresses of the apps behind the gates, as far as they are plain.
func (d *dev) upstreams() []string {
	var found []string
	for _, s := range d.sites {
		eachHandler(s.server["routes"], func(h object) {
			list, _ := h["upstreams"].([]any)
			for _, v := range list {
				u, _ := v.(object)
				dial, _ := u["dial"].(string)
				_, _, err := net.SplitHostPort(dial)
				if s.gate != nil && err == nil && !strings.Contains(dial, "{") &&
					!slices.Contains(found, dial) {
					found = append(found, dial)
				}
			}
		})
	}
	return found
}

// waitFor says when the app is not there, and when it has come. It asks no further then,
// since some servers log each connection.
func waitFor(ctx context.Context, out io.Writer, upstream string) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	for missing := false; ; missing = true {
		conn, err := dialer.DialContext(ctx, "tcp", upstream)
		if err == nil {
			conn.Close()
			if missing {
				fmt.Fprintf(out, "Your app at %s is there now.\n", upstream)
			}
			return
		}
		if !missing {
			fmt.Fprintf(out, "Your app at %s is not there: calls are answered with 502 "+
				"until you start it; waiting.\n", upstream)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}
