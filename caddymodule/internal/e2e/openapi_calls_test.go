package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestOpenAPI_WhatWeChatSees sends WeChat the call and the gate's token, and no
// header that is between app and gate.
func TestOpenAPI_WhatWeChatSees(t *testing.T) {
	t.Parallel()
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Openapi-Seqid", "of another relay")
		w.Header().Set("X-Echo", "https://api.weixin.qq.com/?"+r.URL.RawQuery)
		w.Header().Set("Wechatmp-Signature", "theirs")
		ok(w, r)
	}
	_, api, wechat := standInWorld(t, setup{}, "\t\tallow default /cgi-bin/express/*", answer)
	r := ask(t, api, "POST", "/cgi-bin/express/a%20b/?b=2&a=%2B1&access_token=stolen&"+
		"Access_Token=x&cloudbase_access_token=y&from_appid="+appA+"&a=3", `{"x":1}`,
		"Content-Type: application/json", "Cookie: a=b", "Authorization: Basic eA==",
		"X-WX-OPENID: o1", "X-Request-Id: r", "Wechatmp-Appid: "+appA, "User-Agent: my-app",
		"Accept-Encoding: gzip", "Trailer: X-T")
	if r.errCode(t) != 0 || r.header.Get("Wechatmp-Signature") != "theirs" {
		t.Errorf("the answer is %s", r)
	}
	if got := r.header.Values("X-Openapi-Seqid"); len(got) != 1 || got[0] == "of another relay" {
		t.Errorf("the answer is numbered %q", got)
	}
	if r.header.Get("X-Echo") != "" {
		t.Error("a header with the access token came through")
	}
	seen := wechat.take()
	if len(seen) != 1 {
		t.Fatalf("WeChat saw %d calls", len(seen))
	}
	got := seen[0]
	const uri = "/cgi-bin/express/a%20b/?a=%2B1&a=3&access_token=canary-token-1&b=2"
	if got.RequestURI != uri || got.body != `{"x":1}` || got.ContentLength != 7 {
		t.Errorf("WeChat saw %s with %q, want %s", got.RequestURI, got.body, uri)
	}
	if want := strings.TrimPrefix(wechat.URL, "http://"); got.Host != want {
		t.Errorf("WeChat was called %q, want %q", got.Host, want)
	}
	want := map[string]string{
		"Content-Type": "application/json", "User-Agent": "my-app", "Wechatmp-Appid": appA,
		"Content-Length": "7",
	}
	for name, values := range got.Header {
		if want[name] != values[0] || len(values) != 1 {
			t.Errorf("WeChat saw %s: %q", name, values)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("WeChat did not see %v", want)
	}
}

// TestOpenAPI_Streams passes an answer that is no JSON object on before it has
// ended, over a reload, and a long body with its length once it has come whole.
func TestOpenAPI_Streams(t *testing.T) {
	t.Parallel()
	more, arrived := make(chan string), make(chan int, 1)
	base := newStreamingStandIn(t, more, arrived)
	api := freeAddr(t)
	w := newWorld(t, setup{base: base, sites: apiSite(api, "")})
	conn, err := net.Dial("tcp", api)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)

	fmt.Fprint(conn, request(api, "GET", "/cgi-bin/media/get?media_id=1", ""))
	more <- "\xff\xd8first"
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 7)
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "\xff\xd8first" {
		t.Fatalf("%q, %v", got, err)
	}
	w.mustReload(t, w.setup) // goes on under it (P7)
	more <- "second"
	close(more)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" {
		t.Errorf("%q, %v", rest, err)
	}

	up, err := net.Dial("tcp", api)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	half := bytes.Repeat([]byte("x"), 200<<10)
	fmt.Fprintf(up, "POST /cgi-bin/media/upload HTTP/1.1\r\nHost: %s\r\n"+
		"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%s",
		api, 2*len(half), half)
	up.Write(half)
	if n := <-arrived; n == 0 {
		t.Error("nothing arrives")
	}
	uploaded, err := http.ReadResponse(bufio.NewReader(up), nil)
	if err != nil || uploaded.StatusCode != 200 {
		t.Errorf("%v, %v", uploaded, err)
	}
}

// newStreamingStandIn answers a GET with what comes through more, as it comes,
// and tells of the first piece of a POST's body.
func newStreamingStandIn(tb testing.TB, more <-chan string, arrived chan<- int) string {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /cgi-bin/stable_token", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"access_token":"t","expires_in":7200}`)
	})
	mux.HandleFunc("GET /cgi-bin/media/get", func(w http.ResponseWriter, r *http.Request) {
		for piece := range more {
			io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("POST /cgi-bin/media/upload", func(w http.ResponseWriter, r *http.Request) {
		n, _ := r.Body.Read(make([]byte, 100))
		arrived <- n
		io.Copy(io.Discard, r.Body)
		ok(w, r)
	})
	return serve(tb, mux)
}

// serve runs a handler until the test ends and returns its URL.
func serve(tb testing.TB, h http.Handler) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server := &http.Server{Handler: h}
	go server.Serve(l)
	tb.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String()
}
