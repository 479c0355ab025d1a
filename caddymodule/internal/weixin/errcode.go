package weixin

// systemBusy is the one errcode after which a code may be sent again, once (WECHAT.md 12.1).
const systemBusy = -1

// explain returns the class of an errcode and what it means, with the operator's cure where there is one (WECHAT.md 2.3, 11).
func explain(errcode int) (Class, string) {
	switch errcode {
	case systemBusy:
		return ClassUnavailable, "WeChat is busy"
	case 40029:
		return ClassCodeInvalid, "code wrong, expired or of another appid: if every login fails, " +
			"compare the appid of the client project with the configured one"
	case 40163:
		return ClassCodeUsed, "code already used: each wx.login code can be exchanged once"
	case 40226:
		return ClassUserBlocked, "WeChat blocks this user as high-risk"
	case 50001:
		return ClassUserBlocked, "the user has not authorised this API"
	case 50002:
		return ClassUserBlocked, "the user is limited: account frozen or cancelled"
	case 45011:
		return ClassRateLimited, "too many calls this minute"
	case 45009:
		return ClassRateLimited, "daily API quota used up"
	case 40013:
		return ClassMisconfigured, "appid invalid: look for a typing error, a stray space or a cut-off appid in the configuration"
	case 40125:
		return ClassMisconfigured, "AppSecret invalid: it is wrong or was reset in the WeChat console; configure the present one"
	case 40164:
		return ClassMisconfigured, "this server's IP is not whitelisted: add its egress IP to the API IP whitelist in the WeChat console"
	case 40243:
		return ClassMisconfigured, "AppSecret frozen: unfreeze or reset it in the WeChat console"
	case 41002:
		return ClassMisconfigured, "appid missing in the request: something between this server and WeChat changes the query"
	case 41004:
		return ClassMisconfigured, "AppSecret missing in the request: something between this server and WeChat changes the query"
	case 41008:
		return ClassMisconfigured, "code missing in the request: something between this server and WeChat changes the query"
	case 48001:
		return ClassMisconfigured, "API not authorised for this account: check its permissions in the WeChat console, " +
			"and do not send code2Session through a cloud-hosting open-API service"
	default:
		return ClassRejected, "refused for a reason not known here: see WeChat's list of return codes"
	}
}
