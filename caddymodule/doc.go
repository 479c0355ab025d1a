// Package caddymodule is the Caddy face of wxgate: the app `wechat`, the handlers `wechat_auth` and `wechat_api`, the store `wechat.stores.bolt`, their Caddyfile and metrics. Importing it is all that a
// custom Caddy needs.
//
// It owns configuration, HTTP answers, lifetime across reloads, metrics and log lines. What a request may carry is decided in internal/gate, what a token is worth in internal/session,
// what WeChat says in internal/weixin; none of them knows Caddy.
//
// # Logs
//
// One line per login, refusal, log-out, and transition of the store or of WeChat between up and down; by the logger `wechat.audit`, one per backup, revocation or user forgotten by the operator
// or the app, session_key reset, unionid that came to light after the login, and telephone number that was given out. No line holds a token, a code, a session_key, a secret, or anything of open
// data. Openids are in the lines of logins and of the calls that follow, and in the access log's user_id; a unionid is only where an operator's own call named it.
//
// # Metrics
//
//	caddy_wechat_decisions_total{result}                 requests by what the gate decided; why a token was refused stands here and in the log only
//	caddy_wechat_logins_total{result}                    calls of the login endpoint: ok, replayed, client_gone, or the code of the problem
//	caddy_wechat_logins_in_flight                        logins under way
//	caddy_wechat_endpoint_calls_total{endpoint,result}   calls of decrypt and phone with a good session: ok, client_gone, or the code of the problem
//	caddy_wechat_weixin_calls_total{call,class}          calls of WeChat's API by outcome
//	caddy_wechat_weixin_call_duration_seconds{call}      how long they took
//	caddy_wechat_api_calls_total{path,result}            calls of apps by pattern of the allow-list or user call: ok, token_refused, broken_off, client_gone, or the code of the problem
//	caddy_wechat_api_call_duration_seconds{path}         how long they took, to the end of the answer
//	caddy_wechat_cache_hits_total                        token checks that the cache answered
//	caddy_wechat_cache_misses_total                      token checks that had to ask the store
//	caddy_wechat_dropped_connection_options_total        attempts to remove headers through the Connection header
//	caddy_wechat_damaged_stores_total                    stores found damaged and set aside, or gone, and begun anew: an alarm
package caddymodule
