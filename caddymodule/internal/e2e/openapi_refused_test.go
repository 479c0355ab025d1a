package e2e_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// kept lead to tokens, secrets and session_keys.
var kept = []string{
	"/cgi-bin/token", "/cgi-bin/stable_token", "/sns/jscode2session",
	"/sns/component/jscode2session", "/cgi-bin/component/api_component_token",
	"/cgi-bin/clear_quota/v2",
	"/wxa/checksession", "/wxa/resetusersessionkey", "/wxa/business/getuserencryptkey",
}

// spellings are other ways to write a path, at least one of which some server
// takes for the same.
func spellings(path string) []string {
	dir, last := path[:strings.LastIndexByte(path, '/')], path[strings.LastIndexByte(path, '/')+1:]
	return []string{
		path, path + "/", path + "/x", path + "?x=1", path + "?", path + "#f",
		strings.ToUpper(path), dir + "/" + strings.ToUpper(last[:1]) + last[1:],
		"/" + path, dir + "//" + last, dir + "/./" + last, "/x/.." + path,
		"/wxa/msg_sec_check/../.." + path, "/wxa/msg_sec_check/%2e%2e/.." + path,
		"/wxa/msg_sec_check/..%2f.." + path,
		dir + "/%" + fmt.Sprintf("%02x", last[0]) + last[1:],
		dir + "/%25" + fmt.Sprintf("%02x", last[0]) + last[1:], dir + "%2f" + last,
		dir + "%5c" + last, dir + `\` + last,
		path + ";a=b", dir + ";a/" + last, path + "%00", path + "%20", path + ".", path + "%2e",
		path + "%3fx=1", path + "%23", dir + "/%20" + last,
		"http://api.weixin.qq.com" + path, "//api.weixin.qq.com" + path, "x:" + path[1:],
	}
}

// TestThreat28_KeptCallsAreRefused keeps calls for a token, a secret or a
// session_key from WeChat, in every spelling and whatever the operator allows.
func TestThreat28_KeptCallsAreRefused(t *testing.T) {
	t.Parallel()
	_, api, wechat := standInWorld(t, setup{}, "\t\tallow /*", ok)
	for _, path := range kept {
		for _, target := range spellings(path) {
			for _, method := range []string{"GET", "POST"} {
				r := ask(t, api, method, target, "{}")
				if r.status != 403 && r.status != 400 {
					t.Errorf("%s %s: %s", method, target, r)
				} else if r.status == 403 {
					r.problem(t, 403, "call_not_allowed")
				}
				if r.header.Get("X-Openapi-Seqid") != "" {
					t.Errorf("%s: numbered", target)
				}
			}
		}
	}
	if seen := wechat.take(); len(seen) > 0 || wechat.tokens > 0 {
		t.Errorf("WeChat saw %d calls and %d requests for a token", len(seen), wechat.tokens)
	}
	if r := ask(t, api, "GET", "/any/other", ""); r.errCode(t) != 0 {
		t.Errorf("the list is not open: %s", r)
	}
}

// TestOpenAPI_Callers serves programs on this machine only, and none through a
// proxy on it.
func TestOpenAPI_Callers(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "api.sock")
	front := freeAddr(t)
	base := freeAddr(t)
	wechat := newStandIn(t, ok)
	newWorld(t, setup{base: wechat.URL, sites: apiSite(base, "") +
		fmt.Sprintf("http://api.local {\n\tbind unix/%s\n\twechat_api\n}\n", socket) +
		siteAt(front, "\treverse_proxy "+base)})

	const target = "/wxa/msg_sec_check"
	if r := ask(t, base, "POST", target, "{}"); r.errCode(t) != 0 {
		t.Errorf("the app: %s", r)
	}
	for _, header := range []string{
		"X-Forwarded-For: 127.0.0.1", "Origin: http://127.0.0.1", "x-forwarded-for: ",
		"Host: evil.example",
	} {
		r := strings.Replace(request(base, "POST", target, "{}", header), "Host: "+base+"\r\n", "",
			strings.Count(header, "Host:"))
		raw(t, base, r).problem(t, 403, "caller_not_allowed")
	}
	ask(t, front, "POST", target, "{}").problem(t, 403, "caller_not_allowed")
	if seen := wechat.take(); len(seen) != 1 {
		t.Errorf("WeChat saw %d calls, want that of the app", len(seen))
	}

	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, request("api.local", "POST", target, "{}"))
	r, err := readReply(bufio.NewReader(conn), "POST")
	if err != nil || r.errCode(t) != 0 {
		t.Errorf("through the socket: %s, %v", r, err)
	}
}

// TestOpenAPI_Apps chooses the mini program whose token it uses.
func TestOpenAPI_Apps(t *testing.T) {
	t.Parallel()
	wechat := newStandIn(t, ok)
	any, only := freeAddr(t), freeAddr(t)
	newWorld(t, setup{
		base: wechat.URL, apps: []string{appA, appB},
		sites: apiSite(any, "") + apiSite(only, "\t\tapp "+appB),
	})
	const target = "/wxa/msg_sec_check"
	ask(t, any, "POST", target, "{}").problem(t, 400, "invalid_request")
	ask(t, any, "POST", target+"?from_appid=wxffffffffffffffff",
		"{}").problem(t, 403, "app_not_allowed")
	ask(t, any, "POST", target+"?from_appid="+appA+"&from_appid="+appB,
		"{}").problem(t, 400, "invalid_request")
	ask(t, only, "POST", target+"?from_appid="+appA, "{}").problem(t, 403, "app_not_allowed")
	ask(t, any, "POST", target+"?a=%zz", "{}").problem(t, 400, "invalid_request")
	if len(wechat.take()) > 0 {
		t.Error("WeChat saw a call")
	}
	tokens := make(map[string]bool)
	for _, call := range []struct{ api, target string }{
		{any, target + "?from_appid=" + appA},
		{any, target + "?from_appid=" + appB},
		{only, target},
		{only, target + "?from_appid=" + appB},
	} {
		if r := ask(t, call.api, "POST", call.target, "{}"); r.errCode(t) != 0 {
			t.Errorf("%s: %s", call.target, r)
		}
		seen := wechat.take()
		if len(seen) != 1 || seen[0].URL.Query().Has("from_appid") {
			t.Fatalf("%s: WeChat saw %d calls", call.target, len(seen))
		}
		tokens[seen[0].URL.Query().Get("access_token")] = true
	}
	if len(tokens) != 2 {
		t.Errorf("two mini programs have used the tokens %v", tokens)
	}
}

// TestOpenAPI_Failures sends bodies that are too long, and calls to a WeChat
// that fails.
func TestOpenAPI_Failures(t *testing.T) {
	t.Parallel()
	w, api, wechat := standInWorld(t, setup{options: "\tmetrics"},
		"\t\tmax_body 100KiB\n\t\ttimeout 500ms", ok)
	const target = "/wxa/msg_sec_check"
	long := strings.Repeat("x", 100<<10+1)
	ask(t, api, "POST", target, long).problem(t, 413, "invalid_request")
	chunked := func(body string) reply {
		return raw(t, api, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+
			"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n%x\r\n%s\r\n0\r\nX-T: 1\r\n\r\n",
			target, len(body), body))
	}
	chunked(long).problem(t, 413, "invalid_request")
	wechat.take()
	if r := chunked("{}"); r.errCode(t) != 0 {
		t.Errorf("a chunked body: %s", r)
	}
	if seen := wechat.take(); len(seen) != 1 || seen[0].ContentLength != 2 ||
		len(seen[0].TransferEncoding) > 0 || len(seen[0].Trailer) > 0 {
		t.Errorf("WeChat saw %d calls, the first of %d bytes", len(seen), seen[0].ContentLength)
	}
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		},
		"bad gateway": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		},
		"hangs":      func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"breaks off": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		wechat.script(h)
		r := ask(t, api, "POST", target, "{}")
		r.problem(t, 503, "wechat_unavailable")
		id := r.header.Get("X-Openapi-Seqid")
		if id == "" {
			t.Errorf("%s: not numbered", name)
		}
		w.gate.printed(t, 0, id)
	}
	wechat.script(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusPreconditionFailed)
		io.WriteString(w, "<html>")
	})
	if r := ask(t, api, "POST", target, "{}"); r.status != http.StatusPreconditionFailed ||
		r.body != "<html>" {
		t.Errorf("another status: %s", r)
	}
	if n := w.apiCalls(t, target, "wechat_unavailable"); n != "4" {
		t.Errorf("%s calls are counted as failed, want 4", n)
	}
	for _, text := range []string{"canary-token", "WeChat API is"} { // no outage
		if strings.Contains(w.out.String(), text) {
			t.Errorf("the log holds %q", text)
		}
	}
}
