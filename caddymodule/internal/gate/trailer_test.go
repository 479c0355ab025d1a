package gate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
)

// seen is what a handler behind Clean observes.
type seen struct {
	Err      error
	Body     string
	Trailers http.Header
}

// exchange writes raw bytes to a net/http server whose handler cleans the
// request and then reads its body. With copied, the handler works on a shallow
// copy of the request, as behind most middleware.
func exchange(t *testing.T, raw string, copied, closeOnly bool) seen {
	t.Helper()
	g := newGate(t, gate.Config{})
	result := make(chan seen, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if copied {
			r = r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, nil))
		}
		var s seen
		if _, s.Err = g.Clean(r); s.Err == nil {
			if !closeOnly {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					s.Err = err
				}
				s.Body = string(b)
				s.Trailers = r.Trailer.Clone() // what a proxy copies right after io.EOF
			}
			r.Body.Close()
		}
		if s.Trailers == nil {
			s.Trailers = r.Trailer.Clone()
		}
		result <- s
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("net/http answered %s", resp.Status)
	}
	return <-result
}

func chunked(declared, trailers string) string {
	return "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n" + declared +
		"\r\n5\r\nhello\r\n0\r\n" + trailers + "\r\n"
}

func TestThreat4_Trailers(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		refused   bool
		want      http.Header // that is left; a copied request sees no undeclared trailer
	}{
		{"none", chunked("", ""), false, nil},
		{
			"owned, declared",
			chunked("Trailer: X-Wx-Openid\r\n", "X-Wx-Openid: victim\r\n"), true, nil,
		},
		{
			"alias, declared",
			chunked("Trailer: Digest, x_wx_openid\r\n", "X_Wx_Openid: victim\r\n"), true, nil,
		},
		{"second line", chunked("Trailer: Digest\r\nTrailer: X-WX-APPID\r\n", ""), true, nil},
		{"token header, declared", chunked("Trailer: X-3rd-Session\r\n", ""), true, nil},
		{
			"owned, declared, no chunks",
			"GET / HTTP/1.1\r\nHost: x\r\nTrailer: a,\tX-Wx-Openid\r\n\r\n", true, nil,
		},
		{
			"owned, riding along",
			chunked("Trailer: Digest\r\n", "Digest: 1\r\nX-Wx-Openid: victim\r\n"+
				"X~wx~appid: victim\r\nX_3rd_Session: t\r\nAuthorization: Bearer wxs_1\r\n"),
			false,
			http.Header{"Digest": {"1"}},
		},
		{
			"owned, undeclared",
			chunked("", "X-Wx-Openid: victim\r\nx_wx_unionid: victim\r\n"), false, nil,
		},
		{
			"harmless, declared", chunked("Trailer: Digest\r\n", "Digest: 1\r\n"),
			false,
			http.Header{"Digest": {"1"}},
		},
	} {
		for _, copied := range []bool{false, true} {
			for _, closeOnly := range []bool{false, true} {
				name := fmt.Sprintf("%s/copied=%t/closeOnly=%t", tc.name, copied, closeOnly)
				t.Run(name, func(t *testing.T) {
					s := exchange(t, tc.raw, copied, closeOnly)
					if tc.refused != errors.Is(s.Err, gate.ErrOwnedTrailer) {
						t.Fatalf("err %v", s.Err)
					}
					if tc.refused {
						for name := range s.Trailers {
							if strings.HasPrefix(slowFold(name), "x-wx-") {
								t.Fatalf("%q left", name)
							}
						}
						return
					}
					if !closeOnly && strings.Contains(tc.raw, "hello") && s.Body != "hello" {
						t.Fatalf("body %q", s.Body)
					}
					if !maps.EqualFunc(s.Trailers, tc.want, slices.Equal) {
						t.Fatalf("trailers %v, want %v", s.Trailers, tc.want)
					}
				})
			}
		}
	}
}

// lateTrailer sets a trailer at EOF, as net/http does on HTTP/2 and in any
// further body wrapper.
type lateTrailer struct {
	io.Reader
	request *http.Request
	closed  int
}

func (b *lateTrailer) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.request.Trailer = http.Header{"X-Wx-Openid": {"victim"}, "Digest": {"1"}}
	}
	return n, err
}

func (b *lateTrailer) Close() error { b.closed++; return io.ErrClosedPipe }

func TestThreat4_BodyIsWrappedOnlyWhenTrailersMayCome(t *testing.T) {
	g := newGate(t, gate.Config{})
	for _, tc := range []struct {
		name    string
		length  int64
		trailer http.Header
		wrapped bool
	}{
		{"length known", 5, nil, false},
		{"length unknown", -1, nil, true},
		{"length known, trailer declared", 5, http.Header{"Digest": nil}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request(http.Header{})
			body := &lateTrailer{Reader: strings.NewReader("hello"), request: r}
			r.Body, r.ContentLength, r.Trailer = body, tc.length, tc.trailer
			if _, err := g.Clean(r); err != nil {
				t.Fatal(err)
			}
			if wrapped := r.Body != io.ReadCloser(body); wrapped != tc.wrapped {
				t.Fatalf("wrapped %t", wrapped)
			}
			if !tc.wrapped {
				return
			}
			// A Close that reports nothing must not end the watch: the trailers
			// may still come.
			if err := r.Body.Close(); err != io.ErrClosedPipe || body.closed != 1 {
				t.Fatalf("close: %v, %d times", err, body.closed)
			}
			if b, err := io.ReadAll(r.Body); string(b) != "hello" || err != nil {
				t.Fatalf("read %q, %v", b, err)
			}
			if want := (http.Header{"Digest": {"1"}}); !reflect.DeepEqual(r.Trailer, want) {
				t.Fatalf("trailers %v, want %v", r.Trailer, want)
			}
		})
	}
	for _, body := range []io.ReadCloser{nil, http.NoBody} {
		r := request(http.Header{})
		r.Body, r.ContentLength = body, -1
		if _, err := g.Clean(r); err != nil || r.Body != body {
			t.Fatalf("err %v, body %v", err, r.Body)
		}
	}
}

func TestThreat4_CleanedEvenWhenRefused(t *testing.T) {
	g := newGate(t, gate.Config{})
	r := request(http.Header{
		"X-Wx-Openid": {"victim"}, "Connection": {"X-Wx-Openid"},
		"Upgrade": {"h2c"},
	})
	r.Trailer = http.Header{"X-Wx-Openid": nil}
	found, err := g.Clean(r)
	if !errors.Is(err, gate.ErrOwnedTrailer) || found.Dropped != 1 || len(r.Header) != 0 ||
		len(r.Trailer) != 0 {
		t.Fatalf("%+v, err %v, header %v, trailer %v", found, err, r.Header, r.Trailer)
	}
}
