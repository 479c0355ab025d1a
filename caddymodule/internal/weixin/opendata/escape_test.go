package opendata

import "testing"

// TestEscape_Strings_OnlyWhatDoesHarm: raw control characters and line ends of
// JavaScript in strings, and nothing else.
func TestEscape_Strings_OnlyWhatDoesHarm(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":"b"}`:                       `{"a":"b"}`,
		"{\n\t\"a\":\"b\"}":               "{\n\t\"a\":\"b\"}",
		"{\"a\":\"\a\"}":                  `{"a":"\u0007"}`,
		"{\"a\":\"x\u2028\u2029y\"}":      `{"a":"x\u2028\u2029y"}`,
		"{\"a\\\"\n\":1,\n\"b\":2}":       "{\"a\\\"\\u000a\":1,\n\"b\":2}",
		"{\"a\":\"\\\\\",\n\"b\":\"\r\"}": "{\"a\":\"\\\\\",\n\"b\":\"\\u000d\"}",
		"{\"a\":\"\\\n\"}":                "{\"a\":\"\\\n\"}",
		"{\"a\":\"\\":                     "{\"a\":\"\\",
		"{\"a\":\"图\x7f\"}":               "{\"a\":\"图\x7f\"}",
	} {
		if got := string(escape([]byte(in))); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
