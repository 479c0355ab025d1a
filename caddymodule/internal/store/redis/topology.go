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

// view is which servers are the primaries, in the order of their ids.
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

// agree reports whether all nodes of a cluster name the primaries of the contact. When they name other ones, the contact must be made again; while they do not agree, or one gives its first
// slot to a node that has none yet, a change is perhaps made where nobody listens.
func agree(v view, answers []answer) (bool, error) {
	w := answers[0].view
	for _, a := range answers {
		if !a.view.same(w) || slices.ContainsFunc(a.moving, func(id string) bool { return !v.has(id) }) {
			return false, nil
		}
	}
	if w != nil && !w.same(v) {
		return false, fmt.Errorf("%w: the primaries are others now", errAgain)
	}
	return true, nil
}

// finder knows where the primaries are.
type finder interface {
	primaries(ctx context.Context) (view, error)
	confirms(ctx context.Context, v view) (bool, error) // false when in doubt; an error when they are others
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

// single is the address of a server that is alone.
type single string

func (s single) primaries(context.Context) (view, error)      { return view{{addr: string(s)}}, nil }
func (s single) confirms(context.Context, view) (bool, error) { return true, nil }
func (s single) close()                                       {}

// nodes finds the primaries of a cluster. That they still are is confirmed by themselves, each time that they are asked.
type nodes struct {
	l    *link
	last view // also asked: those of the configuration may all have gone
}

func (n *nodes) confirms(context.Context, view) (bool, error) { return true, nil }
func (n *nodes) close()                                       {}

// primaries asks all known nodes at once and believes the first that answers: whether the others agree is seen when they are connected to.
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
		if first == nil {
			first = f.err
		}
	}
	return nil, first
}

func (n *nodes) ask(ctx context.Context, addr string) (view, error) {
	o := n.l.options()
	o.InitAddress, o.ForceSingleClient, o.DisableRetry = []string{addr}, true, true
	c, err := connect(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	defer c.Close()
	v, err := viewOf(c.Do(ctx, c.B().ClusterSlots().Build()), addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", addr, err)
	}
	return v, nil
}

// viewOf reads the answer that a node gives to CLUSTER SLOTS. A node that does not know its own address leaves the host empty.
func viewOf(r rueidis.RedisResult, asked string) (view, error) {
	ranges, err := r.ToArray()
	if err != nil {
		return nil, fmt.Errorf("asking for the slots: %w", err)
	}
	known := make(map[string]bool)
	var v view
	for _, m := range ranges {
		p, err := ownerOf(m, asked)
		if err != nil {
			return nil, fmt.Errorf("asking for the slots: %w", err)
		}
		if !known[p.id] {
			known[p.id] = true
			v = append(v, p)
		}
	}
	if len(v) == 0 {
		return nil, errors.New("asking for the slots: nobody owns one")
	}
	slices.SortFunc(v, func(a, b primary) int { return cmp.Compare(a.id, b.id) })
	return v, nil
}

// errSlots is for an answer that is none.
var errSlots = errors.New("an answer that is none")

// ownerOf reads one range: its first and last slot, then the nodes that serve it, the primary first, each as host, port and id.
func ownerOf(m rueidis.RedisMessage, asked string) (primary, error) {
	parts, err := m.ToArray()
	if err != nil || len(parts) < 3 {
		return primary{}, errSlots
	}
	node, err := parts[2].ToArray()
	if err != nil || len(node) < 3 {
		return primary{}, errSlots
	}
	first, err1 := parts[0].AsInt64()
	last, err2 := parts[1].AsInt64()
	port, err3 := node[1].AsInt64()
	id, err4 := node[2].ToString()
	if err := errors.Join(err1, err2, err3, err4); err != nil || first < 0 || last < first || last >= slotCount || id == "" {
		return primary{}, errSlots
	}
	host, _ := node[0].ToString()
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return primary{addr: net.JoinHostPort(host, strconv.FormatInt(port, 10)), id: id, slots: [2]int{int(first), int(last)}}, nil
}

// movingTo reads from the answer to CLUSTER NODES which nodes the asked one is giving slots to. Until a slot is theirs, new keys in it are written there, and nobody lists them as its owner.
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

// slotCount is how many slots a cluster has.
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

// slotOf is the slot of a hash tag: its CRC-16 in the variant of XMODEM.
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
