package reply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// Limits of the body of a call, in bytes.
const (
	// MaxBody is for a call without data: a code has 32 to 64 characters
	// (docs/wechat.md#login-code).
	MaxBody = 4 << 10

	// MaxData is for a call with open data: a month of steps, the longest there
	// is, has about 2,000 characters.
	MaxData = 64 << 10
)

// bodyTimeout bounds the wait for a body, so that bodies that never come do not
// pile up.
const bodyTimeout = 10 * time.Second

// Object is the JSON object of a call. A value is what encoding/json makes of it,
// with numbers as json.Number.
type Object map[string]any

// The types that a body may have.
const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// ReadObject reads the body of a client's call, at most limit bytes: a JSON object,
// or a form, as clients of all kinds send them. It compares names exactly and
// refuses a name that stands twice, so that two readers never see different values
// (docs/threats.md#t24). An empty body is an empty object. The error is a Problem.
func ReadObject(w http.ResponseWriter, r *http.Request, limit int64) (Object, error) {
	return readObject(w, r, limit, "", typeJSON, typeForm)
}

// ReadJSON is ReadObject for programs: the body must be declared as JSON, which no
// page of another site can do without asking (docs/threats.md#t31).
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64) (Object, error) {
	return readObject(w, r, limit, typeJSON)
}

func readObject(
	w http.ResponseWriter, r *http.Request, limit int64, types ...string,
) (Object, error) {
	kind, err := bodyType(r, types)
	if err != nil {
		return nil, err
	}
	b, err := ReadBytes(w, r, limit)
	if err != nil {
		return nil, err
	}
	b = trimJSON(bytes.TrimPrefix(b, []byte("\ufeff")))
	parse := parseObject
	// curl -d names its JSON a form. No form begins like this.
	if kind == typeForm && !bytes.HasPrefix(b, []byte("{")) {
		parse = parseForm
	}
	obj, err := parse(b)
	if err != nil {
		return nil, Invalid(http.StatusBadRequest, "the body is "+err.Error())
	}
	return obj, nil
}

// ReadBytes reads a body of at most limit bytes, of any type. The error is a Problem.
func ReadBytes(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := readBody(w, r, limit)
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, BodyTooLong(limit)
	}
	if err != nil {
		return nil, Invalid(http.StatusBadRequest, "the body could not be read")
	}
	r.Body = http.NoBody // nothing is left to drop
	return b, nil
}

// BodyTooLong returns the problem of a body beyond its limit.
func BodyTooLong(limit int64) Problem {
	return Invalid(http.StatusRequestEntityTooLarge,
		fmt.Sprintf("the body is longer than %d bytes", limit))
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // an error: this writer has no deadlines
	// A deadline left behind would end the connection in the middle of the call.
	defer rc.SetReadDeadline(time.Time{})
	return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
}

// bodyType returns the type that the headers of a body declare, which must be one of
// types. Clients of wx.request send application/json with parameters of all kinds,
// malformed ones too, or give it twice.
func bodyType(r *http.Request, types []string) (kind string, err error) {
	for _, e := range r.Header["Content-Encoding"] {
		if e != "" && e != "identity" {
			return "", Invalid(http.StatusUnsupportedMediaType,
				"Content-Encoding is "+shown(e)+": the body is compressed; send it as it is")
		}
	}
	declared := strings.Join(r.Header["Content-Type"], ",")
	for part := range strings.SplitSeq(declared, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		media, _, _ := strings.Cut(part, ";")
		media = strings.ToLower(strings.TrimSpace(media))
		if media == "" || kind != "" && media != kind {
			kind = "?"
			break
		}
		kind = media
	}
	if !slices.Contains(types, kind) {
		seen := "missing"
		if declared != "" {
			seen = shown(declared)
		}
		return "", Invalid(http.StatusUnsupportedMediaType,
			"Content-Type must be "+strings.Join(notEmpty(types), " or ")+"; it is "+seen)
	}
	return kind, nil
}

// shown returns a header value of a client for a problem's detail. Only what looks like
// a media type or coding is shown: a secret may stand in any header.
func shown(value string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("/+-. ,", c)
	}
	media, _, _ := strings.Cut(value, ";")
	if len(media) > 64 || len(media) > 16 && !strings.Contains(media, "/") ||
		strings.ContainsFunc(media, func(c rune) bool { return !plain(c) }) {
		return "of another form"
	}
	return strconv.Quote(media)
}

func notEmpty(types []string) []string {
	return slices.DeleteFunc(slices.Clone(types), func(s string) bool { return s == "" })
}

// trimJSON removes the white space of JSON, which is less than that of Go
// (RFC 8259, 2).
func trimJSON(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// parseObject reads a JSON object. Members that nothing asks for may be anything.
func parseObject(b []byte) (Object, error) {
	obj := make(Object)
	if len(b) == 0 {
		return obj, nil
	}
	if b[0] != '{' {
		return nil, errors.New("not a JSON object, which begins with a brace")
	}
	if e, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(b, new(json.RawMessage))); ok {
		return nil, fmt.Errorf("not a JSON object: its syntax ends at byte %d", e.Offset)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.Token() // the opening brace; Unmarshal has seen all that follows
	for dec.More() {
		name, _ := dec.Token()
		key, _ := name.(string)
		if _, twice := obj[key]; twice {
			return nil, errTwice(key)
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("not a JSON object")
		}
		obj[key] = value
	}
	return obj, nil
}

// parseForm reads a form. Its true and false are those of JSON.
func parseForm(b []byte) (Object, error) {
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, errors.New("not a form")
	}
	obj := make(Object)
	for name, values := range form {
		if len(values) > 1 {
			return nil, errTwice(name)
		}
		switch v := values[0]; v {
		case "true", "false":
			obj[name] = v == "true"
		default:
			obj[name] = v
		}
	}
	return obj, nil
}

// errTwice names what stands twice, if it is a name at all.
func errTwice(name string) error {
	if !visibleASCII(name, 32) {
		name = "a name"
	}
	return errors.New("ambiguous: " + name + " stands twice")
}

// Text returns a member that must be a string; an absent member is empty.
func (o Object) Text(name string) (string, error) {
	v, ok := o[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", Invalid(http.StatusBadRequest, name+" must be a string")
	}
	return s, nil
}

// Flag returns a member that must be true or false; an absent member is false.
func (o Object) Flag(name string) (bool, error) {
	v, ok := o[name]
	if !ok {
		return false, nil
	}
	b, ok := v.(bool)
	if !ok {
		return false, Invalid(http.StatusBadRequest, name+" must be true or false")
	}
	return b, nil
}

// Count returns a member that must be a whole number from 1 to most, as a number or,
// in a form, as text. An absent member is the default.
func (o Object) Count(name string, absent, most int64) (int64, error) {
	v, ok := o[name]
	if !ok {
		return absent, nil
	}
	if n, err := strconv.ParseInt(fmt.Sprint(v), 10, 64); err == nil && 0 < n && n <= most {
		return n, nil
	}
	return 0, Invalid(http.StatusBadRequest,
		fmt.Sprintf("%s must be a whole number from 1 to %d", name, most))
}

// maxName bounds an id: those of WeChat have some 30 characters and no documented
// length (docs/wechat.md#code2session-response).
const maxName = 128

// ID returns a member that must be an id: 1 to 128 visible ASCII characters.
func (o Object) ID(name string) (string, error) {
	s, err := o.Text(name)
	if err == nil && !visibleASCII(s, maxName) {
		err = Invalid(http.StatusBadRequest,
			name+" must be a string of 1 to 128 visible ASCII characters")
	}
	return s, err
}

// maxCode bounds a code: WeChat documents neither length nor alphabet
// (docs/wechat.md#login-code).
const maxCode = 256

// Code returns the member code, which must look like a code of WeChat; source
// names what gives one, for the client's developer.
func (o Object) Code(source string) (string, error) {
	if _, ok := o["code"]; !ok {
		return "", Invalid(http.StatusBadRequest,
			"code is missing: it is the string that "+source+" gave")
	}
	code, err := o.Text("code")
	if err == nil && !visibleASCII(code, maxCode) {
		err = Invalid(http.StatusBadRequest, "code must be the string that "+source+" gave")
	}
	return code, err
}

func visibleASCII(s string, limit int) bool {
	return s != "" && len(s) <= limit &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// SealedData returns what wx.getUserInfo and its like give to a client.
func (o Object) SealedData() (d session.SealedData, err error) {
	var raw string
	for name, dst := range map[string]*string{
		"encryptedData": &d.EncryptedData, "iv": &d.IV, "rawData": &raw, "signature": &d.Signature,
	} {
		if *dst, err = o.Text(name); err != nil {
			return d, err
		}
	}
	if d.EncryptedData == "" || d.IV == "" {
		return d, Invalid(http.StatusBadRequest,
			"encryptedData and iv must be there, as WeChat gave them")
	}
	if (raw == "") != (d.Signature == "") {
		return d, Invalid(http.StatusBadRequest,
			"rawData and signature come together or not at all")
	}
	if raw != "" {
		d.RawData = []byte(raw)
	}
	return d, nil
}
