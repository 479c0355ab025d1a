package caddymodule

import (
	"fmt"
	"strings"
	"testing"
)

// wrong is a Caddyfile that must be refused on the line that ends in "# here", by a message that holds all of want.
type wrong struct {
	name, text string
	want       []string
}

// option is a Caddyfile whose global option holds the given lines beside a good app.
func option(lines string) string {
	return "{\n\twechat {\n\t\tapp " + appID + " {env.WX_SECRET}\n" + lines + "\n\t}\n}\n\n:80 {\n\twechat_auth\n\treverse_proxy 127.0.0.1:8080\n}\n"
}

// optionEnd is the same for mistakes that only the whole block shows: they are reported where it ends.
func optionEnd(lines string) string {
	return strings.Replace(option(lines), "\n\t}", "\n\t} # here", 1)
}

// site is a Caddyfile whose directive holds the given lines.
func site(lines string) string {
	return "{\n\twechat {\n\t\tapp " + appID + " {env.WX_SECRET}\n\t}\n}\n\n:80 {\n\twechat_auth {\n" + lines + "\n\t}\n\treverse_proxy 127.0.0.1:8080\n}\n"
}

// directive is a Caddyfile whose site holds the given lines.
func directive(lines string) string {
	return "{\n\twechat {\n\t\tapp " + appID + " {env.WX_SECRET}\n\t}\n}\n\n:80 {\n" + lines + "\n}\n"
}

// apps is a Caddyfile whose global option holds nothing but the given lines.
func apps(lines string) string {
	return "{\n\twechat {\n" + lines + "\n\t}\n}\n\n:80 {\n\twechat_auth\n}\n"
}

const (
	cureSecret = "name it instead, as {env.NAME} or {file./run/secrets/name}"
	cureRate   = "write a number per s, m or h, such as 30/m, or off"
	cureTime   = "takes a duration such as 90s, 48h or 2d"
	cureAppID  = "wx followed by 16 lower-case letters or digits"
)

var wrongOptions = []wrong{
	{"unknown word", option("sesion { # here\n}"), []string{`unknown word "sesion"`, "app, api, session, store, cache, max_staleness, seal_key, login_rate, phone or decrypt"}},
	{"unknown word in decrypt", option("decrypt {\nage 1h # here\n}"), []string{`unknown word "age"`, "expected max_age"}},
	{"unknown word in api", option("api {\nurl x # here\n}"), []string{`unknown word "url"`, "base_url or timeout"}},
	{"unknown word in session", option("session {\nmax_per_usr 3 # here\n}"), []string{`unknown word "max_per_usr"`, "ttl, idle, max_per_user or replay"}},
	{"unknown word in cache", option("cache {\nsize 3 # here\n}"), []string{`unknown word "size"`, "max_sessions"}},
	{"unknown word in login_rate", option("login_rate 30/m {\nburst 3 # here\n}"), []string{`unknown word "burst"`, "global or in_flight"}},
	{"block after a value", option("max_staleness 30s { # here\n}"), []string{"the word before this { takes no block"}},
	{"unknown word of app", apps("app " + appID + " {env.WX_SECRET} {\n token /t # here\n}"), []string{"unknown word \"token\"", "token_file or cloud_token_file"}},
	{"token_file relative", apps("app " + appID + " {env.WX_SECRET} {\n token_file t # here\n}"), []string{"not an absolute path"}},
	{"token_file twice", apps("app " + appID + " {env.WX_SECRET} {\n token_file /t\n token_file /t # here\n}"), []string{"given twice"}},
	{"two token files", apps("app " + appID + " {env.WX_SECRET} {\n token_file /t\n cloud_token_file /t # here\n}"), []string{"one source of access tokens"}},
	{"argument of wechat", "{\n\twechat " + appID + " { # here\n}\n}\n", []string{"wechat takes a block and no value"}},
	{"argument of api", option("api https://example.com { # here\n}"), []string{"api takes a block and no value"}},
	{"argument of session", option("session 48h # here"), []string{"session takes a block and no value"}},
	{"argument of cache", option("cache 1000 # here"), []string{"cache takes a block and no value"}},

	{"api twice", option("api {\n}\napi { # here\n}"), []string{"api is given twice"}},
	{"session twice", option("session {\n}\nsession { # here\n}"), []string{"session is given twice"}},
	{"cache twice", option("cache {\n}\ncache { # here\n}"), []string{"cache is given twice"}},
	{"store twice", option("store bolt /a.db\nstore bolt /b.db # here"), []string{"store is given twice"}},
	{"max_staleness twice", option("max_staleness 1s\nmax_staleness 2s # here"), []string{"max_staleness is given twice"}},
	{"seal_key twice", option("seal_key {env.A}\nseal_key {env.B} # here"), []string{"seal_key is given twice"}},
	{"unknown word in phone", option("phone {\nforget # here\n}"), []string{`unknown word "forget"`, "expected remember"}},
	{"phone with a value", option("phone remember # here"), []string{"phone takes a block and no value"}},
	{"phone twice", option("phone {\nremember\n}\nphone { # here\n}"), []string{"phone is given twice"}},
	{"remember with a value", option("phone {\nremember yes # here\n}"), []string{"remember takes no value"}},
	{"login_rate twice", option("login_rate 1/s\nlogin_rate 2/s # here"), []string{"login_rate is given twice"}},
	{"base_url twice", option("api {\nbase_url https://a\nbase_url https://b # here\n}"), []string{"base_url is given twice"}},
	{"timeout twice", option("api {\ntimeout 1s\ntimeout 2s # here\n}"), []string{"timeout is given twice"}},
	{"ttl twice", option("session {\nttl 1h\nttl 2h # here\n}"), []string{"ttl is given twice"}},
	{"idle twice", option("session {\nidle 1h\nidle 2h # here\n}"), []string{"idle is given twice"}},
	{"replay twice", option("session {\nreplay 0s\nreplay 2s # here\n}"), []string{"replay is given twice"}},
	{"max_per_user twice", option("session {\nmax_per_user 1\nmax_per_user 2 # here\n}"), []string{"max_per_user is given twice"}},
	{"max_sessions twice", option("cache {\nmax_sessions 1\nmax_sessions 2 # here\n}"), []string{"max_sessions is given twice"}},
	{"global twice", option("login_rate 1/s {\nglobal 1/s\nglobal 2/s # here\n}"), []string{"global is given twice"}},
	{"in_flight twice", option("login_rate 1/s {\nin_flight 1\nin_flight 2 # here\n}"), []string{"in_flight is given twice"}},
	{"wechat twice", "{\n\twechat {\n\t\tapp " + appID + " {env.A}\n\t}\n\twechat { # here\n\t\tapp " + otherAppID + " {env.B}\n\t}\n}\n", []string{"wechat is given twice", "put both blocks into one"}},

	{"negative duration", option("session {\nttl -1h # here\n}"), []string{"ttl " + cureTime, `"-1h"`}},
	{"duration without unit", option("session {\nidle 30 # here\n}"), []string{"idle " + cureTime, `"30"`}},
	{"duration of garbage", option("max_staleness soon # here"), []string{"max_staleness " + cureTime, `"soon"`}},
	{"duration missing", option("max_staleness # here"), []string{"max_staleness takes one value"}},
	{"two durations", option("api {\ntimeout 1s 2s # here\n}"), []string{"timeout takes one value"}},
	{"empty duration", option("max_staleness \"\" # here"), []string{"max_staleness takes one value"}},
	{"zero ttl", option("session {\nttl 0s # here\n}"), []string{"ttl takes a duration above zero"}},
	{"short ttl", option("session {\nttl 1ms # here\n}"), []string{"ttl 1ms is too short: at least 1s"}},
	{"short idle", option("session {\nidle 999ms # here\n}"), []string{"idle 999ms is too short: at least 1s"}},
	{"idle beyond ttl", optionEnd("session {\nidle 2h\nttl 1h\n}"), []string{"session idle 2h0m0s is longer than ttl 1h0m0s and would never apply"}},
	{"idle beyond the default ttl", optionEnd("session {\nidle 49h\n}"), []string{"session idle 49h0m0s is longer than ttl 48h0m0s"}},
	{"short timeout", option("api {\ntimeout 1ns # here\n}"), []string{"timeout 1ns is too short: at least 1ms"}},
	{"short max_age", option("decrypt {\nmax_age 1ms # here\n}"), []string{"max_age 1ms is too short: at least 1s"}},
	{"zero timeout", option("api {\ntimeout 0s # here\n}"), []string{"timeout takes a duration above zero"}},
	{"zero max_staleness", option("max_staleness 0s # here"), []string{"max_staleness takes a duration above zero"}},

	{"number of garbage", option("session {\nmax_per_user ten # here\n}"), []string{"max_per_user takes a whole number from 1", `"ten"`}},
	{"number zero", option("session {\nmax_per_user 0 # here\n}"), []string{"max_per_user takes a whole number from 1", `"0"`}},
	{"number negative", option("cache {\nmax_sessions -1 # here\n}"), []string{"max_sessions takes a whole number from 1", `"-1"`}},
	{"number with a fraction", option("cache {\nmax_sessions 1.5 # here\n}"), []string{"max_sessions takes a whole number from 1", `"1.5"`}},
	{"number too large", option("cache {\nmax_sessions 99999999999 # here\n}"), []string{"max_sessions takes a whole number from 1", "from 1 to 2147483647"}},
	{"number missing", option("login_rate 1/s {\nin_flight # here\n}"), []string{"in_flight takes one value"}},

	{"no app", "{\n\twechat {\n\t} # here\n}\n", []string{"app <appid> {env.WX_SECRET}"}},
	{"no block", "{\n\twechat # here\n}\n", []string{"app <appid> {env.WX_SECRET}"}},
	{"app without secret", apps("app " + appID + " # here"), []string{"app takes an appid and the placeholder of its secret", "app wx0123456789abcdef {env.WX_SECRET}"}},
	{"app with three values", apps("app " + appID + " {env.A} {env.B} # here"), []string{"app takes an appid and the placeholder of its secret"}},
	{"app alone", apps("app # here"), []string{"app takes an appid and the placeholder of its secret"}},
	{"appid in upper case", apps("app WX0123456789ABCDEF {env.A} # here"), []string{`"WX0123456789ABCDEF" is not an AppID`, cureAppID}},
	{"appid half upper case", apps("app wx0123456789abcdeF {env.A} # here"), []string{"is not an AppID", cureAppID}},
	{"appid short", apps("app wx0123456789abcde {env.A} # here"), []string{"is not an AppID", cureAppID}},
	{"appid long", apps("app wx0123456789abcdef0 {env.A} # here"), []string{"is not an AppID", cureAppID}},
	{"appid with a space", apps("app \"wx0123456789abcdef \" {env.A} # here"), []string{`"wx0123456789abcdef " is not an AppID`, cureAppID}},
	{"appid of an official account", apps("app gh_0123456789ab {env.A} # here"), []string{"is not an AppID", cureAppID}},
	{"appid empty", apps("app \"\" {env.A} # here"), []string{"this is not an AppID"}},
	{"app twice", apps("app " + appID + " {env.A}\napp " + appID + " {env.B} # here"), []string{"mini program " + appID + " is given twice"}},
	{"appid and secret swapped", apps("app " + canary + " " + appID + " # here"), []string{"this is not an AppID", cureAppID}},

	{"secret literal", apps("app " + appID + " " + canary + " # here"), []string{"secret", cureSecret, "{$VAR}"}},
	{"secret from {$VAR}", apps("app " + appID + " {$CANARY_SECRET} # here"), []string{"secret", cureSecret, "{$VAR}"}},
	{"secret from an unset {$VAR}", apps("app " + appID + " {$CANARY_UNSET} # here"), []string{"app takes an appid and the placeholder of its secret"}},
	{"secret in braces", apps("app " + appID + " {" + canary + "} # here"), []string{"secret", cureSecret}},
	{"secret half a placeholder", apps("app " + appID + " {env.X}" + canary + " # here"), []string{"secret", cureSecret}},
	{"secret with a default", apps("app " + appID + " {$CANARY_UNSET:" + canary + "} # here"), []string{"secret", cureSecret}},
	{"secret in quotes", apps("app " + appID + " \"" + canary + "\" # here"), []string{"secret", cureSecret}},
	{"secret of an unknown kind", apps("app " + appID + " {vault." + canary + "} # here"), []string{"secret", "{env.", "{file."}},
	{"seal_key literal", option("seal_key " + canary + " # here"), []string{"seal_key", cureSecret}},
	{"seal_key from {$VAR}", option("seal_key {$CANARY_SECRET} # here"), []string{"seal_key", cureSecret}},
	{"seal_key missing", option("seal_key # here"), []string{"seal_key takes one value"}},
	{"two seal_keys", option("seal_key {env.A} {env.B} # here"), []string{"seal_key takes one value"}},

	{"store without a name", option("store # here"), []string{"store takes the name of a store: store bolt <path>"}},
	{"store unknown", option("store rdeis { # here\naddress localhost\n}"), []string{`there is no store "rdeis" in this build`, "bolt"}},
	{"store with two paths", option("store bolt /a.db /b.db # here"), []string{"store bolt takes one path"}},
	{"store with a block", option("store bolt /a.db {\npath /b.db # here\n}"), []string{"store bolt takes no block: write `store bolt <path>`"}},

	{"login_rate missing", option("login_rate # here"), []string{"login_rate takes one value"}},
	{"login_rate of garbage", option("login_rate often # here"), []string{`"often" is not a rate`, cureRate}},
	{"login_rate per day", option("login_rate 30/d # here"), []string{`"30/d" is not a rate`, cureRate}},
	{"login_rate without unit", option("login_rate 30 # here"), []string{`"30" is not a rate`, cureRate}},
	{"login_rate zero", option("login_rate 0/m # here"), []string{`"0/m" is not a rate`, cureRate}},
	{"login_rate negative", option("login_rate -3/m # here"), []string{`"-3/m" is not a rate`, cureRate}},
	{"login_rate with a fraction", option("login_rate 1.5/s # here"), []string{`"1.5/s" is not a rate`, cureRate}},
	{"login_rate too large", option("login_rate 99999999999/s # here"), []string{"is not a rate", cureRate}},
	{"login_rate off in upper case", option("login_rate OFF # here"), []string{`"OFF" is not a rate`, cureRate}},
	{"global of garbage", option("login_rate 30/m {\nglobal lots # here\n}"), []string{`"lots" is not a rate`, cureRate}},
	{"in_flight of garbage", option("login_rate 30/m {\nin_flight lots # here\n}"), []string{"in_flight takes a whole number from 1"}},

	{"base_url without scheme", option("api {\nbase_url api.weixin.qq.com # here\n}"), []string{"base URL", "https://api.weixin.qq.com"}},
	{"base_url with a password", option("api {\nbase_url https://u:" + canary + "@example.com # here\n}"), []string{"no user name or password"}},
}

var wrongSites = []wrong{
	{"path matcher", directive("wechat_auth /api/* # here"), []string{"wechat_auth takes no matcher", `"/api/*"`, "public and optional"}},
	{"named matcher", directive("@m path /x\nwechat_auth @m # here"), []string{"wechat_auth takes no matcher", `"@m"`, "public and optional"}},
	{"star matcher", directive("wechat_auth * # here"), []string{"wechat_auth takes no matcher", `"*"`, "public and optional"}},
	{"matcher and block", directive("wechat_auth /api/* { # here\npublic /x\n}"), []string{"wechat_auth takes no matcher"}},
	{"appid as argument", directive("wechat_auth " + appID + " # here"), []string{"wechat_auth takes no matcher and no argument"}},
	{"no global option", ":80 {\n\twechat_auth { # here\n\t\tpublic /x\n\t}\n}\n", []string{"wechat_auth needs the global option wechat", "app <appid> {env.WX_SECRET}"}},
	{"unknown word", site("exempt /x # here"), []string{`unknown word "exempt"`, "endpoints, public, optional, apps, token or headers"}},
	{"unknown word in headers", site("headers {\nuser X-User # here\n}"), []string{`unknown word "user"`, "openid, unionid, appid, source or phone"}},
	{"app instead of apps", site("app " + appID + " {env.A} # here"), []string{`unknown word "app"`}},
	{"block after public", site("public /x { # here\n}"), []string{"the word before this { takes no block"}},
	{"argument of headers", site("headers X-User { # here\n}"), []string{"headers takes a block and no value"}},

	{"endpoints twice", site("endpoints /a\nendpoints /b # here"), []string{"endpoints is given twice"}},
	{"token twice", site("token header X-A\ntoken header X-B # here"), []string{"token is given twice"}},
	{"headers twice", site("headers {\n}\nheaders { # here\n}"), []string{"headers is given twice"}},
	{"openid twice", site("headers {\nopenid X-A\nopenid X-B # here\n}"), []string{"openid is given twice"}},

	{"endpoints missing", site("endpoints # here"), []string{"endpoints takes one value"}},
	{"endpoints relative", site("endpoints wx # here"), []string{"a path begins with a slash", "such as /wx"}},
	{"endpoints with a slash", site("endpoints /wx/ # here"), []string{"it ends in a slash", "such as /wx"}},
	{"endpoints root", site("endpoints / # here"), []string{"it ends in a slash", "such as /wx"}},
	{"endpoints with a star", site("endpoints /wx/* # here"), []string{"letters, digits, hyphens and underscores", "such as /wx"}},
	{"endpoints encoded", site("endpoints /w%78 # here"), []string{"letters, digits", "such as /wx"}},

	{"public missing", site("public # here"), []string{"public takes at least one value"}},
	{"optional missing", site("optional # here"), []string{"optional takes at least one value"}},
	{"public relative", site("public healthz # here"), []string{"a path begins with a slash; write /healthz"}},
	{"public with a star inside", site("public /a/*/b # here"), []string{"* is allowed as the last segment only"}},
	{"public with a half star", site("public /a* # here"), []string{"* is allowed as the last segment only", "/assets/*"}},
	{"public everything by a bare star", site("public * # here"), []string{"path pattern"}},
	{"public with a query", site("public /a?b # here"), []string{"leave out everything from ? or # on"}},
	{"public with dots", site("public /a/../b # here"), []string{"not in canonical form"}},
	{"public with a double slash", site("public //a # here"), []string{"not in canonical form"}},
	{"public with a semicolon", site("public /a;b # here"), []string{"not in canonical form"}},
	{"public encoded in lower case", site("public /%e4%bd%a0 # here"), []string{"not in canonical form"}},
	{"public not encoded", site("public /你好 # here"), []string{"percent-encode"}},
	{"public encoded without need", site("public /%61 # here"), []string{"not in canonical form"}},
	{"optional relative", site("optional feed # here"), []string{"a path begins with a slash; write /feed"}},
	{"second path of a line", site("public /good bad # here"), []string{"write /bad"}},
	{"public twice the same", site("public /a\npublic /a # here"), []string{"public /a is given twice"}},
	{"public twice on a line", site("public /a /a # here"), []string{"public /a is given twice"}},
	{"public and optional", site("public /a/*\noptional /b /a/* # here"), []string{`path pattern "/a/*"`, "listed as public and as optional; keep one"}},
	{"public under endpoints", site("public /wx/login # here"), []string{`"/wx/login"`, "everything under /wx is answered by the gate itself"}},
	{"optional under endpoints", site("optional /wx/* # here"), []string{`"/wx/*"`, "everything under /wx is answered by the gate itself"}},
	{"public under endpoints given later", site("public /auth/x\nendpoints /auth # here"), []string{"everything under /auth is answered by the gate itself"}},

	{"apps missing", site("apps # here"), []string{"apps takes at least one value"}},
	{"apps not configured", strings.Replace(site("apps "+otherAppID), "wechat_auth {", "wechat_auth { # here", 1), []string{"does not configure", "add the line app " + otherAppID}},
	{"apps in upper case", site("apps WX0123456789ABCDEF # here"), []string{"is not an AppID", cureAppID}},

	{"token alone", site("token # here"), []string{"token is written: token header <name>"}},
	{"token without kind", site("token X-Token # here"), []string{"token is written: token header <name>"}},
	{"token in a cookie", site("token cookie sid # here"), []string{"token is written: token header <name>"}},
	{"token in a query", site("token query t # here"), []string{"token is written: token header <name>"}},
	{"token with two names", site("token header A B # here"), []string{"token is written: token header <name>"}},
	{"token header no token", site("token header \"X Y\" # here"), []string{`token header "X Y"`, "use X-3rd-Session or Authorization"}},
	{"token header of ours", site("token header X-WX-Session # here"), []string{"names beginning with X-WX- are removed from every request", "use X-3rd-Session"}},
	{"token header of ours, folded", site("token header x_wx_session # here"), []string{"names beginning with X-WX- are removed from every request"}},
	{"token header Cookie", site("token header Cookie # here"), []string{"it has a meaning of its own", "use X-3rd-Session"}},
	{"token header X-Forwarded-For", site("token header X-Forwarded-For # here"), []string{"it has a meaning of its own"}},
	{"token header collides", site("token header X-Session\nheaders {\nopenid X_Session # here\n}"), []string{"reads the same as", "give each value a name of its own"}},
	{"token header collides with a default", site("headers {\nopenid X-3rd-Session # here\n}"), []string{"reads the same as", "X-3rd-Session"}},

	{"header no token", site("headers {\nopenid \"X Open\" # here\n}"), []string{"not an HTTP field name", "such as X-WX-OPENID"}},
	{"header with a colon", site("headers {\nopenid X-Open: # here\n}"), []string{"not an HTTP field name"}},
	{"header not ASCII", site("headers {\nopenid X-微信 # here\n}"), []string{"not an HTTP field name"}},
	{"header Host", site("headers {\nopenid Host # here\n}"), []string{"it has a meaning of its own"}},
	{"header Cookie", site("headers {\nunionid cookie # here\n}"), []string{"it has a meaning of its own"}},
	{"header Connection", site("headers {\nappid Connection # here\n}"), []string{"it has a meaning of its own"}},
	{"header phone TE", site("headers {\nphone TE # here\n}"), []string{"it has a meaning of its own"}},
	{"header as the phone's", site("headers {\nopenid X-WX-PHONE # here\n}"), []string{"reads the same as"}},
	{"header TE", site("headers {\nsource TE # here\n}"), []string{"it has a meaning of its own"}},
	{"header Transfer-Encoding", site("headers {\nsource Transfer_Encoding # here\n}"), []string{"it has a meaning of its own"}},
	{"header Content-Length", site("headers {\nopenid Content-Length # here\n}"), []string{"it has a meaning of its own"}},
	{"header Content-Anything", site("headers {\nopenid Content-Anything # here\n}"), []string{"it has a meaning of its own"}},
	{"header Proxy-Authorization", site("headers {\nopenid Proxy-Authorization # here\n}"), []string{"it has a meaning of its own"}},
	{"header Authorization", site("headers {\nopenid Authorization # here\n}"), []string{"it has a meaning of its own"}},
	{"header X-Real-IP", site("headers {\nopenid X-Real-IP # here\n}"), []string{"it has a meaning of its own"}},
	{"header X-Wxgate", site("headers {\nopenid X-Wxgate # here\n}"), []string{"it has a meaning of its own"}},
	{"header missing", site("headers {\nopenid # here\n}"), []string{"openid takes one value"}},
	{"headers collide", site("headers {\nopenid X-Id\nunionid x.id # here\n}"), []string{"reads the same as", "give each value a name of its own"}},
	{"header collides with a default", site("headers {\nopenid X-WX-UNIONID # here\n}"), []string{"reads the same as"}},
}

// TestThreat7_WrongCaddyfile also stands for the rest of what an operator can get wrong: every line is refused where it stands, by a message that tells the cure and no secret.
func TestThreat7_WrongCaddyfile(t *testing.T) {
	t.Setenv("CANARY_SECRET", canary)
	for _, group := range []struct {
		name  string
		cases []wrong
	}{{"option", wrongOptions}, {"site", wrongSites}, {"api", wrongAPIs}} {
		for _, c := range group.cases {
			t.Run(group.name+"/"+c.name, func(t *testing.T) {
				line := 0
				for i, l := range strings.Split(c.text, "\n") {
					if strings.Contains(l, "# here") {
						line = i + 1
					}
				}
				out, _, err := adapt(c.text)
				if err == nil {
					t.Fatalf("accepted as %s", out)
				}
				for _, want := range append(c.want, fmt.Sprintf("Caddyfile:%d", line)) {
					if !strings.Contains(err.Error()+"\n", want) {
						t.Errorf("message lacks %q:\n%s", want, err)
					}
				}
				if strings.Contains(err.Error(), canary) {
					t.Errorf("message shows the secret: %s", err)
				}
			})
		}
	}
}
