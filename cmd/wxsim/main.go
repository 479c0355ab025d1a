/*
Wxsim runs a simulated api.weixin.qq.com, so that Mini Program logins can be
tried and tested without WeChat: from a shell, from tests in any language, or
behind wxgate.

Usage:

	wxsim [-listen address] [-app appid=secret]... [-allow-remote]

It is the same as wxgate sim, as a program of its own.

The flags are:

	-listen address
		TCP address to listen on, 127.0.0.1:8750 by default. Port 0 takes a free
		one. Wxsim accepts loopback addresses only, because the control API has
		no password.
	-app appid=secret
		A mini program (or plugin) and its AppSecret; may be repeated. Never give
		a real secret: others on the machine can read it in the process list.
		Without -app there is the demo mini program wx0123456789abcdef, whose
		secret is demo-secret.
	-allow-remote
		Accept any -listen address.
	-clock duration
		How far WeChat's clock is ahead of this machine's; 0 by default.

Wxsim prints its address and three commands to try, and logs each call to
standard error, without secrets, codes, keys and tokens. SIGINT or SIGTERM ends
it; all state is lost.

Let wxgate use it with

	api {
		base_url http://127.0.0.1:8750
	}

and play the phone through the control API under /_sim/: it makes codes, encrypts
data, changes users and injects faults. Package
github.com/wxgate/wxgate/caddymodule/weixintest documents that API and what is
simulated.
*/
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/wxgate/wxgate/cmd/internal/wxsim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := wxsim.Run(ctx, "wxsim", os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
