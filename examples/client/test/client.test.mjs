// The client against a server whose answers each test chooses.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { beforeEach, mock, test } from 'node:test'
import { createGate, GateError } from '../wxgate.mjs'
import { answer, gate as refusal, makePhone, Server } from './phone.mjs'

let server, wx, gate
const make = (more = {}) => createGate({ baseURL: 'https://api.test', api: wx, ...more })

beforeEach(() => {
  server = new Server()
  wx = makePhone(server)
  gate = make()
})

test('Package_BothForms_AreTheSame', () => {
  const read = name => readFileSync(new URL('../' + name, import.meta.url), 'utf8')
  const common = read('wxgate.mjs').replace(/^export /gm, '') +
    '\nmodule.exports = { createGate, GateError }\n'
  assert.equal(read('wxgate.js'), common)
  const required = createRequire(import.meta.url)('../wxgate.js')
  assert.equal(typeof required.createGate, 'function')
})

test('Request_NoSession_LogsInFirst', async () => {
  const res = await gate.request({ url: '/orders', method: 'POST', data: { n: 1 } })
  assert.deepEqual(res.data, { path: '/orders', data: { n: 1 } })
  assert.deepEqual(server.asked('/wx/login').map(r => r.data), [{ code: 'code1' }])
  assert.equal(server.asked('/orders')[0].token, 'wxs_1')
})

test('Request_AppID_IsSentAtLogin', async () => {
  await make({ appid: 'wx1' }).request({ url: '/a' })
  assert.deepEqual(server.asked('/wx/login')[0].data, { code: 'code1', appid: 'wx1' })
})

test('Request_ParallelFirstCalls_ShareOneLogin', async () => {
  await Promise.all(Array.from({ length: 20 }, (_, i) => gate.request({ url: '/' + i })))
  assert.equal(server.logins, 1)
})

test('Request_TwentyCallsOnADeadToken_LogInOnce', async () => {
  await gate.request({ url: '/first' })
  server.live.clear()
  const all = await Promise.all(
    Array.from({ length: 20 }, (_, i) => gate.request({ url: '/' + i })))
  assert.ok(all.every(res => res.statusCode === 200))
  assert.equal(server.logins, 2)
})

test('Request_LateRefusal_KeepsTheNewerSession', async () => {
  await gate.request({ url: '/first' })
  server.live.clear()
  // The answer to /slow is the refusal of the first session, and comes when another call
  // has renewed it.
  let release
  const slow = new Promise(resolve => { release = resolve })
  const native = wx.request
  wx.request = options => options.url.endsWith('/slow') && !release.done
    ? void (release.done = true, slow.then(() => options.success(refusal(401, 'session_invalid'))))
    : native(options)
  const waiting = gate.request({ url: '/slow' })
  await gate.request({ url: '/quick' })
  release()
  assert.equal((await waiting).statusCode, 200)
  assert.equal(server.logins, 2)
})

test('Request_AlwaysRefused_IsSentTwice', async () => {
  server.handle = (handle => function (method, url, ...rest) {
    const res = handle.call(this, method, url, ...rest)
    return url.endsWith('/wx/login') ? res : refusal(401, 'session_invalid')
  })(server.handle)
  const res = await gate.request({ url: '/orders' })
  assert.equal(res.statusCode, 401)
  assert.equal(server.asked('/orders').length, 2)
  assert.equal(server.logins, 2)
})

test('Request_401OfTheApp_IsLeftAlone', async () => {
  server.script = [undefined, () => answer(401, 'the app says no')]
  assert.equal((await gate.request({ url: '/orders' })).data, 'the app says no')
  assert.equal(server.logins, 1)
})

for (const name of ['X-Wxgate', 'x-wxgate', 'X-WXGATE']) {
  test('Request_' + name + '_IsTheGate', async () => {
    server.script = [undefined, () => answer(401, {}, { [name]: '1' })]
    assert.equal((await gate.request({ url: '/orders' })).statusCode, 200)
    assert.equal(server.logins, 2)
  })
}

test('Request_OtherHost_GetsNoSession', async () => {
  for (const url of ['https://evil.test/x', 'https://api.test.evil.test/', 'https://api.test@evil/',
    'http://api.test/x', 'https://api.testing']) {
    await assert.rejects(gate.request({ url }), { code: 'other_host' })
  }
  assert.deepEqual(server.seen, [])
  for (const url of ['x', '/x', 'https://api.test/x', 'https://api.test?x', '//evil.test/x']) {
    await gate.request({ url })
  }
  assert.ok(server.seen.every(r => r.url.startsWith('https://api.test')))
})

test('Request_Callbacks_AreRunLikeThoseOfWx', async () => {
  const got = await new Promise(resolve => {
    const seen = []
    const returned = gate.request({
      url: '/orders', success: res => seen.push(res.statusCode), complete: () => resolve(seen)
    })
    assert.equal(returned, undefined)
  })
  assert.deepEqual(got, [200])
  wx.login = ({ fail }) => fail({ errMsg: 'login:fail' })
  gate = make({ endpoints: 'gate' })
  const err = await new Promise(resolve => gate.request({ url: '/', fail: resolve }))
  assert.equal(err.code, 'login_failed')
})

test('Request_TokenHeader_IsUsed', async () => {
  gate = make({ tokenHeader: 'X-3rd-Session' })
  await gate.request({ url: '/a', header: { Authorization: 'mine' } })
  const { header } = server.asked('/a')[0]
  assert.deepEqual(header, { Authorization: 'mine', 'X-3rd-Session': 'wxs_1' })
})

test('Request_Task_IsHandedOut', async () => {
  let task
  await gate.request({ url: '/a', onTask: t => { task = t } })
  assert.equal(typeof task.abort, 'function')
})

test('Login_WxLoginFails_ToldWithTheCause', async () => {
  wx.login = ({ fail }) => fail({ errMsg: 'login:fail no network' })
  const calls = [gate.request({ url: '/a' }), gate.request({ url: '/b' })]
  for (const call of calls) {
    await assert.rejects(call, err => err instanceof GateError && err.code === 'login_failed' &&
      err.cause.errMsg === 'login:fail no network')
  }
  assert.deepEqual(server.seen, [])
})

test('Login_LostAnswer_AsksAgainWithTheSameCode', async () => {
  server.script = [() => ({ lost: true })]
  await gate.request({ url: '/a' })
  assert.deepEqual(server.asked('/wx/login').map(r => r.data.code), ['code1', 'code1'])
})

test('Login_NoNetwork_Ends', async () => {
  server.handle = () => ({ lost: true })
  await assert.rejects(gate.request({ url: '/a' }), { code: 'network' })
})

test('Login_CodeUsed_TakesOneNewCode', async () => {
  server.script = [() => refusal(401, 'code_used')]
  await gate.request({ url: '/a' })
  assert.deepEqual(server.asked('/wx/login').map(r => r.data.code), ['code1', 'code2'])
  server = new Server()
  server.handle = () => refusal(401, 'code_invalid')
  wx = makePhone(server)
  await assert.rejects(make().login(), { code: 'code_invalid', status: 401 })
  assert.equal(wx.codes, 2)
})

test('Login_Blocked_IsToldOnce', async () => {
  server.handle = () => refusal(403, 'user_blocked')
  await assert.rejects(gate.request({ url: '/a' }), { code: 'user_blocked', status: 403 })
  assert.equal(wx.codes, 1)
})

test('Login_UnderWay_LogoutWins', async () => {
  const login = gate.login()
  await gate.logout()
  await assert.rejects(login, { code: 'logged_out' })
  await new Promise(resolve => setTimeout(resolve, 20))
  assert.equal(server.live.size, 0)
  assert.equal(wx.kept.size, 0)
})

test('Wait_RetryAfter_IsHonoured', async t => {
  const waits = []
  const native = globalThis.setTimeout
  globalThis.setTimeout = (run, ms) => { waits.push(ms); setImmediate(run) }
  t.after(() => { globalThis.setTimeout = native })
  const busy = () => refusal(503, 'store_unavailable', { 'retry-after': '4' })
  server.script = [undefined, busy, busy]
  assert.equal((await gate.request({ url: '/a' })).statusCode, 200)
  assert.equal(waits.length, 2)
  assert.ok(waits.every(ms => ms >= 4000 && ms <= 6000), waits)

  server.script = [busy, busy, busy, busy]
  assert.equal((await gate.request({ url: '/a' })).statusCode, 503)
  assert.equal(server.script.length, 1) // three calls in all

  server.script = [() => refusal(429, 'rate_limited', { 'Retry-After': '3600' })]
  const res = await gate.request({ url: '/a' }) // too long to wait for
  assert.equal(res.statusCode, 429)

  server.script = [() => answer(503, 'of the app', { 'Retry-After': '1' })]
  assert.equal((await gate.request({ url: '/a' })).data, 'of the app')
})

test('Wait_Login_TakesANewCode', async t => {
  const native = globalThis.setTimeout
  globalThis.setTimeout = run => setImmediate(run)
  t.after(() => { globalThis.setTimeout = native })
  server.script = [() => refusal(503, 'wechat_unavailable', { 'Retry-After': '1' })]
  await gate.request({ url: '/a' })
  assert.deepEqual(server.asked('/wx/login').map(r => r.data.code), ['code1', 'code2'])
})

test('Storage_NextStart_NeedsNoLogin', async () => {
  await gate.request({ url: '/a' })
  await make().request({ url: '/b' })
  assert.equal(server.logins, 1)
  assert.deepEqual([...wx.kept.keys()], ['wxgate https://api.test/wx '])
})

test('Storage_DeadToken_IsReplaced', async () => {
  await gate.request({ url: '/a' })
  server.live.clear()
  await make().request({ url: '/b' })
  await make().request({ url: '/c' })
  assert.equal(server.logins, 2)
})

test('Storage_Broken_CostsNothingElse', async () => {
  const broken = () => { throw new Error('exceed storage max size') }
  gate = make({ storage: { get: broken, set: broken, remove: broken } })
  await gate.request({ url: '/a' })
  server.live.clear()
  assert.equal((await gate.request({ url: '/b' })).statusCode, 200)
  assert.equal(server.logins, 2)
  await gate.logout()
  for (const junk of [null, 5, 'wxs_old', { token: 7 }, { token: 'wxs_x' }, []]) {
    gate = make({ storage: { get: () => junk, set () {}, remove () {} } })
    assert.equal((await gate.request({ url: '/c' })).statusCode, 200)
  }
})

test('Storage_OfPromises_IsAwaited', async () => {
  const kept = new Map()
  const storage = {
    get: async key => kept.get(key),
    set: async (key, value) => { kept.set(key, value) },
    remove: async key => { kept.delete(key) }
  }
  await make({ storage }).request({ url: '/a' })
  await make({ storage }).request({ url: '/b' })
  assert.equal(server.logins, 1)
})

test('Renewal_ShortlyBeforeTheEnd_IsSilent', async t => {
  mock.timers.enable({ apis: ['Date'] })
  t.after(() => mock.timers.reset())
  await gate.request({ url: '/a' })
  mock.timers.tick(3600e3 - 301e3)
  await gate.request({ url: '/b' })
  mock.timers.tick(2e3)
  server.script = [] // the call goes on with the session at hand
  await Promise.all([gate.request({ url: '/c' }), gate.request({ url: '/d' })])
  await new Promise(resolve => setTimeout(resolve, 20))
  assert.equal(server.logins, 2)
  assert.equal(server.asked('/c')[0].token, 'wxs_1')
  assert.equal(server.asked('/wx/login')[1].token, 'wxs_1') // the gate ends it a minute later
  await gate.request({ url: '/e' })
  assert.equal(server.asked('/e')[0].token, 'wxs_2')
})

test('Renewal_Fails_IsTriedOnceAMinute', async t => {
  mock.timers.enable({ apis: ['Date'] })
  t.after(() => mock.timers.reset())
  await gate.request({ url: '/a' })
  mock.timers.tick(3600e3 - 200e3)
  wx.login = function ({ fail }) { this.codes++; setImmediate(fail, { errMsg: 'login:fail' }) }
  for (let i = 0; i < 5; i++) assert.equal((await gate.request({ url: '/b' })).statusCode, 200)
  assert.equal(wx.codes, 2)
})

test('Clock_Wrong_CostsOneLogin', async t => {
  mock.timers.enable({ apis: ['Date'], now: 1e12 })
  t.after(() => mock.timers.reset())
  await gate.request({ url: '/a' })
  mock.timers.setTime(2e12) // years ahead
  await gate.request({ url: '/b' })
  mock.timers.setTime(1e12) // and back, with a session that seems to last for years
  server.live.clear()
  assert.equal((await gate.request({ url: '/c' })).statusCode, 200)
  assert.equal(server.logins, 3)
})

test('Upload_RefusalWithoutHeader_IsRecognised', async () => {
  await gate.request({ url: '/a' })
  server.live.clear()
  const res = await gate.uploadFile({ url: '/photos', filePath: 'f', name: 'photo' })
  assert.equal(res.statusCode, 200)
  assert.equal(server.logins, 2)
})

test('Download_RefusalIsAFile_IsRecognised', async () => {
  await gate.request({ url: '/a' })
  server.live.clear()
  assert.equal((await gate.downloadFile({ url: '/f.pdf' })).statusCode, 200)
  assert.equal(server.asked('/wx/session').length, 1)
  server.script = [() => answer(401, 'of the app')]
  assert.equal((await gate.downloadFile({ url: '/f.pdf' })).statusCode, 401)
  assert.equal(server.logins, 2)
})

test('Socket_BareError_IsAskedAbout', async () => {
  await gate.request({ url: '/a' })
  server.live.clear()
  const task = await gate.connectSocket({ url: 'wss://api.test/socket' })
  assert.equal(server.logins, 2)
  assert.equal(typeof task.onOpen, 'function')
  server.script = [() => answer(502, '')]
  await assert.rejects(gate.connectSocket({ url: '/socket' }), { errMsg: 'connectSocket:fail' })
  assert.equal(server.logins, 2)
})

test('Socket_ClosedWith4401_NextCallLogsIn', async () => {
  const task = await gate.connectSocket({ url: '/socket' })
  server.live.clear()
  task.end(4401)
  await new Promise(resolve => setImmediate(resolve))
  await gate.connectSocket({ url: '/socket' })
  assert.equal(server.logins, 2)
  assert.equal(server.asked('/wx/session').length, 0)
})

test('Socket_PlatformWithPromises_Works', async () => {
  const native = wx.connectSocket
  gate = make({ connectSocket: async options => native(options) })
  await gate.connectSocket({ url: '/socket' })
})

test('Platform_WithPromises_Works', async () => {
  const native = wx.request
  gate = make({
    login: async () => 'code of a promise',
    request: options => new Promise((success, fail) => native({ ...options, success, fail }))
  })
  assert.equal((await gate.request({ url: '/a' })).statusCode, 200)
  assert.equal(server.asked('/wx/login')[0].data.code, 'code of a promise')
})

test('Logout_EndsTheSessionAndForgetsIt', async () => {
  await gate.logout() // nothing to end
  assert.deepEqual(server.seen, [])
  await gate.request({ url: '/a' })
  await gate.logout({ all: true })
  assert.deepEqual(server.asked('/wx/logout')[0].data, { all: true })
  assert.equal(wx.kept.size, 0)
  await gate.request({ url: '/b' })
  server.live.clear()
  await gate.logout() // the gate says 401: it has ended already
  server.script = [undefined, undefined, () => refusal(503, 'store_unavailable')]
  await gate.request({ url: '/c' })
  await assert.rejects(gate.logout(), { code: 'store_unavailable' })
})

test('Decrypt_LoginAgain_LogsInForTheNextTry', async () => {
  await gate.request({ url: '/a' })
  const problem = { code: 'data_invalid', login_again: true, id: 'p1' }
  server.script = [() => answer(422, problem, { 'x-wxgate': '1' })]
  await assert.rejects(gate.decrypt({ encryptedData: 'e', iv: 'i' }),
    { code: 'data_invalid', status: 422, loginAgain: true, id: 'p1' })
  assert.equal(server.logins, 2)
  const { data } = await gate.decrypt({ encryptedData: 'e', iv: 'i' })
  assert.deepEqual([data.encryptedData, data.iv], ['e', 'i'])
})

test('Endpoints_OwnCalls_AreMade', async () => {
  assert.deepEqual(await gate.login(), { expiresIn: 3600, unionidBound: true })
  assert.deepEqual(await gate.session(), { expiresIn: 7, unionidBound: false })
  await gate.phone({ code: 'p' })
  assert.deepEqual(server.asked('/wx/phone')[0].data, { code: 'p' })
  assert.deepEqual(await gate.sessions(),
    [{ id: '00ff', created: 'c', lastUsed: 'u', current: true }])
  await gate.endSession({ id: '00ff' })
  assert.equal(server.asked('/wx/sessions/00ff')[0].method, 'DELETE')
  assert.deepEqual(await gate.ticket({ path: '/a.jpg', expiresIn: 60 }),
    { url: 'https://api.test/a.jpg?wx_ticket=t', expiresIn: 60 })
})

test('Log_NoToken_EverSaid', async () => {
  const said = []
  for (const name of ['log', 'info', 'warn', 'error', 'debug']) {
    mock.method(console, name, (...all) => said.push(all))
  }
  await gate.request({ url: '/a' })
  server.handle = () => refusal(403, 'user_blocked')
  const err = await gate.phone({ code: 'p' }).catch(err => err)
  assert.ok(!JSON.stringify([err, err.message, err.stack, said]).includes('wxs_'))
  assert.deepEqual(said, [])
  mock.restoreAll()
})
