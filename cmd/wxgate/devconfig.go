package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/cmd/internal/wxsim"
)

// object is a JSON object of Caddy's configuration.
type object = map[string]any

// devSecret names the demo's secret to the gate.
const devSecret = "WXGATE_DEV_SECRET"

// site is one site of the Caddyfile, with a server of its own.
type site struct {
	name   string // its hosts in the Caddyfile
	server object
	gate   object // its wechat_auth; nil without one
	keep   string // its own loopback address; empty for none
	addr   string // host:port it listens on
}

// url returns the base URL of the site.
func (s *site) url() string { return "http://" + s.addr }

// rewrite makes a configuration safe to run on this machine: its apps http and wechat
// stay, the sites listen on loopback without TLS, and WeChat's address, the secrets and
// the store are those of dev.
func (d *dev) rewrite(config []byte) ([]byte, error) {
	var in object
	if err := json.Unmarshal(config, &in); err != nil {
		return nil, err
	}
	apps, _ := in["apps"].(object)
	http, _ := apps["http"].(object)
	wechat, _ := apps["wechat"].(object)
	if http == nil || wechat == nil {
		return nil, fmt.Errorf("%s has no gate; it needs the global block wechat "+
			"and a site with wechat_auth", d.file)
	}
	if err := d.rewriteWeChat(wechat); err != nil {
		return nil, err
	}
	d.sites = sites(http)
	if !slices.ContainsFunc(d.sites, func(s *site) bool { return s.gate != nil }) {
		return nil, fmt.Errorf("%s has no site with wechat_auth", d.file)
	}
	if err := d.placeSites(); err != nil {
		return nil, err
	}
	servers := object{}
	for i, s := range d.sites {
		s.server["listen"] = []string{s.addr}
		if s.gate != nil {
			addTaps(s.server["routes"])
		}
		servers[fmt.Sprintf("site%d", i)] = s.server
	}
	http["servers"] = servers
	http["grace_period"] = "1s"
	return json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": filepath.Join(d.dir, "caddy")},
		"logging": object{"logs": object{"default": object{
			"writer":  object{"output": "file", "filename": d.log()},
			"encoder": object{"format": "wechat"},
		}}},
		"apps": object{"http": http, "wechat": wechat},
	})
}

// rewriteWeChat swaps WeChat's address, the secrets and the store.
func (d *dev) rewriteWeChat(wechat object) error {
	if err := os.Setenv(devSecret, demoSecret); err != nil {
		return err
	}
	list, _ := wechat["apps"].([]any)
	for _, v := range list {
		app, _ := v.(object)
		appID, _ := app["appid"].(string)
		id, err := resolveAppID(appID)
		if err != nil {
			return err
		}
		d.apps = append(d.apps, id)
		app["secret"] = "{env." + devSecret + "}"
		for _, word := range []string{"previous_secret", "token_file", "cloud_token_file"} {
			delete(app, word)
		}
	}
	api, _ := wechat["api"].(object)
	if api == nil {
		api = object{}
	}
	api["base_url"] = d.wechatURL
	wechat["api"] = api
	wechat["store"] = object{"type": "bolt", "path": filepath.Join(d.dir, "sessions.db")}
	delete(wechat, "seal_key") // the store makes its own
	return nil
}

// resolveAppID replaces placeholders. It sets a variable of the environment that is
// missing to the AppID of the demo, so that a site that names it gets the same.
func resolveAppID(appID string) (string, error) {
	r := caddy.NewReplacer()
	if id := r.ReplaceAll(appID, ""); id != "" {
		return id, nil
	}
	name, found := strings.CutPrefix(strings.TrimSuffix(appID, "}"), "{env.")
	if !found {
		return "", fmt.Errorf("resolving AppID %s: it is empty", appID)
	}
	return demoApp, os.Setenv(name, demoApp)
}

// sites splits the servers into one for each site. On a loopback address no host name
// leads to a site, so each site gets a port instead.
func sites(http object) []*site {
	servers, _ := http["servers"].(object)
	var found []*site
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		server, _ := servers[name].(object)
		routes, _ := server["routes"].([]any)
		var seen []string
		for _, r := range routes {
			hosts := routeHosts(r)
			key := strings.Join(hosts, ", ")
			if slices.Contains(seen, key) {
				continue
			}
			seen = append(seen, key)
			s := &site{name: key, server: oneSite(server, key), keep: ownAddress(server, hosts)}
			eachHandler(s.server["routes"], func(h object) {
				if h["handler"] == "wechat_auth" {
					s.gate = h
				}
			})
			found = append(found, s)
		}
	}
	return found
}

// oneSite returns a copy of a server with the routes of one site, without TLS.
func oneSite(server object, key string) object {
	s := maps.Clone(server)
	for _, word := range []string{
		"tls_connection_policies", "strict_sni_host", "listener_wrappers",
		"packet_conn_wrappers", "listen_protocols", "protocols", "errors",
	} {
		delete(s, word)
	}
	s["automatic_https"] = object{"disable": true}
	s["routes"] = routesOf(server["routes"], key)
	errs, _ := server["errors"].(object)
	if routes := routesOf(errs["routes"], key); len(routes) > 0 {
		s["errors"] = object{"routes": routes}
	}
	return s
}

// routeHosts returns the host names that lead to a route; none stands for all.
func routeHosts(route any) []string {
	r, _ := route.(object)
	sets, _ := r["match"].([]any)
	var hosts []string
	for _, set := range sets {
		m, _ := set.(object)
		list, _ := m["host"].([]any)
		for _, h := range list {
			hosts = append(hosts, fmt.Sprint(h))
		}
	}
	return hosts
}

// routesOf returns the routes of one site, without the matcher of its hosts.
func routesOf(routes any, key string) []any {
	var out []any
	list, _ := routes.([]any)
	for _, v := range list {
		if strings.Join(routeHosts(v), ", ") != key {
			continue
		}
		r := maps.Clone(v.(object))
		sets, _ := r["match"].([]any)
		delete(r, "match")
		var left []any
		for _, set := range sets {
			m := maps.Clone(set.(object))
			delete(m, "host")
			if len(m) > 0 {
				left = append(left, m)
			}
		}
		if len(left) > 0 && len(left) == len(sets) {
			r["match"] = left
		}
		out = append(out, r)
	}
	return out
}

// ownAddress returns the address of a server or site that is loopback anyway, such as
// one with wechat_api, which the app knows by its port. Ports 80 and 443 need root.
func ownAddress(server object, hosts []string) string {
	listen, _ := server["listen"].([]any)
	if len(listen) == 0 {
		return ""
	}
	na, err := caddy.ParseNetworkAddress(fmt.Sprint(listen[0]))
	if err != nil || na.IsUnixNetwork() || na.StartPort == 80 || na.StartPort == 443 {
		return ""
	}
	port := strconv.Itoa(int(na.StartPort))
	addr := net.JoinHostPort(na.Host, port)
	if wxsim.Loopback(addr) {
		return addr
	}
	for _, h := range hosts {
		if !wxsim.Loopback(net.JoinHostPort(h, port)) {
			return ""
		}
	}
	if len(hosts) == 0 {
		return ""
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// placeSites gives each site an address: loopback sites without a gate keep theirs, and
// the others take ports from --listen on, those with a gate first.
func (d *dev) placeSites() error {
	slices.SortStableFunc(d.sites, func(a, b *site) int {
		return cmp.Compare(rank(a), rank(b))
	})
	taken := map[string]bool{}
	for _, s := range d.sites {
		if s.gate != nil || s.keep == "" || taken[s.keep] {
			s.keep = ""
			continue
		}
		taken[s.keep] = true
	}
	host, portText, err := net.SplitHostPort(d.listen)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return fmt.Errorf("reading port of --listen: %w", err)
	}
	for _, s := range d.sites {
		want, cure := s.keep, "change the site in "+d.file
		if want == "" {
			for taken[net.JoinHostPort(host, strconv.Itoa(port))] {
				port++
			}
			want, cure = net.JoinHostPort(host, strconv.Itoa(port)), "choose another with --listen"
			if port != 0 {
				port++
			}
		}
		l, err := listen(want, cure)
		if err != nil {
			return err
		}
		s.addr = l.Addr().String()
		defer l.Close() // all at the end, so that port 0 gives each another
	}
	return nil
}

func rank(s *site) int {
	if s.gate != nil {
		return 0
	}
	return 1
}

// listen takes a loopback address. The cure says how to choose another one.
func listen(addr, cure string) (net.Listener, error) {
	if !wxsim.Loopback(addr) {
		return nil, fmt.Errorf("listening on %s: it is not a loopback address; %s", addr, cure)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, cure)
	}
	return l, nil
}

// eachHandler visits all HTTP handlers in a part of a configuration.
func eachHandler(v any, visit func(object)) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			eachHandler(e, visit)
		}
	case object:
		if v["handler"] != nil {
			visit(v)
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			eachHandler(v[name], visit)
		}
	}
}
