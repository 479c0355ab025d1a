package weixin_test

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
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

// outcome is what a call returned.
type outcome struct {
	name   string
	result any
	err    error
}

// callAll makes every call that carries an access token.
func callAll(
	ctx context.Context, c *weixin.Client, app weixin.Credentials, s weixin.Session, code string,
) (all []outcome) {
	record := func(name string, result any, err error) {
		all = append(all, outcome{name, result, err})
	}
	phone, err := c.PhoneNumber(ctx, app, code, s.OpenID)
	record("getuserphonenumber", phone, err)
	record("checksession", nil, c.CheckSession(ctx, app, s))
	fresh, err := c.ResetUserSessionKey(ctx, app, s)
	record("resetusersessionkey", fresh, err)
	id, err := c.PaidUnionID(ctx, app, weixin.Payment{OpenID: s.OpenID, TransactionID: code})
	record("getpaidunionid", id, err)
	id, err = c.PluginOpenPID(ctx, app, code)
	record("getpluginopenpid", id, err)
	keys, err := c.UserEncryptKey(ctx, app, s)
	record("getuserencryptkey", keys, err)
	return all
}

// withSimulator returns a client of a simulator that listens.
func withSimulator(t *testing.T) (*weixin.Client, *weixintest.Server) {
	t.Helper()
	sim := weixintest.NewServer(simulated)
	t.Cleanup(sim.Close)
	return newClient(t, weixin.Config{BaseURL: sim.URL}), sim
}

// alice is a user as the store knows her after a login.
func alice(sim *weixintest.Server) weixin.Session {
	return weixin.Session{
		OpenID:     sim.OpenID(testApp.ID, "alice"),
		SessionKey: sim.SessionKey(testApp.ID, "alice"),
		UnionID:    sim.UnionID("alice"),
	}
}

func TestPhoneNumber_Code_IsExchanged(t *testing.T) {
	c, sim := withSimulator(t)
	for number, want := range map[string]opendata.Phone{
		"13580006666":  {Number: "13580006666", PureNumber: "13580006666", CountryCode: "86"},
		"852-51230000": {Number: "85251230000", PureNumber: "51230000", CountryCode: "852"},
	} {
		code := sim.PhoneCode(testApp.ID, number)
		p, err := c.PhoneNumber(t.Context(), testApp, code, alice(sim).OpenID)
		if err != nil || p != want {
			t.Errorf("%s: %v", number, err)
		}
		_, err = c.PhoneNumber(t.Context(), testApp, code, "") // used
		wantClass(t, err, weixin.ClassCodeInvalid)
	}
	login, others := sim.Code(testApp.ID, "alice"), sim.PhoneCode(otherAppID, "13580006666")
	for _, code := range []string{login, others} {
		_, err := c.PhoneNumber(t.Context(), testApp, code, "")
		e := wantClass(t, err, weixin.ClassCodeInvalid)
		if e.ErrCode != 40029 || e.Op != "getting phone number" ||
			e.RID == "" && !strings.Contains(e.Error(), "interchangeable") {
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

func TestPhoneNumber_OnTheWire_HasTokenAndCode(t *testing.T) {
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
		want := "POST " + phonePath + "?access_token=t%26k%3D%2F%2B HTTP/1.1\r\n" +
			"Host: " + srv.ln.Addr().String() + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Content-Length: " + strconv.Itoa(len(body)) + "\r\n" +
			"Content-Type: application/json\r\n\r\n" + body
		if got := srv.seen()[i]; got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

// A number costs money, so only a refused token allows a repetition. TestExchange has the
// failures in which no call is repeated.
func TestPhoneNumber_AmbiguousFailure_IsNotRepeated(t *testing.T) {
	for name, fault := range map[string]weixintest.Fault{
		"lost answer": {Kind: weixintest.FaultLost},
		"busy":        {Kind: weixintest.FaultErrCode, ErrCode: -1},
		"redirect":    {Kind: weixintest.FaultRedirect},
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
		e, n := wantClass(t, err, weixin.ClassMisconfigured), sim.Count(phonePath)
		if e.ErrCode != 40014 || n != 1 {
			t.Errorf("%d requests, %v", n, err)
		}
	})
	t.Run("no token", func(t *testing.T) {
		c, sim := withSimulator(t)
		sim.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: 40164, Path: tokenPath})
		_, err := c.PhoneNumber(t.Context(), testApp, goodCode, "")
		e, n := wantClass(t, err, weixin.ClassMisconfigured), sim.Count(phonePath)
		if e.ErrCode != 40164 || n != 0 {
			t.Errorf("%d requests, %v", n, err)
		}
	})
}

func TestSessionKeyCalls_NeedTheCurrentKey(t *testing.T) {
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
	if err != nil || len(keys) != 1 || keys[0].Version != 1 || keys[0].ExpiresIn != time.Hour ||
		time.Since(keys[0].Created).Abs() > time.Minute ||
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
	stranger := weixin.Session{OpenID: "o-stranger", SessionKey: s.SessionKey}
	wantClass(t, c.CheckSession(t.Context(), testApp, stranger), weixin.ClassMisconfigured)

	calls := len(sim.Calls())
	for _, s := range []weixin.Session{
		{},
		{OpenID: "o1"},
		{SessionKey: "k"},
		{OpenID: "o 1", SessionKey: "k"},
		{OpenID: "o1", SessionKey: "k\n"},
	} {
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

// The old key is dead after a lost answer, so WeChat would refuse a repetition.
func TestReset_LostAnswer_IsNotRepeated(t *testing.T) {
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

func TestPaidUnionID_Order_NamesTheUser(t *testing.T) {
	c, sim := withSimulator(t)
	user, p := alice(sim).OpenID, sim.Pay(testApp.ID, "alice")
	for _, order := range []weixin.Payment{
		{OpenID: user, TransactionID: p.TransactionID},
		{OpenID: user, MchID: p.MchID, OutTradeNo: p.OutTradeNo},
		{OpenID: user, TransactionID: p.TransactionID, MchID: "m", OutTradeNo: "n"},
	} {
		id, err := c.PaidUnionID(t.Context(), testApp, order)
		if err != nil || id != sim.UnionID("alice") {
			t.Errorf("%+v: %s, %v", order, id, err)
		}
	}
	unknown := weixin.Payment{OpenID: user, TransactionID: "4200000000"}
	_, err := c.PaidUnionID(t.Context(), testApp, unknown)
	if e := wantClass(t, err, weixin.ClassOrderInvalid); e.ErrCode != 89300 {
		t.Error(err)
	}
	sim.SetUser(testApp.ID, "bob", weixintest.UserOptions{NoUnionID: true})
	_, err = c.PaidUnionID(t.Context(), testApp, weixin.Payment{
		OpenID:        sim.OpenID(testApp.ID, "bob"),
		TransactionID: sim.Pay(testApp.ID, "bob").TransactionID,
	})
	e := wantClass(t, err, weixin.ClassMisconfigured)
	if e.ErrCode != 89002 || !strings.Contains(e.Error(), "Open Platform") {
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

func TestPluginOpenPID_Code_IsExchanged(t *testing.T) {
	c, sim := withSimulator(t)
	code := sim.PluginCode(testApp.ID, otherAppID, "alice")
	id, err := c.PluginOpenPID(t.Context(), testApp, code)
	if err != nil || id != weixintest.OpenPID(testApp.ID, otherAppID, "alice") {
		t.Fatalf("%s, %v", id, err)
	}
	login, phone := sim.Code(testApp.ID, "alice"), sim.PhoneCode(testApp.ID, "13580006666")
	for _, code := range []string{code, login, phone} {
		_, err := c.PluginOpenPID(t.Context(), testApp, code)
		if e := wantClass(t, err, weixin.ClassCodeInvalid); e.ErrCode != 1007 {
			t.Error(err)
		}
	}
	_, err = c.PluginOpenPID(t.Context(), testApp, "a b")
	wantClass(t, err, weixin.ClassCodeInvalid)
}

// No value of a client or a store can add a parameter to a query.
func TestThreat24_QueriesAreEscaped(t *testing.T) {
	evil := "x&access_token=evil#%00\"+/="
	var query url.Values
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.Query()
		reply(200, `{"errcode":-2}`)(w, r)
	})
	app, _ := fileApp(t, "token")
	want := func(err error, want url.Values) {
		t.Helper()
		wantClass(t, err, weixin.ClassRejected)
		want.Set("access_token", "token")
		if query.Encode() != want.Encode() {
			t.Errorf("query %v", query)
		}
	}
	login := weixin.Credentials{ID: evil, Secret: evil}
	_, err := c.Code2Session(t.Context(), login, evil)
	if wantClass(t, err, weixin.ClassRejected); query.Encode() != (url.Values{
		"appid": {evil}, "secret": {evil}, "js_code": {evil},
		"grant_type": {"authorization_code"},
	}).Encode() {
		t.Errorf("query %v", query)
	}
	want(c.CheckSession(t.Context(), app, weixin.Session{OpenID: evil, SessionKey: evil}),
		url.Values{
			"openid": {evil}, "signature": {opendata.Signature(evil,
				nil)}, "sig_method": {"hmac_sha256"},
		})
	order := weixin.Payment{OpenID: evil, MchID: evil, OutTradeNo: evil}
	_, err = c.PaidUnionID(t.Context(), app, order)
	want(err, url.Values{"openid": {evil}, "mch_id": {evil}, "out_trade_no": {evil}})
}

// Trouble with other calls stops no login, and the other way round.
func TestP5_BreakersAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Value
		var requests atomic.Int32
		c, _ := servePipe(t, weixin.Config{}, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			if strings.HasPrefix(r.URL.Path, down.Load().(string)) {
				reply(502, "<html>")(w, r)
				return
			}
			reply(200, goodBody)(w, r)
		})
		app, _ := fileApp(t, "token")
		down.Store("/wxa/")
		for range 8 {
			wantClass(t, c.CheckSession(t.Context(), app, goodSession), weixin.ClassUnavailable)
		}
		n := requests.Load()
		err := c.CheckSession(t.Context(), app, goodSession)
		if !strings.Contains(err.Error(), "breaker") || requests.Load() != n {
			t.Errorf("no breaker: %v", err)
		}
		if _, err := exchange(c); err != nil || c.BreakerOpen() {
			t.Errorf("login: %v", err)
		}
		down.Store("/sns/")
		time.Sleep(3 * time.Second)
		fails(t, c, 8, weixin.ClassUnavailable)
		_, err = c.ResetUserSessionKey(t.Context(), app, goodSession)
		if err != nil || !c.BreakerOpen() {
			t.Errorf("other calls: %v", err)
		}
	})
}

func TestObserve_NamesEachTokenCall(t *testing.T) {
	sim := weixintest.NewServer(simulated)
	defer sim.Close()
	var names []string
	c := newClient(t, weixin.Config{BaseURL: sim.URL, Observe: func(k weixin.Call) {
		if k.Name != "stable_token" {
			names = append(names, k.Name)
		}
	}})
	var want []string
	for _, o := range callAll(t.Context(), c, testApp, goodSession, goodCode) {
		want = append(want, o.name)
	}
	if !slices.Equal(names, want) {
		t.Errorf("observed %v, want %v", names, want)
	}
}

func TestThreat27_TokenCallsAndNonsense(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 16))
	phone := func(info string) string { return `{"errcode":0,"phone_info":` + info + `}` }
	const mark = `"watermark":{"timestamp":1477314187,"appid":"wx0123456789abcdef"}`
	const number = `"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":86`
	list := func(s string) string { return `{"errcode":0,"key_info_list":[` + s + `]}` }
	goodKey := `{"encrypt_key":"` + key + `","version":10,"expire_in":3597,` +
		`"iv":"6003f73ec441c386","create_time":1616572301}`
	with := func(old, new string) string { return strings.Replace(goodKey, old, new, 1) }
	twoKeys := list(goodKey + "," + with("3597", "-5"))
	for call, bodies := range map[string]struct{ good, bad []string }{
		"checksession": {
			[]string{`{"errcode":0}`, `{"errcode":"0","errmsg":"ok"}`},
			[]string{`{}`, `{"errcode":null}`, `{"errmsg":"ok"}`, `{"openid":"o1"}`},
		},
		"resetusersessionkey": {
			[]string{
				`{"errcode":0,"openid":"o1","session_key":"new"}`,
				`{"openid":"o1","session_key":"new"}`,
			},
			[]string{
				`{}`, `{"errcode":0}`, `{"errcode":0,"session_key":"new"}`,
				`{"errcode":0,"openid":"o2","session_key":"new"}`,
				`{"errcode":0,"openid":"o1","session_key":""}`,
			},
		},
		"getpaidunionid": {
			[]string{`{"errcode":0,"unionid":"u1"}`, `{"unionid":"u1"}`},
			[]string{
				`{}`, `{"errcode":0}`, `{"unionid":""}`, `{"unionid":7}`,
				`{"unionid":"u\r\nX: y"}`, `{"unionid":"` + strings.Repeat("u", 129) + `"}`,
			},
		},
		"getpluginopenpid": {
			[]string{`{"errcode":0,"openpid":"p1"}`},
			[]string{
				`{}`, `{"errcode":0}`, `{"openpid":""}`, `{"openpid":"p p"}`,
				`{"openpid":["p"]}`,
			},
		},
		"getuserphonenumber": {
			[]string{
				phone(`{` + number + `,` + mark + `}`),
				phone(`{` + number + `,"x":[1],` + mark + `}`),
			},
			[]string{
				`{}`, `{"errcode":0}`, phone(`{}`), phone(`null`), phone(`"x"`),
				phone(`{` + number + `}`), phone(`{` + mark + `}`),
				phone(`{"phoneNumber":"13580006666",` + mark + `}`),
				phone(`{` + number + `,"phoneNumber":"2",` + mark + `}`),
				phone(`{` + number + `,"watermark":{"timestamp":1,"appid":"wxffffffffffffffff"}}`),
			},
		},
		"getuserencryptkey": {
			[]string{list(goodKey), twoKeys},
			[]string{
				`{}`, `{"errcode":0}`, `{"key_info_list":{}}`, list(``), list(`{}`), list(`null`),
				list(goodKey + `,{}`), list(strings.Repeat(goodKey+",", 16) + goodKey),
				list(with(key, "AAAA")), list(with(key, "%")), list(with(key, key[:22]+"AAAA")),
				list(with("6003", "600")), list(with("6003", "600 ")), list(with(":10", ":-1")),
				list(with("1616572301", "0")), list(with("3597", "9223372036854775807")),
				list(with("3597", "null") + "]["),
			},
		},
	} {
		decode := weixin.Decoders[call]
		for _, body := range bodies.good {
			if _, e := decode(200, []byte(body)); e != nil {
				t.Errorf("%s: %s: %v", call, body, e)
			}
		}
		for _, body := range append(bodies.bad,
			``, `null`, `[]`, `<html>`, `{"errcode":"x"}`, `{"errcode":{}}`) {
			v, e := decode(200, []byte(body))
			if e == nil || e.Class != weixin.ClassProtocol {
				t.Errorf("%s: %s: accepted %v, %v", call, body, v, e)
			}
			if _, e = decode(502, []byte(body)); e == nil || e.Class != weixin.ClassUnavailable {
				t.Errorf("%s: %s with 502: %v", call, body, e)
			}
		}
		refused := strings.Replace(bodies.good[0], `"errcode":0`, `"errcode":45009`, 1)
		if _, e := decode(200, []byte(refused)); e == nil || e.Class != weixin.ClassRateLimited {
			t.Errorf("%s: a refusal beside a result: %v", call, e)
		}
	}
	result, _ := weixin.Decoders["getuserencryptkey"](200, []byte(twoKeys))
	keys := result.([]weixin.UserKey)
	if left := keys[1].ExpiresIn; left != 0 {
		t.Errorf("an expired key has %v left", left)
	}
	k := keys[0]
	if string(k.IV[:]) != "6003f73ec441c386" || k.Version != 10 ||
		k.ExpiresIn != 3597*time.Second || k.Created.Unix() != 1616572301 {
		t.Error("the parts of the key are mixed up")
	}
}
