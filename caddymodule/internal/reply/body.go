package reply

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// Limits of the body of a call, in bytes.
const (
	// MaxBody is for a call without data: a code has 32 to 64 characters
	// (WECHAT.md 1).
	MaxBody = 4 << 10

	// MaxData is for a call with open data: a month of steps, the longest there
	// is, has about 2,000 characters.
	MaxData = 64 << 10
)

// bodyTimeout bounds the wait for a body, so that bodies that never come do not
// pile up.
const bodyTimeout = 10 * time.Second

// Object is a flat JSON object. A value is a string, json.Number, bool or nil.
type Object map[string]any

// ReadObject reads the body of a call: one flat JSON object of at most limit
// bytes. It compares names exactly and refuses a name that stands twice, so that
// two readers never see different values (THREATS.md 24). An empty body is an
// empty object. The error is a Problem.
func ReadObject(w http.ResponseWriter, r *http.Request, limit int64) (Object, error) {
	if err := acceptable(r); err != nil {
		return nil, err
	}
	b, err := readBody(w, r, limit)
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, BodyTooLong(limit)
	}
	if err != nil {
		return nil, Invalid(http.StatusBadRequest, "the body could not be read")
	}
	r.Body = http.NoBody // tells send that nothing is left
	obj, err := parseObject(b)
	if err != nil {
		return nil, Invalid(http.StatusBadRequest, "the body is "+err.Error())
	}
	return obj, nil
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

// acceptable judges the headers that describe the body. Clients of wx.request
// send application/json with parameters of all kinds, an empty type or none.
func acceptable(r *http.Request) error {
	for _, e := range r.Header["Content-Encoding"] {
		if e != "" && e != "identity" {
			return Invalid(http.StatusUnsupportedMediaType,
				"the body is compressed: send it as it is")
		}
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return nil
	}
	// Parameters may be malformed; only the type counts.
	media, _, err := mime.ParseMediaType(ct)
	if media != "application/json" && !(err != nil && media == "" && jsonType(ct)) {
		return Invalid(http.StatusUnsupportedMediaType, "the body must be application/json")
	}
	return nil
}

// jsonType reads the type of a header whose parameters mime cannot read.
func jsonType(ct string) bool {
	media, _, _ := strings.Cut(ct, ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/json")
}

// trimJSON removes the white space of JSON, which is less than that of Go
// (RFC 8259, 2).
func trimJSON(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

func parseObject(b []byte) (Object, error) {
	b = trimJSON(b)
	obj := make(Object)
	if len(b) == 0 {
		return obj, nil
	}
	if !json.Valid(b) || b[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.Token() // the opening brace; json.Valid has seen all that follows
	for dec.More() {
		name, _ := dec.Token()
		value, err := dec.Token()
		if _, nested := value.(json.Delim); nested || err != nil {
			return nil, errors.New("not a flat JSON object")
		}
		key, _ := name.(string)
		if _, twice := obj[key]; twice {
			return nil, errors.New("a JSON object with a name that stands twice")
		}
		obj[key] = value
	}
	return obj, nil
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

// maxName bounds an id: those of WeChat have some 30 characters and no documented
// length (WECHAT.md 2.2).
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
// (WECHAT.md 1).
const maxCode = 256

// Code returns the member code, which must look like a code of WeChat; source
// names what gives one, for the client's developer.
func (o Object) Code(source string) (string, error) {
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
