package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Dumper is a store that can be read out, to move what is in it elsewhere.
type Dumper interface {
	// Dump calls f for each user, in no particular order; a change made meanwhile is in it or not, and a user may come twice. It ends with the first error of f and returns that as it is.
	Dump(ctx context.Context, f func(Item) error) error
}

// Loader is a Store that takes what a Dumper of any engine tells.
type Loader interface {
	// Load adds items, durably when it returns nil. Their sessions get the epochs of this store: what held there holds here, until it is ended here. Of two records of a user both sides are
	// heard (User.Merge); a session that is here already stays as it is but for a later UsedUntil, whether or not it still holds. Loading the same again adds nothing but what has been ended here in between, so that after an
	// error, which leaves some of it done, all is loaded again.
	Load(ctx context.Context, items []Item) (Loaded, error)

	// NeedMasterKeys records that loaded sessions need master keys until the given
	// times at least. Call it before Load, and after it in case RevokeAll came
	// between. It shortens no need.
	NeedMasterKeys(ctx context.Context, needs map[MasterKeyID]time.Time) error
}

// Item is a user and the sessions of theirs that hold. Their epochs mean nothing to another store.
type Item struct {
	User     User      // its list has the sessions that hold and no others
	Sessions []Session // as the list has them
}

// Loaded counts what Load has added, not what was there.
type Loaded struct{ Users, Sessions int }

// NewItem returns what a dump tells of a user. Of the listed sessions that find returns it keeps those that hold: not yet expired, under the user's epoch and the other current ones. The rest
// stays behind, so that nothing that was ended comes back to life by being copied.
func NewItem(u User, current Epochs, now time.Time, find func(Digest) (Session, bool)) Item {
	current.User = u.Epoch
	it := Item{User: u}
	it.User.Sessions = nil
	for _, ref := range u.Sessions {
		if s, ok := find(ref.Digest); ok && s.User == u.ID && s.Epochs == current && s.Expires.After(now) {
			it.User.Sessions = append(it.User.Sessions, ref)
			it.Sessions = append(it.Sessions, s)
		}
	}
	return it
}

// Merge adds what another record of the same user knows: the unionid, the keys and the telephone number of the later login, and the sessions of both. The epoch stays. Merging the same again changes nothing.
func (u *User) Merge(o User) {
	later := o.LastLogin.Compare(u.LastLogin)
	if later > 0 || later == 0 && o.KeyVersion > u.KeyVersion {
		u.UnionID = cmp.Or(o.UnionID, u.UnionID)
		if o.Phone != nil {
			u.Phone = o.Phone
		}
		u.mergeKeys(o)
		u.LastLogin = o.LastLogin
	}
	u.UnionID = cmp.Or(u.UnionID, o.UnionID)
	if u.Phone == nil {
		u.Phone = o.Phone
	}

	list := slices.Clone(u.Sessions)
	for _, s := range o.Sessions {
		if !slices.ContainsFunc(list, func(have SessionRef) bool { return have.Digest == s.Digest }) {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b SessionRef) int { return a.Created.Compare(b.Created) })
	u.Sessions = list
}

// mergeKeys takes over the keys of a later login. The version never goes back, and moves on when the key is another.
func (u *User) mergeKeys(o User) {
	version := u.KeyVersion
	if u.Key.Box != nil && u.Key.Tag != o.Key.Tag {
		version++
		u.PrevKey = u.Key
	}
	if o.PrevKey.Box != nil {
		u.PrevKey = o.PrevKey
	}
	u.Key, u.KeyVersion = o.Key, max(version, o.KeyVersion)
}
