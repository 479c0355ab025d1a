package redisstore

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
)

// resolver replaces placeholders and remembers the first error and what stands for nothing. The latter is no error: a configuration can be checked where its secrets are not.
type resolver struct {
	unset []string
	err   error
}

func (r *resolver) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// text returns what a value stands for; empty for one that was left out.
func (r *resolver) text(what, value string) string {
	if value == "" {
		return ""
	}
	got, err := caddy.NewReplacer().ReplaceOrErr(value, false, true)
	if err != nil {
		r.fail(fmt.Errorf("resolving %s: %w", what, err))
	} else if got == "" {
		r.unset = append(r.unset, what+" "+value)
	}
	return got
}

// checked is text for a value that is checked once it is known.
func (r *resolver) checked(what, value string, check func(string) error) string {
	got := r.text(what, value)
	if got != "" {
		if err := check(got); err != nil {
			r.fail(err)
		}
	}
	return got
}

// secret returns what a secret's placeholder stands for; empty for one that was left out.
func (r *resolver) secret(what, value string) string {
	if value == "" {
		return ""
	}
	got, err := block.ResolveSecret(what, value)
	if err != nil {
		r.fail(err)
	} else if got == "" {
		r.unset = append(r.unset, what+" "+value)
	}
	return got
}

// file returns what is in a file; nothing for one that was left out.
func (r *resolver) file(what, path string) []byte {
	if path = r.text(what, path); path == "" || r.err != nil {
		return nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		r.fail(fmt.Errorf("reading %s: %w", what, err))
	}
	return b
}

// config reads the files of TLS.
func (t *TLS) config(r *resolver) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.text("tls server_name", t.ServerName), InsecureSkipVerify: t.InsecureSkipVerify}
	if pem := r.file("tls ca", t.CA); pem != nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			r.fail(fmt.Errorf("reading tls ca: %s holds no certificate in PEM", t.CA))
		}
	}
	cert, key := r.file("tls cert", t.Cert), r.file("tls key", t.Key)
	if cert != nil && key != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			r.fail(fmt.Errorf("reading tls cert %s with tls key %s: %w", t.Cert, t.Key, err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}
