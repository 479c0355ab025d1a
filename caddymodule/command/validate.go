package command

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/judge"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// validateCommand is `wxgate wechat validate`, which `wxgate validate` calls, too.
func validateCommand() *cobra.Command {
	var config, adapter string
	var envfiles []string
	var strict, noSecrets bool
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "Checks a configuration, and what stands around its gates",
		Long: `
Checks a configuration as Caddy's own command validate does, then what stands around each
wechat_auth: ways to the app that pass no gate, gates that no request reaches, the admin
endpoint, the log. Each finding is one line with its place and cure.

The exit status is 0 when the configuration may run, warnings or not, and 1 when it must
not. With --strict a warning counts as a fault. A secret whose environment variable or
file is not there is a fault; --no-secrets says that this is known, as where the secrets
of the gate must not be.
`,
		Args: cobra.NoArgs,
		RunE: cli.Run(func(cmd *cobra.Command, _ []string) (int, error) {
			if err := stockValidate(cmd, config, adapter, envfiles); err != nil {
				return cli.Failed, err
			}
			return validate(cmd, config, adapter, strict, noSecrets)
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&config, "config", "c", "", "Configuration `FILE`")
	f.StringVarP(&adapter, "adapter", "a", "", "`NAME` of the config adapter")
	f.StringSliceVar(&envfiles, "envfile", nil, "`FILE` with environment variables; repeatable")
	f.BoolVar(&strict, "strict", false, "Fail on warnings")
	f.BoolVar(&noSecrets, "no-secrets", false, "Pass although secrets are missing")
	return cmd
}

// stockValidate runs Caddy's own command, which also loads the environment files.
func stockValidate(cmd *cobra.Command, config, adapter string, envfiles []string) error {
	stock := &cobra.Command{Use: "validate", SilenceUsage: true, SilenceErrors: true}
	caddycmd.Commands()["validate"].CobraFunc(stock)
	args := []string{"--config", config, "--adapter", adapter}
	for _, file := range envfiles {
		args = append(args, "--envfile", file)
	}
	stock.SetArgs(args)
	stock.SetOut(cmd.OutOrStdout())
	return stock.ExecuteContext(cmd.Context())
}

// validate judges a configuration that Caddy accepts.
func validate(
	cmd *cobra.Command, config, adapter string, strict, noSecrets bool,
) (int, error) {
	raw, ctx, err := provision(config, adapter)
	if err != nil {
		return cli.Failed, err
	}
	servers := serversOf(ctx)
	found, err := judge.Config(raw)
	if err != nil {
		return cli.Failed, err
	}
	found = append(judge.Servers(servers), found...)
	refused := 0
	for _, what := range missingOf(ctx) {
		if noSecrets {
			break
		}
		refused++
		fmt.Fprintf(cmd.ErrOrStderr(), "error: %s is empty: set the environment variable or "+
			"write the file that it names; --no-secrets says that it is known\n", what)
	}
	for _, f := range found {
		kind := "warning"
		if f.Refused || strict {
			kind = "error"
			refused++
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", kind, f)
	}
	if refused > 0 {
		return cli.Failed, fmt.Errorf("validating %s: %s", config, cli.Amount(refused, "fault"))
	}
	return 0, nil
}

// quiet discards the log of provisioning: the commands print their own lines.
var quiet = &caddy.Logging{Logs: map[string]*caddy.CustomLog{
	"default": {BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output":"discard"}`)}},
}}

// provisionServers returns a configuration in JSON and its provisioned HTTP servers.
// Nothing is started.
func provisionServers(config, adapter string) ([]byte, map[string]*caddyhttp.Server, error) {
	raw, ctx, err := provision(config, adapter)
	if err != nil {
		return nil, nil, err
	}
	return raw, serversOf(ctx), nil
}

// serversOf returns the HTTP servers of a configuration, if any.
func serversOf(ctx caddy.Context) map[string]*caddyhttp.Server {
	app, err := ctx.AppIfConfigured("http")
	if err != nil {
		return nil
	}
	return app.(*caddyhttp.App).Servers
}

// missingOf returns the placeholders without a value in a configuration.
func missingOf(ctx caddy.Context) []string {
	app, err := ctx.AppIfConfigured("wechat")
	if err != nil {
		return nil
	}
	return app.(*wechatapp.App).Missing()
}

// provisionApp returns a configuration in JSON and its provisioned app `wechat`.
func provisionApp(config, adapter string) ([]byte, *wechatapp.App, error) {
	raw, ctx, err := provision(config, adapter)
	if err != nil {
		return nil, nil, err
	}
	app, err := ctx.AppIfConfigured("wechat")
	if err != nil {
		return nil, nil, errors.New("the configuration has no global option `wechat`: " +
			"name the file with --config")
	}
	return raw, app.(*wechatapp.App), nil
}

// provision loads and provisions a configuration.
func provision(config, adapter string) ([]byte, caddy.Context, error) {
	raw, _, _, err := caddycmd.LoadConfig(config, adapter)
	if err != nil {
		return nil, caddy.Context{}, err
	}
	raw = caddy.RemoveMetaFields(raw)
	cfg := new(caddy.Config)
	if err := caddy.StrictUnmarshalJSON(raw, cfg); err != nil {
		return nil, caddy.Context{}, fmt.Errorf("decoding configuration: %w", err)
	}
	cfg.Logging = quiet
	ctx, err := caddy.ProvisionContext(cfg)
	return raw, ctx, err
}
