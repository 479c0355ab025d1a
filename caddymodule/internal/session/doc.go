// Package session turns a wx.login code into a 3rd_session token, and a token
// into an identity.
//
// It owns logins, the cache in front of the store and the judgement whether a
// session still holds. It declares what it needs of WeChat (Exchanger, Caller)
// and works on any store.Store. It does not know HTTP, Caddy, how a request
// carries its token, nor how a store keeps things.
//
// State lives in two places. A Core holds what outlives a configuration: store,
// cache, logins under way. A Service is one configuration's view of it: mini
// programs, limits, master keys.
//
// The package has more than 14 files: one for each kind of call and of shared state.
package session
