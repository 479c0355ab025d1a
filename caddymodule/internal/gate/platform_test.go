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

func TestPlatform_ReadsTheCaller(t *testing.T) {
	full := lines("X-Wx-Source: wx_client\nX-Wx-Openid: o1\nX-Wx-Appid: wx1\nX-Wx-Unionid: u1\n" +
		"X-Wx-Env: prod\nX-Wx-Cloudbase-Access-Token: t\nX-Wx-From-Openid: o2\n" +
		"X-Wx-From-Appid: wx2\nX-Wx-From-Unionid: u2\nX-Wx-From-Cloudbase-Access-Token: t2")
	but := func(name string, values ...string) http.Header {
		h := maps.Clone(full)
		if delete(h, name); len(values) > 0 {
			h[name] = values
		}
		return h
	}
	caller := gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1", gate.UnionID: "u1"}
	noUnion := gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1"}
	from := gate.Identity{gate.OpenID: "o2", gate.AppID: "wx2", gate.UnionID: "u2"}
	none := gate.Identity{}
	ambiguous := gate.ErrAmbiguousPlatform
	for _, tt := range []struct {
		name   string
		header http.Header
		err    error
		want   gate.Identity
	}{
		{"all", full, nil, caller},
		{"nothing", http.Header{"X-Other": {"1"}}, nil, none},
		{"resources of another app", but("X-Wx-Openid"), nil, from},
		{"no unionid", but("X-Wx-Unionid"), nil, noUnion},
		{"chained", but("X-Wx-Source", "wx_client, scf"), nil, caller},
		{"no source", but("X-Wx-Source"), gate.ErrNotPlatform, none},
		{"only an environment", http.Header{"X-Wx-Env": {"prod"}}, gate.ErrNotPlatform, none},
		{"local debugging", but("X-Wx-Local-Debug", "1"), gate.ErrLocalDebug, none},
		{"local debugging, odd", but("x_wx!LOCAL-debug"), nil, caller},
		{"local debugging, odd name", but("x_wx!LOCAL-debug", ""), gate.ErrLocalDebug, none},
		{"source of debugging", but("X-Wx-Source", "scf,WX_LOCALDEBUG"), gate.ErrLocalDebug, none},
		{"two values", but("X-Wx-Appid", "wx1", "wx1"), ambiguous, none},
		{"joined", but("X-Wx-From-Openid", "o2,o3"), ambiguous, none},
		{"empty", but("X-Wx-Unionid", ""), nil, noUnion},
		{"empty twice", but("X-Wx-Unionid", "", ""), ambiguous, none},
		{"empty source", but("X-Wx-Source", ""), gate.ErrNotPlatform, none},
		{"blank source", but("X-Wx-Source", " "), ambiguous, none},
		{"control byte", but("X-Wx-Openid", "o\x01"), ambiguous, none},
		{
			"not canonical",
			http.Header{"x-wx-source": {"wx_client"}, "X_Wx_Openid": {"o1"}},
			nil, none,
		},
	} {
		r := &http.Request{Header: maps.Clone(tt.header)}
		p, err := newGate(t, gate.Config{}).Platform(r)
		if !errors.Is(err, tt.err) || p.Identity != tt.want {
			t.Errorf("%s: %+v, %v", tt.name, p.Identity, err)
		}
		held := p.Holds("X-Wx-Source")
		if held != (err == nil && len(tt.header["X-Wx-Source"]) == 1) ||
			p.Holds("X-Wx-Local-Debug") {
			t.Errorf("%s: holds the source: %t", tt.name, held)
		}
		if !maps.EqualFunc(r.Header, tt.header, slices.Equal) {
			t.Errorf("%s: the request is changed", tt.name)
		}
	}
}

// FuzzPlatform: Restore gives back the headers that the platform sent, one value
// each, and none without a source.
func FuzzPlatform(f *testing.F) {
	f.Add("X-Wx-Source: wx_client\nX-Wx-Openid: o1\nX-Wx-Appid: wx1\nX_Wx_Openid: victim")
	f.Add("X-Wx-Openid: o1\nX-Wx-Appid: wx1")
	f.Add("X-Wx-Source: wx_client,wx_localdebug\nX-Wx-Openid: o1,o2")
	f.Add("X-Wx-Source: a\nX-Wx-Source: b\nx-wx-LOCAL.debug: 1")
	g := newGate(f, gate.Config{})
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Header: lines(text)}
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
			if len(values) != 1 || len(sent[name]) != 1 ||
				strings.ReplaceAll(sent[name][0], " ", "") != values[0] || values[0] == "" {
				t.Errorf("%s: sent %q, restored %q", name, sent[name], values)
			}
		}
		if owned > 0 && (err != nil || r.Header["X-Wx-Source"] == nil) {
			t.Errorf("restored %v of %v, %v", r.Header, sent, err)
		}
	})
}

func TestUnder_ReadsAsTheMostForgivingServer(t *testing.T) {
	for _, path := range []string{
		"/cgi-bin/token", "/cgi-bin/token/", "/cgi-bin/token/x", "/CGI-BIN/Token",
		"/cgi-bin/token.", "/cgi-bin/token ", "/cgi-bin /token",
	} {
		if !gate.Under(path, "/cgi-bin/token") {
			t.Errorf("%q is not under", path)
		}
	}
	for _, path := range []string{
		"/cgi-bin/tokens", "/cgi-bin", "/x/cgi-bin/token", "", "cgi-bin/token",
	} {
		if gate.Under(path, "/cgi-bin/token") {
			t.Errorf("%q is under", path)
		}
	}
}
