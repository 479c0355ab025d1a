package push

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxTimestamp = 10 // digits: until the year 2286
	maxNonce     = 32
	maxEcho      = 128
)

// Query holds the parameters of a push that count.
type Query struct {
	Signature, MsgSignature string
	Timestamp, Nonce        string // as signed
	Echo                    string // echostr of a GET: it comes back to WeChat
}

// ReadQuery reads the query of a push. The signatures cover the parts without their
// limits, so that a part must not be able to hold a piece of another: a timestamp is
// digits, and a nonce is too short for a block of ciphertext. The error wraps
// ErrMalformed.
func ReadQuery(raw string) (q Query, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, fmt.Errorf("%w: query", ErrMalformed)
	}
	for name, field := range map[string]*string{
		"signature": &q.Signature, "msg_signature": &q.MsgSignature,
		"timestamp": &q.Timestamp, "nonce": &q.Nonce, "echostr": &q.Echo,
	} {
		if len(values[name]) > 1 {
			return Query{}, fmt.Errorf("%w: %s is given twice", ErrMalformed, name)
		}
		*field = values.Get(name)
	}
	digits := func(c rune) bool { return c >= '0' && c <= '9' }
	switch {
	case q.Timestamp == "" || len(q.Timestamp) > maxTimestamp ||
		strings.TrimFunc(q.Timestamp, digits) != "":
		return Query{}, fmt.Errorf("%w: timestamp", ErrMalformed)
	case q.Nonce == "" || len(q.Nonce) > maxNonce || !word(q.Nonce, "-_"):
		return Query{}, fmt.Errorf("%w: nonce", ErrMalformed)
	case len(q.Echo) > maxEcho || !word(q.Echo, "-_+/="):
		return Query{}, fmt.Errorf("%w: echostr", ErrMalformed)
	}
	return q, nil
}

// word reports whether s is letters, digits and the others only.
func word(s, others string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !strings.ContainsRune(others, c) && !alphanumeric(string(c))
	})
}

// Time returns when WeChat says that it sent the push. The signature covers it.
func (q Query) Time() time.Time {
	seconds, _ := strconv.ParseInt(q.Timestamp, 10, 64) // ReadQuery has seen digits
	return time.Unix(seconds, 0)
}
