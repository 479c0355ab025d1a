// Package block reads blocks of a Caddyfile line by line: values that may be given
// once, durations, sizes, lists, and secrets that must be placeholders.
//
// It must not know what a word means. Each error names file and line.
package block

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Block reads the lines of one block and refuses a word that stands twice.
type Block struct {
	D       *caddyfile.Dispenser // stands at the word to read
	nesting int
	said    map[string]bool
}

// New returns a reader of the block that follows the current token of d, if any.
func New(d *caddyfile.Dispenser) *Block {
	return &Block{D: d, nesting: d.Nesting(), said: make(map[string]bool)}
}

// Next moves to the next line and reports whether there is one.
func (b *Block) Next() bool { return b.D.NextBlock(b.nesting) }

// Unknown returns the error for an unknown word; known lists the words allowed.
func (b *Block) Unknown(known string) error {
	if b.D.Val() == "{" {
		return b.D.Err("the word before this { takes no block: take it out, braces and all")
	}
	return b.D.Errf("unknown word %q: expected %s", b.D.Val(), known)
}

// First refuses the current word if it stands in this block twice.
func (b *Block) First() error { return b.Say(b.D.Val()) }

// Say is First for a word given by name.
func (b *Block) Say(word string) error {
	if b.said[word] {
		return b.D.Errf("%s is given twice", word)
	}
	b.said[word] = true
	return nil
}

// Bare reads a word without a value.
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

// Once reads the single argument of a word.
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

// Duration reads a duration such as 90s, 48h or 2d, not shorter than least. It
// refuses zero, which stands for the default in a configuration.
func (b *Block) Duration(dst *caddy.Duration, least time.Duration) error {
	word := b.D.Val()
	err := b.DurationOrZero(dst, least)
	if err == nil && *dst == 0 {
		return b.D.Errf("%s takes a duration above zero; leave it out for the default", word)
	}
	return err
}

// DurationOrZero reads a duration that is zero or not shorter than least.
func (b *Block) DurationOrZero(dst *caddy.Duration, least time.Duration) error {
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

// Number reads a whole number above zero.
func (b *Block) Number(dst *int64) error {
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

// Size reads a number of bytes, in KiB or MiB if it says so.
func (b *Block) Size(dst *int64) error {
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

// Sub reads the block of a word that takes no argument.
func (b *Block) Sub(line func(*Block) error) error {
	if err := b.First(); err != nil {
		return err
	}
	word := b.D.Val()
	if b.D.NextArg() {
		return b.D.Errf("%s takes a block and no value", word)
	}
	in := New(b.D)
	for in.Next() {
		if err := line(in); err != nil {
			return err
		}
	}
	return nil
}

// Checked reads a single value and refuses a bad one with its line.
func (b *Block) Checked(dst *string, check func(string) error) error {
	if err := b.Once(dst); err != nil {
		return err
	}
	if err := check(*dst); err != nil {
		return b.D.WrapErr(err)
	}
	return nil
}

// List adds one or more values to a list; its word may stand again.
func (b *Block) List(dst *[]string, check func(string) error) error {
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
