package gate_test

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"pgregory.net/rapid"
)

func TestThreat1_OwnedHeadersAreDeleted(t *testing.T) {
	g := newGate(t, gate.Config{Headers: map[string]string{"openid": "X-User-Id"}})
	r := request(http.Header{
		"X-Wx-Openid":                  {"victim", "victim2"},
		"x-wx-openid":                  {"victim"},
		"X-WX-UNIONID":                 {"victim"},
		"X-Wx-Phone":                   {"victim", "victim2"},
		"x-wx-phone":                   {"victim"},
		"X-Wx-From-Openid":             {"victim"},
		"X-Wx-Cloudbase-Access-Token":  {"t"},
		"X-Wx-":                        {"v"},
		"X-User-Id":                    {"victim"},
		"x-user-ID":                    {"victim"},
		"X-Wxgate-Something-Harmless":  {"stays"},
		"X-Wx":                         {"stays"},
		"X-User-Id-2":                  {"stays"},
		"Http-X-Wx-Openid-Lookalike-1": {"stays"},
	})
	if _, err := g.Clean(r); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"Http-X-Wx-Openid-Lookalike-1", "X-User-Id-2", "X-Wx",
		"X-Wxgate-Something-Harmless",
	}
	if got := slices.Sorted(maps.Keys(r.Header)); !slices.Equal(got, want) {
		t.Fatalf("left %q, want %q", got, want)
	}
}

func TestThreat1_InjectSetsOneValueEach(t *testing.T) {
	g := newGate(t, gate.Config{})
	const always = "X-Wx-Openid: o1\nX-Wx-Appid: wx1\nX-Wx-Source: wx_client\n"
	for _, tc := range []struct {
		name string
		id   gate.Identity
		want string
	}{
		{
			"with unionid",
			gate.Identity{gate.OpenID: "o1", gate.UnionID: "u1", gate.AppID: "wx1"},
			always + "X-Wx-Unionid: u1",
		},
		{"without unionid", gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1"}, always},
		{
			"with a phone",
			gate.Identity{gate.OpenID: "o1", gate.AppID: "wx1", gate.Phone: "+861"},
			always + "X-Wx-Phone: +861",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(lines("X-Wx-Unionid: victim\nX-Wx-Phone: victim\n" +
				"X-Wx-Openid: a\nX-Wx-Openid: b"))
			if err := g.Inject(r, tc.id); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(r.Header, lines(tc.want)) {
				t.Fatalf("got %v, want %v", r.Header, tc.want)
			}
			// A later Add must not spill into the neighbouring value.
			for name := range r.Header {
				r.Header.Add(name, "more")
			}
			for name, v := range lines(tc.want) {
				if r.Header[name][0] != v[0] || len(r.Header[name]) != 2 {
					t.Fatalf("after Add: %v", r.Header)
				}
			}
		})
	}
}

func TestThreat30_InjectRefusesWhatIsNotVisibleASCII(t *testing.T) {
	g := newGate(t, gate.Config{})
	good := gate.Identity{gate.OpenID: "o", gate.UnionID: "u", gate.AppID: "a"}
	for _, bad := range []string{"a b", "a\r\nX: y", "\x00", "\x7f", "微信", "\x80", "\t"} {
		for _, i := range []int{gate.OpenID, gate.UnionID, gate.AppID} {
			id := good
			id[i] = bad
			r := request(http.Header{"Accept": {"*/*"}})
			if err := g.Inject(r, id); err != gate.ErrBadIdentity || len(r.Header) != 1 {
				t.Errorf("%q: err %v, header %v", id, err, r.Header)
			}
		}
	}
	for _, bad := range []string{"1 2", "1\r\nX: y", "\x00", "电话", "\t"} {
		good[gate.Phone] = bad
		r := request(http.Header{"X-Wx-Phone": {"victim"}})
		if err := g.Inject(r, good); err != nil || r.Header["X-Wx-Phone"] != nil ||
			len(r.Header) != 4 {
			t.Errorf("phone %q: err %v, header %v", bad, err, r.Header)
		}
	}
	for _, id := range []gate.Identity{{}, {gate.OpenID: "o"}, {gate.AppID: "a"}} {
		if err := g.Inject(request(http.Header{}), id); err != gate.ErrBadIdentity {
			t.Errorf("%+v: err %v", id, err)
		}
	}
}

func TestThreat2_AliasesAreDeleted(t *testing.T) {
	g := newGate(t, gate.Config{Headers: map[string]string{"appid": "X-App", "phone": "X-Tel"}})
	for _, name := range []string{
		"X_WX_OPENID", "X.WX.OPENID", "X-Wx_Openid", "X~Wx~Openid", "X-Wx!Openid", "x wx openid",
		"X\xffWX\x00OPENID",
		"X_WX_PHONE", "x.wx.phone", "X-Wx~Phone", "X-WX_Phone", "x wx phone",
		"X_App", "x.app", "X+APP", "X-Tel", "X_TEL", "x.tel", // configured names
		"X_3rd_Session", "x-3rd-session", "X-3RD-SESSION", // token headers
		"authorization", "AUTHORIZATION",
	} {
		r := request(http.Header{name: {"victim"}})
		if _, err := g.Clean(r); err != nil || len(r.Header) != 0 {
			t.Errorf("%q: err %v, left %v", name, err, r.Header)
		}
	}
	r := request(http.Header{"X-3rd-Session": {"wxs_1"}, "Authorization": {"Bearer wxs_1"}})
	if _, err := g.Clean(r); err != nil || len(r.Header) != 2 {
		t.Errorf("canonical token headers: err %v, left %v", err, r.Header)
	}
}

func TestThreat3_Connection(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, tc := range []struct {
		name    string
		header  string
		want    string // Connection
		dropped int
	}{
		{"absent", "", "", 0},
		{"clean", "Connection: keep-alive", "keep-alive", 0},
		{"clean, odd case", "Connection: Close", "close", 0},
		{"names our header", "Connection: close, X-Wx-Openid", "close", 1},
		{"nothing else", "Connection: X-Wx-Openid", "", 1},
		{"blanks", "Connection: \tx-WX-openid ,, Keep-Alive\t", "keep-alive", 1},
		{
			"several lines", "Connection: close\nConnection: X-Wx-Openid, X-Wx-Appid\n" +
				"Connection: keep-alive", "close, keep-alive", 2,
		},
		{"odd key", "cOnnection: close, X-Wx-Openid", "close", 1},
		{"odd key, too", "connection: X-Wx-Openid\nConnection: close, te", "close", 2},
		{"empty", "Connection: ", "", 0},
		{"quoted", `Connection: "close"`, "", 1},
		{
			"WebSocket", "Upgrade: WebSocket\nConnection: keep-alive, Upgrade, X-Wx-Openid",
			"keep-alive, Upgrade", 1,
		},
		{
			"WebSocket, two lines", "Upgrade: WebSocket\nConnection: upgrade\n" +
				"Connection: X-Wx-Openid", "Upgrade", 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(lines(tc.header))
			found, err := g.Clean(r)
			got := r.Header["Connection"]
			if err != nil || found.Dropped != tc.dropped || len(got) > 1 ||
				strings.Join(got, "") != tc.want {
				t.Errorf("got %q, dropped %d, %v", got, found.Dropped, err)
			}
			for name := range r.Header {
				if name != "Connection" && slowFold(name) == "connection" {
					t.Errorf("%q left", name)
				}
			}
		})
	}
	r := request(http.Header{"Connection": {}})
	if f, err := g.Clean(r); f.Dropped != 0 || err != nil || len(r.Header) != 0 {
		t.Errorf("no value: dropped %d, %v, left %v", f.Dropped, err, r.Header)
	}
}

func TestThreat3_ConnectionHoldsKnownOptionsOnly(t *testing.T) {
	g := newGate(t, gate.Config{})
	known := []string{"close", "keep-alive", "Upgrade"}
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.StringOf(rapid.SampledFrom([]rune("close,keep-aliveUPGRADE \tX-Wx;\"")))
		word := rapid.SampledFrom([]string{
			"close,", "Keep-Alive ,", "upgrade", ",", "X-Wx-Openid",
			" ", "closed",
		})
		lines := rapid.SliceOf(rapid.OneOf(line, word)).Draw(t, "lines")
		r := request(http.Header{"Connection": lines, "Upgrade": {"websocket"}})
		if _, err := g.Clean(r); err != nil {
			t.Fatal(err)
		}
		got := r.Header["Connection"]
		if len(got) > 1 {
			t.Fatalf("%d lines", len(got))
		}
		if len(got) == 1 {
			for _, option := range splitList(got[0]) {
				if !slices.Contains(known, option) {
					t.Fatalf("option %q survived of %q", option, lines)
				}
			}
		}
	})
}

func TestThreat5_Upgrade(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, tc := range []struct {
		name, method string
		header       http.Header
		upgraded     bool
	}{
		{"websocket", "GET", http.Header{"Upgrade": {"websocket"}}, true},
		{"websocket, odd case", "GET", http.Header{"Upgrade": {" WebSocket "}}, true},
		{"h2c", "GET", http.Header{"Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABk"}}, false},
		{
			"h2c, odd key", "GET",
			http.Header{"upgrade": {"h2c"}, "HTTP2-Settings": {"AAMAAABk"}},
			false,
		},
		{"h2c behind websocket", "GET", http.Header{"Upgrade": {"websocket, h2c"}}, false},
		{"two lines", "GET", http.Header{"Upgrade": {"websocket", "h2c"}}, false},
		{"TLS", "OPTIONS", http.Header{"Upgrade": {"TLS/1.2"}}, false},
		{"websocket by POST", "POST", http.Header{"Upgrade": {"websocket"}}, false},
		{"websocket by no method", "", http.Header{"Upgrade": {"websocket"}}, false},
		{"empty", "GET", http.Header{"Upgrade": {""}}, false},
		{"absent", "GET", http.Header{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(tc.header)
			r.Method = tc.method
			r.Header["Connection"] = []string{"Upgrade, HTTP2-Settings"}
			if _, err := g.Clean(r); err != nil {
				t.Fatal(err)
			}
			want := http.Header{}
			if tc.upgraded {
				want = http.Header{"Connection": {"Upgrade"}, "Upgrade": tc.header["Upgrade"]}
			}
			if !reflect.DeepEqual(r.Header, want) {
				t.Fatalf("got %v, want %v", r.Header, want)
			}
		})
	}
	t.Run("without the connection option", func(t *testing.T) {
		r := request(http.Header{"Upgrade": {"websocket"}, "Connection": {"keep-alive"}})
		if _, err := g.Clean(r); err != nil || len(r.Header) != 1 {
			t.Fatalf("err %v, header %v", err, r.Header)
		}
	})
	t.Run("settings without an upgrade", func(t *testing.T) {
		r := request(http.Header{"Http2_Settings": {"x"}, "http2-settings": {"x"}})
		if _, err := g.Clean(r); err != nil || len(r.Header) != 0 {
			t.Fatalf("err %v, header %v", err, r.Header)
		}
	})
}

func TestThreat5_ExtendedConnect(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, tc := range []struct {
		name, method string
		major        int
		protocol     []string
		kept         bool
	}{
		{"websocket", "CONNECT", 2, []string{"websocket"}, true},
		{"another protocol", "CONNECT", 2, []string{"connect-udp"}, false},
		{"two protocols", "CONNECT", 2, []string{"websocket", "connect-udp"}, false},
		{"not CONNECT", "GET", 2, []string{"websocket"}, false},
		{"not HTTP/2", "CONNECT", 1, []string{"websocket"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(http.Header{":protocol": tc.protocol, "Sec-Websocket-Version": {"13"}})
			r.Method, r.ProtoMajor = tc.method, tc.major
			if _, err := g.Clean(r); err != nil {
				t.Fatal(err)
			}
			if _, kept := r.Header[":protocol"]; kept != tc.kept ||
				len(r.Header["Sec-Websocket-Version"]) != 1 {
				t.Fatalf("header %v", r.Header)
			}
		})
	}
}
