package logformat

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestP6_LogFormat: no token is left in a line, whichever field it came in, and
// nothing else changes.
func TestP6_LogFormat(t *testing.T) {
	const token = "wxs_aLCk9sbUIbg6iKtucS4QY2g93_L1qiZAkViJD_Lqa"
	blot := "wxs_" + strings.Repeat("*", len(token)-4)
	for _, tt := range []struct{ name, config string }{
		{"default", "format wechat"},
		{"json", "format wechat {\nwrap json\n}"},
		{"console", "format wechat {\nwrap console\n}"},
		{"filter", "format wechat {\nwrap filter {\nfields {\nsecret delete\n}\n}\n}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := caddyfile.NewTestDispenser(tt.config)
			d.Next()
			d.Next()
			f := new(LogFormat)
			if err := f.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
			defer cancel()
			if err := f.Provision(ctx); err != nil {
				t.Fatal(err)
			}
			enc := f.Clone()
			enc.AddString("kept", "before "+token)
			b, err := enc.EncodeEntry(zapcore.Entry{Message: "request " + token + "."}, []zap.Field{
				zap.Strings(
					"X-3rd-Session", []string{token, "wxs_short", "wxs_"},
				), zap.String("uri", "/x?t="+token+"&u=1"), zap.String("other", "wx_"+token[4:]),
			})
			if err != nil {
				t.Fatal(err)
			}
			line := b.String()
			if strings.Contains(line, token) || strings.Count(line, blot) != 4 ||
				!strings.Contains(line, `"wxs_*****"`) {
				t.Errorf("a token is left, or too much is gone: %s", line)
			}
			if !strings.Contains(line, "&u=1") && !strings.Contains(line, `\u0026u=1`) ||
				!strings.Contains(line, "wx_"+token[4:]) || !strings.Contains(line, blot+".") {
				t.Errorf("more than tokens was changed: %s", line)
			}
		})
	}
}

func TestLogFormat_WrongConfig(t *testing.T) {
	for config, want := range map[string]string{
		"format wechat json":                             "takes a block",
		"format wechat {\nwarp json\n}":                  `unknown word "warp"`,
		"format wechat {\nwrap\n}":                       "wrap json",
		"format wechat {\nwrap nonesuch\n}":              "nonesuch",
		"format wechat {\nwrap json\nwrap console\n}":    "given twice",
		"format wechat {\nwrap json {\nnonsense 1\n}\n}": "nonsense",
	} {
		d := caddyfile.NewTestDispenser(config)
		d.Next()
		d.Next()
		err := new(LogFormat).UnmarshalCaddyfile(d.NewFromNextSegment())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", config, err, want)
		}
	}
}
