package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// primary is one server that takes writes.
type primary struct {
	addr  string
	id    string // in a cluster
	slots [2]int // in a cluster: first and last slot of one range that it owns
}

func (p primary) owns(slot int) bool { return p.slots[0] <= slot && slot <= p.slots[1] }

// view is the set of primaries, in the order of their ids.
type view []primary

func (v view) addresses() []string {
	list := make([]string, len(v))
	for i, p := range v {
		list[i] = p.addr
	}
	return list
}

func (v view) same(w view) bool {
	return slices.EqualFunc(v, w, func(a, b primary) bool { return a.id == b.id })
}

func (v view) has(id string) bool {
	return slices.ContainsFunc(v, func(p primary) bool { return p.id == id })
}

// agree reports whether all nodes of a cluster name the primaries of the contact.
// While they do not, or one moves its first slot to a new node, a write may happen
// where this gate has no tracker. The error says that they agree on other ones.
func agree(v view, answers []answer) (bool, error) {
	w := answers[0].view
	for _, a := range answers {
		unknown := func(id string) bool { return !v.has(id) }
		if !a.view.same(w) || slices.ContainsFunc(a.moving, unknown) {
			return false, nil
		}
	}
	if w != nil && !w.same(v) {
		return false, fmt.Errorf("%w: the primaries are others now", errAgain)
	}
	return true, nil
}

// finder finds the primaries.
type finder interface {
	primaries(ctx context.Context) (view, error)
	// confirms returns false when in doubt, an error when there are other ones.
	confirms(ctx context.Context, v view) (bool, error)
	close()
}

func newFinder(l *link) finder {
	switch {
	case l.cfg.Sentinel != nil:
		return newSentinels(l)
	case l.cfg.Cluster:
		return &nodes{l: l}
	}
	return single(l.cfg.Addresses[0])
}

// single is the address of one server.
type single string

func (s single) primaries(context.Context) (view, error) {
	return view{{addr: string(s)}}, nil
}
func (s single) confirms(context.Context, view) (bool, error) { return true, nil }
func (s single) close()                                       {}

// sentinels finds the primary by asking all sentinels of the configuration. They
// learn of a failover one after the other; the one with the highest epoch is
// right. Each heartbeat asks them, since a replaced primary may still answer.
type sentinels struct {
	cfg     Config
	clients []rueidis.Client
}

// newSentinels ignores a sentinel that does not answer: its client connects when
// the next heartbeat asks.
func newSentinels(l *link) *sentinels {
	s := &sentinels{cfg: l.cfg, clients: make([]rueidis.Client, len(l.cfg.Addresses))}
	_ = inParallel(len(s.clients), func(i int) error {
		o := l.options()
		o.InitAddress, o.ForceSingleClient = l.cfg.Addresses[i:i+1], true
		o.DisableRetry, o.PipelineMultiplex = true, -1
		o.Username, o.Password = l.cfg.Sentinel.Username, l.cfg.Sentinel.Password
		o.SelectDB = 0
		s.clients[i], _ = rueidis.NewClient(o)
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

// confirms is in doubt when no sentinel answers: there may have been a failover.
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

// latest returns the address from the sentinel with the highest epoch, or the
// error of one when none answers.
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

// ask returns the address that one sentinel names, and its epoch.
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
		err = errFormat
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
		return "", 0, fmt.Errorf("asking the sentinel %s: epoch: %w", s.cfg.Addresses[i], err)
	}
	return net.JoinHostPort(at[0], at[1]), epoch, nil
}

// nodes finds the primaries of a cluster. The primaries themselves confirm the
// view with each heartbeat.
type nodes struct {
	l    *link
	last view // also asked: the nodes of the configuration may all have gone
}

func (n *nodes) confirms(context.Context, view) (bool, error) { return true, nil }
func (n *nodes) close()                                       {}

// primaries asks all known nodes at once and takes the first answer. The first
// heartbeat shows whether the others agree.
func (n *nodes) primaries(ctx context.Context) (view, error) {
	seeds := slices.Concat(n.l.cfg.Addresses, n.last.addresses())
	slices.Sort(seeds)
	seeds = slices.Compact(seeds)
	type found struct {
		view view
		err  error
	}
	answers := make(chan found, len(seeds))
	for _, addr := range seeds {
		n.l.wg.Go(func() {
			v, err := n.ask(ctx, addr)
			answers <- found{v, err}
		})
	}
	var first error
	for range seeds {
		f := <-answers
		if f.err == nil {
			n.last = f.view
			return f.view, nil
		}
		first = cmp.Or(first, f.err)
	}
	return nil, first
}

func (n *nodes) ask(ctx context.Context, addr string) (v view, err error) {
	o := n.l.options()
	o.InitAddress, o.ForceSingleClient, o.DisableRetry = []string{addr}, true, true
	c, err := connect(o)
	if err == nil {
		defer c.Close()
		v, err = viewOf(c.Do(ctx, c.B().ClusterSlots().Build()), addr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return v, nil
}

// viewOf reads the answer of a node to CLUSTER SLOTS.
func viewOf(r rueidis.RedisResult, asked string) (view, error) {
	ranges, err := r.ToArray()
	if err != nil {
		return nil, fmt.Errorf("asking for the slots: %w", err)
	}
	var v view
	for _, m := range ranges {
		p, err := ownerOf(m, asked)
		if err != nil {
			return nil, fmt.Errorf("asking for the slots: %w", err)
		}
		if !v.has(p.id) {
			v = append(v, p)
		}
	}
	if len(v) == 0 {
		return nil, errors.New("asking for the slots: no node owns one")
	}
	slices.SortFunc(v, func(a, b primary) int { return cmp.Compare(a.id, b.id) })
	return v, nil
}

// errFormat is the error for an answer that cannot be read.
var errFormat = errors.New("the answer has an unknown format")

// ownerOf reads one range: its first and last slot, then its nodes, the primary
// first, each as host, port and id. A node leaves its own host empty when it does
// not know its address.
func ownerOf(m rueidis.RedisMessage, asked string) (primary, error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) < 3 {
		return primary{}, errFormat
	}
	node, err := parts[2].ToArray()
	if err != nil || len(node) < 3 {
		return primary{}, errFormat
	}
	first, err1 := parts[0].AsInt64()
	last, err2 := parts[1].AsInt64()
	port, err3 := node[1].AsInt64()
	id, err4 := node[2].ToString()
	err = errors.Join(err1, err2, err3, err4)
	if err != nil || first < 0 || last < first || last >= slotCount || id == "" {
		return primary{}, errFormat
	}
	host, _ := node[0].ToString()
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return primary{
		addr:  net.JoinHostPort(host, strconv.FormatInt(port, 10)),
		id:    id,
		slots: [2]int{int(first), int(last)},
	}, nil
}

// movingTo reads from the answer to CLUSTER NODES which nodes the asked one gives
// slots to. Until the slot is theirs, they take its new keys, and no node lists
// them as its owner.
func movingTo(nodes string) []string {
	var ids []string
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.Contains(fields[2], "myself") {
			continue
		}
		for _, slot := range fields[8:] {
			if _, id, ok := strings.Cut(slot, "->-"); ok {
				ids = append(ids, strings.TrimSuffix(id, "]"))
			}
		}
	}
	return ids
}

// slotCount is the number of slots in a cluster.
const slotCount = 16384

// probeKey names the key that this gate's heartbeat writes to a primary: in a
// cluster, a key in one of the primary's slots. The slot is random, so that a
// new contact mostly avoids a slot that is on its way to another primary.
func (l *link) probeKey(p primary) string {
	tag := strconv.Itoa(rand.N(slotCount))
	for l.cfg.Cluster && !p.owns(slotOf(tag)) {
		tag = strconv.Itoa(rand.Int())
	}
	return l.cfg.Prefix + "h:{" + tag + "}" + l.id
}

// slotOf returns the slot of a hash tag: CRC-16 in the variant of XMODEM.
func slotOf(tag string) int {
	var crc uint16
	for _, c := range []byte(tag) {
		crc ^= uint16(c) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			crc <<= 1
			if carry {
				crc ^= 0x1021
			}
		}
	}
	return int(crc) % slotCount
}
