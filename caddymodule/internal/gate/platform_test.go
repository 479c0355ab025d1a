package gate_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

func TestPlatform(t *testing.T) {
	full := http.Header{
		"X-Wx-Source": {"wx_client"}, "X-Wx-Openid": {"o1"}, "X-Wx-Appid": {"wx1"}, "X-Wx-Unionid": {"u1"}, "X-Wx-Env": {"prod"}, "X-Wx-Cloudbase-Access-Token": {"t"},
		"X-Wx-From-Openid": {"o2"}, "X-Wx-From-Appid": {"wx2"}, "X-Wx-From-Unionid": {"u2"}, "X-Wx-From-Cloudbase-Access-Token": {"t2"},
	}
	but := func(name string, values ...string) http.Header {
		h := maps.Clone(full)
		if delete(h, name); len(values) > 0 {
			h[name] = values
		}
		return h
	}
	for _, tt := range []struct {
		name   string
		header http.Header
		err    error
		want   gate.Identity
	}{
		{"all", full, nil, gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1", gate.UnionID: "u1"}},
		{"nothing", http.Header{"X-Other": {"1"}}, nil, gate.Identity{}},
		{"resources of another app", but("X-Wx-Openid"), nil, gate.Identity{gate.OpenID: "o2", gate.AppID: "wx2", gate.UnionID: "u2"}},
		{"no unionid", but("X-Wx-Unionid"), nil, gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1"}},
		{"chained", but("X-Wx-Source", "wx_client, scf"), nil, gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1", gate.UnionID: "u1"}},
		{"no source", but("X-Wx-Source"), gate.ErrNotPlatform, gate.Identity{}},
		{"only an environment", http.Header{"X-Wx-Env": {"prod"}}, gate.ErrNotPlatform, gate.Identity{}},
		{"local debugging", but("X-Wx-Local-Debug", "1"), gate.ErrLocalDebug, gate.Identity{}},
		{"local debugging, odd", but("x_wx!LOCAL-debug"), nil, gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1", gate.UnionID: "u1"}},
		{"local debugging, odd and there", but("x_wx!LOCAL-debug", ""), gate.ErrLocalDebug, gate.Identity{}},
		{"source of debugging", but("X-Wx-Source", "scf,WX_LOCALDEBUG"), gate.ErrLocalDebug, gate.Identity{}},
		{"two values", but("X-Wx-Appid", "wx1", "wx1"), gate.ErrAmbiguousPlatform, gate.Identity{}},
		{"joined", but("X-Wx-From-Openid", "o2,o3"), gate.ErrAmbiguousPlatform, gate.Identity{}},
		{"empty", but("X-Wx-Unionid", ""), nil, gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1"}},
		{"empty twice", but("X-Wx-Unionid", "", ""), gate.ErrAmbiguousPlatform, gate.Identity{}},
		{"empty source", but("X-Wx-Source", ""), gate.ErrNotPlatform, gate.Identity{}},
		{"blank source", but("X-Wx-Source", " "), gate.ErrAmbiguousPlatform, gate.Identity{}},
		{"control byte", but("X-Wx-Openid", "o\x01"), gate.ErrAmbiguousPlatform, gate.Identity{}},
		{"not canonical", http.Header{"x-wx-source": {"wx_client"}, "X_Wx_Openid": {"o1"}}, nil, gate.Identity{}},
	} {
		r := &http.Request{Header: maps.Clone(tt.header)}
		p, err := newGate(t, gate.Config{}).Platform(r)
		if !errors.Is(err, tt.err) || p.Identity != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, p.Identity, err)
		}
		if held := p.Holds("X-Wx-Source"); held != (err == nil && len(tt.header["X-Wx-Source"]) == 1) || p.Holds("X-Wx-Local-Debug") {
			t.Errorf("%s: holds the source: %t", tt.name, held)
		}
		if !maps.EqualFunc(r.Header, tt.header, slices.Equal) {
			t.Errorf("%s: the request is changed", tt.name)
		}
	}
}

// FuzzPlatform: what is restored after Clean is what the platform sent, one value each, and never without a source.
func FuzzPlatform(f *testing.F) {
	f.Add("X-Wx-Source: wx_client\nX-Wx-Openid: o1\nX-Wx-Appid: wx1\nX_Wx_Openid: victim")
	f.Add("X-Wx-Openid: o1\nX-Wx-Appid: wx1")
	f.Add("X-Wx-Source: wx_client,wx_localdebug\nX-Wx-Openid: o1,o2")
	f.Add("X-Wx-Source: a\nX-Wx-Source: b\nx-wx-LOCAL.debug: 1")
	g := newGate(f, gate.Config{})
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Header: make(http.Header)}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			r.Header[name] = append(r.Header[name], value)
		}
		sent := r.Header.Clone()
		p, err := g.Platform(r)
		if err != nil && p.Identity != (gate.Identity{}) {
			t.Fatalf("%+v with %v", p.Identity, err)
		}
		g.Clean(r)
		p.Restore(r)
		owned := 0
		for name, values := range r.Header {
			if !strings.HasPrefix(slowFold(name), "x-wx-") {
				continue
			}
			owned++
			if len(values) != 1 || len(sent[name]) != 1 || strings.ReplaceAll(sent[name][0], " ", "") != values[0] || values[0] == "" {
				t.Errorf("%s: sent %q, restored %q", name, sent[name], values)
			}
		}
		if owned > 0 && (err != nil || r.Header["X-Wx-Source"] == nil) {
			t.Errorf("restored %v of %v, %v", r.Header, sent, err)
		}
	})
}

func TestUnder(t *testing.T) {
	for path, want := range map[string]bool{
		"/cgi-bin/token": true, "/cgi-bin/token/": true, "/cgi-bin/token/x": true, "/CGI-BIN/Token": true, "/cgi-bin/token.": true, "/cgi-bin/token ": true, "/cgi-bin /token": true,
		"/cgi-bin/tokens": false, "/cgi-bin": false, "/x/cgi-bin/token": false, "": false, "cgi-bin/token": false,
	} {
		if got := gate.Under(path, "/cgi-bin/token"); got != want {
			t.Errorf("%q: %t", path, got)
		}
	}
}
