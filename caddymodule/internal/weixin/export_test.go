package weixin

import (
	"context"
	"crypto/x509"
	"net"
)

// SetDial replaces how both transports connect. Call it before the first use.
func (c *Client) SetDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	c.pooled.DialContext, c.fresh.DialContext = dial, dial
}

// TrustOnly makes pool the only trusted roots. Call it before the first use.
func (c *Client) TrustOnly(pool *x509.CertPool) {
	c.pooled.TLSClientConfig.RootCAs, c.fresh.TLSClientConfig.RootCAs = pool, pool
}

// DecodeSession judges one answer of code2Session.
func DecodeSession(status int, body []byte) (Session, *Error) {
	return decodeSession(answer{status: status, body: body})
}

// Explain is the table of errcodes.
func Explain(errcode int) (Class, string) { return explain(errcode) }
