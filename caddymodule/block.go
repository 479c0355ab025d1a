package caddymodule

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Block reads the lines of one block of a Caddyfile and refuses what is said twice. It serves this package and stores in packages of their own. Errors name file and line.
type Block struct {
	D       *caddyfile.Dispenser // stands at the word that is read
	nesting int
	said    map[string]bool
}

// NewBlock returns a reader of the block that follows what d stands at, if one does.
func NewBlock(d *caddyfile.Dispenser) *Block {
	return &Block{D: d, nesting: d.Nesting(), said: make(map[string]bool)}
}

// Next moves on to the next line and reports whether there is one.
func (b *Block) Next() bool { return b.D.NextBlock(b.nesting) }

// Unknown is the error for a word that the block does not know.
func (b *Block) Unknown(known string) error {
	if b.D.Val() == "{" {
		return b.D.Err("the word before this { takes no block: take it out, braces and all")
	}
	return b.D.Errf("unknown word %q: expected %s", b.D.Val(), known)
}

// First refuses a word that was said before in this block.
func (b *Block) First() error { return b.Say(b.D.Val()) }

// Say is First for a word that stands elsewhere.
func (b *Block) Say(word string) error {
	if b.said[word] {
		return b.D.Errf("%s is given twice", word)
	}
	b.said[word] = true
	return nil
}

// Bare reads a word that takes no value and may be said once.
func (b *Block) Bare(dst *bool) error {
	if err := b.First(); err != nil {
		return err
	}
	word := b.D.Val()
	if b.D.NextArg() {
		return b.D.Errf("%s takes no value", word)
	}
	*dst = true
	return nil
}

// Once reads the single argument of a word that may be said once.
func (b *Block) Once(dst *string) error {
	if err := b.First(); err != nil {
		return err
	}
	word := b.D.Val()
	args := b.D.RemainingArgs()
	if len(args) != 1 || args[0] == "" {
		return b.D.Errf("%s takes one value", word)
	}
	*dst = args[0]
	return nil
}

// duration reads a duration such as 90s, 48h or 2d, and refuses a shorter one than the least. It is above zero, which stands for the default in a configuration and would not be what the line says.
func (b *Block) duration(dst *caddy.Duration, least time.Duration) error {
	word := b.D.Val()
	err := b.durationOrZero(dst, least)
	if err == nil && *dst == 0 {
		return b.D.Errf("%s takes a duration above zero; leave it out for the default", word)
	}
	return err
}

// durationOrZero reads a duration that is zero or no shorter than the least.
func (b *Block) durationOrZero(dst *caddy.Duration, least time.Duration) error {
	word, text := b.D.Val(), ""
	if err := b.Once(&text); err != nil {
		return err
	}
	v, err := caddy.ParseDuration(text)
	if err != nil || v < 0 {
		return b.D.Errf("%s takes a duration such as 90s, 48h or 2d, not %q", word, text)
	}
	if v > 0 && v < least {
		return b.D.Errf("%s %s is too short: at least %s", word, text, least)
	}
	*dst = caddy.Duration(v)
	return nil
}

// number reads a whole number above zero.
func (b *Block) number(dst *int64) error {
	word, text := b.D.Val(), ""
	if err := b.Once(&text); err != nil {
		return err
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return b.D.Errf("%s takes a whole number from 1 to %d, not %q", word, math.MaxInt32, text)
	}
	*dst = n
	return nil
}

// size reads a number of bytes, which may be given in KiB or MiB.
func (b *Block) size(dst *int64) error {
	word, text := b.D.Val(), ""
	if err := b.Once(&text); err != nil {
		return err
	}
	number, unit := text, int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = rest, bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt32/unit {
		return b.D.Errf("%s takes a size such as 500000, 100KiB or 20MiB, not %q", word, text)
	}
	*dst = n * unit
	return nil
}

// Sub reads the block of a word that may be said once and takes no argument.
func (b *Block) Sub(line func(*Block) error) error {
	if err := b.First(); err != nil {
		return err
	}
	word := b.D.Val()
	if b.D.NextArg() {
		return b.D.Errf("%s takes a block and no value", word)
	}
	in := NewBlock(b.D)
	for in.Next() {
		if err := line(in); err != nil {
			return err
		}
	}
	return nil
}

// Checked reads a single value and refuses it on the line where it stands.
func (b *Block) Checked(dst *string, check func(string) error) error {
	if err := b.Once(dst); err != nil {
		return err
	}
	if err := check(*dst); err != nil {
		return b.D.WrapErr(err)
	}
	return nil
}

// list adds one or more values to a list; its word may be said again.
func (b *Block) list(dst *[]string, check func(string) error) error {
	word := b.D.Val()
	args := b.D.RemainingArgs()
	if len(args) == 0 {
		return b.D.Errf("%s takes at least one value", word)
	}
	for _, v := range args {
		if err := check(v); err != nil {
			return b.D.WrapErr(err)
		}
		if slices.Contains(*dst, v) {
			return b.D.Errf("%s %s is given twice", word, v)
		}
		*dst = append(*dst, v)
	}
	return nil
}
