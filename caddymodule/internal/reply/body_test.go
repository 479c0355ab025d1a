package reply

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

func TestReadObjectHeaders(t *testing.T) {
	const ok, unsupported = 0, 415
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"Content-Type", "", ok},
		{"Content-Type", "application/json", ok},
		{"Content-Type", "Application/JSON", ok},
		{"Content-Type", "application/json; charset=utf-8", ok},
		{"Content-Type", "application/json;charset=UTF-8", ok},
		{"Content-Type", "application/json ; charset", ok},
		{"Content-Type", "application/json;;", ok},
		{"Content-Type", `application/json; charset="utf-8`, ok},
		{"Content-Type", "application/json; charset=utf-8; charset=gbk", ok},
		{"Content-Type", " application/json ", ok},
		{"Content-Type", "text/plain", unsupported},
		{"Content-Type", "application/x-www-form-urlencoded", ok}, // curl -d
		{"Content-Type", "application/json, application/json", ok},
		{"Content-Type", "application/json;charset=utf-8,, APPLICATION/JSON", ok},
		{"Content-Type", "text/plain, application/json", unsupported},
		{"Content-Type", "application/json, application/x-www-form-urlencoded", unsupported},
		{"Content-Type", "multipart/form-data; boundary=x", unsupported},
		{"Content-Type", "application/jsonp", unsupported},
		{"Content-Type", "application/problem+json", unsupported},
		{"Content-Type", "text/plain; application/json", unsupported},
		{"Content-Type", "json", unsupported},
		{"Content-Type", "; application/json", unsupported},
		{"Content-Type", "/", unsupported},
		{"Content-Encoding", "", ok},
		{"Content-Encoding", "identity", ok},
		{"Content-Encoding", "gzip", unsupported},
		{"Content-Encoding", "br", unsupported},
		{"Content-Encoding", "identity, gzip", unsupported},
		{"Content-Encoding", "deflate", unsupported},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(`{"code":"x"}`))
			r.Header[c.name] = []string{c.value}
			got, err := ReadObject(httptest.NewRecorder(), r, MaxBody)
			checkStatus(t, err, c.status)
			if err == nil && got["code"] != "x" {
				t.Errorf("read %v", got)
			}
		})
	}
	t.Run("second Content-Encoding", func(t *testing.T) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{}`))
		r.Header["Content-Encoding"] = []string{"identity", "gzip"}
		_, err := ReadObject(httptest.NewRecorder(), r, MaxBody)
		checkStatus(t, err, unsupported)
	})
}

// checkStatus wants a problem of a status, or with 0 no error.
func checkStatus(t *testing.T, err error, status int) {
	t.Helper()
	p, _ := errors.AsType[Problem](err)
	if p.Status != status || (err == nil) != (status == 0) {
		t.Errorf("got %v (%d), want %d", err, p.Status, status)
	}
}

func TestReadObjectBody(t *testing.T) {
	fill := func(
		n int,
	) string {
		return `{"code":"` + strings.Repeat("x", n-len(`{"code":""}`)) + `"}`
	}
	for _, c := range []struct {
		name, body string
		status     int
		want       Object
	}{
		{name: "empty", body: "", want: Object{}},
		{name: "blank", body: " \r\n\t", want: Object{}},
		{
			name: "object",
			body: "\n{\"a\":\"b\",\"c\":true,\"d\":null,\"e\":12345678901234567890}",
			want: Object{"a": "b", "c": true, "d": nil, "e": json.Number("12345678901234567890")},
		},
		{
			name: "names differ in case", body: `{"code":"a","Code":"b"}`,
			want: Object{"code": "a", "Code": "b"},
		},
		{
			name: "4096 bytes", body: fill(MaxBody),
			want: Object{"code": strings.Repeat("x", MaxBody-11)},
		},
		{name: "4097 bytes", body: fill(MaxBody + 1), status: 413},
		{name: "4096 bytes and blanks", body: fill(MaxBody) + " ", status: 413},
		{name: "1 MB", body: fill(1 << 20), status: 413},
		{name: "null", body: "null", status: 400},
		{name: "string", body: `"x"`, status: 400},
		{name: "array", body: `[{"code":"x"}]`, status: 400},
		{name: "two objects", body: `{}{}`, status: 400},
		{name: "trailing junk", body: `{} x`, status: 400},
		{name: "trailing NUL", body: "{}\x00", status: 400},
		{name: "byte order mark", body: "\ufeff{}", want: Object{}},
		{name: "two byte order marks", body: "\ufeff\ufeff{}", status: 400},
		{name: "cut off", body: `{"code":"x`, status: 400},
		{name: "single quotes", body: `{'code':'x'}`, status: 400},
		{name: "trailing comma", body: `{"a":1,}`, status: 400},
		{name: "comment", body: `{/**/}`, status: 400},
		{name: "form", body: `code=x`, status: 400},
		{name: "nested", body: `{"code":"x","a":{"b":[{"c":1}],"b":2}}`, want: Object{
			"code": "x", "a": map[string]any{"b": json.Number("2")},
		}},
		{name: "nested name twice", body: `{"a":{},"b":1,"a":[]}`, status: 400},
		{name: "deep", body: strings.Repeat(`{"a":`, 800), status: 400},
		{name: "name twice", body: `{"code":"a","code":"b"}`, status: 400},
		{name: "name twice, escaped", body: `{"code":"a","\u0063ode":"b"}`, status: 400},
		{name: "name twice, not UTF-8", body: "{\"\xff\":1,\"\xfe\":2}", status: 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
			got, err := ReadObject(httptest.NewRecorder(), r, MaxBody)
			checkStatus(t, err, c.status)
			if err == nil && !reflect.DeepEqual(got, c.want) {
				t.Errorf("read %v, want %v", got, c.want)
			}
		})
	}
	t.Run("breaks off", func(t *testing.T) {
		r := httptest.NewRequest(
			"POST", "/", io.MultiReader(strings.NewReader(`{"a":`), iotestErr{}),
		)
		_, err := ReadObject(httptest.NewRecorder(), r, MaxBody)
		checkStatus(t, err, 400)
	})
}

// TestReadObject_Form_AsJSON: a form says what an object of strings says.
func TestReadObject_Form_AsJSON(t *testing.T) {
	for _, c := range []struct {
		body   string
		status int
		want   Object
	}{
		{"", 0, Object{}},
		{"code=a%2Bb+c&all=true", 0, Object{"code": "a+b c", "all": true}},
		{"all=false&x", 0, Object{"all": false, "x": ""}},
		{`{"code":"a"}`, 0, Object{"code": "a"}},
		{"code=a&code=a", 400, nil},
		{"code=%zz", 400, nil},
		{"code=a;b=c", 400, nil},
		{`{"code":`, 400, nil},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", typeForm+"; charset=utf-8")
		got, err := ReadObject(httptest.NewRecorder(), r, MaxBody)
		if checkStatus(t, err, c.status); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q is %v, want %v", c.body, got, c.want)
		}
	}
}

// TestThreat39_ReadJSON_Declared: what a page can send without asking is refused.
func TestThreat39_ReadJSON_Declared(t *testing.T) {
	for contentType, status := range map[string]int{
		typeJSON: 0, "application/json; charset=utf-8": 0, "application/json,application/json": 0,
		"": 415, " ": 415, typeForm: 415, "text/plain": 415, "text/plain; application/json": 415,
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{}`))
		r.Header.Set("Content-Type", contentType)
		_, err := ReadJSON(httptest.NewRecorder(), r, MaxBody)
		checkStatus(t, err, status)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestTextAndFlag(t *testing.T) {
	obj := Object{"s": "x", "b": true, "n": json.Number("1"), "z": nil}
	for _, c := range []struct {
		name     string
		text     string
		textFail bool
		flag     bool
		flagFail bool
	}{
		{name: "s", text: "x", flagFail: true},
		{name: "b", textFail: true, flag: true},
		{name: "n", textFail: true, flagFail: true},
		{name: "z", textFail: true, flagFail: true},
		{name: "absent"},
	} {
		s, err := obj.Text(c.name)
		if s != c.text || (err != nil) != c.textFail {
			t.Errorf("text %s: %q, %v", c.name, s, err)
		}
		b, err := obj.Flag(c.name)
		if b != c.flag || (err != nil) != c.flagFail {
			t.Errorf("flag %s: %v, %v", c.name, b, err)
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `{"code":"x"}`, `{"code":"a","code":"b"}`, `{"code":"a","\u0063ode":"b"}`,
		`{"a":{}}`, `{"a":[1],"b":{"c":[]}}`, "\ufeff{}", `null`, `[]`, `{"all":true}`,
		`{"n":1e999}`,
		`{"a":1}{}`, "\f{}", "{}\u00a0", "{\"\xff\":1,\"\xfe\":2}", `{"a":"\ud800"}`,
		`{"a":1,"A":2}`, strings.Repeat(`{"a":`, 100),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		obj, err := parseObject(b)
		r := httptest.NewRequest("POST", "/", bytes.NewReader(b))
		if _, err := ReadObject(httptest.NewRecorder(), r, MaxBody); err != nil {
			if p, ok := errors.AsType[Problem](err); !ok || p.Status < 400 {
				t.Fatalf("ReadObject: %v is no problem", err)
			}
		}
		if err != nil || len(trimJSON(b)) == 0 {
			return
		}
		names, values, ok := members(b)
		if !ok {
			t.Fatalf("accepted what encoding/json does not take as an object: %q", b)
		}
		if len(names) != len(obj) {
			t.Fatalf("%d members, %d names in %q", len(names), len(obj), b)
		}
		// Backwards it says the same.
		var back bytes.Buffer
		back.WriteByte('{')
		for i := len(names) - 1; i >= 0; i-- {
			name, _ := json.Marshal(names[i])
			back.Write(name)
			back.WriteByte(':')
			back.Write(values[i])
			if i > 0 {
				back.WriteByte(',')
			}
		}
		back.WriteByte('}')
		again, err := parseObject(back.Bytes())
		if err != nil || !reflect.DeepEqual(again, obj) {
			t.Fatalf("%q is %v, but %q is %v (%v)", b, obj, back.Bytes(), again, err)
		}
	})
}

// members returns the members of a JSON object in order, duplicates included, as the
// standard library reads them.
func members(b []byte) (names []string, values []json.RawMessage, ok bool) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(b, &raw) != nil || raw == nil {
		return nil, nil, false
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if _, err := dec.Token(); err != nil {
		return nil, nil, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, nil, false
		}
		var v json.RawMessage
		if dec.Decode(&v) != nil {
			return nil, nil, false
		}
		names, values = append(names, name.(string)), append(values, v)
	}
	return names, values, true
}
