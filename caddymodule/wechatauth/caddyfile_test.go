package wechatauth

import (
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

var wrongSites = []caddytest.Wrong{
	{
		"path matcher",
		caddytest.Directive("wechat_auth /api/* # here"),
		"wechat_auth takes no matcher",
		`"/api/*"`,
		"public and optional",
	},
	{
		"named matcher",
		caddytest.Directive("@m path /x\nwechat_auth @m # here"),
		"wechat_auth takes no matcher",
		`"@m"`,
		"public and optional",
	},
	{
		"star matcher",
		caddytest.Directive("wechat_auth * # here"),
		"wechat_auth takes no matcher",
		`"*"`,
		"public and optional",
	},
	{
		"matcher and block",
		caddytest.Directive("wechat_auth /api/* { # here\npublic /x\n}"),
		"wechat_auth takes no matcher",
	},
	{
		"appid as argument",
		caddytest.Directive("wechat_auth " + caddytest.AppID + " # here"),
		"wechat_auth takes no matcher and no argument",
	},
	{
		"no global option",
		":80 {\n\twechat_auth { # here\n\t\tpublic /x\n\t}\n}\n",
		"wechat_auth needs the global option wechat",
		"app <appid> {env.WX_SECRET}",
	},
	{
		"unknown word",
		caddytest.Site("exempt /x # here"),
		`unknown word "exempt"`,
		"apps, token, dialect, login_fields, tickets, cors or",
	},
	{
		"unknown word in headers",
		caddytest.Site("headers {\nuser X-User # here\n}"),
		`unknown word "user"`,
		"openid, unionid, appid, source, phone or assertion",
	},
	{
		"app instead of apps",
		caddytest.Site("app " + caddytest.AppID + " {env.A} # here"),
		`unknown word "app"`,
	},
	{
		"block after public",
		caddytest.Site("public /x { # here\n}"),
		"the word before this { takes no block",
	},
	{
		"argument of headers",
		caddytest.Site("headers X-User { # here\n}"),
		"headers takes a block and no value",
	},

	{
		"endpoints twice",
		caddytest.Site("endpoints /a\nendpoints /b # here"),
		"endpoints is given twice",
	},
	{
		"token twice",
		caddytest.Site("token header X-A\ntoken header X-B # here"),
		"token is given twice",
	},
	{
		"headers twice",
		caddytest.Site("headers {\n}\nheaders { # here\n}"),
		"headers is given twice",
	},
	{
		"openid twice",
		caddytest.Site("headers {\nopenid X-A\nopenid X-B # here\n}"),
		"openid is given twice",
	},

	{"endpoints missing", caddytest.Site("endpoints # here"), "endpoints takes one value"},
	{
		"endpoints relative",
		caddytest.Site("endpoints wx # here"),
		"a path begins with a slash",
		"such as /wx",
	},
	{
		"endpoints with a slash",
		caddytest.Site("endpoints /wx/ # here"),
		"it ends in a slash",
		"such as /wx",
	},
	{"endpoints root", caddytest.Site("endpoints / # here"), "it ends in a slash", "such as /wx"},
	{
		"endpoints with a star",
		caddytest.Site("endpoints /wx/* # here"),
		"letters, digits, hyphens and underscores",
		"such as /wx",
	},
	{
		"endpoints encoded",
		caddytest.Site("endpoints /w%78 # here"),
		"letters, digits",
		"such as /wx",
	},

	{"public missing", caddytest.Site("public # here"), "public takes at least one value"},
	{"optional missing", caddytest.Site("optional # here"), "optional takes at least one value"},
	{
		"public relative",
		caddytest.Site("public healthz # here"),
		"a path begins with a slash; write /healthz",
	},
	{
		"public with a star inside",
		caddytest.Site("public /a/*/b # here"),
		"* is allowed as the last segment only",
	},
	{
		"public with a half star",
		caddytest.Site("public /a* # here"),
		"* is allowed as the last segment only",
		"/assets/*",
	},
	{"public everything by a bare star", caddytest.Site("public * # here"), "path pattern"},
	{
		"public with a query",
		caddytest.Site("public /a?b # here"),
		"leave out everything from ? or # on",
	},
	{"public with dots", caddytest.Site("public /a/../b # here"), "not in canonical form"},
	{"public with a double slash", caddytest.Site("public //a # here"), "not in canonical form"},
	{"public with a semicolon", caddytest.Site("public /a;b # here"), "not in canonical form"},
	{
		"public encoded in lower case",
		caddytest.Site("public /%e4%bd%a0 # here"),
		"not in canonical form",
	},
	{"public not encoded", caddytest.Site("public /你好 # here"), "percent-encode"},
	{"public encoded without need", caddytest.Site("public /%61 # here"), "not in canonical form"},
	{
		"optional relative",
		caddytest.Site("optional feed # here"),
		"a path begins with a slash; write /feed",
	},
	{"second path of a line", caddytest.Site("public /good bad # here"), "write /bad"},
	{
		"public twice the same",
		caddytest.Site("public /a\npublic /a # here"),
		"public /a is given twice",
	},
	{"public twice on a line", caddytest.Site("public /a /a # here"), "public /a is given twice"},
	{
		"public and optional",
		caddytest.Site("public /a/*\noptional /b /a/* # here"),
		`path pattern "/a/*"`,
		"listed as public and as optional; keep one",
	},
	{
		"public under endpoints",
		caddytest.Site("public /wx/login # here"),
		`"/wx/login"`,
		"everything under /wx is answered by the gate itself",
	},
	{
		"optional under endpoints",
		caddytest.Site("optional /wx/* # here"),
		`"/wx/*"`,
		"everything under /wx is answered by the gate itself",
	},
	{
		"public under endpoints given later",
		caddytest.Site("public /auth/x\nendpoints /auth # here"),
		"everything under /auth is answered by the gate itself",
	},

	{"required missing", caddytest.Site("required # here"), "required takes at least one value"},
	{"required relative", caddytest.Site("required api # here"), "write /api"},
	{"required everything", caddytest.Site("required /* # here"), "leave it out"},
	{
		"required after public", caddytest.Site("public /a\nrequired /api/* # here"),
		"every other path public", "take out public and optional, or required",
	},
	{
		"optional after required", caddytest.Site("required /api/*\noptional /a # here"),
		"take out public and optional, or required",
	},
	{
		"required under endpoints", caddytest.Site("required /wx/* # here"),
		"everything under /wx is answered by the gate itself",
	},

	{"apps missing", caddytest.Site("apps # here"), "apps takes at least one value"},
	{
		"apps not configured",
		strings.Replace(
			caddytest.Site("apps "+caddytest.OtherAppID), "wechat_auth {", "wechat_auth { # here",
			1,
		),
		"does not configure",
		"add the line app " + caddytest.OtherAppID,
	},
	{
		"apps in upper case",
		caddytest.Site("apps WX0123456789ABCDEF # here"),
		"is not an AppID",
		"wx followed by 16 lower-case letters or digits",
	},

	{"token alone", caddytest.Site("token # here"), "token is written: token header <name>"},
	{
		"token without kind",
		caddytest.Site("token X-Token # here"),
		"token is written: token header <name>",
	},
	{
		"token in a cookie",
		caddytest.Site("token cookie sid # here"),
		"token is written: token header <name>",
	},
	{
		"token in a query",
		caddytest.Site("token query t # here"),
		"token is written: token header <name>",
	},
	{
		"token with two names",
		caddytest.Site("token header A B # here"),
		"token is written: token header <name>",
	},
	{
		"token header no token",
		caddytest.Site("token header \"X Y\" # here"),
		`token header "X Y"`,
		"use X-3rd-Session or Authorization",
	},
	{
		"token header of ours",
		caddytest.Site("token header X-WX-Session # here"),
		"names beginning with X-WX- are removed from every request",
		"use X-3rd-Session",
	},
	{
		"token header of ours, folded",
		caddytest.Site("token header x_wx_session # here"),
		"names beginning with X-WX- are removed from every request",
	},
	{
		"token header Cookie",
		caddytest.Site("token header Cookie # here"),
		"it has a meaning of its own",
		"use X-3rd-Session",
	},
	{
		"token header X-Forwarded-For",
		caddytest.Site("token header X-Forwarded-For # here"),
		"it has a meaning of its own",
	},
	{
		"token header collides",
		caddytest.Site("token header X-Session\nheaders {\nopenid X_Session # here\n}"),
		"reads the same as",
		"give each value a name of its own",
	},
	{
		"token header collides with a default",
		caddytest.Site("headers {\nopenid X-3rd-Session # here\n}"),
		"reads the same as",
		"X-3rd-Session",
	},

	{
		"header no token",
		caddytest.Site("headers {\nopenid \"X Open\" # here\n}"),
		"not an HTTP field name",
		"such as X-WX-OPENID",
	},
	{
		"header with a colon",
		caddytest.Site("headers {\nopenid X-Open: # here\n}"),
		"not an HTTP field name",
	},
	{
		"header not ASCII",
		caddytest.Site("headers {\nopenid X-微信 # here\n}"),
		"not an HTTP field name",
	},
	{
		"header Host",
		caddytest.Site("headers {\nopenid Host # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Cookie",
		caddytest.Site("headers {\nunionid cookie # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Connection",
		caddytest.Site("headers {\nappid Connection # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header phone TE",
		caddytest.Site("headers {\nphone TE # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header as the phone's",
		caddytest.Site("headers {\nopenid X-WX-PHONE # here\n}"),
		"reads the same as",
	},
	{"header TE", caddytest.Site("headers {\nsource TE # here\n}"), "it has a meaning of its own"},
	{
		"header Transfer-Encoding",
		caddytest.Site("headers {\nsource Transfer_Encoding # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Content-Length",
		caddytest.Site("headers {\nopenid Content-Length # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Content-Anything",
		caddytest.Site("headers {\nopenid Content-Anything # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Proxy-Authorization",
		caddytest.Site("headers {\nopenid Proxy-Authorization # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header Authorization",
		caddytest.Site("headers {\nopenid Authorization # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header X-Real-IP",
		caddytest.Site("headers {\nopenid X-Real-IP # here\n}"),
		"it has a meaning of its own",
	},
	{
		"header X-Wxgate",
		caddytest.Site("headers {\nopenid X-Wxgate # here\n}"),
		"it has a meaning of its own",
	},
	{"header missing", caddytest.Site("headers {\nopenid # here\n}"), "openid takes one value"},
	{
		"headers collide",
		caddytest.Site("headers {\nopenid X-Id\nunionid x.id # here\n}"),
		"reads the same as",
		"give each value a name of its own",
	},
	{
		"header collides with a default",
		caddytest.Site("headers {\nopenid X-WX-UNIONID # here\n}"),
		"reads the same as",
	},
	{
		"cloudrun and token",
		caddytest.Site("cloudrun\ntoken header X-T # here"),
		"take out token and headers, or cloudrun",
	},
	{
		"cloudrun and headers",
		caddytest.Site("cloudrun\nheaders {\nopenid X-O # here\n}"),
		"take out token and headers, or cloudrun",
	},
	{
		"cloudrun and verify",
		caddytest.Site("cloudrun\nverify # here"),
		"take out verify and assertion, or cloudrun",
	},
	{
		"cloudrun and assertion",
		caddytest.Site("cloudrun\nassertion {\naudience a\n} # here"),
		"take out verify and assertion, or cloudrun",
	},
	{"assertion without audience", caddytest.Site("assertion # here"), "needs audience"},
	{
		"assertion with issuer only",
		caddytest.Site("assertion {\nissuer https://a.example.com\n} # here"),
		"write audience",
	},
	{
		"audience twice",
		caddytest.Site("assertion {\naudience a\naudience b # here\n}"),
		"audience",
	},
	{
		"issuer without scheme",
		caddytest.Site("assertion {\naudience a\nissuer api.example.com # here\n}"),
		"write a URL, such as https://api.example.com",
	},
	{
		"unknown word in assertion",
		caddytest.Site("assertion {\nkey x # here\n}"),
		`unknown word "key"`, "audience or issuer",
	},
	{"value after verify", caddytest.Site("verify on # here"), "verify takes no value"},
	{"unknown dialect", caddytest.Site("dialect donut # here"), "dialect is wafer, the only one"},
	{"dialect twice", caddytest.Site("dialect wafer\ndialect wafer # here"), "dialect"},
	{"dialect without name", caddytest.Site("dialect # here"), "dialect"},
	{"dialect with cloudrun", caddytest.Site("cloudrun\ndialect wafer # here"), "cloudrun"},
	{"login_fields without name", caddytest.Site("login_fields # here"), "login_fields"},
	{"bad login_fields", caddytest.Site("login_fields js-code # here"), "letters, digits and _"},
	{"appid in login_fields", caddytest.Site("login_fields appid # here"), "not appid"},
	{"field twice", caddytest.Site("login_fields a a # here"), "login_fields"},
	{"tickets twice", caddytest.Site("tickets\ntickets # here"), "tickets"},
	{"any origin", caddytest.Site("cors * # here"), "https://host", "one each"},
	{"origin twice", caddytest.Site("cors https://a.com https://a.com # here"), "a.com"},
	{"verify twice", caddytest.Site("verify\nverify # here"), "verify"},
	{"value after cloudrun", caddytest.Site("cloudrun on # here"), "cloudrun takes no value"},
}

func TestThreat7_WrongCaddyfile(t *testing.T) { caddytest.RunWrong(t, wrongSites) }
