package component

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// hub is the state of a platform but for its merchants. Times are Unix seconds of the
// clock that gates share.
type hub struct {
	Ticket     string `json:"ticket,omitempty"`
	TicketMade int64  `json:"ticket_made,omitempty"` // by WeChat's clock
	TicketCame int64  `json:"ticket_came,omitempty"`

	tokenState

	AskedTicket int64     `json:"asked_ticket,omitempty"` // by api_start_push_ticket
	Listed      int64     `json:"listed,omitempty"`       // WeChat's list was read
	Pending     []pending `json:"pending,omitempty"`
	Ending      []string  `json:"ending,omitempty"` // merchants whose sessions are to end
}

// tokenState is a token that one gate renews for all.
type tokenState struct {
	Token string `json:"token,omitempty"`
	From  int64  `json:"from,omitempty"`
	Until int64  `json:"until,omitempty"`
	Lease lease  `json:"lease,omitzero"`
}

func (t tokenState) tokenLives(now time.Time) bool { return t.Token != "" && now.Unix() < t.Until }

// due reports whether the token is to be renewed.
func (t tokenState) due(now time.Time) bool {
	lead := min(int64(renewalLead/time.Second), (t.Until-t.From)/6)
	return !t.tokenLives(now) || now.Unix() >= t.Until-lead
}

// pending is an authorization_code that is not exchanged yet.
type pending struct {
	AppID string `json:"appid"`
	Code  string `json:"code"`
	Ends  int64  `json:"ends"`
	At    int64  `json:"at"` // of the event
	Sent  bool   `json:"sent,omitempty"`
	Lease lease  `json:"lease,omitzero"`
}

// lease is the right of one gate to make a call for all. A gate that dies with it loses
// it soon.
type lease struct {
	By    string `json:"by,omitempty"`
	Until int64  `json:"until,omitempty"`
}

// free reports whether the platform may take a lease. Where no gate shares the state,
// the holder is this process, or dead.
func (p *Platform) free(l lease) bool {
	return l.By == "" || p.now().Unix() >= l.Until || !p.cfg.Shared && l.By != p.self()
}

func (p *Platform) lease() lease {
	return lease{By: p.self(), Until: p.now().Add(leaseLife).Unix()}
}

func (h *hub) ticketLives(now time.Time) bool {
	return h.Ticket != "" && now.Before(time.Unix(h.TicketCame, 0).Add(TicketLife))
}

func (h *hub) dropPending(appID string) {
	h.Pending = slices.DeleteFunc(h.Pending, func(x pending) bool { return x.AppID == appID })
}

func (h *hub) addEnding(appID string) {
	if !slices.Contains(h.Ending, appID) {
		h.Ending = append(h.Ending, appID)
	}
}

// clone keeps what others read from changes.
func (h hub) clone() hub {
	h.Pending, h.Ending = slices.Clone(h.Pending), slices.Clone(h.Ending)
	return h
}

// merchant is a mini program that authorises the platform, or did so once.
type merchant struct {
	AppID      string `json:"appid"`
	Authorized bool   `json:"authorized,omitempty"`
	Refresh    string `json:"refresh,omitempty"`

	tokenState

	EventAt int64 `json:"event_at,omitempty"` // of the last event, by WeChat's clock
	Since   int64 `json:"since,omitempty"`    // Authorized has this value; Unix milliseconds
	Changed int64 `json:"changed,omitempty"`  // Authorized or Refresh were set; likewise
}

func (m *merchant) authorize(yes bool, now time.Time) {
	if m.Authorized != yes || m.Since == 0 {
		m.Authorized, m.Since = yes, now.UnixMilli()
	}
	m.Changed = now.UnixMilli()
}

func (m *merchant) grant(refresh string, now time.Time) {
	m.Refresh, m.Changed = refresh, now.UnixMilli()
}

// merchants are those of one shard, by appid.
type merchants map[string]merchant

func (m merchants) clone() merchants {
	if m == nil {
		return make(merchants)
	}
	return maps.Clone(m)
}

// The merchants lie in this many facts, so that one of thousands is read and written
// with few others.
const shards = 256

// shardOf returns the fact of a merchant.
func shardOf(appID string) int {
	f := fnv.New32a()
	f.Write([]byte(appID))
	h := f.Sum32()
	return int(h>>24 ^ h>>16&0xff ^ h>>8&0xff ^ h&0xff)
}

func (p *Platform) hubFact() string { return "component " + p.AppID() }

func (p *Platform) shardFact(i int) string { return fmt.Sprintf("component %s %02x", p.AppID(), i) }

// kept is a state as it was last read. It never changes.
type kept[T any] struct {
	sealed []byte
	value  T
	stale  bool // another master key than the first sealed it
}

// ErrSealed means that the master keys do not open the state of a platform.
var ErrSealed = errors.New("the state of the third-party platform does not open: put the " +
	"master key that sealed it back into seal_key, or begin anew with " +
	"`wxgate wechat component repair --reset`")

// open decrypts a fact, unless the memory holds what is in it.
func open[T any](p *Platform, name string, sealed []byte, was *kept[T]) (*kept[T], error) {
	if was != nil && bytes.Equal(was.sealed, sealed) {
		return was, nil
	}
	k := &kept[T]{sealed: sealed}
	if sealed == nil {
		return k, nil
	}
	text, current, err := p.cfg.Ring.OpenShared(name, sealed)
	if err == nil {
		k.stale = !current
		err = json.Unmarshal([]byte(text), &k.value)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (%s: %w)", ErrSealed, name, err)
	}
	return k, nil
}

// load reads a fact.
func load[T any](
	ctx context.Context, p *Platform, at *atomic.Pointer[kept[T]], name string,
) (*kept[T], error) {
	sealed, err := p.cfg.Facts.Fact(ctx, name)
	if err != nil {
		return nil, err
	}
	k, err := open(p, name, sealed, at.Load())
	if err == nil {
		at.Store(k)
	}
	return k, err
}

// edit replaces a fact by what change makes of a copy, and returns what is on record
// then. It calls change again whenever another gate was faster. Nothing is written when
// change returns false, unless the fact needs a new seal.
func edit[T any](
	ctx context.Context, p *Platform, at *atomic.Pointer[kept[T]], name string,
	clone func(T) T, change func(*T) bool,
) (out T, err error) {
	var made *kept[T]
	err = store.EditFact(ctx, p.cfg.Facts, name, func(sealed []byte) ([]byte, error) {
		made = nil
		k, err := open(p, name, sealed, at.Load())
		if err != nil {
			return nil, err
		}
		at.Store(k)
		out = clone(k.value)
		if !change(&out) && !k.stale {
			out = k.value
			return sealed, nil
		}
		text, err := json.Marshal(out)
		if err != nil {
			return nil, err
		}
		made = &kept[T]{sealed: p.cfg.Ring.SealShared(name, string(text)), value: out}
		return made.sealed, nil
	})
	if err != nil {
		var none T
		return none, err
	}
	if made != nil {
		at.Store(made)
	}
	return out, nil
}

func (p *Platform) loadHub(ctx context.Context) (hub, error) {
	k, err := load(ctx, p, &p.cfg.Memory.hub, p.hubFact())
	if err != nil {
		return hub{}, err
	}
	return k.value, nil
}

func (p *Platform) editHub(ctx context.Context, change func(*hub) bool) (hub, error) {
	return edit(ctx, p, &p.cfg.Memory.hub, p.hubFact(), hub.clone, change)
}

func (p *Platform) loadShard(ctx context.Context, i int) (merchants, error) {
	k, err := load(ctx, p, &p.cfg.Memory.shards[i], p.shardFact(i))
	if err != nil {
		return nil, err
	}
	return k.value, nil
}

func (p *Platform) editShard(
	ctx context.Context, i int, change func(merchants) bool,
) (merchants, error) {
	return edit(ctx, p, &p.cfg.Memory.shards[i], p.shardFact(i), merchants.clone,
		func(m *merchants) bool { return change(*m) })
}

// merchant reads a merchant from the store. An unknown one is the zero merchant.
func (p *Platform) merchant(ctx context.Context, appID string) (m merchant, known bool, err error) {
	s, err := p.loadShard(ctx, shardOf(appID))
	m, known = s[appID]
	return m, known, err
}

// editMerchant changes a merchant, who may be new.
func (p *Platform) editMerchant(
	ctx context.Context, appID string, change func(*merchant) bool,
) error {
	_, err := p.editShard(ctx, shardOf(appID), func(s merchants) bool {
		m := s[appID]
		m.AppID = appID
		if !change(&m) {
			return false
		}
		s[appID] = m
		return true
	})
	return err
}

// Copy puts the state of a platform into another store, sealed as it is, where that has
// none, and reports whether there was any. A ring that does not open it copies nothing.
func Copy(
	ctx context.Context, appID string, from store.FactReader, to store.Facts, ring *keyring.Ring,
) (copied bool, err error) {
	p := New(Config{Credentials: weixin.Credentials{ID: appID}, Ring: ring})
	names := []string{p.hubFact()}
	for i := range shards {
		names = append(names, p.shardFact(i))
	}
	for _, name := range names {
		sealed, err := from.Fact(ctx, name)
		if err == nil && sealed != nil {
			if _, _, unopened := ring.OpenShared(name, sealed); unopened != nil {
				continue
			}
			copied = true
			_, err = to.SetFact(ctx, name, nil, sealed)
		}
		if err != nil {
			return copied, fmt.Errorf("copying third-party platform: %w", err)
		}
	}
	return copied, nil
}
