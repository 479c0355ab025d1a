// Command wxgate is Caddy with the WeChat gate built in. It has every command of
// Caddy and these:
//
//	wxgate demo                          show a login on this machine, without configuration
//	wxgate dev 127.0.0.1:8080            the same in front of your own app
//	wxgate sim                           run the simulated WeChat alone
//	wxgate run --config Caddyfile        run the gate in front of your app
//	wxgate validate --config Caddyfile   check a configuration and what stands around its gates
//	wxgate version                       say which wxgate and Caddy this is
//	wxgate build                         say how to build another one
//	wxgate wechat status                 show the state of the running gate; sessions, revoke,
//	                                     forget, backup and keys ask it, too
//	wxgate wechat restore ...            put a backup in the place of the database
//	wxgate wechat migrate ...            move users and live sessions into another store
//	wxgate wechat explain ...            show what the gate does with a request, and why
//	wxgate wechat probe ...              attack a gate, this one or any other, and report
package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/wxgate/wxgate/caddymodule"
	"github.com/wxgate/wxgate/caddymodule/logformat"
	_ "github.com/wxgate/wxgate/caddymodule/redisstore"
)

func main() {
	caddy.CustomBinaryName = "wxgate"
	caddy.CustomLongDescription = "wxgate is Caddy with login for WeChat Mini Programs built in: " +
		"it stands in front of an app and tells it who is calling. Try `wxgate demo`."
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "validate": // ours judges the gates, too
			os.Args = slices.Insert(os.Args, 1, "wechat")
		case "run":
			os.Args = printSafely(os.Args, os.Stdout)
		}
	}
	if len(os.Args) > 1 && slices.Contains(notOurs, os.Args[1]) {
		fmt.Fprint(os.Stderr, howToBuild)
		os.Exit(caddy.ExitCodeFailedStartup)
	}
	if len(os.Args) > 1 && os.Args[1] == "run" {
		if err := logformat.BePatient(); err != nil {
			fmt.Fprintln(os.Stderr, "setting up the log:", err)
		}
	}
	caddycmd.Main()
}
