// A small app behind the gate. It keeps its users in a file. Node 18 or later:
//
//   node app.mjs
import { randomUUID } from 'node:crypto'
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { pathToFileURL } from 'node:url'

// Users stands for your database: rows by (appid, openid), in one process. A file is the
// plainest thing that survives a restart. With node:sqlite or a server, make the pair the
// primary key, and insert ON CONFLICT DO UPDATE.
class Users {
  #rows = new Map()
  #file

  constructor (file) {
    this.#file = file
    try {
      this.#rows = new Map(JSON.parse(readFileSync(file, 'utf8')))
    } catch (err) {
      if (err.code !== 'ENOENT') throw err
    }
  }

  get ({ appid, openid }) { return this.#rows.get(`${appid}/${openid}`) }

  // Nothing else runs between a get and a set without an await between them, so parallel
  // first requests make one row.
  set ({ appid, openid }, row) { this.#write(rows => rows.set(`${appid}/${openid}`, row)) }

  delete ({ appid, openid }) { this.#write(rows => rows.delete(`${appid}/${openid}`)) }

  // The new file is on the disk before it takes the place of the old one.
  #write (change) {
    const rows = new Map(this.#rows)
    change(rows)
    const fd = openSync(this.#file + '.new', 'w', 0o600)
    try {
      writeFileSync(fd, JSON.stringify([...rows]))
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    renameSync(this.#file + '.new', this.#file)
    this.#rows = rows
  }
}

class Refusal extends Error {
  constructor (status, message) {
    super(message)
    this.status = status
  }
}

// createApp returns a server. wechat is the URL of the gate's wechat_api.
export function createApp ({ file, wechat }) {
  const users = new Users(file)

  // userOf returns the row of the caller. It writes at first sight, and for a new unionid.
  // A missing unionid does not overwrite a known one.
  function userOf (caller) {
    const row = users.get(caller)
    if (row && (!caller.unionid || caller.unionid === row.unionid)) return row
    const changed = row
      ? { ...row, unionid: caller.unionid }
      : { id: randomUUID(), openid: caller.openid, unionid: caller.unionid, nickname: '' }
    users.set(caller, changed)
    return changed
  }

  // call asks WeChat through the gate, or the gate itself (/wx/user/…).
  async function call (path, data) {
    const res = await fetch(wechat + path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(data),
      signal: AbortSignal.timeout(30_000)
    })
    const text = await res.text()
    // The gate refuses with a status, WeChat with an errcode.
    if (!res.ok) throw new Error(`${path}: ${res.status} ${text}`)
    const answer = text ? JSON.parse(text) : {}
    if (answer.errcode) throw new Error(`${path}: ${text}`)
    return answer
  }

  const routes = {
    'GET /api/me': async caller => userOf(caller),

    // WeChat asks apps to check what other users will read.
    'PUT /api/me': async (caller, body) => {
      const nickname = new URLSearchParams(body).get('nickname')
      if (!nickname) throw new Refusal(400, 'nickname is missing')
      const check = await call(`/wxa/msg_sec_check?from_appid=${encodeURIComponent(caller.appid)}`, {
        openid: caller.openid, version: 2, scene: 1, content: nickname
      })
      if (check.result.suggest !== 'pass') throw new Refusal(422, 'nickname is refused')
      const row = { ...userOf(caller), nickname }
      users.set(caller, row)
      return row
    },

    // The gate is first: it ends the user's sessions, so that no new request makes the row
    // again.
    'DELETE /api/me': async ({ appid, openid }) => {
      await call('/wx/user/forget', { appid, openid })
      users.delete({ appid, openid })
    }
  }

  async function handle (req) {
    // The gate has verified these. There is no other login code.
    const caller = {
      appid: req.headers['x-wx-appid'],
      openid: req.headers['x-wx-openid'],
      unionid: req.headers['x-wx-unionid'] || null
    }
    if (!caller.openid) throw new Refusal(401, 'no user')
    const route = routes[`${req.method} ${req.url.split('?')[0]}`]
    if (!route) throw new Refusal(404, 'no such page')
    let body = ''
    for await (const piece of req.setEncoding('utf8')) {
      body += piece
      if (body.length > 64 << 10) throw new Refusal(413, 'body is too long')
    }
    return route(caller, body)
  }

  return createServer(async (req, res) => {
    const send = (status, data) => res
      .writeHead(status, { 'Content-Type': 'application/json' })
      .end(data && JSON.stringify(data))
    try {
      const data = await handle(req)
      send(data ? 200 : 204, data)
    } catch (err) {
      if (!err.status) console.error(err)
      send(err.status ?? 500, { error: err.status ? err.message : 'try again' })
    }
  })
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { PORT = 8080, DATABASE = 'users.json', WECHAT = 'http://127.0.0.1:8081' } = process.env
  // On loopback, since the app believes the headers of all who reach it.
  createApp({ file: DATABASE, wechat: WECHAT }).listen(PORT, '127.0.0.1')
}
