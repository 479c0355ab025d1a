package opendata

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxID    = 128 // of openid and unionid: generous
	maxPhone = 64

	latest = 253402300799 // the last second of the year 9999, for a timestamp
)

// Data is an opened object. Printing, logging or marshalling it shows nothing.
type Data struct {
	private

	OpenID  string    // empty, or the Opener's
	UnionID string    // empty, or 1 to 128 visible ASCII characters, so it may go into a header
	Phone   Phone     // the zero Phone unless this is the data of getPhoneNumber
	Time    time.Time // when WeChat made the data, by its watermark
	Object  []byte    // the whole JSON object; see escape
}

// Phone is a telephone number, in printable ASCII. Printing, logging or
// marshalling it shows nothing.
type Phone struct {
	private

	Number      string // phoneNumber: with the country code if it is a foreign one
	PureNumber  string // purePhoneNumber: without the country code
	CountryCode string // countryCode: "86"
}

// Read judges an object in clear, such as the one in an answer of
// getuserphonenumber (docs/wechat.md#decryption). It accepts one JSON object in
// valid UTF-8, with the watermark of the Opener's mini program, made in time, that
// names no other user and no known name twice or in other case. The Data keeps
// object. The error is an [*Error].
func (o Opener) Read(object []byte) (Data, error) {
	d, r := o.judge(object)
	if r != "" {
		return Data{}, invalid(r)
	}
	return d, nil
}

// judge is Read. The Data is valid only without a Reason.
func (o Opener) judge(object []byte) (d Data, r Reason) {
	object = escape(object)
	fields, ok := readObject(object,
		"openId", "unionId", "phoneNumber", "purePhoneNumber", "countryCode", "watermark")
	if !ok {
		return d, ReasonObject
	}
	if d.Time, r = o.readWatermark(fields["watermark"]); r != "" {
		return d, r
	}
	d.OpenID, ok = readText(fields["openId"], maxID)
	if !ok || d.OpenID != "" && d.OpenID != o.OpenID {
		return d, ReasonOpenID
	}
	d.UnionID, ok = readText(fields["unionId"], maxID)
	if !ok || strings.Contains(d.UnionID, " ") || d.UnionID != "" && d.OpenID == "" {
		return d, ReasonUnionID
	}
	if d.Phone, ok = readPhone(fields); !ok {
		return d, ReasonPhone
	}
	d.Object = object
	return d, ""
}

func (o Opener) readWatermark(raw json.RawMessage) (made time.Time, r Reason) {
	fields, _ := readObject(raw, "appid", "timestamp")
	var appid string
	if json.Unmarshal(fields["appid"], &appid) != nil || appid == "" || appid != o.AppID {
		return time.Time{}, ReasonAppID
	}
	var seconds int64
	if json.Unmarshal(fields["timestamp"], &seconds) != nil || seconds <= 0 || seconds > latest {
		return time.Time{}, ReasonTime
	}
	if !o.NotBefore.IsZero() && seconds < o.NotBefore.Unix() ||
		!o.NotAfter.IsZero() && seconds > o.NotAfter.Unix() {
		return time.Time{}, ReasonTime
	}
	return time.Unix(seconds, 0), ""
}

// readPhone demands all parts of a number or none: a forged iv can rename one.
func readPhone(fields map[string]json.RawMessage) (Phone, bool) {
	var p Phone
	var ok [3]bool
	p.Number, ok[0] = readText(fields["phoneNumber"], maxPhone)
	p.PureNumber, ok[1] = readText(fields["purePhoneNumber"], maxPhone)
	code := fields["countryCode"]
	p.CountryCode, ok[2] = readText(code, maxPhone)
	var bare uint16 // WeChat has sent a number in place of the string
	if !ok[2] && json.Unmarshal(code, &bare) == nil {
		p.CountryCode, ok[2] = string(code), true
	}
	whole := p.Number != "" && p.PureNumber != "" && p.CountryCode != ""
	return p, !slices.Contains(ok[:], false) && (whole || p == Phone{})
}

// readText reads a string of at most limit printable ASCII characters; an absent
// or null one is empty.
func readText(raw json.RawMessage, limit int) (s string, ok bool) {
	if raw == nil {
		return "", true
	}
	if json.Unmarshal(raw, &s) != nil || len(s) > limit {
		return "", false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return "", false
		}
	}
	return s, true
}

// escape escapes what stands raw in strings of a JSON text and does harm there:
// control characters, which JSON forbids and nicknames have, and U+2028 and U+2029,
// which end a line of JavaScript. It leaves all else byte for byte.
func escape(b []byte) []byte {
	var out []byte // nil: nothing to escape so far
	begin, inString := 0, false
	for i := 0; i < len(b); i++ {
		n := 0 // bytes to escape
		switch c := b[i]; {
		case !inString:
			inString = c == '"'
		case c == '"':
			inString = false
		case c == '\\':
			i++ // what is escaped is no end of the string
			if i < len(b) && b[i] < ' ' {
				return b // no JSON
			}
		case c < ' ':
			n = 1
		case bytes.HasPrefix(b[i:], []byte("\u2028")), bytes.HasPrefix(b[i:], []byte("\u2029")):
			n = 3
		}
		if n > 0 {
			r, _ := utf8.DecodeRune(b[i:])
			out = fmt.Appendf(append(out, b[begin:i]...), `\u%04x`, r)
			i += n - 1
			begin = i + 1
		}
	}
	if out == nil {
		return b
	}
	return append(out, b[begin:]...)
}

// readObject returns the named fields of a JSON object. It refuses invalid UTF-8,
// which encoding/json would repair, and a name that comes twice or in other case:
// decoders disagree on these, and a client can rename the first fields through
// the iv.
func readObject(b []byte, names ...string) (map[string]json.RawMessage, bool) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if begin, err := dec.Token(); err != nil || begin != json.Delim('{') {
		return nil, false
	}
	fields := make(map[string]json.RawMessage, len(names))
	var value json.RawMessage
	for dec.More() {
		name, err := dec.Token()
		if err != nil || dec.Decode(&value) != nil {
			return nil, false
		}
		s, _ := name.(string)
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, s) })
		switch {
		case i < 0:
			continue
		case names[i] != s, fields[s] != nil:
			return nil, false
		}
		fields[s] = bytes.Clone(value)
	}
	return fields, true
}

const redacted = "[redacted]"

// private hides the struct that embeds it from fmt, slog, encoding/json and loggers
// built on them.
type private struct{}

// String returns "[redacted]".
func (private) String() string { return redacted }

// Format writes String for every verb.
func (private) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns String.
func (private) MarshalText() ([]byte, error) { return []byte(redacted), nil }
