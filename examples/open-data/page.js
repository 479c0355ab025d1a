// A page of a mini program. It talks to one host only: the gate, which answers /wx/… itself and hands the rest to the app.
const HOST = 'https://api.example.com'

// request is wx.request as a promise. success runs for every status, so that is looked at here.
function request (method, path, data, token) {
  return new Promise((resolve, reject) => wx.request({
    url: HOST + path,
    method,
    data,
    header: token ? { Authorization: 'Bearer ' + token } : {},
    success: ({ statusCode, header, data }) => {
      if (statusCode < 300) return resolve(data)
      reject(Object.assign(new Error(data.code || statusCode), data, { fromGate: !!(header['X-Wxgate'] || header['x-wxgate']), statusCode }))
    },
    fail: reject
  }))
}

function login () {
  return new Promise((resolve, reject) => wx.login({ success: resolve, fail: reject }))
    .then(({ code }) => request('POST', '/wx/login', { code }))
    .then(session => {
      wx.setStorageSync('token', session['3rd_session'])
      return session['3rd_session']
    })
}

// call logs in when there is no session, or no longer one, and repeats what it was asked to do. make is called anew each time, since data that was sealed before a login does not open after it.
async function call (method, path, make = () => undefined) {
  const token = wx.getStorageSync('token') || await login()
  try {
    return await request(method, path, await make(), token)
  } catch (err) {
    const ended = err.statusCode === 401 && err.fromGate
    if (!ended && !err.login_again) throw err
    return request(method, path, await make(), await login())
  }
}

Page({
  data: {},

  async onLoad () {
    this.setData(await call('GET', '/api/me'))
  },

  // The steps of the last 31 days, decrypted by the gate. WeChat asks the user first.
  async onSteps () {
    const sealed = () => new Promise((success, fail) => wx.getWeRunData({ success, fail }))
      .then(({ encryptedData, iv }) => ({ encryptedData, iv }))
    const { stepInfoList } = await call('POST', '/wx/decrypt', sealed)
    this.setData({ steps: stepInfoList[stepInfoList.length - 1].step })
  },

  // <button open-type="getPhoneNumber" bindgetphonenumber="onPhone">. The code is good once, so this is not repeated.
  async onPhone ({ detail }) {
    if (!detail.code) return // the user said no
    const { phoneNumber } = await request('POST', '/wx/phone', { code: detail.code }, wx.getStorageSync('token'))
    this.setData({ phoneNumber })
  },

  async onComment ({ detail }) {
    const { accepted } = await call('POST', '/api/comments', () => ({ text: detail.value }))
    this.setData({ accepted })
  },

  async onClose () {
    const { closed } = await call('POST', '/api/close-account')
    if (closed) wx.removeStorageSync('token')
    this.setData({ closed })
  }
})
