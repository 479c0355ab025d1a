// The client and the mini program against a real gate, its simulated WeChat and the app of
// this folder. WXGATE_SITE and WXSIM are their addresses; without them there is nothing to
// test.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import vm from 'node:vm'
import { createGate } from '../wxgate.mjs'

const { WXGATE_SITE: site, WXSIM: sim } = process.env
const skip = site && sim ? false : 'WXGATE_SITE and WXSIM are not set'
const appid = 'wx0123456789abcdef'
const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'miniprogram')

async function control (call, data) {
  const headers = { 'Content-Type': 'application/json' }
  const body = JSON.stringify({ appid, ...data })
  return (await fetch(sim + '/_sim/' + call, { method: 'POST', headers, body })).json()
}

// phone returns a wx that calls over the network, in the hands of a user of the simulator.
function phone (user) {
  const kept = new Map()
  const send = ({ method = 'GET', url, header, data, success, fail }) => {
    const body = data && method !== 'GET'
      ? (data instanceof Uint8Array ? data : JSON.stringify(data))
      : undefined
    fetch(url, { method, headers: header, body }).then(async res => {
      const text = await res.text()
      let read = text
      try { read = JSON.parse(text) } catch {}
      success({ statusCode: res.status, header: Object.fromEntries(res.headers), data: read })
    }).catch(err => fail({ errMsg: 'request:fail ' + err.message }))
  }
  return {
    login: ({ success, fail }) =>
      control('code', { user }).then(({ code }) => success({ code })).catch(fail),
    request: send,
    uploadFile: ({ filePath, success, ...options }) => send({
      ...options,
      method: 'POST',
      data: new TextEncoder().encode('photo of ' + filePath),
      success: ({ statusCode, data }) => success({ statusCode, data: String(data) })
    }),
    downloadFile: ({ success, ...options }) => send({
      ...options, success: ({ statusCode }) => success({ statusCode, tempFilePath: 'tmp' })
    }),
    connectSocket ({ url, header }) {
      const on = {}
      // The WebSocket of Node cannot send headers, so the handshake is enough here.
      send({
        url: url.replace(/^ws/, 'http'),
        header,
        success: ({ statusCode }) => statusCode < 400 ? on.open() : on.error({ errMsg: 'fail' })
      })
      return { onOpen: f => { on.open = f }, onError: f => { on.error = f }, onClose () {} }
    },
    getStorageSync: key => kept.get(key),
    setStorageSync: (key, value) => kept.set(key, value),
    removeStorageSync: key => kept.delete(key),
    chooseMedia: async () => ({ tempFiles: [{ tempFilePath: user + '.jpg' }] }),
    navigateTo () {},
    kept
  }
}

// endAll ends the user's sessions behind the back of a client.
async function endAll (user) {
  const other = createGate({ baseURL: site, api: phone(user) })
  await other.login()
  await other.logout({ all: true })
}

test('Gate_TwentyCallsOnADeadSession_LogInOnce', { skip }, async () => {
  const wx = phone('carol')
  let logins = 0
  const login = options => { logins++; wx.login(options) }
  const gate = createGate({ baseURL: site, api: wx, login })
  const { data } = await gate.request({ url: '/api/me' })
  assert.match(data.openid, /^o/)
  await endAll('carol')
  const all = await Promise.all(
    Array.from({ length: 20 }, () => gate.request({ url: '/api/me' })))
  assert.ok(all.every(res => res.statusCode === 200 && res.data.openid === data.openid))
  assert.equal(logins, 2)
})

test('Gate_EndedSession_IsRecognisedByEachCall', { skip }, async () => {
  const gate = createGate({ baseURL: site, api: phone('dave') })
  for (const call of [
    () => gate.uploadFile({ url: '/api/photo', filePath: 'f', name: 'photo' }),
    () => gate.downloadFile({ url: '/api/photo' }),
    () => gate.connectSocket({ url: '/api/me' }),
    () => gate.session()
  ]) {
    await endAll('dave')
    await call()
    assert.ok((await gate.session()).expiresIn > 0)
  }
})

test('Gate_LogInAgainWithASession_ServesCallsUnderWay', { skip }, async () => {
  const gate = createGate({ baseURL: site, api: phone('erin') })
  await gate.request({ url: '/api/me' })
  const calls = Array.from({ length: 5 }, () => gate.request({ url: '/api/me' }))
  const all = await Promise.all([gate.login(), ...calls])
  assert.ok(all.slice(1).every(res => res.statusCode === 200))
})

test('Gate_RefusedLogin_IsAGateError', { skip }, async () => {
  const login = ({ success }) => success({ code: 'code-that-wechat-never-made' })
  const gate = createGate({ baseURL: site, api: phone('frank'), login })
  await assert.rejects(gate.request({ url: '/api/me' }), { code: 'code_invalid', status: 401 })
})

test('MiniProgram_Client_IsTheSameFile', () => {
  const read = name => readFileSync(join(folder, name), 'utf8')
  assert.equal(read('wxgate.js'), read('../wxgate.js'))
})

// load runs a file of the mini program as DevTools does, and returns what it registers.
function load (name, globals, registered = {}) {
  const module = { exports: {} }
  const register = options => { registered.it = options }
  const scope = {
    ...globals,
    module,
    exports: module.exports,
    require: path => load(join(dirname(name), path), globals).exports,
    App: register,
    Page: register
  }
  const source = readFileSync(join(folder, name), 'utf8')
  vm.compileFunction(source, Object.keys(scope))(...Object.values(scope))
  return { ...registered, exports: module.exports }
}

test('MiniProgram_Pages_Work', { skip }, async () => {
  const wx = phone('grace')
  const here = readFileSync(join(folder, 'app.js'), 'utf8')
  assert.match(here, /https:\/\/api\.example\.com/)
  // The console of WeChat accepts https only; the trial gate speaks http.
  const request = name => options =>
    wx[name]({ ...options, url: options.url.replace('https://api.example.com', site) })
  const globals = { wx: { ...wx, request: request('request'), uploadFile: request('uploadFile') } }
  const app = load('app.js', globals).it
  const open = name => {
    const page = load(name, { ...globals, getApp: () => app }).it
    page.setData = data => Object.assign(page.data, data)
    return page
  }
  const index = open('pages/index/index.js')
  await index.onLoad()
  assert.equal(index.data.error, '')
  assert.match(index.data.user.openid, /^o/)
  const { code } = await control('phone_code', { phone: '13580006666' })
  await index.onPhone({ detail: { code } })
  assert.equal(index.data.phone, '13580006666')
  await index.onLogout()
  assert.equal(wx.kept.size, 0)

  const photos = open('pages/photos/photos.js')
  await photos.onChoose()
  assert.equal(photos.data.error, '')
  const link = photos.data.url.replace('https://api.example.com', site)
  assert.equal(await (await fetch(link)).text(), 'photo of grace.jpg')
})
