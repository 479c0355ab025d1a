package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

func registerDemo() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "demo",
		Usage: "[--once]",
		Short: "Shows the gate at work, with a simulated WeChat and a sample app",
		Long: `
Starts three servers on free loopback ports: a simulator of api.weixin.qq.com, a
sample app that answers with the headers it received, and the gate between them.
Then it sends a login, a call, a forged header and a logout, prints each request
with its real answer, and stays up for you to try more.

With --once it ends after the last step. The exit status is 0 only when every step
has the right answer.
`,
		CobraFunc: func(cmd *cobra.Command) {
			demoCmd = cmd
			cmd.Flags().Bool("once", false, "End after the last step")
			cmd.RunE = caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				if err := runDemo(ctx, os.Stdout, fl.Bool("once")); err != nil {
					return caddy.ExitCodeFailedStartup, err
				}
				return caddy.ExitCodeSuccess, nil
			})
		},
	})
}

const (
	demoApp    = "wx0123456789abcdef"
	demoSecret = "secret-of-the-demo"
	demoUser   = "ada"
)

// demo is a running simulator, app and gate.
type demo struct {
	dir    string
	wechat *weixintest.Server
	app    *httptest.Server
	gate   string // base URL
	config string // the Caddyfile
}

// runDemo starts a demo and walks through it. Without once, it then waits for the
// end of ctx.
func runDemo(ctx context.Context, out io.Writer, once bool) (err error) {
	d, err := startDemo()
	if err != nil {
		return fmt.Errorf("starting demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	fmt.Fprintf(out, intro, d.wechat.URL, d.app.URL, d.gate, indent(d.config))
	w := walk{
		out:    out,
		gate:   d.gate,
		code:   d.wechat.Code(demoApp, demoUser),
		openID: d.wechat.OpenID(demoApp, demoUser),
	}
	if err := w.run(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "Every step came out as it should.")
	if once {
		return nil
	}
	fmt.Fprintf(out, tryIt, d.wechat.URL, demoApp, demoUser, d.gate)
	<-ctx.Done()
	fmt.Fprintln(out)
	return nil
}

const intro = `WeChat, simulated   %s
your app            %s
the gate            %s

The gate's Caddyfile:

%s
`

const tryIt = `
It stays up until you press Ctrl-C. Try, in another terminal:

  CODE=$(curl -s %[1]s/_sim/code -d '{"appid":"%[2]s","user":"%[3]s"}' | cut -d'"' -f4)
  TOKEN=$(curl -s %[4]s/wx/login -H 'Content-Type: application/json' ` +
	`-d "{\"code\":\"$CODE\"}" | cut -d'"' -f4)
  echo $TOKEN
  curl -s %[4]s/hello -H "Authorization: Bearer $TOKEN"
  curl -s %[4]s/hello -H "Authorization: Bearer $TOKEN" -H 'X-WX-OPENID: somebody-else'
  curl -i %[4]s/hello -H 'X-WX-OPENID: somebody-else'
  curl -s %[4]s/healthz
  curl -i -X POST %[4]s/wx/logout -H "Authorization: Bearer $TOKEN"

`

// startDemo starts simulator, app and gate, all on loopback addresses only.
func startDemo() (_ *demo, err error) {
	d := &demo{}
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	if d.dir, err = os.MkdirTemp("", "wxgate-demo-*"); err != nil {
		return nil, err
	}
	d.wechat = weixintest.NewServer(weixintest.Config{
		Apps: map[string]string{demoApp: demoSecret},
	})
	d.app = httptest.NewServer(http.HandlerFunc(sampleApp))
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	d.gate = "http://" + addr
	d.config = fmt.Sprintf(demoCaddyfile, demoApp, d.wechat.URL,
		filepath.Join(d.dir, "sessions.db"), d.gate, d.app.Listener.Addr())
	if err := os.Setenv("WX_SECRET", demoSecret); err != nil {
		return nil, err
	}
	caddyDir, logFile := filepath.Join(d.dir, "caddy"), filepath.Join(d.dir, "gate.log")
	hidden := fmt.Sprintf(demoGlobals, caddyDir, logFile)
	return d, load(strings.Replace(d.config, "{\n", hidden, 1))
}

const demoCaddyfile = `{
	wechat {
		app %s {env.WX_SECRET}
		api {
			base_url %s
		}
		store bolt %s
	}
}

%s {
	wechat_auth {
		public /healthz
	}
	reverse_proxy %s
}
`

// demoGlobals keeps the files of Caddy in the demo's directory. Without
// default_bind, the site would listen on every address of the machine.
const demoGlobals = `{
	admin off
	persist_config off
	default_bind 127.0.0.1
	storage file_system %s
	log {
		output file %s
	}
`

// load runs Caddy in this process with a configuration.
func load(caddyfile string) error {
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		return err
	}
	// Caddy logs to standard error until it has read the configuration. An error
	// comes back as a value, so the buffered lines can go.
	_, orig, _ := caddy.BufferedLog()
	err = caddy.Load(config, true)
	caddy.UnbufferDefaultLogger(orig)
	return err
}

// freeAddress returns an unused loopback address.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// stop ends the servers and removes the directory.
func (d *demo) stop() error {
	err := caddy.Stop()
	if d.app != nil {
		d.app.Close()
	}
	if d.wechat != nil {
		d.wechat.Close()
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}
