// Package session is the heart of the gate: it turns a wx.login code into a 3rd_session token and a token into an identity.
//
// It owns the token format, the key ring, the cache in front of the store and the judgement whether a session still holds. It declares what it needs of WeChat (Exchanger, Caller) and works on
// any store.Store. It knows nothing of HTTP, of Caddy and of how a request carries its token.
//
// State lives in two places. A Core holds what must outlive a configuration (store, cache, logins under way); a Service is one configuration's view of it (mini programs, limits, keys).
package session
