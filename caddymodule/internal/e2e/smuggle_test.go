package e2e_test

import (
	"strings"
	"testing"
)

// inner is a request that nobody may ever hear of as one: it needs a session
// and brings none.
const inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\nX-WX-OPENID: victim\r\n\r\n"

// smuggling are heads and bodies on which two readers can disagree about where
// a request ends. {inner} is a request hidden in the body. {big} and {many} are
// more than a server reads of a head.
var smuggling = []struct{ name, head, body string }{
	{"length and chunks", "Content-Length: 61\r\nTransfer-Encoding: chunked", "0\r\n\r\n{inner}"},
	{
		"chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 4",
		"38\r\n{inner}\r\n0\r\n\r\n",
	},
	{"two lengths", "Content-Length: 0\r\nContent-Length: 56", "{inner}"},
	{"two lengths in one line", "Content-Length: 0, 56", "{inner}"},
	{"the same length twice", "Content-Length: 3\r\nContent-Length: 3", "abc{inner}"},
	{"length with a sign", "Content-Length: +3", "abc{inner}"},
	{"negative length", "Content-Length: -1", "{inner}"},
	{"hexadecimal length", "Content-Length: 0x3", "abc{inner}"},
	{"length with a blank", "Content-Length: 3 0", "abc{inner}"},
	{"length with an underscore", "Content-Length: 1_0", "abc{inner}"},
	{"empty length", "Content-Length:", "{inner}"},
	{"length beyond all numbers", "Content-Length: 99999999999999999999", "{inner}"},
	{"length in a misspelt header", "Content_Length: 56\r\nContent.Length: 56", "{inner}"},
	{"length with a blank before the colon", "Content-Length : 56", "{inner}"},
	{"length with a form feed", "Content-Length: \x0c3", "abc{inner}"},
	{"folded length", "Content-Length: 3\r\n 0", "abc{inner}"},
	{"unknown coding", "Transfer-Encoding: xchunked", "0\r\n\r\n{inner}"},
	{"coding with a blank before the colon", "Transfer-Encoding : chunked", "0\r\n\r\n{inner}"},
	{"coding behind a tab", "Transfer-Encoding:\tchunked", "0\r\n\r\n{inner}"},
	{"coding behind a vertical tab", "Transfer-Encoding: \x0bchunked", "0\r\n\r\n{inner}"},
	{"folded coding", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n{inner}"},
	{"coding in capitals", "transfer-encoding: CHUNKED", "0\r\n\r\n{inner}"},
	{"quoted coding", "Transfer-Encoding: \"chunked\"", "0\r\n\r\n{inner}"},
	{
		"two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
		"0\r\n\r\n{inner}",
	},
	{
		"coding list", "Transfer-Encoding: chunked, identity\r\nContent-Length: 61",
		"0\r\n\r\n{inner}",
	},
	{"identity", "Transfer-Encoding: identity\r\nContent-Length: 3", "abc{inner}"},
	{"coding twice", "Transfer-Encoding: chunked, chunked", "0\r\n\r\n{inner}"},
	{
		"coding in a misspelt header", "Transfer_Encoding: chunked\r\nContent-Length: 3",
		"abc{inner}",
	},
	{"coding behind a bare LF", "X: y\nTransfer-Encoding: chunked", "0\r\n\r\n{inner}"},
	{
		"coding behind a bare CR", "X: y\rTransfer-Encoding: chunked\r\nContent-Length: 3",
		"abc{inner}",
	},
	{
		"coding removed by Connection",
		"Connection: keep-alive, Transfer-Encoding\r\nTransfer-Encoding: chunked",
		"0\r\n\r\n{inner}",
	},
	{
		"length removed by Connection",
		"Connection: keep-alive, Content-Length\r\nContent-Length: 56", "{inner}",
	},
	{"body of a GET", "Content-Length: 56", "{inner}"},
	{"request in a good body", "Transfer-Encoding: chunked", "38\r\n{inner}\r\n0\r\n\r\n"},
	{"chunk extension", "Transfer-Encoding: chunked", "3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n{inner}"},
	{
		"chunk extension with a line break", "Transfer-Encoding: chunked",
		"3;a=\"\r\nb\"\r\nabc\r\n0\r\n\r\n{inner}",
	},
	{
		"chunk extension with a bare LF", "Transfer-Encoding: chunked",
		"3;a\nabc\r\n0\r\n\r\n{inner}",
	},
	{
		"chunk extension without end", "Transfer-Encoding: chunked",
		"3;" + strings.Repeat("a", 1<<16) + "\r\nabc\r\n0\r\n\r\n{inner}",
	},
	{"chunk size with 0x", "Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n{inner}"},
	{"chunk size with a sign", "Transfer-Encoding: chunked", "+3\r\nabc\r\n0\r\n\r\n{inner}"},
	{"negative chunk", "Transfer-Encoding: chunked", "-1\r\n{inner}"},
	{"chunk size with a blank", "Transfer-Encoding: chunked", "3 \r\nabc\r\n0\r\n\r\n{inner}"},
	{
		"chunk size beyond all numbers", "Transfer-Encoding: chunked",
		"fffffffffffffffff3\r\nabc\r\n0\r\n\r\n{inner}",
	},
	{
		"chunk size with many zeros", "Transfer-Encoding: chunked",
		strings.Repeat("0", 60) + "3\r\nabc\r\n0\r\n\r\n{inner}",
	},
	{"chunk longer than its size", "Transfer-Encoding: chunked", "1\r\nabc\r\n0\r\n\r\n{inner}"},
	{"chunk without its line end", "Transfer-Encoding: chunked", "3\r\nabc0\r\n\r\n{inner}"},
	{"bare LF in chunks", "Transfer-Encoding: chunked", "3\nabc\n0\n\n{inner}"},
	{"bare CR in chunks", "Transfer-Encoding: chunked", "3\rabc\r0\r\r{inner}"},
	{"request in a trailer", "Transfer-Encoding: chunked", "0\r\nX-A: 1\r\n{inner}"},
	{
		"request line as a trailer", "Transfer-Encoding: chunked",
		"0\r\nGET /smuggled HTTP/1.1\r\nX-WX-OPENID: victim\r\n\r\n",
	},
	{"oversized header", "X-Big: {big}\r\nContent-Length: 56", "{inner}"},
	{"many headers", "{many}Content-Length: 56", "{inner}"},
	{"header without a name", ": x\r\nContent-Length: 3", "abc{inner}"},
	{"header without a colon", "X-WX-OPENID\r\nContent-Length: 3", "abc{inner}"},
	{"header name with a blank", "X WX OPENID: victim\r\nContent-Length: 3", "abc{inner}"},
	{"header name with a NUL", "X-WX-OPENID\x00: victim\r\nContent-Length: 3", "abc{inner}"},
	{"header value with a NUL", "X-A: \x00\r\nContent-Length: 3", "abc{inner}"},
	{"first header folded", " X-WX-OPENID: victim\r\nContent-Length: 3", "abc{inner}"},
	{"identity folded", "X-Wx-Openid:\r\n victim\r\nContent-Length: 3", "abc{inner}"},
	{"bare LF ends the head", "Content-Length: 3\n\nabc" + inner, ""},
	{"expectation", "Expect: 100-continue\r\nContent-Length: 56", "{inner}"},
	{
		"expectation in a chunked request", "Expect: 100-continue\r\nTransfer-Encoding: chunked",
		"0\r\n\r\n{inner}",
	},
	{
		"upgrade with a body", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 56",
		"{inner}",
	},
	{"cut off in the length", "Content-Length: 100000", "{inner}"},
	{"cut off in a chunk", "Transfer-Encoding: chunked", "fffff\r\n{inner}"},
	{"cut off before the last chunk", "Transfer-Encoding: chunked", "3\r\nabc\r\n"},
	{"cut off in the trailers", "Transfer-Encoding: chunked", "0\r\nX-WX-OPENID: victim\r\n"},
}

// TestP1_Smuggling sends requests that lie about their length. The app gets no
// request but those that were there, each from its own client, and a user's
// request on the same connection is answered as if alone, or not at all.
func TestP1_Smuggling(t *testing.T) {
	t.Parallel()
	a := newArena(t, mixed)
	ada, bob := a.login(t, "ada"), a.login(t, "bob")
	words := strings.NewReplacer("{inner}", inner, "{big}", strings.Repeat("a", 1<<20),
		"{many}", strings.Repeat("X-A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 40000))
	for _, row := range smuggling {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, line := range []string{
				"POST /public/hostile HTTP/1.1", "POST /optional/hostile HTTP/1.1",
				"GET /public/hostile HTTP/1.1",
				"POST /public/hostile HTTP/1.0\r\nConnection: keep-alive",
				"POST /admin/hostile HTTP/1.1",
			} {
				hostile := line + "\r\nHost: x\r\n" + words.Replace(row.head+"\r\n\r\n"+row.body)
				before := honest("ada", "/honest", "keep-alive", ada)
				behind := honest("bob", "/optional/honest", "close", bob)
				replies := mustTalk(t, a.addr, before+hostile+behind)
				if len(replies) == 0 || !replies[0].fromApp() {
					t.Errorf("%s: the request before is answered with %v", line, replies)
				}
				for _, r := range replies {
					if r.status == 200 && !r.fromApp() ||
						strings.Contains(r.body, `"Line":"GET /smuggled`) {
						t.Errorf("%s: an answer is %s", line, r)
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		seen := a.honestOnly(t)
		if n := len(smuggling) * 5; seen["ada"] != n || seen["bob"] > n || seen["bob"] == 0 {
			t.Errorf("of %d rounds, the app is asked %v", n, seen)
		}
	})
}
