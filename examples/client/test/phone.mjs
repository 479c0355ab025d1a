// A phone for tests: what a mini program finds in wx, with answers that a test gives.

// answer is a reply of the server. The gate's own replies carry X-Wxgate.
export const answer = (statusCode, data, header = {}) => ({ statusCode, data, header })
export const gate = (statusCode, code, header = {}) =>
  answer(statusCode, { code, detail: 'detail of ' + code }, { 'X-WXGATE': '1', ...header })

// Server is a gate with an app behind it, as far as the client can tell.
export class Server {
  live = new Set() // tokens that it accepts
  codes = 0 // codes that it has seen
  logins = 0
  seen = [] // every request: { method, path, token, data }
  script = [] // handlers for the next requests; undefined goes on to the rest
  life = 3600

  handle (method, url, header, data) {
    const path = url.replace(/^https:\/\/api\.test/, '')
    const token = header['X-3rd-Session'] || (header.Authorization || '').replace('Bearer ', '')
    this.seen.push({ method, url, path, token, data, header })
    const next = this.script.shift()
    const scripted = next && next({ method, path, token, data })
    if (scripted) return scripted
    if (path === '/wx/login') return this.login()
    if (!this.live.has(token)) return gate(401, token ? 'session_invalid' : 'session_missing')
    switch (path) {
      case '/wx/logout':
        this.live.delete(token)
        return answer(204, '', { 'X-Wxgate': '1' })
      case '/wx/session':
        return answer(200, { expires_in: 7, unionid_bound: false })
      case '/wx/sessions':
        return answer(200, {
          sessions: [{ id: '00ff', created: 'c', last_used: 'u', current: true }]
        })
      case '/wx/sessions/00ff':
        return method === 'DELETE' ? answer(204, '', { 'X-Wxgate': '1' }) : gate(405, 'x')
      case '/wx/ticket':
        return answer(200, { url: data.path + '?wx_ticket=t', expires_in: 60 })
    }
    return answer(200, { path, data })
  }

  login () {
    const token = 'wxs_' + ++this.logins
    this.live.add(token)
    return answer(200, { '3rd_session': token, expires_in: this.life, unionid_bound: true })
  }

  asked (path) {
    return this.seen.filter(r => r.path === path)
  }
}

// makePhone returns wx in front of a server. Each answer comes later, as on a phone.
export function makePhone (server, kept = new Map()) {
  const later = run => setImmediate(run)
  const send = ({ method = 'GET', url, header = {}, data, success, fail, complete }) => {
    const got = server.handle(method, url, header, data)
    later(() => {
      if (got.lost) fail({ errMsg: 'request:fail' })
      else success(got)
      if (complete) complete(got)
    })
    return { abort () {} }
  }
  return {
    kept,
    codes: 0,
    login ({ success }) {
      const code = 'code' + ++this.codes
      later(() => success({ code, errMsg: 'login:ok' }))
    },
    request: send,
    // WeChat shows the header of an upload on some phones only, and the body as text.
    uploadFile: options => send({
      ...options,
      method: 'POST',
      success: ({ statusCode, data }) => options.success({ statusCode, data: JSON.stringify(data) })
    }),
    // A refusal, too, is a file for WeChat.
    downloadFile: options => send({
      ...options,
      success: ({ statusCode }) => options.success({ statusCode, tempFilePath: 'wxfile://tmp' })
    }),
    connectSocket ({ url, header }) {
      const got = server.handle('GET', url.replace(/^wss/, 'https'), header)
      const on = {}
      later(() => {
        if (got.statusCode === 200) return on.open({})
        on.error({ errMsg: 'connectSocket:fail' }) // no status, no header
        on.close({ code: 1006 })
      })
      return {
        onOpen: f => { on.open = f },
        onError: f => { on.error = f },
        onClose: f => { on.close = f },
        end: code => on.close({ code })
      }
    },
    getStorageSync: key => kept.get(key) || '',
    setStorageSync: (key, value) => kept.set(key, structuredClone(value)),
    removeStorageSync: key => kept.delete(key)
  }
}
