// Runs a Wafer client package as it is, with a small stub of wx:
//
//	node wafer.js <package> <gate> <simulator> <appid>
//
// It logs in, calls the app, loses the session, calls again, and prints what came.
const [, , name, gate, simulator, appid] = process.argv
const storage = new Map()
const control = (path, data) => fetch(simulator + '/_sim/' + path, {
  method: 'POST', body: JSON.stringify({ appid, user: 'ada', ...data })
}).then(r => r.json())

global.wx = {
  getStorageSync: key => storage.get(key) ?? '',
  setStorageSync: (key, value) => storage.set(key, value),
  removeStorageSync: key => storage.delete(key),
  checkSession: ({ success }) => success(),
  login: ({ success, fail }) => control('code').then(success, fail),
  getUserInfo: ({ success, fail }) => control('encrypt', { data: { nickName: 'Ada' } })
    .then(d => success({ ...d, userInfo: { nickName: 'Ada' } }), fail),
  request: async ({ url, method, header, success, fail, complete }) => {
    try {
      const r = await fetch(url, { method: method || 'GET', headers: header })
      const text = await r.text()
      success({ statusCode: r.status, data: text && JSON.parse(text) })
    } catch (e) { fail(e) }
    complete?.()
  }
}

for (const event of ['Open', 'Message', 'Close', 'Error']) wx['onSocket' + event] = () => {}

const client = require(name)
client.setLoginUrl(gate + '/wx/login')
const ask = (f, options) => new Promise((resolve, reject) => f({
  ...options, success: resolve, fail: reject
}))

async function main () {
  const user = await ask(client.login, {})
  const session = [...storage.values()][0]
  const first = await ask(client.request, { url: gate + '/first', login: true })
  const out = await fetch(gate + '/wx/logout', {
    method: 'POST', headers: { 'X-WX-Skey': session.skey }
  })
  for (const [key, value] of storage) {
    storage.set(key, { ...value, skey: session.skey })
  }
  const second = await ask(client.request, { url: gate + '/second' })
  console.log(JSON.stringify({
    user: user.nickName, out: out.status, again: [...storage.values()][0].skey !== session.skey,
    first: first.data, second: second.data
  }))
}

main().catch(e => { console.error(e); process.exit(1) })
