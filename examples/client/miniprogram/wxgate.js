// The client of wxgate for mini programs: logs in when a call needs it, sends the
// session along, and renews it. It has no dependency. wxgate.js is this file for
// require(); a test keeps the two the same.

const RENEW = 300e3 // a session with less than this left is renewed, in milliseconds
const RETRY_RENEWAL = 60e3 // a renewal that failed is tried again after this
const LONGEST_WAIT = 20 // seconds that a call waits for the gate before it gives up
const TRIES = 3 // calls in all, when the gate says "later"
const JSON_BODY = { header: { 'content-type': 'application/json' } }

// GateError is the refusal of the gate, or the reason why a login failed.
class GateError extends Error {
  constructor (code, facts = {}) {
    super(facts.detail ? code + ': ' + facts.detail : code)
    Object.assign(this, facts, { name: 'GateError', code })
  }
}

// createGate returns the client of one gate. Its calls take what the calls of wx take,
// with callbacks or as promises.
function createGate (config) {
  const api = config.api || (typeof wx !== 'undefined' ? wx : typeof uni !== 'undefined' ? uni : {})
  const base = config.baseURL.replace(/\/+$/, '')
  const own = base + '/' + (config.endpoints || '/wx').replace(/^\/+|\/+$/g, '')
  const tokenHeader = config.tokenHeader || 'Authorization'
  const storage = config.storage || {
    get: key => api.getStorageSync(key),
    set: (key, value) => api.setStorageSync(key, value),
    remove: key => api.removeStorageSync(key)
  }
  const key = 'wxgate ' + own + ' ' + (config.appid || '')

  let current = null // { token, ends, unionidBound }; ends is the time of this device
  let loggingIn = null // the login that is under way, for all who wait for it
  let refusedToken // the last token that the gate refused: never taken from the storage
  let loggedOut = 0 // counts logouts, so that a login from before one is not kept

  // native runs one call of the platform, which answers by callback, by promise or both.
  function native (name, options, onTask) {
    return new Promise((resolve, reject) => {
      const call = config[name] || api[name]
      const task = call.call(api, Object.assign({}, options, { success: resolve, fail: reject }))
      if (task && task.then) task.then(resolve, reject)
      if (task && onTask) onTask(task)
    })
  }

  // stored runs one call of the storage. A full or broken storage costs a login at the
  // next start of the mini program, and nothing else.
  async function stored (name, value) {
    try {
      return await storage[name](key, value)
    } catch (err) {
      return undefined
    }
  }

  // ready returns the session to send: the one at hand, the one in the storage, or that of
  // a login. It renews one that ends soon, and lets the call go on with it meanwhile.
  async function ready () {
    if (!current && !loggingIn) {
      const kept = await stored('get')
      const usable = kept && kept.token && kept.token !== refusedToken
      if (usable && !current && !loggingIn) current = kept
    }
    const now = Date.now()
    if (!current || !(current.ends > now)) return login()
    if (now > current.renew) {
      current.renew = now + RETRY_RENEWAL
      login().catch(() => {})
    }
    return current
  }

  // drop forgets a session that the gate refused, but not the one that another call has
  // put in its place.
  async function drop (refused) {
    refusedToken = refused.token
    if (current && current.token === refusedToken) current = null
    const kept = await stored('get')
    if (kept && kept.token === refusedToken) await stored('remove')
  }

  // login makes a new session. Parallel callers share it.
  function login () {
    if (!loggingIn) {
      const done = () => { loggingIn = null }
      loggingIn = exchange()
      loggingIn.then(done, done)
    }
    return loggingIn
  }

  async function exchange () {
    const before = loggedOut
    for (let waits = 0, codes = 0; ;) {
      const code = await newCode()
      const data = config.appid ? { code, appid: config.appid } : { code }
      // A lost answer is asked for once more: the gate gives it again to the same code.
      const send = () => endpoint('POST', '/login', data, current)
      const res = await send().catch(send)
        .catch(cause => { throw new GateError('network', { cause }) })
      if (res.statusCode === 200) return keep(res.data, before)
      const err = problem(res)
      if ((err.code === 'code_invalid' || err.code === 'code_used') && codes++ < 1) continue
      if (waits++ < TRIES - 1 && await later(res)) continue
      throw err
    }
  }

  async function newCode () {
    let cause
    try {
      const got = await native('login', { timeout: 10e3 })
      const code = typeof got === 'string' ? got : got && got.code
      if (code) return code
      cause = got
    } catch (err) {
      cause = err
    }
    throw new GateError('login_failed', { detail: cause && cause.errMsg, cause })
  }

  async function keep (answer, before) {
    const life = answer.expires_in * 1000
    const ends = Date.now() + life
    const renew = ends - Math.min(RENEW, life / 10)
    const made = { token: answer['3rd_session'], ends, renew, unionidBound: answer.unionid_bound }
    if (before !== loggedOut) {
      endpoint('POST', '/logout', {}, made).catch(() => {})
      throw new GateError('logged_out')
    }
    current = made
    await stored('set', made)
    return made
  }

  // later waits as the gate asks, and reports whether it has waited. The random part keeps
  // the phones of a crowd apart.
  async function later (res) {
    const seconds = +header(res, 'retry-after')
    if (!(res.statusCode === 429 || res.statusCode === 503) || !fromGate(res) ||
      !(seconds <= LONGEST_WAIT)) return false
    const wait = (seconds + Math.random() * Math.max(1, seconds / 2)) * 1000
    await new Promise(resolve => setTimeout(resolve, wait))
    return true
  }

  // guarded makes a call with a session. It logs in and repeats the call once when the
  // gate refuses the session, and waits when the gate says "later". refused tells whether
  // an answer is the gate's refusal of the session.
  async function guarded (make, refused) {
    for (let again = false, waits = 0; ;) {
      const used = await ready()
      const res = await make(used)
      if (await refused(res, used)) {
        await drop(used)
        if (again) return res
        again = true
      } else if (waits++ >= TRIES - 1 || !await later(res)) {
        return res
      }
    }
  }

  const unauthorized = res => res.statusCode === 401 && fromGate(res)

  // ended asks the gate whether a session has ended, where the platform hides the answer.
  const ended = used => native('request', { url: own + '/session', header: headers({}, used) })
    .then(unauthorized, () => false)

  // transfer makes the guarded call of wx.request, wx.uploadFile or wx.downloadFile.
  function transfer (name, options) {
    const url = absolute(options.url)
    // An answer to downloadFile may have no header, and its body is in a file.
    const refused = async (res, used) => unauthorized(res) ||
      (res.statusCode === 401 && !res.header && !res.headers && name !== 'request' && ended(used))
    return guarded(used => native(name, Object.assign({}, options, {
      url, header: headers(options, used)
    }), options.onTask), refused)
  }

  function headers (options, used) {
    const all = Object.assign({}, options.headers, options.header)
    const scheme = tokenHeader === 'Authorization' ? 'Bearer ' : ''
    if (used) all[tokenHeader] = scheme + used.token
    return all
  }

  // absolute returns the address of a call. The session goes to the gate and nowhere else.
  function absolute (url) {
    const full = /^[a-z]+:/i.test(url) ? url : base + (url[0] === '/' ? '' : '/') + url
    if (full !== base && !/^[/?#]/.test(full.slice(base.length)) || full.indexOf(base) !== 0) {
      throw new GateError('other_host', { detail: 'the call is not to ' + base })
    }
    return full
  }

  // endpoint asks one of the gate's own endpoints, once.
  function endpoint (method, path, data, used) {
    const header = headers(JSON_BODY, used)
    return native('request', { url: own + path, method, data, header })
  }

  // ask makes a call of the gate's own endpoints. It returns the answer's data.
  async function ask (method, path, data) {
    const res = await guarded(used => endpoint(method, path, data, used), unauthorized)
    if (res.statusCode < 300) return res.data
    const err = problem(res)
    // WeChat sealed the data for an older login; the mini program has to get them anew.
    if (err.loginAgain) await login().catch(() => {})
    throw err
  }

  // open connects a socket once. It rejects when the socket does not open.
  function open (options, used) {
    return new Promise((resolve, reject) => {
      const watch = task => {
        if (options.onTask) options.onTask(task)
        task.onOpen(() => resolve(task))
        task.onError(reject)
        // 4401: the session has ended while the socket was open.
        task.onClose(event => {
          if (event && event.code === 4401) drop(used)
          reject(event)
        })
      }
      const call = config.connectSocket || api.connectSocket
      const task = call.call(api, Object.assign({}, options, {
        url: absolute(options.url.replace(/^ws/, 'http')).replace(/^http/, 'ws'),
        header: headers(options, used),
        success: () => {},
        fail: reject
      }))
      if (task && task.then) task.then(watch).catch(reject)
      else if (task) watch(task)
    })
  }

  async function connectSocket (options) {
    const used = await ready()
    try {
      return await open(options, used)
    } catch (cause) {
      if (!await ended(used)) throw cause
      await drop(used)
      return open(options, await ready())
    }
  }

  async function logout (options) {
    loggedOut++
    const used = current || await stored('get')
    current = null
    await stored('remove')
    if (!used || !used.token) return
    const res = await endpoint('POST', '/logout', options && options.all ? { all: true } : {}, used)
    if (res.statusCode >= 300 && !unauthorized(res)) throw problem(res)
  }

  const facts = made => ({
    expiresIn: Math.round((made.ends - Date.now()) / 1000),
    unionidBound: made.unionidBound
  })

  return {
    request: styles(options => transfer('request', options)),
    uploadFile: styles(options => transfer('uploadFile', options)),
    downloadFile: styles(options => transfer('downloadFile', options)),
    connectSocket: styles(connectSocket),
    login: styles(() => login().then(facts)),
    logout: styles(logout),
    session: styles(() => ask('GET', '/session')
      .then(got => ({ expiresIn: got.expires_in, unionidBound: got.unionid_bound }))),
    sessions: styles(() => ask('GET', '/sessions').then(got => got.sessions.map(s =>
      ({ id: s.id, created: s.created, lastUsed: s.last_used, current: s.current })))),
    endSession: styles(({ id }) => ask('DELETE', '/sessions/' + encodeURIComponent(id))),
    decrypt: styles(({ encryptedData, iv, rawData, signature }) =>
      ask('POST', '/decrypt', { encryptedData, iv, rawData, signature })),
    phone: styles(({ code }) => ask('POST', '/phone', { code })),
    ticket: styles(({ path, expiresIn }) => ask('POST', '/ticket', { path, expires_in: expiresIn })
      .then(got => ({ url: base + got.url, expiresIn: got.expires_in })))
  }
}

// styles lets a call be used with callbacks, as those of wx, or as a promise.
function styles (call) {
  return (options = {}) => {
    const { success, fail, complete } = options
    const plain = Object.assign({}, options)
    delete plain.success
    delete plain.fail
    delete plain.complete
    const result = new Promise(resolve => resolve(call(plain)))
    if (!success && !fail && !complete) return result
    result.then(
      res => { if (success) success(res); if (complete) complete(res) },
      err => { if (fail) fail(err); if (complete) complete(err) }
    )
  }
}

// header finds a header of an answer in any letter case.
function header (res, name) {
  const all = res.header || res.headers || {}
  for (const key in all) if (key.toLowerCase() === name) return String(all[key])
}

const fromGate = res => header(res, 'x-wxgate') !== undefined

// problem turns a refusal into an error. It never holds the session.
function problem (res) {
  const body = (res.data && typeof res.data === 'object' && res.data) || {}
  return new GateError(body.code || 'http_' + res.statusCode, {
    status: res.statusCode,
    detail: body.detail,
    id: body.id,
    loginAgain: body.login_again,
    retryAfter: +header(res, 'retry-after') || undefined
  })
}

module.exports = { createGate, GateError }
