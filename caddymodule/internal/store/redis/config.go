package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"
)

// What a Config says that leaves them out.
const (
	DefaultPrefix       = "wxgate:"
	DefaultDialTimeout  = time.Second
	DefaultReadTimeout  = 80 * time.Millisecond // leaves the rest of 100 ms to the answer (DESIGN.md P4)
	DefaultWriteTimeout = 2 * time.Second
)

// Config is where the engine is and how it is spoken to. Only Addresses is required.
type Config struct {
	Addresses []string // host:port each: the server; some nodes of the cluster; the sentinels. A path that begins with / is a unix socket
	Username  string   // ACL user; empty for the default user
	Password  string
	DB        int         // 0 with Cluster
	TLS       *tls.Config // nil: plain TCP

	Sentinel *Sentinel // not nil: Addresses are sentinels
	Cluster  bool      // Addresses are nodes of a cluster

	Prefix string // begins every key; several fleets on one server have different ones

	DialTimeout  time.Duration // of one connection
	ReadTimeout  time.Duration // of one look-up, connecting included: how long a request waits before it is answered 503
	WriteTimeout time.Duration // of one login or revocation

	Logger *zap.Logger // nil means no log

	pace pace // of the heartbeat; only tests set it
}

// Sentinel is how the sentinels are asked for the primary.
type Sentinel struct {
	Master   string
	Username string
	Password string
}

// complete returns the configuration with its defaults, or what is wrong with it.
func (c Config) complete() (Config, error) {
	switch {
	case len(c.Addresses) == 0:
		return c, errors.New("no address given")
	case strings.ContainsAny(c.Prefix, "{}"):
		return c, fmt.Errorf("the prefix %q contains a brace, which would decide where a cluster puts the keys", c.Prefix)
	case c.Cluster && c.DB != 0:
		return c, fmt.Errorf("a cluster has only database 0, not %d", c.DB)
	case c.Cluster && c.Sentinel != nil:
		return c, errors.New("a cluster has no sentinels")
	case c.Sentinel != nil && c.Sentinel.Master == "":
		return c, errors.New("no name of the primary given that the sentinels are to be asked for")
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.DialTimeout <= 0 {
		c.DialTimeout = DefaultDialTimeout
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = DefaultReadTimeout
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = DefaultWriteTimeout
	}
	if c.pace == (pace{}) {
		c.pace = defaultPace
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c, nil
}
