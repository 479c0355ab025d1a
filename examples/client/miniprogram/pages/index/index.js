const { gate } = getApp()

Page({
  data: { user: null, phone: '', error: '' },

  // The first call logs in by itself.
  async onLoad () {
    try {
      const { data } = await gate.request({ url: '/api/me' })
      this.setData({ user: data, error: '' })
    } catch (err) {
      this.setData({ error: err.code })
    }
  },

  // <button open-type="getPhoneNumber">: the code is good once.
  async onPhone ({ detail }) {
    if (!detail.code) return // the user refused
    try {
      const { phoneNumber } = await gate.phone({ code: detail.code })
      this.setData({ phone: phoneNumber, error: '' })
    } catch (err) {
      this.setData({ error: err.code })
    }
  },

  async onLogout () {
    await gate.logout()
    this.setData({ user: null, phone: '' })
  },

  onPhotos () {
    wx.navigateTo({ url: '/pages/photos/photos' })
  }
})
