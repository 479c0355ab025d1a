/*
Package weixintest simulates api.weixin.qq.com, the server side of WeChat Mini
Program login, for tests and trials, like net/http/httptest. It owns the
behaviour of that service as its callers see it, including the ways in which it
fails; it knows nothing of wxgate and shares no code with its client, so that a
mistake in one cannot hide in the other.

	func TestLogin(t *testing.T) {
		weixin := weixintest.NewServer(weixintest.Config{
			Apps: map[string]string{"wx0123456789abcdef": "secret"},
		})
		defer weixin.Close()

		code := weixin.Code("wx0123456789abcdef", "alice") // wx.login on alice's phone
		got := myLogin(weixin.URL, code)                   // the code under test
		if got.OpenID != weixin.OpenID("wx0123456789abcdef", "alice") { ... }

		weixin.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1})
		...
	}

New gives the bare http.Handler, NewServer listens on a loopback port, and
NewPipeServer works inside a testing/synctest bubble.

# What is simulated

	GET  /sns/jscode2session                code2Session
	POST /cgi-bin/stable_token              getStableAccessToken
	GET  /sns/component/jscode2session    the same for a third-party platform
	POST /cgi-bin/component/api_component_token, api_create_preauthcode, api_query_auth,
	     api_authorizer_token, api_get_authorizer_list, api_start_push_ticket
	GET  /wxa/checksession                  checkSessionKey
	GET  /wxa/resetusersessionkey           resetUserSessionKey
	POST /wxa/business/getuserphonenumber   getPhoneNumber
	GET  /wxa/getpaidunionid                getPaidUnionId, after Pay
	POST /wxa/getpluginopenpid              getPluginOpenPId
	GET  /wxa/business/getuserencryptkey    getUserEncryptKey, also by POST
	POST /wxa/getwxacodeunlimit             a code to scan: a JPEG, which is noise
	POST /wxa/msg_sec_check                 a text that holds "risky" is found so
	POST /cgi-bin/message/subscribe/send    not delivered; Calls names its user
	POST /cgi-bin/message/custom/send       likewise
	POST /cgi-bin/media/upload              multipart, field media
	GET  /cgi-bin/media/get

In the other direction it sends message pushes, as WeChat does: SetPush and Push.

docs/wechat.md is the source. Errors come with status 200. Where no source tells what
WeChat does, the simulator decides:

  - an unknown path is answered with errcode 40066;
  - parameters are checked in the order appid, secret, code, grant_type, and
    then for their values;
  - an expired code is unknown (40029) even if it was used (40163 until then);
  - the limit of 100 exchanges counts by the clock minute, only good codes
    count, and 45011 does not spend the code; 40226 does;
  - wx.login (Code), not the exchange, is what renews a session_key, and every
    exchange answers the key that is current by then;
  - a session_key lives three days; afterwards the next login renews it;
  - force_refresh too soon is 45011, too often 45009;
  - a push that is answered by another status than 200 is sent again at once;
  - a new component_access_token or authorizer_access_token ends the one before at
    once, and an authorization_code is good for 10 minutes;
  - tickets have no timer: a call of the simulator's user pushes each;
  - a foreign phone number is country code and number in one, without "+".

# Control API

The same listener takes JSON requests under /_sim/, which do what the methods of
Simulator do: for tests in other languages and for trials by hand. An unknown
field or appid is refused with 400 and {"error": ...}. Requests that a browser
sends for a page are refused with 403.

	B=http://127.0.0.1:8750 A=wx0123456789abcdef

	# a wx.login code -> {"code":"0..."}
	curl $B/_sim/code -d '{"appid":"'$A'","user":"alice"}'

	# a phone code, a wx.pluginLogin code -> {"code":"..."}
	curl $B/_sim/phone_code -d '{"appid":"'$A'","phone":"13580006666"}'
	curl $B/_sim/plugin_code -d '{"plugin":"'$A'","host":"wxfedcba9876543210","user":"alice"}'

	# open data -> {"encryptedData":...,"iv":...,"rawData":...,"signature":...}
	curl $B/_sim/encrypt -d '{"appid":"'$A'","user":"alice","data":{"nickName":"Band"}}'

	# set all options of a user -> {"openid":...,"unionid":...,"session_key":...}; all but
	# appid and user may be left out
	curl $B/_sim/user -d '{"appid":"'$A'","user":"alice","openid":"","unionid":"",
	    "no_unionid":false,"blocked":false,"session_key":"","key_refresh":"5m"}'

	# another session_key -> as above
	curl $B/_sim/rotate_key -d '{"appid":"'$A'","user":"alice"}'

	# a payment -> {"transaction_id":...,"mch_id":...,"out_trade_no":...}
	curl $B/_sim/pay -d '{"appid":"'$A'","user":"alice"}'

	# the next 3 code exchanges go wrong; the fields are those of Fault
	curl $B/_sim/fault -d '{"kind":"errcode","errcode":-1,"path":"/sns/jscode2session",
	    "times":3,"delay":"200ms"}'
	curl $B/_sim/fault -d '{"kind":"status","status":503}'

	# every second call of all to come is answered by a proxy
	curl $B/_sim/fault -d '{"kind":"status","status":407,"times":-1,"every":2}'

	# the AppSecret is reset, as in the console
	curl $B/_sim/secret -d '{"appid":"'$A'","secret":"another-secret"}'
	curl $B/_sim/fault -d '{"kind":"body","body":"{\"openid\":\"o1\"}"}'

	# the message push in the console, which asks the URL for the proof at once
	curl $B/_sim/push_url -d '{"appid":"'$A'","url":"http://127.0.0.1:8080/wx/push/'$A'",
	    "token":"demoToken","aes_key":"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
	    "mode":"secure","xml":false}'

	# a push -> {"attempts":1,"status":200,"answer":"success"}; any message in place of
	# user and event: "message":{"MsgType":"text",...}
	curl $B/_sim/push -d '{"appid":"'$A'","user":"alice",
	    "event":"user_authorization_revoke","revoke_info":"8"}'

	# a third-party platform: its ticket comes, a mini program authorises it, changes what
	# it permits or withdraws -> {"attempts":1,"status":200,"answer":"success"}
	curl $B/_sim/component/ticket -d '{"component":"'$C'"}'
	curl $B/_sim/component/authorize -d '{"component":"'$C'","appid":"'$A'"}'
	curl $B/_sim/component/unauthorize -d '{"component":"'$C'","appid":"'$A'"}'

	# where its pushes go ("" is nowhere); all refresh tokens become other ones (61023)
	curl $B/_sim/component/events_url -d '{"component":"'$C'","url":"http://127.0.0.1:1/"}'
	curl $B/_sim/component/lose_refresh_tokens -d '{"component":"'$C'"}'

	# all tokens end now, before their time (42001)
	curl -X POST $B/_sim/expire_tokens

	# calls so far -> {"counts":{path:n},"calls":[Call...]}
	curl $B/_sim/calls

	# forget calls and pending faults
	curl -X POST $B/_sim/reset

The control API gives session_keys away and has no password. Keep it on a
loopback address.
*/
package weixintest
