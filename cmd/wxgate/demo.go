package main

import (
	"context"
	"encoding/json"
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
	"github.com/wxgate/wxgate/cmd/internal/playground"
)

func registerDemo() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "demo",
		Usage: "[--once] [[--upstream] <host:port> | --caddyfile <file>]",
		Short: "Shows the gate at work, or puts it in front of your app, with a simulated WeChat",
		Long: `
Without an address or a Caddyfile: starts three servers on free loopback ports, a
simulator of api.weixin.qq.com, a sample app that answers with the headers it
received, and the gate between them. Then it sends a login, a call, a forged header
and a logout, prints each request with its real answer, and stays up for you to try
more, with curl or on a page in your browser, the playground: a pretend phone, and what
the gate makes of each of its requests. With --once it ends after the last step. The
exit status is 0 only when every step has the right answer.

    wxgate dev 127.0.0.1:8080
    wxgate dev --caddyfile Caddyfile --user alice --user bob

"wxgate dev" is the short name, and this form puts the gate in front of your own app.
It logs each user in, prints a curl line with the token for each, and stays up. The
app may restart: calls get 502 while it is down, and sessions stay. Everything
listens on loopback addresses only, the gate on 127.0.0.1:8700, the simulated WeChat on
127.0.0.1:8750, and the playground on 127.0.0.1:8790, or a free port when that is taken.

--caddyfile takes your own configuration, and changes for this run:
  - WeChat's address is the simulator, each secret is the demo's, the store a file.
    An AppID whose variable is not set is wx0123456789abcdef.
  - Each site with wechat_auth gets a port of its own, from --listen on, without TLS,
    and any Host header leads to it. So do other sites, but those on a loopback
    address keep their port: the app calls WeChat through such a site.
  - The admin endpoint is off, the log goes to one file, and of Caddy's apps only http
    and wechat run.
The rest stays as it is: the routes, the words of wechat_auth, and the address of the
app. Variables that these name have to be set.

--keep DIR keeps the sessions there, so that tokens outlive a restart of dev. The
simulator forgets all that it was told, but names the same users by the same openids.
`,
		CobraFunc: func(cmd *cobra.Command) {
			demoCmd = cmd
			cmd.Aliases = []string{"dev"}
			cmd.Args = cobra.MaximumNArgs(1)
			flags := cmd.Flags()
			flags.Bool("once", false, "End after the last step")
			flags.String("upstream", "", "Address of your app")
			flags.String("caddyfile", "", "Your own Caddyfile")
			flags.StringSlice("user", []string{"ada", "bob"}, "A user to log in; may be repeated")
			flags.String("listen", "127.0.0.1:8700", "Loopback address of the gate")
			flags.String("sim-listen", "127.0.0.1:8750", "Loopback address of the simulated WeChat")
			flags.String("page-listen", "",
				"Loopback address of the playground (default "+pageAddress+", or a free one)")
			flags.String("keep", "", "Directory that keeps the sessions")
			cmd.RunE = caddycmd.WrapCommandFuncForCobra(func(fl caddycmd.Flags) (int, error) {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
				defer stop()
				if err := demoOrDev(ctx, fl); err != nil {
					return caddy.ExitCodeFailedStartup, err
				}
				return caddy.ExitCodeSuccess, nil
			})
		},
	})
}

// demoOrDev runs the form of the command that the flags ask for.
func demoOrDev(ctx context.Context, fl caddycmd.Flags) error {
	o := devOptions{
		upstream: fl.String("upstream"), file: fl.String("caddyfile"),
		listen: fl.String("listen"), simListen: fl.String("sim-listen"),
		page: fl.String("page-listen"), keep: fl.String("keep"), once: fl.Bool("once"),
	}
	var err error
	if o.users, err = fl.GetStringSlice("user"); err != nil {
		return err
	}
	if fl.NArg() > 0 {
		if o.upstream != "" {
			return errors.New("the app's address is given twice")
		}
		o.upstream = fl.Arg(0)
	}
	if o.upstream != "" || o.file != "" {
		return runDev(ctx, os.Stdout, o)
	}
	for _, name := range []string{"user", "listen", "sim-listen", "keep"} {
		if fl.Changed(name) {
			return fmt.Errorf("--%s needs the app's address or --caddyfile", name)
		}
	}
	return runDemo(ctx, os.Stdout, o.page, o.once)
}

const (
	demoApp    = "wx0123456789abcdef"
	demoSecret = "secret-of-the-demo"
	demoUser   = "ada"
)

// demo is a running simulator, app and gate.
type demo struct {
	dir    string
	wechat *weixintest.Simulator
	api    *httptest.Server // of wechat
	app    *httptest.Server
	gate   string // base URL
	config string // the Caddyfile
	play   playground.Server
}

// runDemo starts a demo and walks through it. Without once, it then serves the
// playground at the address page, and waits for the end of ctx.
func runDemo(ctx context.Context, out io.Writer, page string, once bool) (err error) {
	d, err := startDemo()
	if err != nil {
		return fmt.Errorf("starting demo: %w", err)
	}
	defer func() { err = errors.Join(err, d.stop()) }()

	fmt.Fprintf(out, intro, d.api.URL, d.app.URL, d.gate, indent(d.config))
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
	url, closePage, err := servePage(&d.play, page, playground.Config{
		Users: []string{demoUser, "bob"}, WeChat: d.wechat,
		Sites: []playground.Site{{
			URL: d.gate, Prefix: "/wx", Token: "Authorization: Bearer ", Apps: []string{demoApp},
		}},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closePage()) }()
	fmt.Fprintf(out, tryIt, d.api.URL, demoApp, demoUser, d.gate, url)
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
In your browser, a pretend phone to try it with: %[5]s

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
	d.wechat = weixintest.New(weixintest.Config{
		Apps: map[string]string{demoApp: demoSecret},
	})
	d.api = httptest.NewServer(d.play.WeChat(d.wechat))
	d.app = httptest.NewServer(http.HandlerFunc(sampleApp))
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	d.gate = "http://" + addr
	d.config = fmt.Sprintf(demoCaddyfile, demoApp, d.api.URL,
		filepath.Join(d.dir, "sessions.db"), d.gate, d.app.Listener.Addr())
	if err := os.Setenv("WX_SECRET", demoSecret); err != nil {
		return nil, err
	}
	caddyDir, logFile := filepath.Join(d.dir, "caddy"), filepath.Join(d.dir, "gate.log")
	hidden := fmt.Sprintf(demoGlobals, caddyDir, logFile)
	config, err := adapt([]byte(strings.Replace(d.config, "{\n", hidden, 1)), "Caddyfile")
	if err != nil {
		return nil, err
	}
	var tapped object
	if err := json.Unmarshal(config, &tapped); err != nil {
		return nil, err
	}
	addTaps(tapped)
	if config, err = json.Marshal(tapped); err != nil {
		return nil, err
	}
	return d, load(config)
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

// adapt turns a Caddyfile into JSON.
func adapt(caddyfile []byte, name string) ([]byte, error) {
	adapter := caddyconfig.GetAdapter("caddyfile")
	config, _, err := adapter.Adapt(caddyfile, map[string]any{"filename": name})
	return config, err
}

// load runs Caddy in this process with a configuration.
func load(config []byte) error {
	// Caddy logs to standard error until it has read the configuration. An error
	// comes back as a value, so the buffered lines can go.
	_, orig, _ := caddy.BufferedLog()
	err := caddy.Load(config, true)
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
	if d.api != nil {
		d.api.CloseClientConnections()
		d.wechat.Close()
		d.api.Close()
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}
