// Command wxgate is Caddy with the WeChat gate built in: every Caddy command, and `wxgate demo`, which shows the whole of it on one machine with nothing to configure.
//
//	wxgate demo                          the gate, a simulated WeChat and a sample app, with the steps of a login shown
//	wxgate run --config Caddyfile        run the gate in front of your app
//	wxgate validate --config Caddyfile   check a configuration
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/wxgate/wxgate/caddymodule"
)

func main() {
	caddycmd.Main()
}
