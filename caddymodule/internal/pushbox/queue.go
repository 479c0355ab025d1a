package pushbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	// Keep is how long a push waits for its app.
	Keep = 24 * time.Hour

	// KeepEvent is Keep for an event of the gate's own: nobody sends it again, and an app
	// that misses it keeps what it should delete.
	KeepEvent = 7 * 24 * time.Hour

	// Lease is how long an attempt may take. A gate that ends during one leaves the
	// push to another gate after it.
	Lease = 15 * time.Second

	// Shards is the number of facts that hold pushes; those of one user share one.
	Shards = 16

	maxDue      = 512     // pushes in one fact
	maxDueBytes = 2 << 20 // of their bodies
	moreEvents  = 4       // times as much room for events, so that pushes leave them some
)

// ErrFull means that too many pushes wait for their app.
var ErrFull = errors.New("too many pushes wait for the app")

// ErrLost means that a fact with pushes did not open: a master key is gone.
var ErrLost = errors.New("kept pushes do not open: a master key is missing")

// Due is a push that its app has yet to get. The store has it sealed.
type Due struct {
	ID          string `json:"id"` // of the message, the same for each retry of WeChat's
	AppID       string `json:"appid"`
	OpenID      string `json:"openid,omitempty"`
	UnionID     string `json:"unionid,omitempty"`
	From        string `json:"from"` // pushes of one sender keep their order
	Host        string `json:"host"` // to which WeChat sent it
	Path        string `json:"path"` // of that URL
	ContentType string `json:"type"`
	Body        []byte `json:"body"`

	Event string `json:"event,omitempty"` // of the gate's own; empty: a push of WeChat's

	Since time.Time `json:"since"`
	Next  time.Time `json:"next"` // no attempt before; Add: zero for now
	Tries int       `json:"tries"`
}

// Shard returns the fact of a push.
func (d Due) Shard() int {
	h := fnv.New32a()
	h.Write([]byte(d.AppID + " " + d.From))
	return int(h.Sum32() % Shards)
}

func (d Due) keep() time.Duration {
	if d.Event != "" {
		return KeepEvent
	}
	return Keep
}

// room returns how many pushes, and bytes of them, the fact of d may hold.
func (d Due) room() (pushes, size int) {
	if d.Event != "" {
		return maxDue * moreEvents, maxDueBytes * moreEvents
	}
	return maxDue, maxDueBytes
}

// behind reports whether d waits until its app has other.
func (d Due) behind(other Due) bool { return other.AppID == d.AppID && other.From == d.From }

// Queue keeps pushes until their app has them: at least once each, and those of one
// sender in their order.
type Queue struct {
	Facts store.Facts
	Ring  *keyring.Ring
}

func dueFact(shard int) string { return fmt.Sprintf("pushes due %02x", shard) }

// Add keeps a push durably. With first the caller has the lease of it and delivers it
// at once; else pushes of the same sender wait before it. A push that is kept already
// stays as it is. One with a Next is never first: it waits until then. The error is
// ErrFull or that of Facts.
func (q Queue) Add(ctx context.Context, d Due, now time.Time) (first bool, err error) {
	d.Since = now
	later, full := !d.Next.IsZero(), false
	_, err = q.edit(ctx, d.Shard(), func(list []Due) []Due {
		first, full = !later && !slices.ContainsFunc(list, d.behind), false
		size := len(d.Body)
		for _, one := range list {
			size += len(one.Body)
			if one.ID == d.ID && one.AppID == d.AppID {
				return list
			}
		}
		pushes, most := d.room()
		if full = len(list) >= pushes || size > most; full {
			return list
		}
		switch {
		case first:
			d.Next = now.Add(Lease)
		case !later:
			d.Next = now
		}
		return append(list, d)
	})
	if err == nil && full {
		err = ErrFull
	}
	return first && err == nil, err
}

// Claim returns the pushes of a shard whose turn it is, with a lease of each, and drops
// those that have waited for too long. The error is ErrLost or that of Facts.
func (q Queue) Claim(
	ctx context.Context, shard int, now time.Time,
) (due, dropped []Due, err error) {
	lost, err := q.edit(ctx, shard, func(list []Due) []Due {
		due, dropped = nil, nil
		var kept []Due
		for _, d := range list {
			switch {
			case now.Sub(d.Since) >= d.keep():
				dropped = append(dropped, d)
				continue
			case !now.Before(d.Next) && !slices.ContainsFunc(kept, d.behind):
				d.Next = now.Add(Lease)
				due = append(due, d)
			}
			kept = append(kept, d)
		}
		return kept
	})
	if err == nil && lost {
		err = ErrLost
	}
	return due, dropped, err
}

// Done ends an attempt: the app has the push, or it comes again later, and more seldom.
func (q Queue) Done(ctx context.Context, d Due, delivered bool, now time.Time) error {
	_, err := q.edit(ctx, d.Shard(), func(list []Due) []Due {
		i := slices.IndexFunc(list, func(one Due) bool {
			return one.ID == d.ID && one.AppID == d.AppID
		})
		switch {
		case i < 0:
		case delivered:
			list = slices.Delete(list, i, i+1)
		default:
			list[i].Tries++
			list[i].Next = now.Add(min(time.Second<<min(list[i].Tries, 6), time.Minute))
		}
		return list
	})
	return err
}

// edit replaces the list of a shard by what change returns of it. It calls change again
// whenever another gate was faster. lost says that a list did not open; it counts as
// empty.
func (q Queue) edit(
	ctx context.Context, shard int, change func([]Due) []Due,
) (lost bool, err error) {
	name := dueFact(shard)
	err = store.EditFact(ctx, q.Facts, name, func(was []byte) ([]byte, error) {
		list, openErr := q.open(name, was)
		lost = openErr != nil
		before, _ := json.Marshal(list)
		list = change(list)
		after, _ := json.Marshal(list)
		switch {
		case bytes.Equal(before, after):
			return was, nil
		case len(list) == 0:
			return nil, nil
		}
		return q.Ring.SealShared(name, string(after)), nil
	})
	return lost, err
}

func (q Queue) open(name string, sealed []byte) (list []Due, err error) {
	if len(sealed) == 0 {
		return nil, nil
	}
	text, _, err := q.Ring.OpenShared(name, sealed)
	if err == nil {
		err = json.Unmarshal([]byte(text), &list)
	}
	return list, err
}
