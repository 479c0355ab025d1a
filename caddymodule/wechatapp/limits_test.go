package wechatapp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const cureRate = "write a number per s, m or h, such as 30/m, or off"

// FuzzRate holds that an accepted rate has the value of its text.
func FuzzRate(f *testing.F) {
	for _, s := range []string{
		"off", "30/m", "1/s", "1/h", "2147483647/s", "2147483648/s", "0/m", "-1/m",
		"30", "30/", "/m", "30/d", "30/m/m", " 30/m", "+30/m", "0x1e/m", "1e3/s", "3_0/m",
		"030/m", "",
	} {
		f.Add(s)
	}
	units := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRate(s)
		if err != nil {
			if !strings.Contains(err.Error(), cureRate) {
				t.Errorf("message %q", err)
			}
			return
		}
		if s == "off" {
			if r.Events != 0 || r.Per != 0 {
				t.Errorf("off is %v", r)
			}
			return
		}
		if r.Events < 1 || units[r.Per] == "" {
			t.Fatalf("%q is %v", s, r)
		}
		if want := fmt.Sprintf("%d/%s", r.Events, units[r.Per]); strings.TrimLeft(s, "+0") != want {
			t.Errorf("%q is %s", s, want)
		}
	})
}
