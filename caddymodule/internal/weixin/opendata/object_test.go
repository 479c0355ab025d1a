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

const mark = `"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":1477314187}`

func TestThreat29_Objects(t *testing.T) {
	for _, tc := range []struct {
		name, object string
		want         opendata.Reason // empty: accepted
	}{
		{"least", `{` + mark + `}`, ""},
		{"white space", " \r\n\t{" + mark + "} \n", ""},
		{"unknown fields", `{"a":{"watermark":1},"b":[{}],"a":null,` + mark + `}`, ""},
		{"more in the watermark", `{"watermark":{"x":1,"timestamp":1477314187,"x":2,"appid":"wx4f4bc4dec97d474b"}}`, ""},
		{"name with escapes", `{"water\u006dark":{"appid":"wx4f4bc4dec97d474b","timestamp":1477314187}}`, ""},
		{"null is absent", `{"openId":null,"unionId":null,"phoneNumber":null,` + mark + `}`, ""},
		{"empty is absent", `{"openId":"","unionId":"","phoneNumber":"",` + mark + `}`, ""},
		{"open group", `{"openGId":"tGA",` + mark + `}`, ""},
		{"profile", `{"nickName":"\u5fae\u4fe1\ud83d\ude00",` + mark + `}`, ""},

		{"empty", ``, opendata.ReasonObject},
		{"null", `null`, opendata.ReasonObject},
		{"array", `[{` + mark + `}]`, opendata.ReasonObject},
		{"string", `"{}"`, opendata.ReasonObject},
		{"two objects", `{` + mark + `}{}`, opendata.ReasonObject},
		{"NUL behind", `{` + mark + "}\x00", opendata.ReasonObject},
		{"cut", `{` + mark, opendata.ReasonObject},
		{"trailing comma", `{` + mark + `,}`, opendata.ReasonObject},
		{"BOM", "\ufeff{" + mark + `}`, opendata.ReasonObject},
		{"garbage in a string", "{\"a\":\"\xc3\x28\"," + mark + `}`, opendata.ReasonObject},
		{"control byte in a string", "{\"a\":\"\x01\"," + mark + `}`, opendata.ReasonObject},
		{"watermark twice", `{` + mark + `,` + mark + `}`, opendata.ReasonObject},
		{"watermark twice, once escaped", `{"\u0077atermark":{},` + mark + `}`, opendata.ReasonObject},
		{"openId twice", `{"openId":"` + demoUser + `","openId":"` + demoUser + `",` + mark + `}`, opendata.ReasonObject},
		{"unionId twice, once null", `{"unionId":null,"openId":"` + demoUser + `","unionId":"u1",` + mark + `}`, opendata.ReasonObject},

		{"watermark in other case", `{"Watermark":{"appid":"wx1"},` + mark + `}`, opendata.ReasonObject},
		{"watermark with a Kelvin sign", `{"watermar\u212a":{"appid":"wx1"},` + mark + `}`, opendata.ReasonObject},
		{"openId in other case", `{"opEnId":"` + demoUser + `",` + mark + `}`, opendata.ReasonObject},

		{"no watermark", `{}`, opendata.ReasonAppID},
		{"watermark elsewhere", `{"x":{` + mark + `}}`, opendata.ReasonAppID},
		{"watermark null", `{"watermark":null}`, opendata.ReasonAppID},
		{"watermark text", `{"watermark":"wx4f4bc4dec97d474b"}`, opendata.ReasonAppID},
		{"watermark array", `{"watermark":[` + `{"appid":"wx4f4bc4dec97d474b"}]}`, opendata.ReasonAppID},
		{"appid twice", `{"watermark":{"appid":"wx1","appid":"wx4f4bc4dec97d474b","timestamp":1}}`, opendata.ReasonAppID},
		{"appid in other case", `{"watermark":{"AppID":"wx4f4bc4dec97d474b","timestamp":1}}`, opendata.ReasonAppID},
		{"appid array", `{"watermark":{"appid":["wx4f4bc4dec97d474b"],"timestamp":1}}`, opendata.ReasonAppID},
		{"appid with a tail", `{"watermark":{"appid":"wx4f4bc4dec97d474b ","timestamp":1}}`, opendata.ReasonAppID},
		{"timestamp twice", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":1,"timestamp":2}}`, opendata.ReasonAppID},
		{"no timestamp", `{"watermark":{"appid":"wx4f4bc4dec97d474b"}}`, opendata.ReasonTime},
		{"timestamp text", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":"1"}}`, opendata.ReasonTime},
		{"timestamp zero", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":0}}`, opendata.ReasonTime},
		{"timestamp negative", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":-1}}`, opendata.ReasonTime},
		{"timestamp fraction", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":1.5}}`, opendata.ReasonTime},
		{"timestamp huge", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":9223372036854775807}}`, opendata.ReasonTime},
		{"timestamp beyond int64", `{"watermark":{"appid":"wx4f4bc4dec97d474b","timestamp":1e99}}`, opendata.ReasonTime},

		{"another user", `{"openId":"o1",` + mark + `}`, opendata.ReasonOpenID},
		{"openId number", `{"openId":1,` + mark + `}`, opendata.ReasonOpenID},
		{"openId with a tail", `{"openId":"` + demoUser + `\n",` + mark + `}`, opendata.ReasonOpenID},
		{"unionId without openId", `{"unionId":"u1",` + mark + `}`, opendata.ReasonUnionID},
		{"unionId number", `{"openId":"` + demoUser + `","unionId":7,` + mark + `}`, opendata.ReasonUnionID},
		{"unionId with line break", `{"openId":"` + demoUser + `","unionId":"u\r\nX-Wx-Openid: v",` + mark + `}`, opendata.ReasonUnionID},
		{"unionId with space", `{"openId":"` + demoUser + `","unionId":"u u",` + mark + `}`, opendata.ReasonUnionID},
		{"unionId in another script", `{"openId":"` + demoUser + `","unionId":"ü",` + mark + `}`, opendata.ReasonUnionID},
		{"unionId too long", `{"openId":"` + demoUser + `","unionId":"` + strings.Repeat("u", 129) + `",` + mark + `}`, opendata.ReasonUnionID},
		{"longest unionId", `{"openId":"` + demoUser + `","unionId":"` + strings.Repeat("u", 128) + `",` + mark + `}`, ""},

		{"phone", `{"phoneNumber":"85251230000","purePhoneNumber":"51230000","countryCode":"852",` + mark + `}`, ""},
		{"country code as a number", `{"phoneNumber":"13580006666","purePhoneNumber":"13580006666","countryCode":86,` + mark + `}`, ""},
		{"part of a phone", `{"phoneNumber":"13580006666",` + mark + `}`, opendata.ReasonPhone},
		{"most of a phone", `{"purePhoneNumber":"13580006666","countryCode":"86",` + mark + `}`, opendata.ReasonPhone},
		{"phone as a number", `{"phoneNumber":13580006666,"purePhoneNumber":"13580006666","countryCode":"86",` + mark + `}`, opendata.ReasonPhone},
		{"phone with line break", `{"phoneNumber":"1\r\n2","purePhoneNumber":"1","countryCode":"86",` + mark + `}`, opendata.ReasonPhone},
		{"country code fraction", `{"phoneNumber":"1","purePhoneNumber":"1","countryCode":8.6,` + mark + `}`, opendata.ReasonPhone},
		{"country code negative", `{"phoneNumber":"1","purePhoneNumber":"1","countryCode":-86,` + mark + `}`, opendata.ReasonPhone},
		{"phone too long", `{"phoneNumber":"` + strings.Repeat("1", 65) + `","purePhoneNumber":"1","countryCode":"86",` + mark + `}`, opendata.ReasonPhone},
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
	wantReason(t, d, err, opendata.ReasonAppID) // nobody's data is not everybody's
	d, _ = demo.Read([]byte(`{"phoneNumber":"85251230000","purePhoneNumber":"51230000","countryCode":852,` + mark + `}`))
	if d.Phone != (opendata.Phone{Number: "85251230000", PureNumber: "51230000", CountryCode: "852"}) {
		t.Error("the parts of the number are mixed up")
	}
}

func TestDataPrintsNothing(t *testing.T) {
	d, err := demo.Read([]byte(`{"openId":"` + demoUser + `","unionId":"u-canary","phoneNumber":"135-canary","purePhoneNumber":"135-canary","countryCode":"86",` + mark + `}`))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, v := range []any{d, &d, d.Phone, &d.Phone, []any{d, d.Phone}, map[string]any{"d": d}, struct{ D opendata.Data }{d}} {
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
	for _, secret := range []string{"canary", fmt.Sprintf("%x", "canary"), fmt.Sprintf("%X", "canary"), strings.Trim(fmt.Sprint([]byte("canary")), "[]"), demoUser} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q leaked: %s", secret, &out)
		}
	}
	if !strings.Contains(out.String(), "[redacted]") {
		t.Error("nothing was printed")
	}
}
