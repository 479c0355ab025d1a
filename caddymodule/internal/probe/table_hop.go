package probe

import "strings"

var webSocket = []string{
	"Upgrade: websocket", "Sec-WebSocket-Version: 13",
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
}

// removing is docs/threats.md#t3.
func (p *probe) removing() kind {
	k := kind{
		Attack: Attack{Threat: 3, as: []role{user}, judge: sameIdentity},
		tries:  "Names the gate's own headers in Connection, so that the proxy removes them",
		judged: "the app is told anything but what the gate knows, or not told at all",
	}
	first := p.Identity[0]
	list := strings.Join(p.Identity, ", ")
	alias, forged := respelt("_", eachHyphen)(first), first+": {forged}"
	k.addBoth("Connection: close, NAME", get("Connection: close, "+first))
	k.add("Connection: NAME, close", get("Connection: "+first+", close"))
	k.add("all names", get("Connection: "+list))
	k.add("each name in a line",
		get(strings.Split("Connection: "+strings.Join(p.Identity, "\nConnection: "), "\n")...))
	k.add("several lines", get("Connection: keep-alive", "Connection: "+first, "connection: close"))
	k.add("odd case", get("cOnNeCtIoN: "+oddCase(first)))
	k.add("lower case", get("connection: "+strings.ToLower(list)))
	k.add("tabs and empty elements", get("Connection:\t ,, "+first+"\t,,"))
	k.add("respelt names", get("Connection: "+alias+", "+first))
	k.add("names of others",
		get("Connection: Authorization, X-3rd-Session, X-Forwarded-For, Host, Content-Length"))
	k.add("Connection in another spelling",
		get("Connection!: "+first, "Proxy-Connection: "+first, "Keep-Alive: "+first, "TE: "+first))
	k.add("WebSocket", get(append(webSocket, "Connection: Upgrade, "+first)...))
	k.add("WebSocket, on a second line",
		get(append([]string{"Connection: " + list, "connection: upgrade"}, webSocket...)...))
	k.add("HTTP/1.0",
		strings.Replace(get("Connection: keep-alive, "+list), "HTTP/1.1", "HTTP/1.0", 1))
	k.addOver2("proxy-connection, te",
		get("Proxy-Connection: "+first, "TE: "+strings.ToLower(first)))
	k.as = everyone
	k.add("with a forged header", get("Connection: close, "+first, forged))
	k.add("WebSocket, with a forged header",
		get(append(webSocket, "Connection: Upgrade, "+first, forged)...))
	return k
}

// upload is a chunked request with trailers behind the body.
func upload(declared string, trailers ...string) string {
	lines := []string{"Transfer-Encoding: chunked"}
	if declared != "" {
		lines = append(lines, "Trailer: "+declared)
	}
	return ask("POST", "{target}", lines...) + "1\r\nx\r\n0\r\n" +
		strings.Join(append(trailers, "", ""), "\r\n")
}

// trailing is docs/threats.md#t4.
func (p *probe) trailing() kind {
	k := kind{
		Attack: Attack{Threat: 4, as: everyone, needs: needEcho, judge: sameIdentity},
		tries:  "Sends identity headers as trailers behind the body", judged: judgedForging,
	}
	first := p.Identity[0]
	forged := first + ": {forged}"
	lower := strings.ToLower(first)
	k.addBoth("declared", upload(first, forged))
	k.add("all names declared", upload(strings.Join(p.Identity, ", "), forge(p.Identity, asIs)...))
	k.add("declared in lower case", upload(lower, lower+": {forged}"))
	k.add("declared beside a harmless one", upload("X-Checksum, "+first, "X-Checksum: 1", forged))
	k.add("declared on a second line",
		upload("X-Checksum\r\nTrailer: "+first, "X-Checksum: 1", forged))
	k.addBoth("undeclared", upload("", forged))
	k.addBoth("undeclared behind a declared harmless one",
		upload("X-Checksum", "X-Checksum: 1", forged))
	k.add("undeclared twice",
		upload("X-Checksum", "X-Checksum: 1", lower+": {forged}", forged+"2"))
	for _, c := range []string{"_", "~"} {
		alias := respelt(c, eachHyphen)(first)
		k.addBoth("declared as "+alias, upload(alias, alias+": {forged}"))
		k.addBoth("undeclared as "+alias, upload("X-Checksum", "X-Checksum: 1", alias+": {forged}"))
	}
	k.add("declared without chunks", get("Trailer: "+first))
	return k
}

// upgrading is docs/threats.md#t5.
func (p *probe) upgrading() kind {
	k := kind{
		Attack: Attack{Threat: 5, as: everyone, judge: tunnelless},
		tries:  "Asks for another protocol, a tunnel that the gate does not look into",
		judged: "anything but a WebSocket handshake is passed on",
	}
	const (
		upgrade  = "Connection: Upgrade"
		both     = "Connection: Upgrade, HTTP2-Settings"
		settings = "HTTP2-Settings: {settings}"
	)
	k.add("h2c", get(both, "Upgrade: h2c", settings))
	k.add("h2c, settings not named in Connection", get(upgrade, "Upgrade: h2c", settings))
	k.add("h2c, odd case",
		get("connection: upgrade,http2-settings", "UPGRADE: H2C", "http2-settings: {settings}"))
	k.add("WebSocket and h2c", get(both, "Upgrade: websocket, h2c", settings))
	k.add("WebSocket and h2c on two lines",
		get(upgrade, "Upgrade: websocket", "Upgrade: h2c", settings))
	k.add("TLS", get(upgrade, "Upgrade: TLS/1.0", settings))
	k.add("h2c by POST",
		ask("POST", "{target}", both, "Upgrade: h2c", settings, "Content-Length: 0"))
	k.add("WebSocket by POST",
		ask("POST", "{target}", upgrade, "Upgrade: websocket", "Content-Length: 0"))
	k.needs |= needEcho
	k.addOver2("extended CONNECT, not WebSocket", "",
		[2]string{":method", "CONNECT"}, [2]string{":protocol", "connect-udp"})
	return k
}
