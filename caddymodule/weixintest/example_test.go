package weixintest_test

import (
	"encoding/json"
	"fmt"
	"net/url"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func Example() {
	const appid, secret = "wx0123456789abcdef", "secret"
	weixin := weixintest.NewServer(weixintest.Config{Apps: map[string]string{appid: secret}})
	defer weixin.Close()

	exchange := func(code string) (errcode int, openid string) {
		q := url.Values{
			"appid": {appid}, "secret": {secret}, "js_code": {code},
			"grant_type": {"authorization_code"},
		}
		r, err := weixin.Client().Get(weixin.URL + "/sns/jscode2session?" + q.Encode())
		if err != nil {
			panic(err)
		}
		defer r.Body.Close()
		var a struct {
			ErrCode int
			OpenID  string
		}
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			panic(err)
		}
		return a.ErrCode, a.OpenID
	}

	code := weixin.Code(appid, "alice")
	_, openid := exchange(code)
	fmt.Println("alice:", openid == weixin.OpenID(appid, "alice"))

	errcode, _ := exchange(code)
	fmt.Println("again:", errcode)

	weixin.Inject(weixintest.Fault{Kind: weixintest.FaultErrCode, ErrCode: -1})
	errcode, _ = exchange(weixin.Code(appid, "alice"))
	fmt.Println("busy:", errcode)
	fmt.Println("calls:", weixin.Count("/sns/jscode2session"))
	// Output:
	// alice: true
	// again: 40163
	// busy: -1
	// calls: 3
}
