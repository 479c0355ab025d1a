const { gate } = getApp()

Page({
  data: { url: '', error: '' },

  async onChoose () {
    const { tempFiles } = await wx.chooseMedia({ count: 1, mediaType: ['image'] })
    const { statusCode } = await gate.uploadFile({
      url: '/api/photo', name: 'photo', filePath: tempFiles[0].tempFilePath
    })
    if (statusCode !== 200) return this.setData({ error: 'upload: ' + statusCode })
    // <image> sends no header. A ticket is a link that is good for five minutes.
    const { url } = await gate.ticket({ path: '/api/photo', expiresIn: 300 })
    this.setData({ url, error: '' })
  }
})
