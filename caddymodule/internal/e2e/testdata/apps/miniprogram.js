// Runs a page of a mini program outside of WeChat: node miniprogram.js <page.js> [<handler> [<event as JSON>]]…, all in one session. What is left in the page's data is printed as one line of JSON.
const http = require('http')

const { GATE, SITE, SIM, APPID, USER } = process.env

function send (base, method, path, headers, body) {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    const req = http.request({ hostname, port, method, path, headers: { ...headers, Connection: 'close' } }, res => {
      let text = ''
      res.setEncoding('utf8').on('data', d => { text += d }).on('end', () => {
        let data = text
        try { data = JSON.parse(text) } catch {}
        resolve({ statusCode: res.statusCode, header: res.headers, data })
      })
    })
    req.on('error', reject).end(body)
  })
}

const sim = (path, body) => send(SIM, 'POST', '/_sim/' + path, {}, JSON.stringify({ appid: APPID, user: USER, ...body })).then(r => r.data)
const storage = {}

global.wx = {
  login: ({ success, fail }) => sim('code').then(({ code }) => success({ code }), fail),
  getWeRunData: ({ success, fail }) => sim('encrypt', { data: { stepInfoList: [{ timestamp: 1, step: 100 }, { timestamp: 2, step: 4711 }] } }).then(success, fail),
  request: ({ url, method, data, header, success, fail }) => {
    const { pathname } = new URL(url)
    const body = data === undefined || method === 'GET' ? undefined : JSON.stringify(data)
    send(GATE, method, pathname, { Host: SITE, 'Content-Type': 'application/json', ...header, ...(body ? { 'Content-Length': Buffer.byteLength(body) } : {}) }, body).then(success, fail)
  },
  getStorageSync: key => storage[key] ?? '',
  setStorageSync: (key, value) => { storage[key] = value },
  removeStorageSync: key => { delete storage[key] }
}

let page
global.Page = definition => { page = { ...definition, setData (data) { Object.assign(this.data, data) } } }
require(process.argv[2])

async function main () {
  const steps = process.argv.slice(3)
  while (steps.length > 0) {
    const name = steps.shift()
    if (name === 'rotate') { await sim('rotate_key'); continue } // another phone, or time, has changed the session_key
    if (name === 'forget') { storage.token = 'wxs_' + 'a'.repeat(41); continue } // a session that has ended
    await page[name](steps[0]?.startsWith('{') ? JSON.parse(steps.shift()) : undefined)
  }
  console.log(JSON.stringify(page.data))
}

main().catch(err => { console.error(err); process.exit(1) })
