package weixin

// systemBusy is the one errcode after which a code may be sent again, once (WECHAT.md 12.1).
const systemBusy = -1

// isTokenRefusal reports whether an errcode says that the access_token is worth nothing, and a fresh one perhaps all (WECHAT.md 5.3).
func isTokenRefusal(errcode int) bool {
	return errcode == 40001 || errcode == 40014 || errcode == 42001
}

// explain returns the class of an errcode and what it means, with the operator's cure where there is one (WECHAT.md 2.3, 4 to 7, 11).
func explain(errcode int) (Class, string) {
	switch errcode {
	case systemBusy:
		return ClassUnavailable, "WeChat is busy"
	case 40029:
		return ClassCodeInvalid, "code wrong, expired, of another appid or of another kind: codes of wx.login, getPhoneNumber and " +
			"wx.pluginLogin are not interchangeable. If every one fails, compare the appid of the client project with the configured one"
	case 1007:
		return ClassCodeInvalid, "no openpid to this code: it is wrong, expired or not one of wx.pluginLogin"
	case 40163:
		return ClassCodeUsed, "code already used: each wx.login code can be exchanged once"
	case 40226:
		return ClassUserBlocked, "WeChat blocks this user as high-risk"
	case 50001:
		return ClassUserBlocked, "the user has not authorised this API"
	case 50002:
		return ClassUserBlocked, "the user is limited: account frozen or cancelled"
	case 87009:
		return ClassKeyStale, "signature refused: the session_key is not the user's present one"
	case 89300:
		return ClassOrderInvalid, "no such order of this user, or paid more than 5 minutes ago"
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
	case 40001, 40014, 42001:
		return ClassMisconfigured, "access token refused: it is void, superseded or another account's. Look for a process that forces refreshes, " +
			"and at the token file if there is one"
	case 41001:
		return ClassMisconfigured, "access token missing in the request: something between this server and WeChat changes the query, " +
			"or a cloud-hosting token is sent under the name of an ordinary one"
	case 40003:
		return ClassMisconfigured, "openid unknown to this account: the access token is perhaps that of another mini program"
	case 89002:
		return ClassMisconfigured, "no unionid: bind the mini program to a WeChat Open Platform account"
	case 89503:
		return ClassMisconfigured, "this server's IP waits for the administrator's confirmation in the WeChat console"
	case 1005:
		return ClassMisconfigured, "the code belongs to another plugin: compare the plugin's appid with the configured one"
	case 40002, 40066, 40097, 43001, 43002, 44002, 47001:
		return ClassMisconfigured, "request malformed on its way: something between this server and WeChat changes it, or the base URL is wrong"
	case 48001:
		return ClassMisconfigured, "API not authorised for this account: check its permissions in the WeChat console, " +
			"and send nothing that carries a token or secret of its own through a cloud-hosting open-API service"
	default:
		return ClassRejected, "refused for a reason not known here: see WeChat's list of return codes"
	}
}
