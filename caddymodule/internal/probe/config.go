package probe

import (
	"cmp"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// DefaultTimeout bounds one request.
const DefaultTimeout = 5 * time.Second

// DefaultIdentity are the headers that tell an app who is calling, by the names
// of WeChat Cloud Hosting (docs/wechat.md#cloud-headers).
var DefaultIdentity = []string{"X-WX-OPENID", "X-WX-UNIONID", "X-WX-APPID", "X-WX-SOURCE"}

// Config says which gate Run probes, and how.
type Config struct {
	// URL leads through the gate to the echo app, or to an endpoint that reflects
	// the request's headers. It is http or https.
	URL string

	// Credential are the header lines ("Name: value") that make a request an
	// honest user's. Without them Run leaves out the rows that need a user. No
	// report holds their values.
	Credential []string

	// Identity are the headers by which the gate tells the app of the user, the
	// one that is always there first. Default: DefaultIdentity.
	Identity []string

	// Public is the prefix under which the gate asks for no credential, such as
	// /public/. Optional.
	Public string

	// Endpoints is the prefix of the gate's own endpoints. Default: /wx.
	Endpoints string

	// Echo is the gate's upstream; Run answers there as the app, and closes it.
	// Nil: the endpoint of URL reflects the request's headers in its answer, in
	// whatever format.
	Echo net.Listener

	// Insecure accepts any certificate of the gate.
	Insecure bool

	// Timeout bounds one request. Default: DefaultTimeout.
	Timeout time.Duration
}

// prepare checks the configuration and fills in the defaults.
func (p *probe) prepare() (err error) {
	p.url, err = url.Parse(p.URL)
	if err != nil || p.url.Host == "" || p.url.User != nil ||
		p.url.Scheme != "http" && p.url.Scheme != "https" {
		return errors.New("the URL is not of the form http://host/path or https://host/path")
	}
	if p.url.Path == "" {
		p.url.Path = "/"
	}
	p.Timeout = cmp.Or(p.Timeout, DefaultTimeout)
	p.Endpoints = cmp.Or(p.Endpoints, "/wx")
	for _, prefix := range []*string{&p.Endpoints, &p.Public} {
		if *prefix == "" {
			continue
		}
		plain := strings.TrimSuffix(strings.TrimSuffix(*prefix, "*"), "/")
		if !canonical(plain) {
			return fmt.Errorf("the prefix %q is not a plain path such as /public/", *prefix)
		}
		*prefix = plain
	}
	if err := p.checkHeaders(); err != nil {
		return err
	}
	random := make([]byte, 6)
	rand.Read(random)
	p.run = hex.EncodeToString(random)
	p.observer = reflection{}
	port := cmp.Or(p.url.Port(), map[string]string{"http": "80", "https": "443"}[p.url.Scheme])
	p.wire = wire{addr: net.JoinHostPort(p.url.Hostname(), port), timeout: p.Timeout}
	if p.url.Scheme == "https" {
		p.wire.tls = &tls.Config{
			ServerName: p.url.Hostname(), InsecureSkipVerify: p.Insecure,
			NextProtos: []string{"http/1.1"},
		}
	}
	return nil
}

// checkHeaders checks names and lines. Its errors hold no value of a credential.
func (p *probe) checkHeaders() error {
	if len(p.Identity) == 0 {
		p.Identity = DefaultIdentity
	}
	for _, name := range p.Identity {
		if !isToken(name) {
			return fmt.Errorf("the identity header %q is not a header name", name)
		}
	}
	for _, line := range p.Credential {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || strings.TrimSpace(value) == "" ||
			strings.ContainsAny(value, "\r\n\x00") {
			return errors.New("a credential is not of the form 'Name: value'")
		}
		if p.owned(name) {
			return fmt.Errorf("the credential is sent in %s, which is an identity header: "+
				"give what a client sends, not what the app is told", name)
		}
	}
	return nil
}
