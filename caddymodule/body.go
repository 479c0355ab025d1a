package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// maxBody is more than any honest call needs that carries no data: a code has 32 to 64 characters (WECHAT.md 1).
const maxBody = 4 << 10

// readObject is readObjectUpTo maxBody bytes.
func readObject(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	return readObjectUpTo(w, r, maxBody)
}

// readObjectUpTo reads the body of a call of ours: one flat JSON object of at most limit bytes. Names are compared exactly, and one that stands twice is refused, so that no two readers can
// see different things in it (THREATS.md 24). An empty body is an empty object. The error is a problem.
func readObjectUpTo(w http.ResponseWriter, r *http.Request, limit int64) (map[string]any, error) {
	if p, ok := acceptable(r); !ok {
		return nil, p
	}
	b, err := readBody(w, r, limit)
	if errors.As(err, new(*http.MaxBytesError)) {
		return nil, invalidRequest(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than %d bytes", limit))
	}
	if err != nil {
		leaveBody(w, r)
		return nil, invalidRequest(http.StatusBadRequest, "the body could not be read")
	}
	obj, err := parseObject(b)
	if err != nil {
		return nil, invalidRequest(http.StatusBadRequest, "the body is "+err.Error())
	}
	return obj, nil
}

// bodyTimeout is more than any honest client needs for so little. Without it, bodies that never come would pile up.
const bodyTimeout = 10 * time.Second

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	rc := http.NewResponseController(w)
	// Not every writer knows deadlines; one that does not is as good as it was.
	rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	defer rc.SetReadDeadline(time.Time{}) // or the connection would be taken for gone in the middle of the exchange
	return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
}

// acceptable judges the headers that describe the body. Clients of wx.request send application/json with all kinds of parameters, an empty type or none (DESIGN.md 3).
func acceptable(r *http.Request) (problem, bool) {
	for _, e := range r.Header["Content-Encoding"] {
		if e != "" && e != "identity" {
			return invalidRequest(http.StatusUnsupportedMediaType, "the body is compressed: send it as it is"), false
		}
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return problem{}, true
	}
	// Parameters may be malformed; only the type counts.
	media, _, err := mime.ParseMediaType(ct)
	if media != "application/json" && !(err != nil && media == "" && jsonType(ct)) {
		return invalidRequest(http.StatusUnsupportedMediaType, "the body must be application/json"), false
	}
	return problem{}, true
}

// jsonType reads the type of a header whose parameters are beyond mime.
func jsonType(ct string) bool {
	media, _, _ := bytes.Cut([]byte(ct), []byte(";"))
	return bytes.EqualFold(bytes.TrimSpace(media), []byte("application/json"))
}

// trimJSON takes off what JSON calls white space, which is less than what Go does (RFC 8259, section 2).
func trimJSON(b []byte) []byte { return bytes.Trim(b, " \t\r\n") }

// parseObject reads a flat JSON object. Values are string, json.Number, bool or nil; unknown names are the caller's to ignore.
func parseObject(b []byte) (map[string]any, error) {
	b = trimJSON(b)
	obj := make(map[string]any)
	if len(b) == 0 {
		return obj, nil
	}
	if !json.Valid(b) || b[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	dec.Token() // the opening brace: valid, as is all that follows
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

// text returns a member that must be a string; absent is empty.
func text(obj map[string]any, name string) (string, error) {
	v, ok := obj[name]
	if !ok {
		return "", nil
	}
	s, ok := v.(string)
	if !ok {
		return "", invalidRequest(http.StatusBadRequest, name+" must be a string")
	}
	return s, nil
}

// flag returns a member that must be true or false; absent is false.
func flag(obj map[string]any, name string) (bool, error) {
	v, ok := obj[name]
	if !ok {
		return false, nil
	}
	b, ok := v.(bool)
	if !ok {
		return false, invalidRequest(http.StatusBadRequest, name+" must be true or false")
	}
	return b, nil
}

// leaveBody has the answer sent without the body being read. Otherwise net/http would read it first, so that the connection can go on, and wait for one that never comes. (EnableFullDuplex is no
// way: net/http panics when such a body comes after all.)
func leaveBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 {
		return // HTTP/2 ends the stream alone, and would take this for the end of the connection
	}
	w.Header().Set("Connection", "close")
	// What is left of the body is read behind the answer, so that the answer arrives; but not for ever.
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
}
