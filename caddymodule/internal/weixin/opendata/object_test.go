package opendata_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

const (
	app  = `"appid":"wx4f4bc4dec97d474b"`
	user = `"openId":"` + demoUser + `"`
	mark = `"watermark":{` + app + `,"timestamp":1477314187}`
)

// number returns an object with three raw values.
func number(phone, pure, code string) string {
	return `{"phoneNumber":` + phone + `,"purePhoneNumber":` + pure + `,"countryCode":` + code +
		`,` + mark + `}`
}

func TestThreat29_Objects(t *testing.T) {
	const (
		object  = opendata.ReasonObject
		appID   = opendata.ReasonAppID
		made    = opendata.ReasonTime
		openID  = opendata.ReasonOpenID
		unionID = opendata.ReasonUnionID
		phone   = opendata.ReasonPhone
	)
	long := strings.Repeat("u", 128)
	for _, tc := range []struct {
		name, object string
		want         opendata.Reason // empty: accepted
	}{
		{"least", `{` + mark + `}`, ""},
		{"white space", " \r\n\t{" + mark + "} \n", ""},
		{"unknown fields", `{"a":{"watermark":1},"b":[{}],"a":null,` + mark + `}`, ""},
		{
			"more in the watermark",
			`{"watermark":{"x":1,"timestamp":1477314187,"x":2,` + app + `}}`, "",
		},
		{"name with escapes", `{"water\u006dark":{` + app + `,"timestamp":1477314187}}`, ""},
		{"null is absent", `{"openId":null,"unionId":null,"phoneNumber":null,` + mark + `}`, ""},
		{"empty is absent", `{"openId":"","unionId":"","phoneNumber":"",` + mark + `}`, ""},
		{"open group", `{"openGId":"tGA",` + mark + `}`, ""},
		{"profile", `{"nickName":"\u5fae\u4fe1\ud83d\ude00",` + mark + `}`, ""},

		{"empty", ``, object},
		{"null", `null`, object},
		{"array", `[{` + mark + `}]`, object},
		{"string", `"{}"`, object},
		{"two objects", `{` + mark + `}{}`, object},
		{"NUL behind", `{` + mark + "}\x00", object},
		{"cut", `{` + mark, object},
		{"trailing comma", `{` + mark + `,}`, object},
		{"BOM", "\ufeff{" + mark + `}`, object},
		{"garbage in a string", "{\"a\":\"\xc3\x28\"," + mark + `}`, object},
		{"control byte outside of strings", "{\x01\"a\":\"\"," + mark + `}`, object},
		{"watermark twice", `{` + mark + `,` + mark + `}`, object},
		{"watermark twice, once escaped", `{"\u0077atermark":{},` + mark + `}`, object},
		{"openId twice", `{` + user + `,` + user + `,` + mark + `}`, object},
		{
			"unionId twice, once null",
			`{"unionId":null,` + user + `,"unionId":"u1",` + mark + `}`, object,
		},

		{"watermark in other case", `{"Watermark":{"appid":"wx1"},` + mark + `}`, object},
		{"watermark with a Kelvin sign", `{"watermar\u212a":{"appid":"wx1"},` + mark + `}`, object},
		{"openId in other case", `{"opEnId":"` + demoUser + `",` + mark + `}`, object},

		{"no watermark", `{}`, appID},
		{"watermark elsewhere", `{"x":{` + mark + `}}`, appID},
		{"watermark null", `{"watermark":null}`, appID},
		{"watermark text", `{"watermark":"wx4f4bc4dec97d474b"}`, appID},
		{"watermark array", `{"watermark":[` + `{` + app + `}]}`, appID},
		{"appid twice", `{"watermark":{"appid":"wx1",` + app + `,"timestamp":1}}`, appID},
		{
			"appid in other case",
			`{"watermark":{"AppID":"wx4f4bc4dec97d474b","timestamp":1}}`, appID,
		},
		{"appid array", `{"watermark":{"appid":["wx4f4bc4dec97d474b"],"timestamp":1}}`, appID},
		{"appid with a tail", `{"watermark":{"appid":"wx4f4bc4dec97d474b ","timestamp":1}}`, appID},
		{"timestamp twice", `{"watermark":{` + app + `,"timestamp":1,"timestamp":2}}`, appID},
		{"no timestamp", `{"watermark":{` + app + `}}`, made},
		{"timestamp text", `{"watermark":{` + app + `,"timestamp":"1"}}`, made},
		{"timestamp zero", `{"watermark":{` + app + `,"timestamp":0}}`, made},
		{"timestamp negative", `{"watermark":{` + app + `,"timestamp":-1}}`, made},
		{"timestamp fraction", `{"watermark":{` + app + `,"timestamp":1.5}}`, made},
		{"timestamp huge", `{"watermark":{` + app + `,"timestamp":9223372036854775807}}`, made},
		{"timestamp beyond int64", `{"watermark":{` + app + `,"timestamp":1e99}}`, made},

		{"another user", `{"openId":"o1",` + mark + `}`, openID},
		{"openId number", `{"openId":1,` + mark + `}`, openID},
		{"openId with a tail", `{"openId":"` + demoUser + `\n",` + mark + `}`, openID},
		{"unionId without openId", `{"unionId":"u1",` + mark + `}`, unionID},
		{"unionId number", `{` + user + `,"unionId":7,` + mark + `}`, unionID},
		{
			"unionId with line break",
			`{` + user + `,"unionId":"u\r\nX-Wx-Openid: v",` + mark + `}`, unionID,
		},
		{"unionId with space", `{` + user + `,"unionId":"u u",` + mark + `}`, unionID},
		{"unionId in another script", `{` + user + `,"unionId":"ü",` + mark + `}`, unionID},
		{"unionId too long", `{` + user + `,"unionId":"` + long + `u",` + mark + `}`, unionID},
		{"longest unionId", `{` + user + `,"unionId":"` + long + `",` + mark + `}`, ""},

		{"phone", number(`"85251230000"`, `"51230000"`, `"852"`), ""},
		{"country code as a number", number(`"13580006666"`, `"13580006666"`, `86`), ""},
		{"part of a phone", `{"phoneNumber":"13580006666",` + mark + `}`, phone},
		{"most of a phone", number(`null`, `"13580006666"`, `"86"`), phone},
		{"phone as a number", number(`13580006666`, `"13580006666"`, `"86"`), phone},
		{"phone with line break", number(`"1\r\n2"`, `"1"`, `"86"`), phone},
		{"country code fraction", number(`"1"`, `"1"`, `8.6`), phone},
		{"country code negative", number(`"1"`, `"1"`, `-86`), phone},
		{"phone too long", number(`"`+strings.Repeat("1", 65)+`"`, `"1"`, `"86"`), phone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := demo.Read([]byte(tc.object))
			if tc.want != "" {
				wantReason(t, d, err, tc.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(d.Object) != tc.object || d.Time.Unix() != demoTime {
				t.Errorf("%s at %v", d.Object, d.Time)
			}
		})
	}
	d, err := opendata.Opener{}.Read([]byte(`{"watermark":{"appid":"","timestamp":1}}`))
	wantReason(t, d, err, opendata.ReasonAppID)
	d, _ = demo.Read([]byte(number(`"85251230000"`, `"51230000"`, `852`)))
	want := opendata.Phone{Number: "85251230000", PureNumber: "51230000", CountryCode: "852"}
	if d.Phone != want {
		t.Error("the parts of the number are mixed up")
	}
}

func TestP6_Data_PrintsNothing(t *testing.T) {
	canary := `{` + user + `,"unionId":"u-canary","phoneNumber":"135-canary",` +
		`"purePhoneNumber":"135-canary","countryCode":"86",` + mark + `}`
	d, err := demo.Read([]byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{
		d, &d, d.Phone, &d.Phone,
		[]any{d, d.Phone},
		map[string]any{"d": d},
		struct{ D opendata.Data }{d},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		j, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		out.Write(j)
	}
	out.WriteString(d.String() + d.Phone.String())
	for _, secret := range []string{
		"canary", fmt.Sprintf("%x", "canary"),
		fmt.Sprintf("%X", "canary"), strings.Trim(fmt.Sprint([]byte("canary")), "[]"), demoUser,
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q leaked: %s", secret, &out)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing was printed")
	}
}
