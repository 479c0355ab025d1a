package wxsim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

const (
	demoAppID  = "wx0123456789abcdef"
	demoSecret = "demo-secret"
	demoKey    = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// options is the command line.
type options struct {
	listen string
	apps   map[string]string // appid to secret
	ahead  time.Duration     // of the simulated clock

	component weixintest.Component // its AppID is empty: none
}

var appIDShape = regexp.MustCompile(`^wx[0-9a-f]{16}$`)

// parse reads the command line. With errUsage and flag.ErrHelp, package flag has
// written the reason to stderr.
func parse(name string, args []string, stderr io.Writer) (options, error) {
	var (
		o           options
		apps        []string
		component   string
		allowRemote bool
	)
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.listen, "listen", "127.0.0.1:8750", "TCP `address` to listen on")
	fs.DurationVar(&o.ahead, "clock", 0, "how far WeChat's clock is ahead of this machine's")
	fs.BoolVar(&allowRemote, "allow-remote", false, "accept a -listen address that is not loopback")
	// parseApps checks the values, since package flag would print a wrong one with
	// its secret.
	fs.Func("app", "mini program as `appid=secret`; may be repeated "+
		"(default "+demoAppID+"="+demoSecret+")",
		func(v string) error {
			apps = append(apps, v)
			return nil
		})
	fs.StringVar(&component, "component", "", "third-party platform as `appid=secret`; every "+
		"-app may authorise it, by the control API")
	fs.StringVar(&o.component.EventsURL, "component-url", "", "where its pushes go: "+
		"`URL` of a gate's component/<appid>/events; a ticket goes there every ten minutes")
	fs.StringVar(&o.component.Token, "component-token", "demoToken", "Token of its pushes")
	fs.StringVar(&o.component.AESKey, "component-key", demoKey, "EncodingAESKey of its pushes")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, errUsage
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if !allowRemote && !Loopback(o.listen) {
		return o, fmt.Errorf("-listen %s is not a loopback address; "+
			"the control API has no password, so this needs -allow-remote", o.listen)
	}
	var err error
	if o.apps, err = parseApps(apps); err != nil || component == "" {
		return o, err
	}
	o.component.AppID, o.component.Secret, _ = strings.Cut(component, "=")
	if !appIDShape.MatchString(o.component.AppID) || o.component.Secret == "" {
		return o, errors.New("-component is not of the form wx9876543210fedcba=secret")
	}
	if !aesKeyShape.MatchString(o.component.AESKey) {
		return o, errors.New("-component-key has 43 letters and digits")
	}
	return o, nil
}

var aesKeyShape = regexp.MustCompile(`^[0-9A-Za-z]{43}$`)

var errUsage = errors.New("bad usage")

func parseApps(list []string) (map[string]string, error) {
	if len(list) == 0 {
		return map[string]string{demoAppID: demoSecret}, nil
	}
	apps := make(map[string]string)
	for i, v := range list {
		appid, secret, _ := strings.Cut(v, "=")
		switch {
		case !appIDShape.MatchString(appid) || secret == "":
			return nil, fmt.Errorf("-app number %d is not of the form %s=secret", i+1, demoAppID)
		case apps[appid] != "":
			return nil, fmt.Errorf("-app %s is given twice", appid)
		}
		apps[appid] = secret
	}
	return apps, nil
}

// Loopback reports whether only this machine can reach address. A name other than
// localhost may resolve to any address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
