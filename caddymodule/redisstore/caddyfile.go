package redisstore

import (
	"math"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
)

// UnmarshalCaddyfile reads what the type's documentation shows.
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	b := block.New(d)
	if args := d.RemainingArgs(); len(args) > 0 {
		if err := b.Say("address"); err != nil {
			return err
		}
		if err := s.addAddresses(d, args); err != nil {
			return err
		}
	}
	for b.Next() {
		if err := s.line(b); err != nil {
			return err
		}
	}
	if err := s.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// line reads one line of the block.
func (s *Store) line(b *block.Block) error {
	switch b.D.Val() {
	case "address":
		if err := b.First(); err != nil {
			return err
		}
		return s.addAddresses(b.D, b.D.RemainingArgs())
	case "username":
		return b.Once(&s.Username)
	case "password":
		return secret(b, "the password", &s.Password)
	case "db":
		return number(b, &s.DB)
	case "tls":
		s.TLS = new(TLS)
		return b.Sub(s.TLS.line)
	case "sentinel":
		s.Sentinel = new(Sentinel)
		return b.Sub(s.Sentinel.line)
	case "cluster":
		return b.Bare(&s.Cluster)
	case "prefix":
		return b.Checked(&s.Prefix, checkPrefix)
	case "new":
		return b.Bare(&s.New)
	case "dial_timeout":
		return duration(b, &s.DialTimeout)
	case "read_timeout":
		return duration(b, &s.ReadTimeout)
	case "write_timeout":
		return duration(b, &s.WriteTimeout)
	}
	return b.Unknown("address, username, password, db, tls, sentinel, cluster, prefix, " +
		"new, dial_timeout, read_timeout or write_timeout")
}

func (s *Store) addAddresses(d *caddyfile.Dispenser, args []string) error {
	if len(args) == 0 {
		return d.Err("address takes at least one host:port")
	}
	for _, a := range args {
		if err := checkWritten(a, checkAddress); err != nil {
			return d.WrapErr(err)
		}
	}
	s.Addresses = args
	return nil
}

func (t *TLS) line(b *block.Block) error {
	switch b.D.Val() {
	case "ca":
		return b.Once(&t.CA)
	case "cert":
		return b.Once(&t.Cert)
	case "key":
		return b.Once(&t.Key)
	case "server_name":
		return b.Once(&t.ServerName)
	case "insecure_skip_verify":
		return b.Bare(&t.InsecureSkipVerify)
	}
	return b.Unknown("ca, cert, key, server_name or insecure_skip_verify")
}

func (s *Sentinel) line(b *block.Block) error {
	switch b.D.Val() {
	case "master":
		return b.Once(&s.Master)
	case "username":
		return b.Once(&s.Username)
	case "password":
		return secret(b, "the password of sentinel", &s.Password)
	}
	return b.Unknown("master, username or password")
}

// secret reads the placeholder of a secret.
func secret(b *block.Block, what string, dst *string) error {
	return b.Checked(dst, func(v string) error { return block.CheckSecret(what, v) })
}

func number(b *block.Block, dst *int) error {
	word, text := b.D.Val(), ""
	if err := b.Once(&text); err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return b.D.Errf("%s takes a whole number from 0 to %d, not %q", word, math.MaxInt32, text)
	}
	*dst = int(n)
	return nil
}

// duration reads a duration within the limits of the word. Zero is refused, since
// it stands for the default.
func duration(b *block.Block, dst *caddy.Duration) error {
	word, text := b.D.Val(), ""
	if err := b.Once(&text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v <= 0 {
		return b.D.Errf("%s takes a duration above zero such as 80ms or 2s, not %q", word, text)
	}
	if err := checkTimeout(word, v); err != nil {
		return b.D.WrapErr(err)
	}
	*dst = caddy.Duration(v)
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Store)(nil)
