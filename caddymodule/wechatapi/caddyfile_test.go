package wechatapi

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

func apiSite(lines string) string {
	return caddytest.Directive("wechat_api {\n" + lines + "\n}")
}

var wrongAPIs = []caddytest.Wrong{
	{
		"unknown word",
		apiSite("allowed /x # here"),
		`unknown word "allowed"`,
		"app, allow, allow_remote, secret, timeout or max_body",
	},
	{
		"matcher",
		caddytest.Directive("wechat_api /wxa/* # here"),
		"wechat_api takes no matcher",
		"/wxa/*",
		"site of its own",
	},
	{
		"app twice",
		apiSite("app " + caddytest.AppID + "\napp " + caddytest.AppID + " # here"),
		"app is given twice",
	},
	{"bad app", apiSite("app wx1 # here"), "wx followed by 16 lower-case letters or digits"},
	{
		"kept path",
		apiSite("allow /wxa/x /sns/jscode2session # here"),
		"refused in any case",
		"session_keys",
	},
	{"kept path in capitals", apiSite("allow /CGI-BIN/stable_token # here"), "refused in any case"},
	{"odd path", apiSite("allow /wxa/*/x # here"), "* is allowed as the last segment only"},
	{"nothing to allow", apiSite("allow # here"), "allow takes at least one value"},
	{
		"value after allow_remote",
		apiSite("allow_remote 10.0.0.0/8 # here"),
		"allow_remote takes no value",
	},
	{
		"allow_remote twice",
		apiSite("allow_remote\nallow_remote # here"),
		"allow_remote is given twice",
	},
	{
		"secret written out", apiSite("secret hunter2 # here"),
		"the secret of wechat_api is written out", "{env.NAME}",
	},
	{"secret twice", apiSite("secret {env.A}\nsecret {env.B} # here"), "secret is given twice"},
	{"bad timeout", apiSite("timeout 0s # here"), "timeout takes a duration above zero"},
	{"bad size", apiSite("max_body 20MB # here"), "max_body takes a size such as", `"20MB"`},
	{"size of nothing", apiSite("max_body 0 # here"), "max_body takes a size"},
	{"huge size", apiSite("max_body 9999999999MiB # here"), "max_body takes a size"},
	{"no app", ":80 {\n\twechat_api # here\n}\n", "wechat_api needs the global option wechat"},
}

func TestThreat7_WrongCaddyfile(t *testing.T) { caddytest.RunWrong(t, wrongAPIs) }
