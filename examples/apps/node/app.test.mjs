// The tests: node --test. A header is all that makes a request a logged-in user's.
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { createApp } from './app.mjs'

const ada = { appid: 'wxA', openid: 'oAda' }
let app, gate, folder

// gate stands for wechat_api: it finds "risky" in texts, and notes whom it forgets.
beforeEach(async () => {
  gate = createServer(async (req, res) => {
    let body = ''
    for await (const piece of req) body += piece
    if (gate.down) return res.writeHead(503).end()
    if (req.url === '/wx/user/forget') {
      gate.forgotten = JSON.parse(body)
      return res.writeHead(204).end()
    }
    const suggest = body.includes('risky') ? 'risky' : 'pass'
    res.end(JSON.stringify({ errcode: 0, result: { suggest } }))
  })
  await new Promise(resolve => gate.listen(0, '127.0.0.1', resolve))
  folder = mkdtempSync(join(tmpdir(), 'app-'))
  app = createApp({ file: join(folder, 'users.json'), wechat: `http://127.0.0.1:${gate.address().port}` })
  await new Promise(resolve => app.listen(0, '127.0.0.1', resolve))
})

afterEach(async () => {
  for (const server of [app, gate]) {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  }
  rmSync(folder, { recursive: true })
})

async function me (method, user, body) {
  const headers = Object.fromEntries(
    Object.entries(user).map(([name, value]) => [`X-WX-${name}`, value]))
  const res = await fetch(`http://127.0.0.1:${app.address().port}/api/me`, { method, headers, body })
  const text = await res.text()
  return { status: res.status, ...(text && JSON.parse(text)) }
}

test('each user has one row', async () => {
  const first = await me('GET', ada)
  assert.equal(first.openid, 'oAda')
  assert.deepEqual(await me('GET', ada), first)
  for (const other of [{ ...ada, openid: 'oBob' }, { ...ada, appid: 'wxB' }]) {
    assert.notEqual((await me('GET', other)).id, first.id)
  }
  assert.equal((await me('GET', {})).status, 401)
})

test('a unionid that comes late stays', async () => {
  for (const [told, want] of [['', null], ['uAda', 'uAda'], ['', 'uAda'], ['uNew', 'uNew']]) {
    assert.equal((await me('GET', { ...ada, unionid: told })).unionid, want)
  }
})

test('WeChat checks the nickname', async () => {
  const bodies = { 'nickname=Ada': 200, 'nickname=a+risky+one': 422, 'nickname=': 400, '': 400 }
  for (const [body, want] of Object.entries(bodies)) {
    assert.equal((await me('PUT', ada, body)).status, want, body)
  }
  assert.equal((await me('GET', ada)).nickname, 'Ada')
})

test('the gate forgets first', async () => {
  const first = await me('GET', ada)
  gate.down = true
  assert.equal((await me('DELETE', ada)).status, 500)
  assert.deepEqual(await me('GET', ada), first)
  gate.down = false
  assert.equal((await me('DELETE', ada)).status, 204)
  assert.deepEqual(gate.forgotten, ada)
  assert.notEqual((await me('GET', ada)).id, first.id)
})
