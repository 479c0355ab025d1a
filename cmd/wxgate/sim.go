package main

import (
	"os"
	"os/signal"
	"syscall"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/cmd/internal/wxsim"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "sim",
		Usage: "[-listen address] [-app appid=secret]... [-clock duration] [-allow-remote]",
		Short: "Simulates WeChat's API, for trials and tests",
		Long: `
Runs a simulated api.weixin.qq.com on 127.0.0.1:8750 with a control API under /_sim/:
it makes codes, encrypts data, changes users and injects faults. "wxgate sim -h" lists
the flags. The program wxsim is the same.
`,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.DisableFlagParsing = true // the flags are those of wxsim
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				code := wxsim.Run(ctx, "wxgate sim", args, os.Stdout, os.Stderr)
				stop()
				if code != 0 {
					os.Exit(code)
				}
				return nil
			}
		},
	})
}
