package store

import (
	"slices"
	"time"
)

// User is the record of one user of one mini program. All sessions of the user
// share it.
type User struct {
	ID         UserID
	UnionID    string
	Proof      Proof // of UnionID; engines keep it beside the record, since older gates read that
	Epoch      uint64
	KeyVersion uint64    // how often the session_key was seen to change
	Key        SealedKey // current
	PrevKey    SealedKey // opens data from before a login (docs/wechat.md#session-key)
	Phone      []byte    // telephone number, sealed; nil when unknown
	LastLogin  time.Time

	// Sessions serves limits, listing and clean-up, oldest first. It never judges a
	// session.
	Sessions []SessionRef

	// Ends are the last ends of sessions, oldest first, at most MaxEnds.
	Ends  []End
	fresh []End // for TakeEnds
}

// Admit applies login l to the user and returns the sessions that MaxPerUser
// ends, and those that have expired. The list shows when l.Ends ends. Engines call
// it in their transaction.
func (u *User) Admit(l Login) (ended, expired []Digest) {
	u.ID = l.User
	u.setUnionID(l.UnionID, l.Proof)
	u.setKey(l.Key, l.OldTags)
	u.LastLogin = l.Created

	live := u.Sessions[:0:0]
	for _, s := range u.Sessions {
		if !s.Expires.After(l.Created) {
			expired = append(expired, s.Digest)
			u.noteEnd(s.end(EndExpired, s.Expires))
			continue
		}
		if s.Digest == l.Ends {
			s.Expires = l.EndsBy(s.Expires)
			u.noteEnd(s.end(EndReplaced, l.Created))
		}
		live = append(live, s)
	}
	live = append(live, SessionRef{Digest: l.Digest, Created: l.Created, Expires: l.Expires})
	u.Sessions, ended = l.bound(live)
	for _, s := range live {
		if slices.Contains(ended, s.Digest) {
			u.noteEnd(s.end(EndEvicted, l.Created))
		}
	}
	return ended, expired
}

// bound ends the oldest sessions over MaxPerUser. Sessions that end within Grace
// count only for twice that number, and only beyond that a session younger than Grace
// ends: parallel first logins, and a client that logs in anew with the old token,
// keep what they use.
func (l Login) bound(live []SessionRef) (kept []SessionRef, ended []Digest) {
	if l.MaxPerUser <= 0 {
		return live, nil
	}
	leaves := func(s SessionRef) bool { return !s.Expires.After(l.Created.Add(Grace)) }
	young := func(s SessionRef) bool { return s.Created.After(l.Created.Add(-Grace)) }
	over, most := -l.MaxPerUser, len(live)-2*l.MaxPerUser
	for _, s := range live {
		if !leaves(s) {
			over++
		}
	}
	for _, s := range live {
		if most <= 0 && (over <= 0 || leaves(s) || young(s)) {
			kept = append(kept, s)
			continue
		}
		ended = append(ended, s.Digest)
		if most--; !leaves(s) {
			over--
		}
	}
	return kept, ended
}

// Amend applies an amendment to the user. Engines call it in their transaction.
func (u *User) Amend(a Amendment) Amended {
	res := Amended{UnionIDWas: u.UnionID}
	res.UnionIDChanged = u.setUnionID(a.UnionID, a.Proof)
	if a.Key.Box != nil && u.Key.Tag == a.KeyWas {
		u.setKey(a.Key, a.OldTags)
		res.KeySet = true
	}
	if a.Phone != nil {
		u.Phone = a.Phone
	}
	if len(u.Phone) == 0 {
		u.Phone = nil
	}
	u.noteEnd(a.End)
	return res
}

// setUnionID keeps a unionid that is known with its proof, and reports whether they
// are others than before.
func (u *User) setUnionID(id string, p Proof) (changed bool) {
	if id == "" || id == u.UnionID && p == u.Proof {
		return false
	}
	u.UnionID, u.Proof = id, p
	return true
}

// setKey makes k the current session_key. The same key under another master key
// replaces only the tag and the envelope: a login keeps the previous key, and old
// master keys fade out.
func (u *User) setKey(k SealedKey, oldTags [][8]byte) {
	same := u.Key.Box != nil && (u.Key.Tag == k.Tag || slices.Contains(oldTags, u.Key.Tag))
	if !same {
		if u.Key.Box != nil {
			u.PrevKey = u.Key
		}
		u.KeyVersion++
	}
	u.Key = k
}

// Shorten makes the list show when a session ends that a login replaced, and reports
// whether that is earlier than it showed.
func (u *User) Shorten(d Digest, at time.Time) bool {
	i := slices.IndexFunc(u.Sessions, func(s SessionRef) bool { return s.Digest == d })
	if i < 0 || !at.Before(u.Sessions[i].Expires) {
		return false
	}
	u.Sessions = slices.Clone(u.Sessions)
	u.Sessions[i].Expires = at
	u.noteEnd(u.Sessions[i].end(EndReplaced, at.Add(-Grace)))
	return true
}

// EndSession removes a session from the user's list, notes its end, and reports
// whether it was there.
func (u *User) EndSession(d Digest, why Reason, at time.Time) bool {
	i := slices.IndexFunc(u.Sessions, func(s SessionRef) bool { return s.Digest == d })
	if i < 0 {
		return false
	}
	u.noteEnd(u.Sessions[i].end(why, at))
	return u.Drop(d)
}

// Revoke moves the epoch on, which ends every session, and notes the ends.
func (u *User) Revoke(why Reason, at time.Time) {
	for _, s := range u.Sessions {
		u.noteEnd(s.end(why, at))
	}
	u.Epoch++
	u.Sessions = nil
}

// Forgotten returns the ends of the sessions that go with the user's record.
func (u *User) Forgotten(why Reason, at time.Time) (list []Ended) {
	for _, s := range u.Sessions {
		list = append(list, Ended{u.ID, s.end(why, at)})
	}
	return list
}

// Drop removes a session from the user's list and reports whether it was there.
func (u *User) Drop(d Digest) bool {
	i := slices.IndexFunc(u.Sessions, func(s SessionRef) bool { return s.Digest == d })
	if i < 0 {
		return false
	}
	u.Sessions = append(u.Sessions[:i:i], u.Sessions[i+1:]...)
	return true
}

// Merge adds another record of the same user: the unionid, the keys and the
// telephone number of the later login, and the sessions of both, with their last ends.
// The epoch stays.
// A second Merge of the same record changes nothing.
func (u *User) Merge(o User) {
	later := o.LastLogin.Compare(u.LastLogin)
	if later > 0 || later == 0 && o.KeyVersion > u.KeyVersion {
		u.setUnionID(o.UnionID, o.Proof)
		if o.Phone != nil {
			u.Phone = o.Phone
		}
		u.mergeKeys(o)
		u.LastLogin = o.LastLogin
	}
	if u.UnionID == "" {
		u.setUnionID(o.UnionID, o.Proof)
	}
	if u.Phone == nil {
		u.Phone = o.Phone
	}

	list := slices.Clone(u.Sessions)
	for _, s := range o.Sessions {
		if !slices.ContainsFunc(list, func(l SessionRef) bool { return l.Digest == s.Digest }) {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b SessionRef) int { return a.Created.Compare(b.Created) })
	u.Sessions = list

	ends := slices.Clone(u.Ends)
	for _, e := range o.Ends {
		if !slices.ContainsFunc(ends, func(n End) bool { return n.Session == e.Session }) {
			ends = append(ends, e)
		}
	}
	u.setEnds(ends)
}

// mergeKeys takes the keys of a later login. The version never goes back, and
// moves on for another key.
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
