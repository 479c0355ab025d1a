package weixin

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// SetDial sets how both transports connect. Call it before the first use.
func (c *Client) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.pooled.DialContext, c.fresh.DialContext = dial, dial
}

// SetProxy sends all requests through a proxy; "" through none.
func (c *Client) SetProxy(address string) {
	proxy := func(*http.Request) (*url.URL, error) { return nil, nil }
	if u, err := url.Parse(address); err == nil && address != "" {
		proxy = http.ProxyURL(u)
	}
	c.pooled.Proxy, c.fresh.Proxy = proxy, proxy
}

// TrustOnly makes pool the only trusted roots. Call it before the first use.
func (c *Client) TrustOnly(pool *x509.CertPool) {
	c.pooled.TLSClientConfig.RootCAs, c.fresh.TLSClientConfig.RootCAs = pool, pool
}

// Grant is a decoded access token.
type Grant struct {
	Token string
	Life  time.Duration
}

// Decoders judge one answer of each call.
var Decoders = map[string]func(status int, body []byte) (any, *Error){
	"code2session": func(status int, body []byte) (any, *Error) {
		return decodeSession(answer{status: status, body: body})
	},
	"stable_token": func(status int, body []byte) (any, *Error) {
		g, e := decodeGrant(answer{status: status, body: body})
		return Grant{g.token.value, g.life}, e
	},
	"getuserphonenumber": func(status int, body []byte) (any, *Error) {
		return decodePhone(answer{status: status, body: body}, "wx0123456789abcdef")
	},
	"checksession": func(status int, body []byte) (any, *Error) {
		return decodeCheck(answer{status: status, body: body})
	},
	"resetusersessionkey": func(status int, body []byte) (any, *Error) {
		return decodeReset(answer{status: status, body: body},
			Session{OpenID: "o1", SessionKey: "k", UnionID: "u1"})
	},
	"getpaidunionid": func(status int, body []byte) (any, *Error) {
		return decodeID("unionid")(answer{status: status, body: body})
	},
	"getpluginopenpid": func(status int, body []byte) (any, *Error) {
		return decodeID("openpid")(answer{status: status, body: body})
	},
	"getuserencryptkey": func(status int, body []byte) (any, *Error) {
		keys, e := decodeUserKeys(answer{status: status, body: body})
		if e != nil && keys != nil {
			panic("keys beside an error")
		}
		return keys, e
	},
}

// Elsewhere ends the reason for an answer that WeChat would not give.
const Elsewhere = elsewhere

// Explain is the table of errcodes.
func Explain(errcode int) (Class, string) { return explain(errcode) }
