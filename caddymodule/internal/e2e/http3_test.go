package e2e_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// TestThreat38_EarlyData sends real 0-RTT requests. The client holds the end of its
// handshake back until the gate has decided, as a replayed flight never ends it.
func TestThreat38_EarlyData(t *testing.T) {
	t.Parallel()
	plain, matched := freeAddr(t), freeAddr(t)
	s := mixed
	s.options = "\tauto_https disable_redirects\n\tskip_install_trust\n\tlocal_certs"
	w := prepareWorld(t, s)
	tlsSite := func(addr, lines string) string {
		return "https://localhost:" + portOf(addr) + " {\n\tbind 127.0.0.1\n" + lines +
			"\n\treverse_proxy " + w.app.addr + "\n}\n"
	}
	const gate = "\twechat_auth {\n\t\toptional /feed/*\n\t}"
	w.sites = tlsSite(plain, gate) + tlsSite(matched, "\t@near remote_ip 10.0.0.0/8\n"+
		"\theader @near X-Near 1\n"+gate+
		"\n\thandle_errors {\n\t\treverse_proxy "+w.app.addr+"\n\t}")
	w.start(t)
	eventually(t, "a certificate", func() bool {
		return strings.Contains(w.out.String(), "certificate obtained successfully")
	})
	token, forged := w.login(t, "alice"), http.Header{"X-Wx-Openid": {"victim"}}
	with := func(h http.Header) http.Header {
		h = h.Clone()
		h.Set("Authorization", "Bearer "+token)
		return h
	}
	code := w.wechat.Code(appA, "bob")
	client := map[string]*early{plain: newEarly(t, plain), matched: newEarly(t, matched)}
	alice := w.who(appA, "alice")
	for _, tt := range []struct {
		addr, method, path, body string
		header                   http.Header
		status                   int
		who                      *identity // of the app's request; nil with a status of 200: none
	}{
		{plain, "POST", "/wx/login", codeBody(code), nil, 425, nil},
		{plain, "GET", "/wx/session", "", with(http.Header{}), 425, nil},
		{plain, "POST", "/orders", "x", with(forged), 425, nil},
		{plain, "GET", "/orders", "", with(forged), 200, alice},
		{plain, "POST", "/feed/x", "x", forged, 200, nil},
		// The address is not proven, so the matcher fails, and the error routes answer.
		{matched, "GET", "/orders", "", with(forged), 200, nil},
		{matched, "POST", "/orders", "x", with(forged), 200, nil},
	} {
		w.app.take()
		from := w.out.Len()
		var seen []received
		resp := client[tt.addr].do(t, tt.method, tt.path, tt.body, tt.header, func() bool {
			seen = append(seen, w.app.take()...)
			return len(seen) > 0 || strings.Contains(w.out.String()[from:], `"too_early"`)
		})
		name := tt.addr[strings.LastIndexByte(tt.addr, ':'):] + " " + tt.method + " " + tt.path
		if resp.StatusCode != tt.status || (tt.status == 200) != (len(seen) == 1) {
			t.Errorf("%s: %s, the app saw %d requests", name, resp.Status, len(seen))
		}
		for _, r := range seen {
			r.check(t, tt.who)
			r.checkTokenless(t)
		}
	}
	// The code was not spent, and no address was charged.
	w.post(t, "/wx/login", codeBody(code)).session(t)
}

// early makes 0-RTT connections to a site.
type early struct {
	addr *net.UDPAddr
	tls  *tls.Config
}

// newEarly makes a first connection, which brings a ticket.
func newEarly(tb testing.TB, addr string) *early {
	tb.Helper()
	udp, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+portOf(addr))
	if err != nil {
		tb.Fatal(err)
	}
	tickets := &tickets{tls.NewLRUClientSessionCache(1), make(chan bool, 9)}
	e := &early{udp, &tls.Config{
		ServerName: "localhost", InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3},
		ClientSessionCache: tickets,
	}}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, udp.String(), e.tls, nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	new(http3.Transport).NewClientConn(conn)
	select {
	case <-tickets.put:
	case <-ctx.Done():
		tb.Fatal("no ticket")
	}
	return e
}

// tickets tells of tickets.
type tickets struct {
	tls.ClientSessionCache
	put chan bool
}

func (c *tickets) Put(key string, state *tls.ClientSessionState) {
	if c.ClientSessionCache.Put(key, state); state != nil {
		c.put <- true
	}
}

// do sends a request in early data. Until decided, the client hears nothing of the
// server, so that the handshake is not complete.
func (e *early) do(
	tb testing.TB, method, path, body string, header http.Header, decided func() bool,
) *http.Response {
	tb.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	deaf := &deafConn{PacketConn: socket, hears: make(chan struct{})}
	transport := &quic.Transport{Conn: deaf}
	defer socket.Close()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	conn, err := transport.DialEarly(ctx, e.addr, e.tls, nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.CloseWithError(0, "")
	stream, err := new(http3.Transport).NewClientConn(conn).OpenRequestStream(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.NewRequest(method, "https://localhost"+path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if err := stream.SendRequestHeader(req); err != nil {
		tb.Fatal(err)
	}
	io.WriteString(stream, body)
	stream.Close()
	eventually(tb, "a decision about early data", decided)
	close(deaf.hears)
	until, _ := ctx.Deadline()
	stream.SetReadDeadline(until)
	resp, err := stream.ReadResponse()
	if err != nil {
		tb.Fatal(err)
	}
	if !conn.ConnectionState().Used0RTT {
		tb.Fatal("the request was not early")
	}
	return resp
}

// deafConn holds back what comes until hears is closed.
type deafConn struct {
	net.PacketConn
	hears chan struct{}
}

func (c *deafConn) ReadFrom(p []byte) (int, net.Addr, error) {
	<-c.hears
	return c.PacketConn.ReadFrom(p)
}
