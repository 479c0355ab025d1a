// An app that uses WeChat without AppSecret, access_token or session_key. The gate names
// the user in headers. Calls to WeChat go through the gate's wechat_api. Node 18 or later:
//
//	node app.js
const http = require('http')

const WECHAT = process.env.WECHAT || 'http://127.0.0.1:8081'

// wechat calls WeChat (/wxa/…, /cgi-bin/…), or the gate for a user (/wx/user/…).
async function wechat (path, body) {
  const res = await fetch(WECHAT + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body)
  })
  if (res.headers.get('content-type')?.startsWith('image/')) {
    return Buffer.from(await res.arrayBuffer())
  }
  const answer = res.status === 204 ? {} : await res.json()
  // The gate refuses with a status and a code, WeChat with an errcode.
  if (!res.ok) throw new Error(`${path}: ${answer.code}: ${answer.detail}`)
  if (answer.errcode) throw new Error(`${path}: ${answer.errcode} ${answer.errmsg}`)
  return answer
}

const comments = []

const routes = {
  'GET /api/me': async user => ({ openid: user.openid, unionid: user.unionid }),

  'POST /api/comments': async (user, { text }) => {
    const { result } = await wechat('/wxa/msg_sec_check', {
      openid: user.openid, version: 2, scene: 2, content: text
    })
    if (result.suggest !== 'pass') return { accepted: false }
    comments.push({ by: user.openid, text })
    await wechat('/cgi-bin/message/subscribe/send', {
      touser: user.openid,
      template_id: process.env.TEMPLATE || 'TEMPLATE_ID',
      data: { thing1: { value: 'Your comment is online' } }
    })
    return { accepted: true, comments: comments.length }
  },

  'GET /api/poster': async () => wechat('/wxa/getwxacodeunlimit', {
    scene: 'from=poster', page: 'pages/index/index'
  }),

  // A valid session_key shows that the user still has the phone.
  'POST /api/close-account': async user => {
    const { valid } = await wechat('/wx/user/checksession', { openid: user.openid })
    if (!valid) return { closed: false, login_again: true }
    await wechat('/wx/user/revoke', { openid: user.openid })
    return { closed: true }
  }
}

http.createServer(async (req, res) => {
  const send = (status, type, body) => {
    res.writeHead(status, { 'Content-Type': type, 'X-App': 'open-data' }).end(body)
  }
  try {
    let text = ''
    for await (const piece of req) text += piece
    const route = routes[`${req.method} ${req.url}`]
    if (!route) return send(404, 'application/json', '{}')
    const user = { openid: req.headers['x-wx-openid'], unionid: req.headers['x-wx-unionid'] }
    const answer = await route(user, text ? JSON.parse(text) : {})
    if (Buffer.isBuffer(answer)) return send(200, 'image/jpeg', answer)
    send(200, 'application/json', JSON.stringify(answer))
  } catch (err) {
    console.error(err.message)
    send(502, 'application/json', JSON.stringify({ error: 'the call to WeChat failed' }))
  }
}).listen(process.env.PORT || 8080, '127.0.0.1')
