package store

import (
	"context"
	"time"
)

// Dumper is a store that can be read out, to move its content to another one.
type Dumper interface {
	// Dump calls f for each user, in any order, perhaps twice. It may or may not see
	// a change that is made meanwhile. It ends with the first error of f, and returns
	// that as it is.
	Dump(ctx context.Context, f func(Item) error) error
}

// Loader is a Store that takes the items of any Dumper.
type Loader interface {
	// Load adds items durably. Their sessions get this store's epochs, so they hold
	// until they end here. A user who is here already is merged (User.Merge). A
	// session that is here already keeps all but a later UsedUntil.
	//
	// A second Load of the same items adds only what has ended here in between. So
	// after an error, which leaves a part done, load all again.
	Load(ctx context.Context, items []Item) (Loaded, error)

	// NeedMasterKeys records that loaded sessions need master keys until the given
	// times at least. Call it before Load, and after it in case RevokeAll came
	// between. It shortens no need.
	NeedMasterKeys(ctx context.Context, needs map[MasterKeyID]time.Time) error
}

// Item is a user and the sessions of theirs that hold. Its epochs mean nothing to
// another store.
type Item struct {
	User     User      // lists the sessions that hold and no others
	Sessions []Session // in the order of the list
}

// Loaded counts the records that Load added.
type Loaded struct{ Users, Sessions int }

// NewItem returns the item of a user. Of the sessions that find returns, it keeps
// those that hold: unexpired, under the user's epoch and the other current ones.
// So a copy brings no ended session back.
func NewItem(u User, current Epochs, now time.Time, find func(Digest) (Session, bool)) Item {
	current.User = u.Epoch
	it := Item{User: u}
	it.User.Sessions = nil
	for _, ref := range u.Sessions {
		s, ok := find(ref.Digest)
		if ok && s.User == u.ID && s.Epochs == current && s.Expires.After(now) {
			it.User.Sessions = append(it.User.Sessions, ref)
			it.Sessions = append(it.Sessions, s)
		}
	}
	return it
}
