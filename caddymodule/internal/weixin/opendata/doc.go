// Package opendata opens and checks what WeChat hands to a mini program for its server: the encrypted objects of wx.getUserInfo,
// getPhoneNumber, wx.getWeRunData and their kind, the signature beside them, and the signatures that user-level API calls carry
// (WECHAT.md 3, 4).
//
// It owns the cryptography and the judgement of the opened object, and nothing else: it keeps no state, makes no call, knows no
// session and writes no log. What it opens comes from a client, so nothing it is given may make it panic, and every failure is the
// same error ([ErrInvalid]).
//
// WeChat encrypts with AES-CBC and no MAC. Somebody who holds a genuine piece of data can therefore alter its first 16 bytes through
// the iv, and cut and splice its blocks at the price of garbage between them. The checks of [Opener.Read] leave little room for that
// (whole, valid UTF-8, no name twice, a unionId only beside the user's own openId), but the data is no proof of anything that they
// do not cover.
package opendata
