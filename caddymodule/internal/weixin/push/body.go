package push

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Format is the form of a body, which the WeChat console chooses.
type Format string

// The formats.
const (
	JSON Format = "json"
	XML  Format = "xml"
)

// ContentType returns the media type of a body in the format.
func (f Format) ContentType() string {
	if f == XML {
		return "application/xml; charset=utf-8"
	}
	return "application/json; charset=utf-8"
}

// formatOf tells the format of a body by its first character.
func formatOf(body []byte) Format {
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("<")) {
		return XML
	}
	return JSON
}

// Envelope is the body of an encrypted push. In compatible mode it also holds the
// message in clear, which nothing authenticates and nothing here reads.
type Envelope struct {
	Format  Format
	Encrypt string // base64, as signed

	// To is the original id (gh_…) of the receiver, or the AppID of a third-party
	// platform. The signature does not cover it.
	To string
}

// ReadEnvelope reads the body of an encrypted push. The error wraps ErrMalformed.
func ReadEnvelope(body []byte) (Envelope, error) {
	f, fields, err := read(body)
	if err != nil {
		return Envelope{}, err
	}
	e := Envelope{Format: f, Encrypt: fields.first("Encrypt")}
	e.To = fields.first("ToUserName", "AppId")
	if e.Encrypt == "" {
		return Envelope{}, fmt.Errorf("%w: no Encrypt", ErrMalformed)
	}
	return e, nil
}

// fields holds the members of an object or element by name: texts and numbers as text,
// lists and what is nested as the texts in them, in order.
type fields map[string][]string

// first returns the text of the first name that is there, without blanks around it.
func (f fields) first(names ...string) string {
	for _, name := range names {
		if v := f[name]; len(v) > 0 {
			return strings.TrimSpace(v[0])
		}
	}
	return ""
}

// known are the names that this package reads. None of them may come twice.
var known = []string{
	"Encrypt", "ToUserName", "FromUserName", "CreateTime", "MsgType", "MsgId", "Event", "InfoType",
	"OpenID", "UnionID", "AppID", "AppId", "RevokeInfo",
	"ComponentVerifyTicket", "AuthorizerAppid", "AuthorizationCode", "AuthorizationCodeExpiredTime",
}

// read reads a body of either format. Decoders disagree about a name that comes twice,
// about invalid UTF-8 and about what a DOCTYPE defines, so there is none of these.
func read(body []byte) (Format, fields, error) {
	f, parse := formatOf(body), readJSON
	if f == XML {
		parse = readXML
	}
	if len(body) > MaxBody {
		return f, nil, fmt.Errorf("%w: too long", ErrMalformed)
	}
	if !utf8.Valid(body) {
		return f, nil, fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	out, err := parse(body)
	if err != nil {
		return f, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return f, out, nil
}

// set adds a member. WeChat's documents show names with blanks at their ends.
func (f fields) set(name string, values []string) error {
	name = strings.TrimSpace(name)
	if _, twice := f[name]; twice && slices.Contains(known, name) {
		return fmt.Errorf("%s is given twice", name)
	}
	f[name] = values
	return nil
}

var errNoObject = errors.New("not one JSON object")

func readJSON(body []byte) (fields, error) {
	if !json.Valid(body) {
		return nil, errNoObject
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if begin, err := dec.Token(); err != nil || begin != json.Delim('{') {
		return nil, errNoObject
	}
	out := make(fields)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errNoObject
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, errNoObject
		}
		text, _ := name.(string)
		if err := out.set(text, texts(nil, value)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// texts appends the texts and numbers of a JSON value that is no object.
func texts(to []string, value any) []string {
	switch v := value.(type) {
	case string:
		to = append(to, v)
	case json.Number:
		to = append(to, v.String())
	case []any:
		for _, one := range v {
			to = texts(to, one)
		}
	}
	return to
}

// errElement refuses what WeChat does not send and an XML parser may give a meaning.
var errElement = errors.New("not one plain <xml> element")

func readXML(body []byte) (fields, error) {
	dec := xml.NewDecoder(bytes.NewReader(body))
	r := xmlReader{out: make(fields)}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) && r.depth == 0 && r.began {
			return r.out, nil
		}
		if err == nil {
			err = r.take(token)
		}
		if err != nil {
			return nil, err
		}
	}
}

// xmlReader collects the members of the element <xml>.
type xmlReader struct {
	out   fields
	began bool // the element
	depth int
	name  string   // of the member
	text  []string // of the member: its own, then that of each element in it
}

func (r *xmlReader) take(token xml.Token) error {
	switch t := token.(type) {
	case xml.StartElement:
		r.depth++
		switch {
		case t.Name.Space != "" || r.depth == 1 && (r.began || t.Name.Local != "xml"):
			return errElement
		case r.depth == 1:
			r.began = true
		case r.depth == 2:
			r.name, r.text = t.Name.Local, []string{""}
		default:
			r.text = append(r.text, "")
		}
	case xml.CharData:
		if r.depth >= 2 {
			r.text[len(r.text)-1] += string(t)
		} else if len(bytes.TrimSpace(t)) > 0 {
			return errElement
		}
	case xml.EndElement:
		if r.depth--; r.depth == 1 {
			return r.out.set(r.name, r.text)
		}
	case xml.ProcInst:
		if r.began {
			return errElement
		}
	default: // a DOCTYPE, and a comment, at which some parsers end a text
		return errElement
	}
	return nil
}
