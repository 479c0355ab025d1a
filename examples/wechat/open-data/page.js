// A page of a mini program. It calls one host: the gate, which answers /wx/… itself and
// passes other requests on to the app.
const HOST = 'https://api.example.com'

// request is wx.request as a promise. WeChat runs success for every status.
function request (method, path, data, token) {
  return new Promise((resolve, reject) => wx.request({
    url: HOST + path,
    method,
    data,
    header: token ? { Authorization: 'Bearer ' + token } : {},
    success: ({ statusCode, header, data }) => {
      if (statusCode < 300) return resolve(data)
      const fromGate = !!(header['X-Wxgate'] || header['x-wxgate'])
      reject(Object.assign(new Error(data.code || statusCode), data, { fromGate, statusCode }))
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

// call makes a request, and logs in before it when there is no session. It calls make for
// each try: the gate cannot open data that WeChat sealed before the login.
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

  // The gate decrypts the steps of the last 31 days. WeChat asks the user first.
  async onSteps () {
    const sealed = () => new Promise((success, fail) => wx.getWeRunData({ success, fail }))
      .then(({ encryptedData, iv }) => ({ encryptedData, iv }))
    const { stepInfoList } = await call('POST', '/wx/decrypt', sealed)
    this.setData({ steps: stepInfoList[stepInfoList.length - 1].step })
  },

  // <button open-type="getPhoneNumber" bindgetphonenumber="onPhone">. The code is good
  // once, so there is no second try.
  async onPhone ({ detail }) {
    if (!detail.code) return // the user refused
    const token = wx.getStorageSync('token')
    const { phoneNumber } = await request('POST', '/wx/phone', { code: detail.code }, token)
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
