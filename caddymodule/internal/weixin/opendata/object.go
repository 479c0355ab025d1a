package opendata

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxID    = 128 // openid, unionid: several times what WeChat uses
	maxPhone = 64
)

// latest is the last second of the year 9999, beyond which a timestamp is not one.
const latest = 253402300799

// Data is an opened object. Printing, logging or marshalling it shows nothing of it.
type Data struct {
	private

	OpenID  string    // empty, or the Opener's
	UnionID string    // empty, or 1 to 128 visible ASCII characters, so it may go into a header
	Phone   Phone     // the zero Phone unless this is the data of getPhoneNumber
	Time    time.Time // when WeChat made the data, by its watermark
	Object  []byte    // the whole JSON object, byte for byte
}

// Phone is a telephone number. Its parts are printable ASCII. Printing, logging or marshalling it shows nothing of it.
type Phone struct {
	private

	Number      string // phoneNumber: with the country code if that is a foreign one
	PureNumber  string // purePhoneNumber: without
	CountryCode string // countryCode: "86"
}

// Read judges an object in clear, as the answer of getuserphonenumber holds one (WECHAT.md 3.2, 6.1). It accepts valid UTF-8 that is
// one JSON object, in which no name that it knows comes twice or in other case, with the watermark of the Opener's mini program, made in time, that
// names no other user. The Data keeps object. The error is an [*Error].
func (o Opener) Read(object []byte) (Data, error) {
	d, r := o.judge(object)
	if r != "" {
		return Data{}, invalid(r)
	}
	return d, nil
}

// judge is Read; the Data counts only if there is no Reason against it.
func (o Opener) judge(object []byte) (d Data, r Reason) {
	fields, ok := readObject(object, "openId", "unionId", "phoneNumber", "purePhoneNumber", "countryCode", "watermark")
	if !ok {
		return d, ReasonObject
	}
	if d.Time, r = o.readWatermark(fields["watermark"]); r != "" {
		return d, r
	}
	if d.OpenID, ok = readText(fields["openId"], maxID); !ok || d.OpenID != "" && d.OpenID != o.OpenID {
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
	if !o.NotBefore.IsZero() && seconds < o.NotBefore.Unix() || !o.NotAfter.IsZero() && seconds > o.NotAfter.Unix() {
		return time.Time{}, ReasonTime
	}
	return time.Unix(seconds, 0), ""
}

// readPhone takes all parts of a number or none: a single one is what a forged iv makes of the data.
func readPhone(fields map[string]json.RawMessage) (Phone, bool) {
	var p Phone
	var ok [3]bool
	p.Number, ok[0] = readText(fields["phoneNumber"], maxPhone)
	p.PureNumber, ok[1] = readText(fields["purePhoneNumber"], maxPhone)
	code := fields["countryCode"]
	p.CountryCode, ok[2] = readText(code, maxPhone)
	var bare uint16 // WECHAT.md 6.1: a sample shows a number in place of the string
	if !ok[2] && json.Unmarshal(code, &bare) == nil {
		p.CountryCode, ok[2] = string(code), true
	}
	whole := p.Number != "" && p.PureNumber != "" && p.CountryCode != ""
	return p, !slices.Contains(ok[:], false) && (whole || p == Phone{})
}

// readText reads a string of at most limit printable ASCII characters; what is absent or null is empty.
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

// readObject returns the named fields of a JSON object. Not ok: b is not one, is not valid UTF-8 (which encoding/json would mend), has one
// of these names twice, of which encoding/json would take the last, and whoever is given the object perhaps the first, or has one in other
// case, which many decoders take for the same name and this one does not. A client can bring that about: it may change an iv at will, and
// so the beginning of the object.
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
