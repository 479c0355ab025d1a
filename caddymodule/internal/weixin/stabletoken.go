package weixin

import (
	"context"
	"encoding/json"
	"time"
)

// stableToken asks for the access token of a mini program (WECHAT.md 5.1) and returns it with the time it has left. Left out,
// force_refresh is false.
func (c *Client) stableToken(ctx context.Context, app Credentials) (token AccessToken, life time.Duration, err error) {
	k := call{name: "stable_token", op: opToken, path: "cgi-bin/stable_token"}
	k.body, _ = json.Marshal(struct { // strings always marshal
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
	}{"client_credential", app.ID, app.Secret})
	err = c.do(ctx, c.other, k, func(a answer) (e *Error) {
		token, life, e = decodeToken(a)
		return e
	})
	return token, life, err
}

type tokenReply struct {
	envelope
	AccessToken text    `json:"access_token"`
	ExpiresIn   integer `json:"expires_in"`
}

// decodeToken accepts a token with a life. A life beyond what WeChat promises is cut to that.
func decodeToken(a answer) (AccessToken, time.Duration, *Error) {
	var r tokenReply
	if e := a.decode(&r, &r.envelope); e != nil {
		return AccessToken{}, 0, e
	}
	if !isVisible(string(r.AccessToken), maxToken) {
		return AccessToken{}, 0, a.nonsense("the answer holds no usable access_token")
	}
	if r.ExpiresIn <= 0 {
		return AccessToken{}, 0, a.nonsense("the answer holds no usable expires_in")
	}
	life := time.Duration(min(int64(r.ExpiresIn), int64(maxTokenLife/time.Second))) * time.Second
	return AccessToken{value: string(r.AccessToken)}, life, nil
}
