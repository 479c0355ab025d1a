package weixin_test

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// tokenCalls is every call that carries an access token, with arguments that pass.
var tokenCalls = map[string]func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error{
	"getuserphonenumber": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		_, err := c.PhoneNumber(ctx, app, goodCode, "")
		return err
	},
	"checksession": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		return c.CheckSession(ctx, app, goodSession)
	},
	"resetusersessionkey": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		_, err := c.ResetUserSessionKey(ctx, app, goodSession)
		return err
	},
	"getpaidunionid": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		_, err := c.PaidUnionID(ctx, app, weixin.Payment{OpenID: goodSession.OpenID, TransactionID: "4200001"})
		return err
	},
	"getpluginopenpid": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		_, err := c.PluginOpenPID(ctx, app, goodCode)
		return err
	},
	"getuserencryptkey": func(ctx context.Context, c *weixin.Client, app weixin.Credentials) error {
		_, err := c.UserEncryptKey(ctx, app, goodSession)
		return err
	},
}

// withSimulator returns a client of a simulator that listens.
func withSimulator(t *testing.T) (*weixin.Client, *weixintest.Server) {
	t.Helper()
	sim := weixintest.NewServer(weixintest.Config{Apps: map[string]string{testApp.ID: testApp.Secret, "wxfedcba9876543210": "secret"}})
	t.Cleanup(sim.Close)
	return newClient(t, weixin.Config{BaseURL: sim.URL}), sim
}

// alice is a user as the store knows her after a login.
func alice(sim *weixintest.Server) weixin.Session {
	return weixin.Session{OpenID: sim.OpenID(testApp.ID, "alice"), SessionKey: sim.SessionKey(testApp.ID, "alice"), UnionID: sim.UnionID("alice")}
}

func TestPhoneNumber(t *testing.T) {
	c, sim := withSimulator(t)
	for number, want := range map[string]opendata.Phone{
		"13580006666":  {Number: "13580006666", PureNumber: "13580006666", CountryCode: "86"},
		"852-51230000": {Number: "85251230000", PureNumber: "51230000", CountryCode: "852"},
	} {
		code := sim.PhoneCode(testApp.ID, number)
		if p, err := c.PhoneNumber(t.Context(), testApp, code, alice(sim).OpenID); err != nil || p != want {
			t.Errorf("%s: %v", number, err)
		}
		_, err := c.PhoneNumber(t.Context(), testApp, code, "") // used
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	for _, code := range []string{sim.Code(testApp.ID, "alice"), sim.PhoneCode("wxfedcba9876543210", "13580006666")} {
		_, err := c.PhoneNumber(t.Context(), testApp, code, "")
		if e := wantClass(t, err, weixin.ClassCodeInvalid); e.ErrCode != 40029 || e.Op != "getting phone number" || e.RID == "" && !strings.Contains(e.Error(), "interchangeable") {
			t.Error(err)
		}
	}
	n := sim.Count(phonePath)
	for _, code := range []string{"", weixintest.MockCode, "a b", "é", strings.Repeat("c", 257)} {
		_, err := c.PhoneNumber(t.Context(), testApp, code, "")
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	if sim.Count(phonePath) != n {
		t.Error("an impossible code was sent")
	}
}

func TestPhoneNumberOnTheWire(t *testing.T) {
	srv := newRawServer(t, func(c *rawConn) {
		for {
			head, ok := c.next()
			if !ok {
				return
			}
			_, length, _ := strings.Cut(head, "Content-Length: ")
			length, _, _ = strings.Cut(length, "\r\n")
			n, _ := strconv.Atoi(length)
			body := make([]byte, n)
			_, _ = io.ReadFull(c.br, body)
			c.srv.mu.Lock()
			c.srv.heads[len(c.srv.heads)-1] += string(body)
			c.srv.mu.Unlock()
			c.sendJSON(`{"errcode":40029}`)
		}
	})
	c := newClient(t, weixin.Config{BaseURL: srv.url()})
	app, _ := fileApp(t, "t&k=/+")
	for _, openid := range []string{"", "o\"1"} {
		_, err := c.PhoneNumber(t.Context(), app, `c"ode`, openid)
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	for i, body := range []string{`{"code":"c\"ode"}`, `{"code":"c\"ode","openid":"o\"1"}`} {
		want := "POST /wxa/business/getuserphonenumber?access_token=t%26k%3D%2F%2B HTTP/1.1\r\nHost: " + srv.ln.Addr().String() +
			"\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\nContent-Type: application/json\r\n\r\n" + body
		if got := srv.seen()[i]; got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// A number costs money: whatever may have reached WeChat is not sent again, but after a refused token.
func TestPhoneNumberIsSentOnce(t *testing.T) {
	for name, fault := range map[string]weixintest.Fault{
		"lost answer": {Kind: weixintest.FaultLost},
		"reset":       {Kind: weixintest.FaultReset},
		"busy":        {Kind: weixintest.FaultErrCode, ErrCode: -1},
		"5xx":         {Kind: weixintest.FaultStatus, Status: 500},
		"nonsense":    {Kind: weixintest.FaultHTML},
		"half":        {Kind: weixintest.FaultTruncated},
		"redirect":    {Kind: weixintest.FaultRedirect},
		"endless":     {Kind: weixintest.FaultEndless},
		"quota":       {Kind: weixintest.FaultErrCode, ErrCode: 45009},
	} {
		t.Run(name, func(t *testing.T) {
			c, sim := withSimulator(t)
			wantGoodToken(t, c) // so that the connection has been used before
			fault.Path = phonePath
			sim.Inject(fault)
			code := sim.PhoneCode(testApp.ID, "13580006666")
			if _, err := c.PhoneNumber(t.Context(), testApp, code, ""); err == nil {
				t.Error("no failure")
			}
			if n := sim.Count(phonePath); n != 1 || sim.Count("/redirected") != 0 {
				t.Errorf("%d requests", n)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, sim, stop := simulate(t, weixin.Config{})
			defer stop()
			sim.Inject(weixintest.Fault{Kind: weixintest.FaultHang, Path: phonePath})
			_, err := c.PhoneNumber(t.Context(), testApp, sim.PhoneCode(testApp.ID, "13580006666"), "")
			if wantClass(t, err, weixin.ClassUnavailable); sim.Count(phonePath) != 1 {
				t.Errorf("%d requests", sim.Count(phonePath))
			}
		})
	})
	t.Run("not sent", func(t *testing.T) {
		c, sim := withSimulator(t)
		app, _ := fileApp(t, "token")
		dials := 0
		c.SetDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials++; dials == 1 {
				return nil, syscall.ECONNREFUSED
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		})
		_, err := c.PhoneNumber(t.Context(), app, goodCode, "")
		if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != 40014 || sim.Count(phonePath) != 1 {
			t.Errorf("%d requests, %v", sim.Count(phonePath), err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		c, sim := withSimulator(t)
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 40164, Path: tokenPath})
		_, err := c.PhoneNumber(t.Context(), testApp, goodCode, "")
		if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != 40164 || sim.Count(phonePath) != 0 {
			t.Errorf("%d requests, %v", sim.Count(phonePath), err)
		}
	})
}

func TestSessionKeyCalls(t *testing.T) {
	c, sim := withSimulator(t)
	s := alice(sim)
	if err := c.CheckSession(t.Context(), testApp, s); err != nil {
		t.Fatal(err)
	}
	fresh, err := c.ResetUserSessionKey(t.Context(), testApp, s)
	if err != nil || fresh != alice(sim) || fresh.SessionKey == s.SessionKey {
		t.Fatalf("%v: %v", err, fresh)
	}
	keys, err := c.UserEncryptKey(t.Context(), testApp, fresh)
	if err != nil || len(keys) != 1 || keys[0].Version != 1 || keys[0].ExpiresIn != time.Hour || time.Since(keys[0].Created).Abs() > time.Minute ||
		strings.Trim(string(keys[0].IV[:]), "0123456789abcdef") != "" || keys[0].Key == [16]byte{} {
		t.Fatalf("%v: %d keys", err, len(keys))
	}
	// The old key is dead for every one of them.
	wantStale := func(err error) {
		t.Helper()
		if e := wantClass(t, err, weixin.ClassKeyStale); e.ErrCode != 87009 {
			t.Error(err)
		}
	}
	wantStale(c.CheckSession(t.Context(), testApp, s))
	_, err = c.ResetUserSessionKey(t.Context(), testApp, s)
	wantStale(err)
	_, err = c.UserEncryptKey(t.Context(), testApp, s)
	wantStale(err)
	if fresh != alice(sim) {
		t.Error("the key was reset by a stale one")
	}
	// An openid that WeChat does not know is not the client's mistake.
	wantClass(t, c.CheckSession(t.Context(), testApp, weixin.Session{OpenID: "o-stranger", SessionKey: s.SessionKey}), weixin.ClassMisconfigured)

	calls := len(sim.Calls())
	for _, s := range []weixin.Session{{}, {OpenID: "o1"}, {SessionKey: "k"}, {OpenID: "o 1", SessionKey: "k"}, {OpenID: "o1", SessionKey: "k\n"}} {
		wantStaleHere := func(err error) { t.Helper(); wantClass(t, err, weixin.ClassKeyStale) }
		wantStaleHere(c.CheckSession(t.Context(), testApp, s))
		_, err := c.ResetUserSessionKey(t.Context(), testApp, s)
		wantStaleHere(err)
		_, err = c.UserEncryptKey(t.Context(), testApp, s)
		wantStaleHere(err)
	}
	if len(sim.Calls()) != calls {
		t.Error("signed without a key")
	}
}

// A lost answer to a reset leaves the new key unknown; to ask again with the old one could only be refused.
func TestResetIsSentOnce(t *testing.T) {
	c, sim := withSimulator(t)
	const path = "/wxa/resetusersessionkey"
	s := alice(sim)
	if err := c.CheckSession(t.Context(), testApp, s); err != nil {
		t.Fatal(err)
	}
	sim.Inject(weixintest.Fault{Kind: weixintest.FaultLost, Path: path})
	_, err := c.ResetUserSessionKey(t.Context(), testApp, s)
	if wantClass(t, err, weixin.ClassUnavailable); sim.Count(path) != 1 {
		t.Errorf("%d requests", sim.Count(path))
	}
}

func TestPaidUnionID(t *testing.T) {
	c, sim := withSimulator(t)
	user, p := alice(sim).OpenID, sim.Pay(testApp.ID, "alice")
	for _, order := range []weixin.Payment{
		{OpenID: user, TransactionID: p.TransactionID},
		{OpenID: user, MchID: p.MchID, OutTradeNo: p.OutTradeNo},
		{OpenID: user, TransactionID: p.TransactionID, MchID: "m", OutTradeNo: "n"},
	} {
		if id, err := c.PaidUnionID(t.Context(), testApp, order); err != nil || id != sim.UnionID("alice") {
			t.Errorf("%+v: %s, %v", order, id, err)
		}
	}
	_, err := c.PaidUnionID(t.Context(), testApp, weixin.Payment{OpenID: user, TransactionID: "4200000000"})
	if e := wantClass(t, err, weixin.ClassOrderInvalid); e.ErrCode != 89300 {
		t.Error(err)
	}
	sim.SetUser(testApp.ID, "bob", weixintest.UserOptions{NoUnionID: true})
	bob := sim.Pay(testApp.ID, "bob")
	_, err = c.PaidUnionID(t.Context(), testApp, weixin.Payment{OpenID: sim.OpenID(testApp.ID, "bob"), TransactionID: bob.TransactionID})
	if e := wantClass(t, err, weixin.ClassMisconfigured); e.ErrCode != 89002 || !strings.Contains(e.Error(), "Open Platform") {
		t.Error(err)
	}
	n := len(sim.Calls())
	for _, order := range []weixin.Payment{
		{},
		{OpenID: user},
		{TransactionID: "1"},
		{OpenID: user, MchID: "m"},
		{OpenID: user, OutTradeNo: "n"},
		{OpenID: user, TransactionID: "1 2"},
		{OpenID: user, TransactionID: "1\n", MchID: "m", OutTradeNo: "n"},
		{OpenID: user, MchID: "m", OutTradeNo: strings.Repeat("n", 129)},
	} {
		_, err := c.PaidUnionID(t.Context(), testApp, order)
		wantClass(t, err, weixin.ClassOrderInvalid)
	}
	if len(sim.Calls()) != n {
		t.Error("an order that names nothing was sent")
	}
}

func TestPluginOpenPID(t *testing.T) {
	c, sim := withSimulator(t)
	code := sim.PluginCode(testApp.ID, "wxfedcba9876543210", "alice")
	id, err := c.PluginOpenPID(t.Context(), testApp, code)
	if err != nil || id != weixintest.OpenPID(testApp.ID, "wxfedcba9876543210", "alice") {
		t.Fatalf("%s, %v", id, err)
	}
	for _, code := range []string{code, sim.Code(testApp.ID, "alice"), sim.PhoneCode(testApp.ID, "13580006666")} {
		_, err := c.PluginOpenPID(t.Context(), testApp, code)
		if e := wantClass(t, err, weixin.ClassCodeInvalid); e.ErrCode != 1007 {
			t.Error(err)
		}
	}
	_, err = c.PluginOpenPID(t.Context(), testApp, "a b")
	wantClass(t, err, weixin.ClassCodeInvalid)
}

// What a client or a store supplies cannot add a parameter to a query.
func TestThreat24_QueriesAreEscaped(t *testing.T) {
	evil := "x&access_token=evil#%00\"+/="
	var query url.Values
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query()
		reply(200, `{"errcode":-2}`)(w, r)
	})
	app, _ := fileApp(t, "token")
	s := weixin.Session{OpenID: evil, SessionKey: evil}
	sig := opendata.Signature(evil, nil)
	for name, tc := range map[string]struct {
		call func() error
		want url.Values
	}{
		"check": {func() error { return c.CheckSession(t.Context(), app, s) }, url.Values{"openid": {evil}, "signature": {sig}, "sig_method": {"hmac_sha256"}}},
		"order": {
			func() error {
				_, err := c.PaidUnionID(t.Context(), app, weixin.Payment{OpenID: evil, MchID: evil, OutTradeNo: evil})
				return err
			},
			url.Values{"openid": {evil}, "mch_id": {evil}, "out_trade_no": {evil}},
		},
	} {
		wantClass(t, tc.call(), weixin.ClassRejected)
		tc.want.Set("access_token", "token")
		if query.Encode() != tc.want.Encode() {
			t.Errorf("%s: %v", name, query)
		}
	}
}

// Trouble with these calls is no reason to refuse a login, and the other way round.
func TestP5_BreakersAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Value
		var requests atomic.Int32
		c, _, stop := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if strings.HasPrefix(r.URL.Path, down.Load().(string)) {
				reply(502, "<html>")(w, r)
				return
			}
			reply(200, goodBody)(w, r)
		})
		defer stop()
		app, _ := fileApp(t, "token")
		down.Store("/wxa/")
		for range 8 {
			wantClass(t, c.CheckSession(t.Context(), app, goodSession), weixin.ClassUnavailable)
		}
		n := requests.Load()
		if err := c.CheckSession(t.Context(), app, goodSession); !strings.Contains(err.Error(), "breaker") || requests.Load() != n {
			t.Errorf("no breaker: %v", err)
		}
		if _, err := exchange(c); err != nil || c.BreakerOpen() {
			t.Errorf("login: %v", err)
		}
		down.Store("/sns/")
		time.Sleep(3 * time.Second)
		fails(t, c, 8, weixin.ClassUnavailable)
		if _, err := c.ResetUserSessionKey(t.Context(), app, goodSession); err != nil || !c.BreakerOpen() {
			t.Errorf("other calls: %v", err)
		}
	})
}

func TestObserveTokenCalls(t *testing.T) {
	sim := weixintest.NewServer(weixintest.Config{Apps: map[string]string{testApp.ID: testApp.Secret}})
	defer sim.Close()
	calls := make(chan string, 10)
	c := newClient(t, weixin.Config{BaseURL: sim.URL, Observe: func(k weixin.Call) { calls <- k.Name + " " + k.Class.String() }})
	for name, call := range tokenCalls {
		_ = call(t.Context(), c, testApp)
		got := <-calls
		if strings.HasPrefix(got, "stable_token ") {
			got = <-calls
		}
		if !strings.HasPrefix(got, name+" ") {
			t.Errorf("%s is observed as %s", name, got)
		}
	}
}

func TestThreat27_TokenCallsAndNonsense(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	phone := func(info string) string { return `{"errcode":0,"phone_info":` + info + `}` }
	list := func(s string) string { return `{"errcode":0,"key_info_list":[` + s + `]}` }
	const mark = `"watermark":{"timestamp":1477314187,"appid":"wx0123456789abcdef"}`
	const goodPhone = `"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":86`
	goodKey := `{"encrypt_key":"` + key + `","version":10,"expire_in":3597,"iv":"6003f73ec441c386","create_time":1616572301}`
	for call, bodies := range map[string]struct{ good, bad []string }{
		"checksession": {
			[]string{`{"errcode":0}`, `{"errcode":"0","errmsg":"ok"}`},
			[]string{`{}`, `{"errcode":null}`, `{"errmsg":"ok"}`, `{"openid":"o1"}`},
		},
		"resetusersessionkey": {
			[]string{`{"errcode":0,"openid":"o1","session_key":"new"}`, `{"openid":"o1","session_key":"new"}`},
			[]string{`{}`, `{"errcode":0}`, `{"errcode":0,"openid":"o2","session_key":"new"}`, `{"errcode":0,"openid":"o1","session_key":""}`, `{"errcode":0,"session_key":"new"}`},
		},
		"getpaidunionid": {
			[]string{`{"errcode":0,"unionid":"u1"}`, `{"unionid":"u1"}`},
			[]string{`{}`, `{"errcode":0}`, `{"unionid":""}`, `{"unionid":7}`, `{"unionid":"u\r\nX: y"}`, `{"unionid":"` + strings.Repeat("u", 129) + `"}`},
		},
		"getpluginopenpid": {
			[]string{`{"errcode":0,"openpid":"p1"}`},
			[]string{`{}`, `{"errcode":0}`, `{"openpid":""}`, `{"openpid":"p p"}`, `{"openpid":["p"]}`},
		},
		"getuserphonenumber": {
			[]string{phone(`{` + goodPhone + `,` + mark + `}`), phone(`{` + goodPhone + `,"x":[1],` + mark + `}`)},
			[]string{
				`{}`, `{"errcode":0}`, phone(`{}`), phone(`null`), phone(`"x"`), phone(`{` + goodPhone + `}`), phone(`{` + mark + `}`),
				phone(`{"phoneNumber":"13580006666",` + mark + `}`), phone(`{` + goodPhone + `,"phoneNumber":"2",` + mark + `}`),
				phone(`{` + goodPhone + `,"watermark":{"timestamp":1,"appid":"wxffffffffffffffff"}}`),
			},
		},
		"getuserencryptkey": {
			[]string{list(goodKey), list(goodKey + "," + strings.Replace(goodKey, "3597", "-5", 1))},
			[]string{
				`{}`, `{"errcode":0}`, list(``), list(`{}`), list(`null`), list(goodKey + `,{}`), list(strings.Repeat(goodKey+",", 16) + goodKey),
				list(strings.Replace(goodKey, key, "AAAA", 1)), list(strings.Replace(goodKey, key, "%", 1)), list(strings.Replace(goodKey, key, key[:22]+"AAAA", 1)),
				list(strings.Replace(goodKey, "6003", "600", 1)), list(strings.Replace(goodKey, "6003", "600 ", 1)), list(strings.Replace(goodKey, `"version":10`, `"version":-1`, 1)),
				list(strings.Replace(goodKey, "1616572301", "0", 1)), list(strings.Replace(goodKey, "3597", "9223372036854775807", 1)),
				list(strings.Replace(goodKey, "3597", "null", 1) + "]["), `{"key_info_list":{}}`,
			},
		},
	} {
		for _, body := range bodies.good {
			if _, e := weixin.Decoders[call](200, []byte(body)); e != nil {
				t.Errorf("%s: %s: %v", call, body, e)
			}
		}
		for _, body := range append(bodies.bad, ``, `null`, `[]`, `<html>`, `{"errcode":"x"}`, `{"errcode":{}}`) {
			v, e := weixin.Decoders[call](200, []byte(body))
			if e == nil || e.Class != weixin.ClassProtocol {
				t.Errorf("%s: %s: accepted %v, %v", call, body, v, e)
			}
			if _, e := weixin.Decoders[call](502, []byte(body)); e == nil || e.Class != weixin.ClassUnavailable {
				t.Errorf("%s: %s with 502: %v", call, body, e)
			}
		}
		if _, e := weixin.Decoders[call](200, []byte(strings.Replace(bodies.good[0], `"errcode":0`, `"errcode":45009`, 1))); e == nil || e.Class != weixin.ClassRateLimited {
			t.Errorf("%s: a refusal beside a result: %v", call, e)
		}
	}
	keys, _ := weixin.Decoders["getuserencryptkey"](200, []byte(list(goodKey+","+strings.Replace(goodKey, "3597", "-5", 1))))
	if left := keys.([]weixin.UserKey)[1].ExpiresIn; left != 0 {
		t.Errorf("a key that is over has %v left", left)
	}
	k := keys.([]weixin.UserKey)[0]
	if string(k.IV[:]) != "6003f73ec441c386" || k.Version != 10 || k.ExpiresIn != 3597*time.Second || k.Created.Unix() != 1616572301 {
		t.Error("the parts of the key are mixed up")
	}
}

func TestTokenErrcodes(t *testing.T) {
	for errcode, tc := range map[int]struct {
		class weixin.Class
		says  string
	}{
		1005:  {weixin.ClassMisconfigured, "plugin"},
		1007:  {weixin.ClassCodeInvalid, "pluginLogin"},
		40001: {weixin.ClassMisconfigured, "forces refreshes"},
		40014: {weixin.ClassMisconfigured, "token file"},
		42001: {weixin.ClassMisconfigured, "access token refused"},
		41001: {weixin.ClassMisconfigured, "missing"},
		40002: {weixin.ClassMisconfigured, "malformed"},
		40003: {weixin.ClassMisconfigured, "openid"},
		40066: {weixin.ClassMisconfigured, "base URL"},
		40097: {weixin.ClassMisconfigured, "malformed"},
		43001: {weixin.ClassMisconfigured, "malformed"},
		43002: {weixin.ClassMisconfigured, "malformed"},
		44002: {weixin.ClassMisconfigured, "malformed"},
		47001: {weixin.ClassMisconfigured, "malformed"},
		87009: {weixin.ClassKeyStale, "session_key"},
		89002: {weixin.ClassMisconfigured, "Open Platform"},
		89300: {weixin.ClassOrderInvalid, "order"},
		89503: {weixin.ClassMisconfigured, "confirmation"},
	} {
		for call, decode := range weixin.Decoders {
			_, e := decode(200, []byte(`{"errcode":"`+strconv.Itoa(errcode)+`","errmsg":"mumble"}`))
			if e == nil || e.Class != tc.class || e.ErrCode != errcode || !strings.Contains(e.Error(), tc.says) || strings.Contains(e.Error(), "mumble") {
				t.Errorf("%s: %d: %v", call, errcode, e)
			}
		}
	}
}
