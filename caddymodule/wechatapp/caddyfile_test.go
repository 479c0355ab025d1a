package wechatapp_test

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"

	_ "github.com/wxgate/wxgate/caddymodule/wechatauth"
)

const (
	cureSecret = "name it instead, as {env.NAME} or {file./run/secrets/name}"
	cureRate   = "write a number per s, m or h, such as 30/m, or off"

	cureTime  = "takes a duration such as 90s, 48h or 2d"
	cureAppID = "wx followed by 16 lower-case letters or digits"
)

// inApp is the global option with lines in the block of its mini program.
func inApp(lines string) string {
	return caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n" + lines + "\n}")
}

const pushLines = "push {\ntoken {env.WX_PUSH_TOKEN}\naes_key {env.WX_PUSH_KEY}\n}\n"

const (
	platformLine  = "component wx9876543210fedcba {env.WX_SECRET}"
	platformLines = " {\ntoken {env.WX_PUSH_TOKEN}\naes_key {env.WX_PUSH_KEY}\n}"
)

var wrongOptions = []caddytest.Wrong{
	{
		"unknown word",
		caddytest.Option("sesion { # here\n}"),
		`unknown word "sesion"`,
		"app, component, api, session, store, cache, max_staleness, seal_key, login_rate, " +
			"phone or decrypt",
	},
	{
		"unknown word in decrypt",
		caddytest.Option("decrypt {\nage 1h # here\n}"),
		`unknown word "age"`,
		"expected max_age",
	},
	{
		"unknown word in api",
		caddytest.Option("api {\nurl x # here\n}"),
		`unknown word "url"`,
		"base_url or timeout",
	},
	{
		"unknown word in session",
		caddytest.Option("session {\nmax_per_usr 3 # here\n}"),
		`unknown word "max_per_usr"`,
		"ttl, idle, max_per_user or replay",
	},
	{
		"unknown word in cache",
		caddytest.Option("cache {\nsize 3 # here\n}"),
		`unknown word "size"`,
		"max_sessions",
	},
	{
		"unknown word in login_rate",
		caddytest.Option("login_rate 30/m {\nburst 3 # here\n}"),
		`unknown word "burst"`,
		"global or in_flight",
	},
	{
		"block after a value",
		caddytest.Option("max_staleness 30s { # here\n}"),
		"the word before this { takes no block",
	},
	{
		"unknown word of app",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n token /t # here\n}"),
		"unknown word \"token\"",
		"token_file, cloud_token_file, open_platform or push",
	},
	{
		"component without a block",
		caddytest.Apps(platformLine + " # here"),
		"push needs the Token of the WeChat console",
	},
	{
		"component without a secret",
		caddytest.Apps("component wx9876543210fedcba # here"),
		"component takes an appid, the placeholder of its secret and a block",
	},
	{
		"component with a secret written out",
		caddytest.Apps("component wx9876543210fedcba " + caddytest.Canary + " # here"),
		"the secret is written out",
	},
	{
		"component with a bad appid",
		caddytest.Apps("component wx1 {env.WX_SECRET} # here"), cureAppID,
	},
	{
		"component twice",
		caddytest.Apps(platformLine + platformLines + "\n" + platformLine + " { # here\n}"),
		"component wx9876543210fedcba is given twice",
	},
	{
		"unknown word of component",
		caddytest.Apps(platformLine + " {\n mode secure # here\n}"),
		`unknown word "mode"`,
		"token, aes_key, forget, deliver, events_to, on_unauthorized or merchant_rate",
	},
	{
		"component on_unauthorized",
		caddytest.Apps(platformLine + " {\n on_unauthorized log_out # here\n}"),
		"on_unauthorized takes end_sessions", "leave the line out",
	},
	{
		"component merchant_rate",
		caddytest.Apps(platformLine + " {\n merchant_rate many # here\n}"),
		`"many" is not a rate`,
	},
	{
		"component aes_key written out",
		caddytest.Apps(platformLine + " {\n aes_key " + caddytest.PushKey + " # here\n}"),
		"is written out",
	},
	{
		"push without token",
		inApp("push {\naes_key {env.WX_PUSH_KEY}\n} # here"),
		"push needs the Token of the WeChat console", "token {env.WX_PUSH_TOKEN}",
	},
	{
		"push without aes_key",
		inApp("push {\ntoken {env.WX_PUSH_TOKEN}\n} # here"),
		"push needs the EncodingAESKey of the WeChat console", "aes_key {env.WX_PUSH_KEY}",
	},
	{
		"push token written out",
		inApp("push {\ntoken AAAAA # here\n}"), "the push token is written out", cureSecret,
	},
	{
		"aes_key written out",
		inApp("push {\naes_key {env.A} secret # here\n}"),
		"the push aes_key is written out", cureSecret,
	},
	{
		"three keys",
		inApp("push {\naes_key {env.A} {env.B} {env.C} # here\n}"),
		"of the current and the previous one",
	},
	{
		"the same key twice",
		inApp("push {\naes_key {env.A} {env.A} # here\n}"), "write it once",
	},
	{
		"unknown mode",
		inApp("push {\nmode safe # here\n}"), "expected secure, compatible or plain",
	},
	{
		"forget yes", inApp("push {\nforget yes # here\n}"), "forget takes the value no",
	},
	{
		"unknown word in push",
		inApp("push {\nkey x # here\n}"), `unknown word "key"`,
		"token, aes_key, mode, forget, deliver or events_to",
	},
	{
		"deliver a pattern", inApp("push {\ndeliver /push/* # here\n}"),
		"write a plain path of your app, such as /push",
	},
	{
		"events_to a URL", inApp("push {\nevents_to http://app/events # here\n}"),
		"write a plain path of your app, such as /wx-events",
	},
	{
		"events_to twice",
		inApp("push {\nevents_to /events\nevents_to /events # here\n}"), "given twice",
	},
	{
		"push twice", inApp(pushLines + "push { # here\n}"), "push is given twice",
	},
	{
		"token_file relative",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n token_file t # here\n}"),
		"not an absolute path",
	},
	{
		"token_file twice",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n" +
			" token_file /t\n token_file /t # here\n}"),
		"given twice",
	},
	{
		"Open Platform account without a name",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n open_platform # here\n}"),
		"open_platform",
	},
	{
		"Open Platform account named as an appid",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n open_platform " +
			caddytest.OtherAppID + " # here\n}"),
		"choose any other name",
	},
	{
		"two token files",
		caddytest.Apps("app " + caddytest.AppID + " {env.WX_SECRET} {\n" +
			" token_file /t\n cloud_token_file /t # here\n}"),
		"one source of access tokens",
	},
	{
		"argument of wechat",
		"{\n\twechat " + caddytest.AppID + " { # here\n}\n}\n",
		"wechat takes a block and no value",
	},
	{
		"argument of api",
		caddytest.Option("api https://example.com { # here\n}"),
		"api takes a block and no value",
	},
	{
		"argument of session",
		caddytest.Option("session 48h # here"),
		"session takes a block and no value",
	},
	{
		"argument of cache",
		caddytest.Option("cache 1000 # here"),
		"cache takes a block and no value",
	},

	{"api twice", caddytest.Option("api {\n}\napi { # here\n}"), "api is given twice"},
	{
		"session twice",
		caddytest.Option("session {\n}\nsession { # here\n}"),
		"session is given twice",
	},
	{"cache twice", caddytest.Option("cache {\n}\ncache { # here\n}"), "cache is given twice"},
	{
		"store twice",
		caddytest.Option("store bolt /a.db\nstore bolt /b.db # here"),
		"store is given twice",
	},
	{
		"max_staleness twice",
		caddytest.Option("max_staleness 1s\nmax_staleness 2s # here"),
		"max_staleness is given twice",
	},
	{
		"seal_key twice",
		caddytest.Option("seal_key {env.A}\nseal_key {env.B} # here"),
		"seal_key is given twice",
	},
	{
		"unknown word in phone",
		caddytest.Option("phone {\nforget # here\n}"),
		`unknown word "forget"`,
		"expected remember",
	},
	{
		"phone with a value",
		caddytest.Option("phone remember # here"),
		"phone takes a block and no value",
	},
	{
		"phone twice",
		caddytest.Option("phone {\nremember\n}\nphone { # here\n}"),
		"phone is given twice",
	},
	{
		"remember with a value",
		caddytest.Option("phone {\nremember yes # here\n}"),
		"remember takes no value",
	},
	{
		"login_rate twice",
		caddytest.Option("login_rate 1/s\nlogin_rate 2/s # here"),
		"login_rate is given twice",
	},
	{
		"base_url twice",
		caddytest.Option("api {\nbase_url https://a\nbase_url https://b # here\n}"),
		"base_url is given twice",
	},
	{
		"timeout twice",
		caddytest.Option("api {\ntimeout 1s\ntimeout 2s # here\n}"),
		"timeout is given twice",
	},
	{"ttl twice", caddytest.Option("session {\nttl 1h\nttl 2h # here\n}"), "ttl is given twice"},
	{
		"idle twice",
		caddytest.Option("session {\nidle 1h\nidle 2h # here\n}"),
		"idle is given twice",
	},
	{
		"replay twice",
		caddytest.Option("session {\nreplay 0s\nreplay 2s # here\n}"),
		"replay is given twice",
	},
	{
		"max_per_user twice",
		caddytest.Option("session {\nmax_per_user 1\nmax_per_user 2 # here\n}"),
		"max_per_user is given twice",
	},
	{
		"max_sessions twice",
		caddytest.Option("cache {\nmax_sessions 1\nmax_sessions 2 # here\n}"),
		"max_sessions is given twice",
	},
	{
		"global twice",
		caddytest.Option("login_rate 1/s {\nglobal 1/s\nglobal 2/s # here\n}"),
		"global is given twice",
	},
	{
		"in_flight twice",
		caddytest.Option("login_rate 1/s {\nin_flight 1\nin_flight 2 # here\n}"),
		"in_flight is given twice",
	},
	{
		"wechat twice",
		"{\n\twechat {\n\t\tapp " + caddytest.AppID + " {env.A}\n\t}\n" +
			"\twechat { # here\n\t\tapp " + caddytest.OtherAppID + " {env.B}\n\t}\n}\n",
		"wechat is given twice",
		"put both blocks into one",
	},

	{
		"negative duration",
		caddytest.Option("session {\nttl -1h # here\n}"),
		"ttl " + cureTime,
		`"-1h"`,
	},
	{
		"duration without unit",
		caddytest.Option("session {\nidle 30 # here\n}"),
		"idle " + cureTime,
		`"30"`,
	},
	{
		"duration of garbage",
		caddytest.Option("max_staleness soon # here"),
		"max_staleness " + cureTime,
		`"soon"`,
	},
	{"duration missing", caddytest.Option("max_staleness # here"), "max_staleness takes one value"},
	{
		"two durations",
		caddytest.Option("api {\ntimeout 1s 2s # here\n}"),
		"timeout takes one value",
	},
	{
		"empty duration",
		caddytest.Option("max_staleness \"\" # here"),
		"max_staleness takes one value",
	},
	{
		"zero ttl",
		caddytest.Option("session {\nttl 0s # here\n}"),
		"ttl takes a duration above zero",
	},
	{
		"short ttl",
		caddytest.Option("session {\nttl 1ms # here\n}"),
		"ttl 1ms is too short: at least 1s",
	},
	{
		"short idle",
		caddytest.Option("session {\nidle 999ms # here\n}"),
		"idle 999ms is too short: at least 1s",
	},
	{
		"idle beyond ttl",
		caddytest.OptionEnd("session {\nidle 2h\nttl 1h\n}"),
		"session idle 2h0m0s is longer than ttl 1h0m0s and would never apply",
	},
	{
		"idle beyond the default ttl",
		caddytest.OptionEnd("session {\nidle 49h\n}"),
		"session idle 49h0m0s is longer than ttl 48h0m0s",
	},
	{
		"short timeout",
		caddytest.Option("api {\ntimeout 1ns # here\n}"),
		"timeout 1ns is too short: at least 1ms",
	},
	{
		"short max_age",
		caddytest.Option("decrypt {\nmax_age 1ms # here\n}"),
		"max_age 1ms is too short: at least 1s",
	},
	{
		"zero timeout",
		caddytest.Option("api {\ntimeout 0s # here\n}"),
		"timeout takes a duration above zero",
	},
	{
		"zero max_staleness",
		caddytest.Option("max_staleness 0s # here"),
		"max_staleness takes a duration above zero",
	},

	{
		"number of garbage",
		caddytest.Option("session {\nmax_per_user ten # here\n}"),
		"max_per_user takes a whole number from 1",
		`"ten"`,
	},
	{
		"number zero",
		caddytest.Option("session {\nmax_per_user 0 # here\n}"),
		"max_per_user takes a whole number from 1",
		`"0"`,
	},
	{
		"number negative",
		caddytest.Option("cache {\nmax_sessions -1 # here\n}"),
		"max_sessions takes a whole number from 1",
		`"-1"`,
	},
	{
		"number with a fraction",
		caddytest.Option("cache {\nmax_sessions 1.5 # here\n}"),
		"max_sessions takes a whole number from 1",
		`"1.5"`,
	},
	{
		"number too large",
		caddytest.Option("cache {\nmax_sessions 99999999999 # here\n}"),
		"max_sessions takes a whole number from 1",
		"from 1 to 2147483647",
	},
	{
		"number missing",
		caddytest.Option("login_rate 1/s {\nin_flight # here\n}"),
		"in_flight takes one value",
	},

	{"no app", "{\n\twechat {\n\t} # here\n}\n", "app <appid> {env.WX_SECRET}"},
	{"no block", "{\n\twechat # here\n}\n", "app <appid> {env.WX_SECRET}"},
	{
		"app without secret",
		caddytest.Apps("app " + caddytest.AppID + " # here"),
		"app takes an appid and the placeholder of its secret",
		"app wx0123456789abcdef {env.WX_SECRET}",
	},
	{
		"app with four values",
		caddytest.Apps("app " + caddytest.AppID + " {env.A} {env.B} {env.C} # here"),
		"app takes an appid and the placeholder of its secret",
	},
	{
		"previous secret written out",
		caddytest.Apps("app " + caddytest.AppID + " {env.A} " + caddytest.Canary + " # here"),
		"the previous secret",
	},
	{
		"one secret twice",
		caddytest.Apps("app " + caddytest.AppID + " {env.A} {env.A} # here"),
		"are the same placeholder",
	},
	{
		"app alone",
		caddytest.Apps("app # here"),
		"app takes an appid and the placeholder of its secret",
	},
	{
		"appid in upper case",
		caddytest.Apps("app WX0123456789ABCDEF {env.A} # here"),
		`"WX0123456789ABCDEF" is not an AppID`,
		cureAppID,
	},
	{
		"appid half upper case",
		caddytest.Apps("app wx0123456789abcdeF {env.A} # here"),
		"is not an AppID",
		cureAppID,
	},
	{
		"appid short",
		caddytest.Apps("app wx0123456789abcde {env.A} # here"),
		"is not an AppID",
		cureAppID,
	},
	{
		"appid long",
		caddytest.Apps("app wx0123456789abcdef0 {env.A} # here"),
		"is not an AppID",
		cureAppID,
	},
	{
		"appid with a space",
		caddytest.Apps("app \"wx0123456789abcdef \" {env.A} # here"),
		`"wx0123456789abcdef " is not an AppID`,
		cureAppID,
	},
	{
		"appid of an official account",
		caddytest.Apps("app gh_0123456789ab {env.A} # here"),
		"is not an AppID",
		cureAppID,
	},
	{"appid empty", caddytest.Apps("app \"\" {env.A} # here"), "this is not an AppID"},
	{
		"app twice",
		caddytest.Apps(
			"app " + caddytest.AppID + " {env.A}\napp " + caddytest.AppID + " {env.B} # here",
		),
		"mini program " + caddytest.AppID + " is given twice",
	},
	{
		"appid and secret swapped",
		caddytest.Apps("app " + caddytest.Canary + " " + caddytest.AppID + " # here"),
		"this is not an AppID",
		cureAppID,
	},

	{
		"secret literal",
		caddytest.Apps("app " + caddytest.AppID + " " + caddytest.Canary + " # here"),
		"secret",
		cureSecret,
		"{$VAR}",
	},
	{
		"secret from {$VAR}",
		caddytest.Apps("app " + caddytest.AppID + " {$CANARY_SECRET} # here"),
		"secret",
		cureSecret,
		"{$VAR}",
	},
	{
		"secret from an unset {$VAR}",
		caddytest.Apps("app " + caddytest.AppID + " {$CANARY_UNSET} # here"),
		"app takes an appid and the placeholder of its secret",
	},
	{
		"secret in braces",
		caddytest.Apps("app " + caddytest.AppID + " {" + caddytest.Canary + "} # here"),
		"secret",
		cureSecret,
	},
	{
		"secret half a placeholder",
		caddytest.Apps("app " + caddytest.AppID + " {env.X}" + caddytest.Canary + " # here"),
		"secret",
		cureSecret,
	},
	{
		"secret with a default",
		caddytest.Apps(
			"app " + caddytest.AppID + " {$CANARY_UNSET:" + caddytest.Canary + "} # here",
		),
		"secret",
		cureSecret,
	},
	{
		"secret in quotes",
		caddytest.Apps("app " + caddytest.AppID + " \"" + caddytest.Canary + "\" # here"),
		"secret",
		cureSecret,
	},
	{
		"secret of an unknown kind",
		caddytest.Apps("app " + caddytest.AppID + " {vault." + caddytest.Canary + "} # here"),
		"secret",
		"{env.",
		"{file.",
	},
	{
		"seal_key literal",
		caddytest.Option("seal_key " + caddytest.Canary + " # here"),
		"seal_key",
		cureSecret,
	},
	{
		"seal_key from {$VAR}",
		caddytest.Option("seal_key {$CANARY_SECRET} # here"),
		"seal_key",
		cureSecret,
	},
	{"seal_key missing", caddytest.Option("seal_key # here"), "seal_key takes one value"},
	{
		"two seal_keys",
		caddytest.Option("seal_key {env.A} {env.B} # here"),
		"seal_key takes one value",
	},

	{
		"store without a name",
		caddytest.Option("store # here"),
		"store takes the name of a store: store bolt <path>",
	},
	{
		"store unknown",
		caddytest.Option("store rdeis { # here\naddress localhost\n}"),
		`there is no store "rdeis" in this build`,
		"bolt",
	},
	{
		"store with two paths",
		caddytest.Option("store bolt /a.db /b.db # here"),
		"store bolt takes one path",
	},
	{
		"store with an unknown option",
		caddytest.Option("store bolt /a.db {\npath /b.db # here\n}"),
		`unknown word "path": expected new`,
	},
	{
		"store new twice",
		caddytest.Option("store bolt /a.db {\nnew\nnew # here\n}"),
		"new is given twice",
	},
	{
		"store new with a value",
		caddytest.Option("store bolt /a.db {\nnew yes # here\n}"),
		"new takes no value",
	},

	{"login_rate missing", caddytest.Option("login_rate # here"), "login_rate takes one value"},
	{
		"login_rate of garbage",
		caddytest.Option("login_rate often # here"),
		`"often" is not a rate`,
		cureRate,
	},
	{
		"login_rate per day",
		caddytest.Option("login_rate 30/d # here"),
		`"30/d" is not a rate`,
		cureRate,
	},
	{
		"login_rate without unit",
		caddytest.Option("login_rate 30 # here"),
		`"30" is not a rate`,
		cureRate,
	},
	{"login_rate zero", caddytest.Option("login_rate 0/m # here"), `"0/m" is not a rate`, cureRate},
	{
		"login_rate negative",
		caddytest.Option("login_rate -3/m # here"),
		`"-3/m" is not a rate`,
		cureRate,
	},
	{
		"login_rate with a fraction",
		caddytest.Option("login_rate 1.5/s # here"),
		`"1.5/s" is not a rate`,
		cureRate,
	},
	{
		"login_rate too large",
		caddytest.Option("login_rate 99999999999/s # here"),
		"is not a rate",
		cureRate,
	},
	{
		"login_rate off in upper case",
		caddytest.Option("login_rate OFF # here"),
		`"OFF" is not a rate`,
		cureRate,
	},
	{
		"global of garbage",
		caddytest.Option("login_rate 30/m {\nglobal lots # here\n}"),
		`"lots" is not a rate`,
		cureRate,
	},
	{
		"in_flight of garbage",
		caddytest.Option("login_rate 30/m {\nin_flight lots # here\n}"),
		"in_flight takes a whole number from 1",
	},

	{
		"base_url without scheme",
		caddytest.Option("api {\nbase_url api.weixin.qq.com # here\n}"),
		"base URL",
		"https://api.weixin.qq.com",
	},
	{
		"base_url with a password",
		caddytest.Option(
			"api {\nbase_url https://u:" + caddytest.Canary + "@example.com # here\n}",
		),
		"no user name or password",
	},
}

func TestThreat7_WrongCaddyfile(t *testing.T) { caddytest.RunWrong(t, wrongOptions) }
