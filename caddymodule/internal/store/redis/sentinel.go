package redis

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/rueidis"
)

// sentinels finds the primary by asking all sentinels of the configuration. They learn of a failover one after the other; the one that has seen the latest is right, as it is among
// themselves. They are asked with each heartbeat: a primary that has been replaced may live on and answer.
type sentinels struct {
	cfg     Config
	clients []rueidis.Client
}

func newSentinels(l *link) *sentinels {
	s := &sentinels{cfg: l.cfg, clients: make([]rueidis.Client, len(l.cfg.Addresses))}
	_ = inParallel(len(s.clients), func(i int) error {
		o := l.options()
		o.InitAddress, o.ForceSingleClient, o.DisableRetry, o.PipelineMultiplex = l.cfg.Addresses[i:i+1], true, true, -1
		o.Username, o.Password, o.SelectDB = l.cfg.Sentinel.Username, l.cfg.Sentinel.Password, 0
		s.clients[i], _ = rueidis.NewClient(o) // one that could not connect tries again when it is asked
		return nil
	})
	return s
}

func (s *sentinels) close() {
	for _, c := range s.clients {
		c.Close()
	}
}

func (s *sentinels) primaries(ctx context.Context) (view, error) {
	addr, err := s.latest(ctx)
	if err != nil {
		return nil, err
	}
	return view{{addr: addr}}, nil
}

// confirms is in doubt when no sentinel answers: then a failover may have happened that this gate cannot know of.
func (s *sentinels) confirms(ctx context.Context, v view) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.pace.interval)
	defer cancel()
	addr, err := s.latest(ctx)
	if err != nil {
		return false, nil
	}
	if addr != v[0].addr {
		return false, fmt.Errorf("the sentinels name another primary: %s", addr)
	}
	return true, nil
}

// latest returns the address that the sentinel with the highest epoch names, or the error of one when none answers.
func (s *sentinels) latest(ctx context.Context) (string, error) {
	type opinion struct {
		addr  string
		epoch int64
	}
	opinions := make([]opinion, len(s.clients))
	err := inParallel(len(s.clients), func(i int) (err error) {
		opinions[i].addr, opinions[i].epoch, err = s.ask(ctx, i)
		return err
	})
	var best opinion
	for _, o := range opinions {
		if o.addr != "" && (best.addr == "" || o.epoch > best.epoch) {
			best = o
		}
	}
	if best.addr == "" {
		return "", err
	}
	return best.addr, nil
}

// ask returns what one sentinel knows.
func (s *sentinels) ask(ctx context.Context, i int) (addr string, epoch int64, err error) {
	c := s.clients[i]
	name := s.cfg.Sentinel.Master
	replies := c.DoMulti(
		ctx,
		c.B().SentinelGetMasterAddrByName().Master(name).Build(),
		c.B().Arbitrary("SENTINEL", "MASTER", name).Build(),
	)
	at, err := replies[0].AsStrSlice()
	if rueidis.IsRedisNil(err) {
		err = fmt.Errorf("no primary is known by the name %q", name)
	}
	if err == nil && len(at) != 2 {
		err = errors.New("an answer that is none")
	}
	if err != nil {
		return "", 0, fmt.Errorf("asking the sentinel %s: %w", s.cfg.Addresses[i], err)
	}
	facts, err := replies[1].AsMap()
	if err == nil {
		e := facts["config-epoch"]
		epoch, err = e.AsInt64()
	}
	if err != nil {
		return "", 0, fmt.Errorf("asking the sentinel %s for the epoch: %w", s.cfg.Addresses[i], err)
	}
	return net.JoinHostPort(at[0], at[1]), epoch, nil
}
