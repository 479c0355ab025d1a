// Package caddymodule is wxgate as a set of Caddy modules: importing it gives a custom
// Caddy the app `wechat` with the store `bolt`, the handlers `wechat_auth` and
// `wechat_api`, the log format `wechat`, the admin API and the commands
// `wechat …`. The store `redis` is package redisstore, for those who need it.
//
// The rooms of the house and the way of a request through them are in README.md.
package caddymodule
