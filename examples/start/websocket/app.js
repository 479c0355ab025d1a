// An app with WebSockets, in Node without packages. It greets each client with the
// openid that the gate has put into the handshake:
//
//	node app.js
const http = require('http')
const { createHash } = require('crypto')

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11' // RFC 6455, section 1.3

const server = http.createServer((req, res) => res.writeHead(426).end())

server.on('upgrade', (req, socket) => {
  const key = req.headers['sec-websocket-key']
  const accept = createHash('sha1').update(key + GUID).digest('base64')
  const text = Buffer.from(`You are ${req.headers['x-wx-openid']}.\n`)
  socket.on('error', () => {})
  socket.write([
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Accept: ' + accept,
    '\r\n'
  ].join('\r\n'))
  socket.write(Buffer.concat([Buffer.from([0x81, text.length]), text])) // one text frame
  socket.end(Buffer.from([0x88, 0])) // and the close frame
})

server.listen(process.env.PORT || 8080, '127.0.0.1')
