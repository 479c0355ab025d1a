package opendata_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

// FuzzOpen: no input panics, each failure is the one error, and accepted data is
// complete.
func FuzzOpen(f *testing.F) {
	for _, v := range []vector{d1, d2, d3, d4, d5, d6, {}} {
		f.Add(v.Key, v.Sealed, v.IV)
	}
	f.Add(commonKey, "AAAA", "=")
	f.Add(commonKey, strings.Repeat("A", 22), commonIV+"\r\n")
	f.Fuzz(func(t *testing.T, key, sealed, iv string) {
		d, err := demo.Open(key, sealed, iv)
		if err != nil {
			wantNothing(t, d, err)
			return
		}
		judge(t, d)
	})
}

// FuzzRead is FuzzOpen for the decrypted text: padding and object.
func FuzzRead(f *testing.F) {
	for _, v := range []vector{d1, d3, d4, d5, d6} {
		f.Add([]byte(v.Object))
	}
	for _, s := range []string{
		"", "{", "[]", `{` + mark + `,"watermark":{}}`, "{\"a\":\"\xff\"," + mark + "}",
		`{"phoneNumber":"1","purePhoneNumber":"1","countryCode":86,` + mark + `}`,
		`{"step":1E999,` + mark + `}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		given := bytes.Clone(object)
		d, err := demo.Read(object)
		if !bytes.Equal(given, object) {
			t.Fatal("the object was changed")
		}
		if n := 16 - len(object)%16; len(object) < 40<<10 {
			sealed, other := open(demo, seal(pad(string(object), n)))
			if (other == nil) != (err == nil) || sealed.OpenID != d.OpenID ||
				sealed.UnionID != d.UnionID || sealed.Phone != d.Phone {
				t.Fatalf("Open and Read disagree: %v, %v", other, err)
			}
		}
		if err != nil {
			wantNothing(t, d, err)
			return
		}
		judge(t, d)
	})
}

// judge holds accepted data against an independent reading of the object.
func judge(t *testing.T, d opendata.Data) {
	t.Helper()
	var object map[string]any
	dec := json.NewDecoder(bytes.NewReader(d.Object))
	dec.UseNumber() // JSON bounds no number (RFC 8259, section 6), a float64 does
	if err := dec.Decode(&object); err != nil {
		t.Fatalf("accepted %q: %v", d.Object, err)
	}
	watermark, _ := object["watermark"].(map[string]any)
	if watermark["appid"] != demoApp ||
		watermark["timestamp"] != json.Number(strconv.FormatInt(d.Time.Unix(), 10)) {
		t.Fatalf("watermark of %q", d.Object)
	}
	if d.OpenID != "" && d.OpenID != demoUser ||
		object["openId"] != nil && object["openId"] != d.OpenID {
		t.Fatalf("openid of %q", d.Object)
	}
	if d.UnionID != "" && (d.OpenID == "" || object["unionId"] != d.UnionID) {
		t.Fatalf("unionid of %q", d.Object)
	}
	for _, s := range []string{d.UnionID, d.Phone.Number, d.Phone.PureNumber, d.Phone.CountryCode} {
		if len(s) > 128 ||
			strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("accepted %q", s)
		}
	}
	if p := d.Phone; p != (opendata.Phone{}) &&
		(object["phoneNumber"] != p.Number || object["purePhoneNumber"] != p.PureNumber ||
			p.CountryCode == "") {
		t.Fatalf("phone of %q", d.Object)
	}
}
