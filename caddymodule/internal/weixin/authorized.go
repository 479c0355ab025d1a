package weixin

import (
	"context"
	"errors"
	"net/url"
)

// authorized makes a call that carries the mini program's access token. When WeChat refuses the token, the call was not carried out: it
// is made once more if another token is to be had, whatever it costs otherwise (WECHAT.md 5.4, 12.20). One deadline covers it all.
func (c *Client) authorized(ctx context.Context, app Credentials, k call, decode func(answer) *Error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	token, err := c.tokens.Token(ctx, app)
	if err != nil {
		return err
	}
	if k.query == nil {
		k.query = make(url.Values)
	}
	token.addTo(k.query)
	err = c.do(ctx, c.other, k, decode)
	if e, ok := errors.AsType[*Error](err); !ok || !isTokenRefusal(e.ErrCode) {
		return err
	}
	c.tokens.Rejected(app, token)
	another, none := c.tokens.Token(ctx, app)
	if none != nil || another == token {
		return err
	}
	another.addTo(k.query)
	return c.do(ctx, c.other, k, decode)
}
