package weixin_test

import (
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

func TestThreat27_HugeBodyIsDropped(t *testing.T) {
	for _, status := range []string{"200 OK", "500 Oops"} {
		written := make(chan int, 1)
		srv := newRawServer(t, func(c *rawConn) {
			if _, ok := c.next(); !ok {
				return
			}
			c.send("HTTP/1.1 " + status + "\r\nContent-Length: 1000000000\r\n\r\n")
			block := []byte(strings.Repeat(" ", 16<<10))
			sum := 0
			for n, err := 0, error(nil); err == nil && sum < 1e9; sum += n {
				n, err = c.Write(block)
			}
			written <- sum
		})
		c := newClient(t, weixin.Config{BaseURL: srv.url()})
		_, err := exchange(c)
		want := weixin.ClassProtocol
		if status[0] == '5' {
			want = weixin.ClassUnavailable
		}
		wantClass(t, err, want)
		if n := <-written; n > 5e8 { // what fits into socket buffers is far below
			t.Errorf("the client took %d bytes", n)
		}
		if n := len(srv.seen()); n != 1 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestBody_Limit_IsExact(t *testing.T) {
	pad := func(n int) string { return goodBody + strings.Repeat(" ", n-len(goodBody)) }
	if _, err := exchange(serve(t, reply(200, pad(64<<10)))); err != nil {
		t.Error(err)
	}
	_, err := exchange(serve(t, reply(200, pad(64<<10+1))))
	wantClass(t, err, weixin.ClassProtocol)
}

func TestThreat27_NotHTTP(t *testing.T) {
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\n"
	for name, greeting := range map[string]string{
		"SSH":           "SSH-2.0-OpenSSH\r\n",
		"bad status":    "HTTP/1.1 abc\r\n\r\n",
		"endless head":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
		"bad chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"upgrade":       upgrade + "Connection: upgrade\r\nUpgrade: x\r\n\r\n",
		"upgrade, bare": upgrade + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := newRawServer(t, func(c *rawConn) {
				if _, ok := c.next(); ok {
					c.send(greeting)
					_, _ = c.next() // until the client hangs up
				}
			})
			_, err := exchange(newClient(t, weixin.Config{BaseURL: srv.url()}))
			wantClass(t, err, weixin.ClassProtocol)
			if n := len(srv.seen()); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}
