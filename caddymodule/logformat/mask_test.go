package logformat

import (
	"strings"
	"testing"
)

func TestThreat40_Mask_ByPlaceAndForm(t *testing.T) {
	const token = "wxs_aLCk9sbUIbg6iKtucS4QY2g93_L1qiZAkViJD_Lqa"
	stars := func(n int) string { return strings.Repeat("*", n) }
	for in, want := range map[string]string{
		`"uri":"/wx/login?code=C"`:               `"uri":"/wx/login?` + stars(6) + `"`,
		`"uri":"/wx/phone?x=1&data=D#f"`:         `"uri":"/wx/phone?***&******#f"`,
		`"uri":"/x?js_code=ab&u=1"`:              `"uri":"/x?js_code=**&u=1"`,
		`{"X-Wx-Code":["02ab"],"X-Wx-Iv":["x"]}`: `{"X-Wx-Code":["****"],"X-Wx-Iv":["x"]}`,
		`"uri":"/x?session_key=a%2Bb==&u=1"`:     `"uri":"/x?session_key=*******&u=1"`,
		`"/files/a.jpg?wx_ticket=AQ-z_9"`:        `"/files/a.jpg?wx_ticket=******"`,
		`"/x?u=1\u0026access_token=AT\u0026v=2"`: `"/x?u=1\u0026access_token=**\u0026v=2"`,
		`"/x?Secret=S"`:                          `"/x?Secret=*"`,
		`"/x?c%6Fde=C"`:                          `"/x?c%6Fde=*"`,
		`"/x?to=%2Fa%3Fcode%3DC"`:                `"/x?to=%2Fa%3Fcode%3D*"`,
		`"/x?code=a\"b c"`:                       `"/x?code=**** c"`,
		`"/x?errcode=1&qrcode=2&encode=3"`:       `"/x?errcode=1&qrcode=2&encode=3"`,
		`"code":"rate_limited"`:                  `"code":"rate_limited"`,
		`"/share/` + token + `"`:                 `"/share/wxs_` + stars(41) + `"`,
		`"/share/wxs%5Fabc%2D1/x"`:               `"/share/wxs%5F*******/x"`,
		`"/%77xs%255fabc"`:                       `"/%77xs%255f***"`,
		`"/login?next=/x"`:                       `"/login?next=/x"`,
		`100% of wxs, \\ and %zz %2`:             `100% of wxs, \\ and %zz %2`,
		`wxs_`:                                   `wxs_`,
		`code=`:                                  `code=`,
	} {
		line := []byte(in)
		if mask(line); string(line) != want {
			t.Errorf("%s\nbecame %s\nwant   %s", in, line, want)
		}
	}
}

// FuzzMask: no secret of known shape is left, and the length stays.
func FuzzMask(f *testing.F) {
	f.Add("/x?", "&u=1")
	f.Add("%3F", "\\u0026")
	f.Fuzz(func(t *testing.T, before, after string) {
		line := []byte(before + " ?code=SECRET&" + after + " wxs_SECRET")
		n := len(line)
		if mask(line); len(line) != n || strings.Contains(string(line), "SECRET") &&
			!strings.Contains(before+after, "SECRET") {
			t.Errorf("%q", line)
		}
	})
}
