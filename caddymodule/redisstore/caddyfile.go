package redisstore

import (
	"math"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/wxgate/wxgate/caddymodule"
)

// UnmarshalCaddyfile reads what the type's documentation shows.
func (s *Store) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	b := newBlock(d)
	if args := d.RemainingArgs(); len(args) > 0 {
		b.said["address"] = true
		if err := s.addAddresses(d, args); err != nil {
			return err
		}
	}
	for b.next() {
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
func (s *Store) line(b *block) error {
	switch b.d.Val() {
	case "address":
		if err := b.first(); err != nil {
			return err
		}
		return s.addAddresses(b.d, b.d.RemainingArgs())
	case "username":
		return b.value(&s.Username)
	case "password":
		return b.secret("the password", &s.Password)
	case "db":
		return b.number(&s.DB)
	case "tls":
		s.TLS = new(TLS)
		return b.sub(s.TLS.line)
	case "sentinel":
		s.Sentinel = new(Sentinel)
		return b.sub(s.Sentinel.line)
	case "cluster":
		return b.flag(&s.Cluster)
	case "prefix":
		return b.checked(&s.Prefix, checkPrefix)
	case "dial_timeout":
		return b.duration(&s.DialTimeout)
	case "read_timeout":
		return b.duration(&s.ReadTimeout)
	case "write_timeout":
		return b.duration(&s.WriteTimeout)
	}
	return b.unknown("address, username, password, db, tls, sentinel, cluster, prefix, dial_timeout, read_timeout or write_timeout")
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

func (t *TLS) line(b *block) error {
	switch b.d.Val() {
	case "ca":
		return b.value(&t.CA)
	case "cert":
		return b.value(&t.Cert)
	case "key":
		return b.value(&t.Key)
	case "server_name":
		return b.value(&t.ServerName)
	case "insecure_skip_verify":
		return b.flag(&t.InsecureSkipVerify)
	}
	return b.unknown("ca, cert, key, server_name or insecure_skip_verify")
}

func (s *Sentinel) line(b *block) error {
	switch b.d.Val() {
	case "master":
		return b.value(&s.Master)
	case "username":
		return b.value(&s.Username)
	case "password":
		return b.secret("the password of sentinel", &s.Password)
	}
	return b.unknown("master, username or password")
}

// block reads the lines of one block and refuses what is said twice.
type block struct {
	d       *caddyfile.Dispenser
	nesting int
	said    map[string]bool
}

func newBlock(d *caddyfile.Dispenser) *block {
	return &block{d: d, nesting: d.Nesting(), said: make(map[string]bool)}
}

func (b *block) next() bool { return b.d.NextBlock(b.nesting) }

// unknown is the error for a word that the block does not know.
func (b *block) unknown(known string) error {
	if b.d.Val() == "{" {
		return b.d.Err("the word before this { takes no block: take it out, braces and all")
	}
	return b.d.Errf("unknown word %q: here stands %s", b.d.Val(), known)
}

// first refuses a word that was said before.
func (b *block) first() error {
	word := b.d.Val()
	if b.said[word] {
		return b.d.Errf("%s is given twice", word)
	}
	b.said[word] = true
	return nil
}

// value reads the single value of a word.
func (b *block) value(dst *string) error {
	if err := b.first(); err != nil {
		return err
	}
	word := b.d.Val()
	args := b.d.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return b.d.Errf("%s takes one value", word)
	}
	*dst = args[0]
	return nil
}

// checked reads a value and refuses it on the line where it stands.
func (b *block) checked(dst *string, check func(string) error) error {
	if err := b.value(dst); err != nil {
		return err
	}
	if err := check(*dst); err != nil {
		return b.d.WrapErr(err)
	}
	return nil
}

func (b *block) secret(what string, dst *string) error {
	return b.checked(dst, func(v string) error { return caddymodule.CheckSecret(what, v) })
}

// flag reads a word that says it all.
func (b *block) flag(dst *bool) error {
	if err := b.first(); err != nil {
		return err
	}
	word := b.d.Val()
	if b.d.NextArg() {
		return b.d.Errf("%s takes no value", word)
	}
	*dst = true
	return nil
}

func (b *block) number(dst *int) error {
	word, text := b.d.Val(), ""
	if err := b.value(&text); err != nil {
		return err
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return b.d.Errf("%s takes a whole number from 0 to %d, not %q", word, math.MaxInt32, text)
	}
	*dst = int(n)
	return nil
}

// duration reads one above zero, which stands for the default and would not be what the line says.
func (b *block) duration(dst *caddy.Duration) error {
	word, text := b.d.Val(), ""
	if err := b.value(&text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v <= 0 {
		return b.d.Errf("%s takes a duration above zero such as 80ms or 2s, not %q", word, text)
	}
	*dst = caddy.Duration(v)
	return nil
}

// sub reads the block of a word that has no value.
func (b *block) sub(line func(*block) error) error {
	if err := b.first(); err != nil {
		return err
	}
	word := b.d.Val()
	if b.d.NextArg() {
		return b.d.Errf("%s takes a block and no value", word)
	}
	in := newBlock(b.d)
	for in.next() {
		if err := line(in); err != nil {
			return err
		}
	}
	return nil
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Store)(nil)
