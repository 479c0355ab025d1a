package redisstore

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
)

// check checks a configuration as it is written, with its placeholders.
func (s *Store) check() error {
	for _, a := range s.Addresses {
		if err := checkWritten(a, checkAddress); err != nil {
			return err
		}
	}
	if err := s.checkPlace(); err != nil {
		return err
	}
	if err := checkLogin("", s.Username, s.Password); err != nil {
		return err
	}
	if s.Sentinel != nil {
		if err := checkLogin(" of sentinel", s.Sentinel.Username, s.Sentinel.Password); err != nil {
			return err
		}
	}
	if s.Prefix != "" {
		if err := checkPrefix(s.Prefix); err != nil {
			return err
		}
	}
	for name, d := range map[string]caddy.Duration{
		"dial_timeout":  s.DialTimeout,
		"read_timeout":  s.ReadTimeout,
		"write_timeout": s.WriteTimeout,
	} {
		if d == 0 {
			continue // the default
		}
		if err := checkTimeout(name, time.Duration(d)); err != nil {
			return err
		}
	}
	return s.TLS.check()
}

// timeouts are the shortest and the longest of each. A shorter one fails without an
// outage; a longer one lets all clients wait in an outage.
var timeouts = map[string][2]time.Duration{
	"dial_timeout":  {10 * time.Millisecond, time.Minute},
	"read_timeout":  {10 * time.Millisecond, 2 * time.Second},
	"write_timeout": {100 * time.Millisecond, time.Minute},
}

func checkTimeout(name string, d time.Duration) error {
	if limits := timeouts[name]; d < limits[0] || d > limits[1] {
		return fmt.Errorf("%s takes a duration from %v to %v, not %v; "+
			"leave it out for the default", name, limits[0], limits[1], d)
	}
	return nil
}

// checkPlace finds contradictions in the place of the server.
func (s *Store) checkPlace() error {
	socket := slices.ContainsFunc(s.Addresses, isSocket)
	switch n := len(s.Addresses); {
	case n == 0:
		return errors.New("where is the server? Write store redis " +
			"127.0.0.1:6379, or address in the block")
	case s.Cluster && s.Sentinel != nil:
		return errors.New("cluster and sentinel do not go together: a cluster finds its " +
			"primaries by itself; take one of them out")
	case s.Cluster && s.DB != 0:
		return errors.New("a cluster has only database 0: " +
			"take db out, and tell fleets apart by prefix")
	case s.DB < 0:
		return fmt.Errorf("db %d is negative", s.DB)
	case socket && (n > 1 || s.Cluster || s.Sentinel != nil || s.TLS != nil):
		return errors.New("a unix socket leads to one server on this machine: it takes no " +
			"other address, cluster, sentinel or tls beside it")
	case n > 1 && !s.Cluster && s.Sentinel == nil:
		return errors.New("several addresses are those of sentinels or of nodes of a cluster: " +
			"add sentinel { master <name> } or cluster, or leave one address")
	case s.Sentinel != nil && s.Sentinel.Master == "":
		return errors.New("sentinel needs the name of the primary: master <name>")
	}
	for i, a := range s.Addresses {
		if slices.Contains(s.Addresses[:i], a) {
			return fmt.Errorf("address %s is given twice", a)
		}
	}
	return nil
}

// checkLogin checks a user name with its password.
func checkLogin(whose, username, password string) error {
	switch {
	case password != "":
		return block.CheckSecret("the password"+whose, password)
	case username != "":
		return fmt.Errorf("username%s needs a password: add password {env.REDIS_PASSWORD}", whose)
	}
	return nil
}

func (t *TLS) check() error {
	switch {
	case t == nil:
		return nil
	case (t.Cert == "") != (t.Key == ""):
		return errors.New("tls cert and tls key belong together: give both or none")
	case t.InsecureSkipVerify && (t.CA != "" || t.ServerName != ""):
		return errors.New("insecure_skip_verify accepts any certificate, whatever ca " +
			"and server_name say: take it out, or them")
	}
	return nil
}

// checkWritten checks a value, unless it is a placeholder: resolve checks its value.
func checkWritten(value string, check func(string) error) error {
	if strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") {
		return nil
	}
	return check(value)
}

func isSocket(address string) bool { return strings.HasPrefix(address, "/") }

// checkAddress does not repeat an address that may hold a password.
func checkAddress(address string) error {
	if isSocket(address) {
		return nil
	}
	if strings.ContainsAny(address, "@/") {
		return errors.New("an address is host:port, such as 127.0.0.1:6379, and no URL: " +
			"password, db and tls have words of their own")
	}
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || host == "" || strings.ContainsAny(host, " \t,;") {
		return fmt.Errorf("%q is not an address: write host:port, such as 127.0.0.1:6379", address)
	}
	return nil
}

// prefixPattern excludes the special characters of key patterns and ACL rules, and
// braces, which decide about the slot in a cluster.
var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9:_.-]{1,64}$`)

func checkPrefix(prefix string) error {
	if prefixPattern.MatchString(prefix) {
		return nil
	}
	return fmt.Errorf("%q is not a prefix such as wxgate: "+
		"write up to 64 letters, digits and any of :_.-", prefix)
}
