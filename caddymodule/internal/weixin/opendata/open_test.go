package opendata_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

var demo = opendata.Opener{AppID: demoApp, OpenID: demoUser}

// encode returns base64.
func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func open(o opendata.Opener, v vector) (opendata.Data, error) {
	return o.Open(v.Key, v.Sealed, v.IV)
}

// wantReason expects a failure whose reason only the operator sees.
func wantReason(t testing.TB, d opendata.Data, err error, want opendata.Reason) {
	t.Helper()
	e, ok := errors.AsType[*opendata.Error](err)
	if !ok || !errors.Is(err, opendata.ErrInvalid) {
		t.Fatalf("got %v (%T), want an *opendata.Error", err, err)
	}
	if e.Reason != want {
		t.Fatalf("reason %q, want %q", e.Reason, want)
	}
	wantNothing(t, d, err)
}

func wantNothing(t testing.TB, d opendata.Data, err error) {
	t.Helper()
	if err.Error() != opendata.ErrInvalid.Error() {
		t.Fatalf("the text tells more than ErrInvalid: %q", err)
	}
	if d.OpenID != "" || d.UnionID != "" || d.Phone != (opendata.Phone{}) || !d.Time.IsZero() ||
		d.Object != nil {
		t.Fatal("data beside an error")
	}
}

func TestOpen_Vectors_AreAccepted(t *testing.T) {
	for _, v := range []vector{d1, d3, d4} {
		d, err := open(demo, v)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if string(d.Object) != v.Object || d.Time.Unix() != demoTime {
			t.Errorf("%s: %s at %d", v.Name, d.Object, d.Time.Unix())
		}
	}
	d, _ := open(demo, d1)
	if d.OpenID != demoUser || d.UnionID != demoUnion || d.Phone != (opendata.Phone{}) {
		t.Errorf("D1: openid %s, unionid %s", d.OpenID, d.UnionID)
	}
	d, _ = open(demo, d3)
	phone := opendata.Phone{Number: "13580006666", PureNumber: "13580006666", CountryCode: "86"}
	if d.OpenID != "" || d.UnionID != "" || d.Phone != phone {
		t.Errorf("D3: %s %s %s", d.Phone.Number, d.Phone.PureNumber, d.Phone.CountryCode)
	}
}

func TestThreat29_VectorsRefused(t *testing.T) {
	opener := func(appID, openID string, after, before int64) opendata.Opener {
		return opendata.Opener{
			AppID: appID, OpenID: openID,
			NotBefore: time.Unix(after, 0), NotAfter: time.Unix(before, 0),
		}
	}
	changed := func(v vector, key, sealed string) vector {
		v.Key, v.Sealed = key, sealed
		return v
	}
	const end = demoTime + 1
	for _, tc := range []struct {
		name string
		o    opendata.Opener
		v    vector
		want opendata.Reason
	}{
		{"zero Opener", opendata.Opener{}, d1, opendata.ReasonAppID},
		{"another mini program", opener(foreignApp, demoUser, 0, end), d1, opendata.ReasonAppID},
		{"another user", opener(demoApp, "o1", 0, end), d1, opendata.ReasonOpenID},
		{"user unknown", opener(demoApp, "", 0, end), d1, opendata.ReasonOpenID},
		{"bad padding", demo, d2, opendata.ReasonPadding},
		{"watermark empty", demo, d5, opendata.ReasonAppID},
		{"foreign watermark", demo, d6, opendata.ReasonAppID},
		{"too old", opener(demoApp, demoUser, demoTime+1, end), d1, opendata.ReasonTime},
		{"too new", opener(demoApp, demoUser, 0, demoTime-1), d1, opendata.ReasonTime},
		{"key of another user", demo, changed(d1, commonKey, d1.Sealed), opendata.ReasonPadding},
		{"prefixed", demo, changed(d1, d1.Key, "aaaa"+d1.Sealed), opendata.ReasonCiphertext},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := open(tc.o, tc.v)
			wantReason(t, d, err, tc.want)
		})
	}
	// D5 decrypts well, to a whole block of padding; its watermark is empty.
	if got := decrypt(d5); string(got) != d5.Object+strings.Repeat("\x10", 16) {
		t.Errorf("D5 is %q", got)
	}
	o := demo
	o.NotBefore, o.NotAfter = time.Unix(demoTime, 0), time.Unix(demoTime, 0)
	if _, err := open(o, d1); err != nil {
		t.Errorf("the ends of the window are outside: %v", err)
	}
}

func decrypt(v vector) []byte {
	text := unbase64(v.Sealed)
	block, _ := aes.NewCipher(unbase64(v.Key))
	cipher.NewCBCDecrypter(block, unbase64(v.IV)).CryptBlocks(text, text)
	return text
}

func unbase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// seal encrypts text as it is, which the caller has padded or not.
func seal(text []byte) vector {
	if len(text)%aes.BlockSize != 0 {
		panic("not padded")
	}
	block, _ := aes.NewCipher(unbase64(commonKey))
	out := make([]byte, len(text))
	cipher.NewCBCEncrypter(block, unbase64(commonIV)).CryptBlocks(out, text)
	return vector{Key: commonKey, IV: commonIV, Sealed: encode(out)}
}

// pad adds n bytes of PKCS#7 padding.
func pad(text string, n int) []byte {
	return append([]byte(text), bytes.Repeat([]byte{byte(n)}, n)...)
}

func TestOpen_ClientsDamage_IsRepaired(t *testing.T) {
	lines := func(s, eol string) string {
		var b strings.Builder
		for i := 0; i < len(s); i += 76 {
			b.WriteString(s[i:min(i+76, len(s))] + eol)
		}
		return b.String()
	}
	form := func(s string) string { // a form parser meets an unescaped '+'
		v, err := url.QueryUnescape(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_").Replace
	for name, habit := range map[string]func(string) string{
		"as it is":   func(s string) string { return s },
		"form":       form,
		"LF":         func(s string) string { return lines(s, "\n") },
		"CR LF":      func(s string) string { return lines(s, "\r\n") },
		"URL-safe":   urlSafe,
		"no padding": func(s string) string { return strings.TrimRight(s, "=") },
		"everything": func(s string) string {
			return "\n" + lines(urlSafe(strings.TrimRight(s, "=")), "\r\n")
		},
	} {
		for _, v := range []vector{d1, d3} {
			d, err := demo.Open(v.Key, habit(v.Sealed), habit(v.IV))
			if err != nil || string(d.Object) != v.Object {
				t.Errorf("%s, %s: %v", v.Name, name, err)
			}
		}
	}
}

func TestThreat29_Arguments(t *testing.T) {
	raw := func(n int) string { return encode(make([]byte, n)) }
	for _, key := range []string{
		"", raw(15), raw(17), raw(24), raw(32), d1.Key[:23], d1.Key[:22], d1.Key + "\n",
		" " + d1.Key[1:], "tiihtNczf5v6AKRyjwEUhR==",
		strings.Repeat("=", 24), strings.Repeat("代", 8), "canary\x00" + d1.Key[7:],
	} {
		d, err := demo.Open(key, d1.Sealed, d1.IV)
		wantReason(t, d, err, opendata.ReasonSessionKey)
	}
	for _, iv := range []string{
		"", raw(15), raw(17), raw(0), raw(1 << 20), d1.IV[:20], "%%%",
		d1.IV + "=", "r7BXXKkLb8qrSNn05n0qiB==", "代码",
	} {
		d, err := demo.Open(d1.Key, d1.Sealed, iv)
		wantReason(t, d, err, opendata.ReasonIV)
	}
	for _, sealed := range []string{
		"", "=", "==", "\r\n", raw(1), raw(15), raw(17), raw(1 << 20), raw(1<<20 + 1),
		d1.Sealed[1:], d1.Sealed + "A", d1.Sealed + "=",
		d1.Sealed[:8] + "=" + d1.Sealed[9:], d1.Sealed + "\t", strings.Repeat("A", 64<<10+1),
		"\x00" + d1.Sealed, "代码",
	} {
		d, err := demo.Open(d1.Key, sealed, d1.IV)
		wantReason(t, d, err, opendata.ReasonCiphertext)
	}
	d, err := demo.Open(d1.Key, raw(16), d1.IV)
	wantReason(t, d, err, opendata.ReasonPadding)
	largest := strings.Repeat("A", 64<<10)
	d, err = demo.Open(d1.Key, largest, d1.IV)
	wantReason(t, d, err, opendata.ReasonPadding)
}

func TestThreat29_Padding(t *testing.T) {
	body := `{"watermark":{"appid":"` + demoApp + `","timestamp":1}}`
	for n := 1; n <= 16; n++ {
		text := body + strings.Repeat(" ", 160-n-len(body)) // JSON may end in space
		v := seal(pad(text, n))
		if d, err := open(demo, v); err != nil || string(d.Object) != text {
			t.Errorf("padding of %d: %v", n, err)
		}
		for i := range n { // one byte of it is wrong
			for _, wrong := range []byte{0, 17, ' ', 0xff, byte(n) ^ 1} {
				bad := pad(text, n)
				if i == 0 && n > 1 || i > 0 && i < n-1 {
					bad[len(bad)-n+i] = wrong
					d, err := open(demo, seal(bad))
					wantReason(t, d, err, opendata.ReasonPadding)
				}
			}
		}
	}
	full := body + strings.Repeat(" ", 160-len(body))
	for last := range 256 { // any last byte after spaces: only 1 is padding
		text := []byte(full)
		text[159] = byte(last)
		d, err := open(demo, seal(text))
		if last == 1 {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		wantReason(t, d, err, opendata.ReasonPadding)
	}
	d, err := open(demo, seal(pad(full[:144], 32))) // two blocks of padding
	wantReason(t, d, err, opendata.ReasonPadding)
	d, err = open(demo, seal(pad("", 16))) // nothing but padding
	wantReason(t, d, err, opendata.ReasonObject)
}

// Every bit of key, iv and ciphertext matters, except in an unknown name at the
// start of D4: CBC lets a client change the first block.
func TestThreat29_EveryBitMatters(t *testing.T) {
	for _, v := range []vector{d1, d3, d4} {
		parts := [][]byte{unbase64(v.Key), unbase64(v.Sealed), unbase64(v.IV)}
		renamed := 0
		for part, b := range parts {
			for i := range b {
				for bit := range 8 {
					b[i] ^= 1 << bit
					d, err := demo.Open(encode(parts[0]), encode(parts[1]), encode(parts[2]))
					b[i] ^= 1 << bit
					switch {
					case err != nil:
						wantNothing(t, d, err)
					case v.Name == "D4" && part == 2 && i >= 2 && i < 14 &&
						strings.HasSuffix(string(d.Object), v.Object[14:]):
						renamed++
					default:
						t.Errorf("%s: part %d, byte %d, bit %d: opened %s", v.Name, part, i, bit,
							d.Object)
					}
				}
			}
		}
		if (renamed > 0) != (v.Name == "D4") {
			t.Errorf("%s: %d renamed", v.Name, renamed)
		}
	}
}

// Every accepted change of a character means the same bytes. In the midst of a text an
// eighth of the characters takes the place of each letter and digit.
func TestThreat29_EveryCharacterMatters(t *testing.T) {
	for _, v := range []vector{d1, d3} {
		texts := []string{v.Key, v.Sealed, v.IV}
		for part, s := range texts {
			for i := range len(s) {
				for c := range 256 {
					few := i > 8 && i < len(s)-8 && !strings.Contains("+/=", s[i:i+1])
					if byte(c) == s[i] || few && c%8 != i%8 {
						continue
					}
					args := append([]string(nil), texts...)
					args[part] = s[:i] + string([]byte{byte(c)}) + s[i+1:]
					d, err := demo.Open(args[0], args[1], args[2])
					if err != nil {
						wantNothing(t, d, err)
						continue
					}
					habit := s[i] == '+' && (c == ' ' || c == '-') || s[i] == '/' && c == '_' ||
						s[i] == '=' && (c == '\r' || c == '\n')
					if part == 0 || !habit || string(d.Object) != v.Object {
						t.Errorf("%s: part %d, character %d: %q for %q accepted", v.Name, part, i,
							byte(c), s[i])
					}
				}
			}
		}
	}
}

func TestThreat29_BlocksCannotBeSpliced(t *testing.T) {
	b := unbase64(d1.Sealed)
	for cut := 16; cut < len(b); cut += 16 {
		for _, v := range [][]byte{
			b[:cut], b[cut:], append(bytes.Clone(b[cut:]), b[:cut]...),
			append(bytes.Clone(b), b[cut:]...),
		} {
			d, err := demo.Open(d1.Key, encode(v), d1.IV)
			if err == nil {
				t.Fatalf("opened %s", d.Object)
			}
			wantNothing(t, d, err)
		}
	}
}

// Wrong padding and a wrong object give errors with the same text, type and
// allocations.
func TestThreat29_NoPaddingOracle(t *testing.T) {
	garbage := strings.Repeat("\xff", 15)
	good, bad := seal(append([]byte(garbage), 1)), seal(append([]byte(garbage), 17))
	_, e1 := open(demo, good)
	_, e2 := open(demo, bad)
	if e1 == nil || e2 == nil || e1.Error() != e2.Error() ||
		fmt.Sprintf("%s %v %q %T", e1, e1, e1, e1) != fmt.Sprintf("%s %v %q %T", e2, e2, e2, e2) {
		t.Errorf("%v and %v differ", e1, e2)
	}
	if opendata.StaleKey(e1) != opendata.StaleKey(e2) || !opendata.StaleKey(e1) {
		t.Error("StaleKey tells them apart")
	}
	n1 := testing.AllocsPerRun(100, func() { _, _ = open(demo, good) })
	n2 := testing.AllocsPerRun(100, func() { _, _ = open(demo, bad) })
	if n1 != n2 {
		t.Errorf("%v allocations and %v", n1, n2)
	}
	// An acceptable object with bad padding costs the work of a good one.
	text := []byte(d3.Object + strings.Repeat(" ", 160-len(d3.Object)))
	good, bad = seal(append(text[:159:159], 1)), seal(text)
	n1 = testing.AllocsPerRun(100, func() { _, _ = open(demo, good) })
	n2 = testing.AllocsPerRun(100, func() { _, _ = open(demo, bad) })
	if n2 != n1+1 { // the error itself
		t.Errorf("%v allocations with good padding, %v with bad", n1, n2)
	}
}

func TestStaleKey_OnlyItsReasons(t *testing.T) {
	for r, want := range map[opendata.Reason]bool{
		opendata.ReasonPadding: true, opendata.ReasonObject: true, opendata.ReasonSignature: true,
		opendata.ReasonSessionKey: false, opendata.ReasonIV: false,
		opendata.ReasonCiphertext: false, opendata.ReasonAppID: false, opendata.ReasonTime: false,
		opendata.ReasonOpenID: false, opendata.ReasonUnionID: false, opendata.ReasonPhone: false,
	} {
		if opendata.StaleKey(fmt.Errorf("opening: %w", &opendata.Error{Reason: r})) != want {
			t.Errorf("%s: not %v", r, want)
		}
	}
	if opendata.StaleKey(nil) || opendata.StaleKey(opendata.ErrInvalid) {
		t.Error("something else than an *Error is a stale key")
	}
}

// Memory is bounded by a small multiple of the input, for any object.
func TestThreat29_Memory(t *testing.T) {
	const size = 48 << 10
	fill := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for name, object := range map[string]string{
		"nesting":      fill(`[`),
		"deep objects": fill(`{"a":`),
		"names":        "{" + fill(`"":0,`) + `"":0}`,
		"long names":   `{"` + fill("a") + `":0}`,
		"known name":   `{"watermark":{` + fill(`"appid":"",`) + `"":0}}`,
		"long string":  `{"openId":"` + fill("a") + `"}`,
		"numbers":      `{"watermark":{"timestamp":` + fill("1") + `}}`,
		"escapes":      `{"openId":"` + fill(`\u0041`) + `"}`,
	} {
		n := size - 16
		text := pad(object[:min(n, len(object))], 0)
		v := seal(append(append(text, bytes.Repeat([]byte(" "), n-len(text))...), pad("", 16)...))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d, err := open(demo, v)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Fatalf("%s: accepted", name)
		}
		wantNothing(t, d, err)
		if got := after.TotalAlloc - before.TotalAlloc; got > 32*size {
			t.Errorf("%s: %d bytes for %d", name, got, size)
		}
	}
}

func TestOpen_Simulator_IsAccepted(t *testing.T) {
	sim := weixintest.New(weixintest.Config{Apps: map[string]string{demoApp: "secret"}})
	defer sim.Close()
	user := sim.OpenID(demoApp, "alice")
	o := opendata.Opener{
		AppID: demoApp, OpenID: user, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(time.Minute),
	}
	e, err := sim.Encrypt(demoApp, "alice",
		map[string]any{"openId": user, "unionId": "u1", "nickName": "Bänd 乐队 🎸"})
	if err != nil {
		t.Fatal(err)
	}
	key := sim.SessionKey(demoApp, "alice")
	d, err := o.Open(key, e.EncryptedData, e.IV)
	if err != nil || d.OpenID != user || d.UnionID != "u1" ||
		!strings.HasPrefix(string(d.Object), e.RawData[:len(e.RawData)-1]) {
		t.Fatalf("%v: %s", err, d.Object)
	}
	if err := opendata.VerifySignature([]byte(e.RawData), e.Signature, key); err != nil {
		t.Error(err)
	}
	// The key was renewed in between (docs/wechat.md#stale-key).
	fresh := sim.RotateKey(demoApp, "alice")
	if _, err := o.Open(fresh, e.EncryptedData, e.IV); !opendata.StaleKey(err) {
		t.Errorf("not the stale key: %v", err)
	}
	err = opendata.VerifySignature([]byte(e.RawData), e.Signature, fresh)
	if !opendata.StaleKey(err) {
		t.Errorf("not the stale key: %v", err)
	}
}
