package caddymodule

import (
	"math"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

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

// first refuses a word that was said before in this block.
func (b *block) first() error {
	word := b.d.Val()
	if b.said[word] {
		return b.d.Errf("%s is given twice", word)
	}
	b.said[word] = true
	return nil
}

// once reads the single argument of a word that may be said once.
func (b *block) once(dst *string) error {
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

// duration reads a duration such as 90s, 48h or 2d. It is above zero, which stands for the default in a configuration and would not be what the line says.
func (b *block) duration(dst *caddy.Duration) error {
	word := b.d.Val()
	if err := b.durationOrZero(dst); err != nil {
		return err
	}
	if *dst == 0 {
		return b.d.Errf("%s takes a duration above zero; leave it out for the default", word)
	}
	return nil
}

// durationOrZero reads a duration that is not negative.
func (b *block) durationOrZero(dst *caddy.Duration) error {
	word, text := b.d.Val(), ""
	if err := b.once(&text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v < 0 {
		return b.d.Errf("%s takes a duration such as 90s, 48h or 2d, not %q", word, text)
	}
	*dst = caddy.Duration(v)
	return nil
}

// number reads a whole number above zero.
func (b *block) number(dst *int64) error {
	word, text := b.d.Val(), ""
	if err := b.once(&text); err != nil {
		return err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return b.d.Errf("%s takes a whole number from 1 to %d, not %q", word, math.MaxInt32, text)
	}
	*dst = n
	return nil
}

// sub reads the block of a word that may be said once and takes no argument.
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

// checked reads a single value and refuses it on the line where it stands.
func (b *block) checked(dst *string, check func(string) error) error {
	if err := b.once(dst); err != nil {
		return err
	}
	if err := check(*dst); err != nil {
		return b.d.WrapErr(err)
	}
	return nil
}

// list adds one or more values to a list; its word may be said again.
func (b *block) list(dst *[]string, check func(string) error) error {
	word := b.d.Val()
	args := b.d.RemainingArgs()
	if len(args) == 0 {
		return b.d.Errf("%s takes at least one value", word)
	}
	for _, v := range args {
		if err := check(v); err != nil {
			return b.d.WrapErr(err)
		}
	}
	*dst = append(*dst, args...)
	return nil
}
