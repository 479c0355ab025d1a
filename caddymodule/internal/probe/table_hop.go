package probe

import (
	"slices"
	"strings"
)

var webSocket = []string{"Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}

// removing is THREATS.md 3.
func (p *probe) removing() group {
	first := p.Identity[0]
	list, forged := strings.Join(p.Identity, ", "), first+": {forged}"
	alias := respelt("_", eachHyphen)(first)
	g := group{threat: 3, tries: "Names the gate's own headers in Connection, so that the proxy removes them", judged: "the app is told anything but what the gate knows, or not told at all"}
	for _, a := range []struct {
		name  string
		lines []string
	}{
		{"Connection: close, NAME", []string{"Connection: close, " + first}},
		{"Connection: NAME, close", []string{"Connection: " + first + ", close"}},
		{"all names", []string{"Connection: " + list}},
		{"each name in a line", strings.Split("Connection: "+strings.Join(p.Identity, "\nConnection: "), "\n")},
		{"several lines", []string{"Connection: keep-alive", "Connection: " + first, "connection: close"}},
		{"odd case", []string{"cOnNeCtIoN: " + strings.ToLower(first[:1]) + first[1:]}},
		{"lower case", []string{"connection: " + strings.ToLower(list)}},
		{"tabs and empty elements", []string{"Connection:\t ,, " + first + "\t,,"}},
		{"respelt names", []string{"Connection: " + alias + ", " + first}},
		{"with a forged header", []string{"Connection: close, " + first, forged}},
		{"Connection in another spelling", []string{"Connection!: " + first, "Proxy-Connection: " + first, "Keep-Alive: " + first, "TE: " + first}},
		{"WebSocket", append([]string{"Connection: Upgrade, " + first}, webSocket...)},
		{"WebSocket, on a second line", append(append([]string{"Connection: " + list}, webSocket...), "Connection: upgrade")},
		{"WebSocket, with a forged header", append([]string{"Connection: Upgrade, " + first, forged}, webSocket...)},
	} {
		as := []role{user}
		if slices.Contains(a.lines, forged) {
			as = everyone
		}
		g.attacks = append(g.attacks, attack{name: a.name, as: as, bytes: get(a.lines...), judge: truth})
	}
	g.attacks = append(
		g.attacks,
		attack{name: "HTTP/1.0", as: []role{user}, bytes: strings.Replace(get("Connection: keep-alive, "+list), "HTTP/1.1", "HTTP/1.0", 1), judge: truth},
		attack{name: "HTTP/2", as: []role{user}, frames: &stream{fields: [][2]string{{"connection", strings.ToLower(first)}}}, judge: truth},
		attack{name: "HTTP/2: proxy-connection, te", as: []role{user}, frames: &stream{fields: [][2]string{{"proxy-connection", first}, {"te", strings.ToLower(first)}}}, judge: truth},
	)
	return g
}

// trailing is THREATS.md 4.
func (p *probe) trailing() group {
	first := p.Identity[0]
	g := group{threat: 4, tries: "Sends identity headers as trailers behind the body", judged: judgedForging}
	add := func(name, declared string, trailers ...string) {
		g.attacks = append(g.attacks, attack{name: name, as: everyone, bytes: upload(declared, trailers...), needs: needEcho, judge: truth})
	}
	alias, odd := respelt("_", eachHyphen)(first), respelt("~", eachHyphen)(first)
	add("declared", "Trailer: "+first+"\r\n", first+": {forged}")
	add("all names declared", "Trailer: "+strings.Join(p.Identity, ", ")+"\r\n", forge(p.Identity, asIs)...)
	add("declared in lower case", "Trailer: "+strings.ToLower(first)+"\r\n", strings.ToLower(first)+": {forged}")
	add("declared beside a harmless one", "Trailer: X-Checksum, "+first+"\r\n", "X-Checksum: 1", first+": {forged}")
	add("declared on a second line", "Trailer: X-Checksum\r\nTrailer: "+first+"\r\n", "X-Checksum: 1", first+": {forged}")
	add("declared as "+alias, "Trailer: "+alias+"\r\n", alias+": {forged}")
	add("declared as "+odd, "Trailer: "+odd+"\r\n", odd+": {forged}")
	add("undeclared", "", first+": {forged}")
	add("undeclared behind a declared harmless one", "Trailer: X-Checksum\r\n", "X-Checksum: 1", first+": {forged}")
	add("undeclared as "+alias, "Trailer: X-Checksum\r\n", alias+": {forged}")
	add("undeclared as "+odd, "Trailer: X-Checksum\r\n", odd+": {forged}")
	add("undeclared twice", "Trailer: X-Checksum\r\n", strings.ToLower(first)+": {forged}", first+": {forged}2")
	g.attacks = append(g.attacks, attack{name: "declared without chunks", as: everyone, bytes: get("Trailer: " + first), needs: needEcho, judge: truth})
	name := strings.ToLower(first)
	for _, a := range []struct {
		name   string
		fields [][2]string
	}{
		{"HTTP/2: declared", [][2]string{{":method", "POST"}, {"trailer", name}}},
		{"HTTP/2: undeclared", [][2]string{{":method", "POST"}}},
		{"HTTP/2: undeclared behind a declared harmless one", [][2]string{{":method", "POST"}, {"trailer", "x-checksum"}}},
	} {
		g.attacks = append(g.attacks, attack{name: a.name, as: everyone, frames: &stream{fields: a.fields, body: "x", trailers: [][2]string{{"x-checksum", "1"}, {name, "{forged}"}}}, needs: needEcho, judge: truth})
	}
	return g
}

// upload is a chunked request with trailers behind the body.
func upload(declared string, trailers ...string) string {
	return "POST {target} HTTP/1.1\r\nHost: {host}\r\n{id}{auth}" + declared + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + strings.Join(trailers, "\r\n") + "\r\n\r\n"
}

// upgrading is THREATS.md 5.
func (p *probe) upgrading() group {
	g := group{threat: 5, tries: "Asks for another protocol, a tunnel that the gate does not look into", judged: "anything but a WebSocket handshake is passed on"}
	add := func(name, bytes string) {
		g.attacks = append(g.attacks, attack{name: name, as: everyone, bytes: bytes, judge: tunnelless})
	}
	add("h2c", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: {settings}"))
	add("h2c, settings not named in Connection", get("Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: {settings}"))
	add("h2c, odd case", get("connection: upgrade,http2-settings", "UPGRADE: H2C", "http2-settings: {settings}"))
	add("WebSocket and h2c", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: websocket, h2c", "HTTP2-Settings: {settings}"))
	add("WebSocket and h2c on two lines", get("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c", "HTTP2-Settings: {settings}"))
	add("TLS", get("Connection: Upgrade", "Upgrade: TLS/1.0", "HTTP2-Settings: {settings}"))
	add("h2c by POST", strings.Replace(get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: {settings}", "Content-Length: 0"), "GET", "POST", 1))
	add("WebSocket by POST", strings.Replace(get("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0"), "GET", "POST", 1))
	g.attacks = append(g.attacks, attack{name: "HTTP/2: extended CONNECT, not WebSocket", as: everyone, frames: &stream{fields: [][2]string{{":method", "CONNECT"}, {":protocol", "connect-udp"}}}, needs: needEcho, judge: tunnelless})
	return g
}
