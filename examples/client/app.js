// The app behind the gate: it reads the user from the header, and keeps one photo each.
const http = require('http')

const photos = new Map()

http.createServer(async (req, res) => {
  const openid = req.headers['x-wx-openid']
  const route = req.method + ' ' + req.url.split('?')[0]
  if (route === 'GET /api/me') {
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify({ openid, unionid: req.headers['x-wx-unionid'] }))
  } else if (route === 'POST /api/photo') {
    const parts = []
    for await (const part of req) parts.push(part)
    photos.set(openid, Buffer.concat(parts))
    res.end('kept')
  } else if (route === 'GET /api/photo' && photos.has(openid)) {
    res.end(photos.get(openid))
  } else {
    res.writeHead(404).end()
  }
}).listen(process.env.PORT || 8080, '127.0.0.1')
