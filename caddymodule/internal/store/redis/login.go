package redis

import (
	"context"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A login writes the session first and then the user's record that lists it, which is the moment it takes effect: before, nobody else knows the session, so nobody can have ended it. The
// sessions that it ends stay listed until they are gone, so that an outage at any moment leaves no session that lives and is not listed, nor one more than MaxPerUser that the next login
// does not end. A login that fails on the way may leave a session whose token nobody knows.
//
// The epochs are those that were read before. If a revocation falls between, the session is born dead: the user's epoch moves with the record, the others are compared at every look-up.

// Login implements store.Store. When ctx ends or the connection is lost on the way, the session may have been made nevertheless; nobody knows its token. The same login may then be tried
// again: it makes no second session.
func (s *Store) Login(ctx context.Context, l store.Login) (store.LoginResult, error) {
	var res store.LoginResult
	err := s.write(ctx, func(ctx context.Context, db db) error {
		a, err := db.arrive(ctx, l)
		if err != nil {
			return err
		}
		if res, err = db.admit(ctx, l, &a); err != nil {
			return err
		}
		return db.endLeaving(ctx, l, a, res.Ended)
	})
	if err != nil {
		return store.LoginResult{}, err
	}
	return res, nil
}

// arrival is what a login finds, and then what it leaves.
type arrival struct {
	record    string        // of the user
	epochs    store.Epochs  // of the mini program and of everybody
	presented *store.UserID // whose session was presented; nil when there is none

	needs map[string]time.Time // for master keys, as recorded by this release
}

// arrive reads all that a login depends on.
func (db db) arrive(ctx context.Context, l store.Login) (a arrival, err error) {
	keys := []string{db.keys.user(l.User.Hash()), db.keys.app(l.User.AppID), db.keys.all()}
	if !l.Ends.IsZero() {
		keys = append(keys, db.keys.session(l.Ends))
	}
	cmds := make([]rueidis.Completed, len(keys), len(keys)+1)
	for i, k := range keys {
		cmds[i] = db.get(k)
	}
	recent := db.lastNeeds.Load()
	if recent == nil || time.Since(recent.at) > needsFresh {
		recent = &recentNeeds{at: time.Now()}
		cmds = append(cmds, db.c.B().Hgetall().Key(db.keys.needs()).Build())
	}
	answers := db.c.DoMulti(ctx, cmds...)
	texts := make([]string, len(keys))
	for i := range keys {
		if texts[i], err = text(answers[i]); err != nil {
			return a, err
		}
	}
	if len(answers) > len(keys) {
		if recent.needs, err = db.needs(answers[len(keys)]); err != nil {
			return a, err
		}
		db.lastNeeds.Store(recent)
	}
	a.needs = recent.needs
	a.record = texts[0]
	if a.epochs.App, err = db.ensureEpoch(ctx, keys[1], texts[1]); err != nil {
		return a, err
	}
	if a.epochs.Global, err = db.ensureEpoch(ctx, keys[2], texts[2]); err != nil {
		return a, err
	}
	if len(texts) > 3 && texts[3] != "" {
		if ses, ok := db.parseSession(l.Ends, texts[3]); ok {
			a.presented = &ses.User
		}
	}
	return a, nil
}

// admit writes the session and the user's record, from the start again whenever the record has changed in the meantime.
func (db db) admit(ctx context.Context, l store.Login, a *arrival) (store.LoginResult, error) {
	h := l.User.Hash()
	for {
		u, known := db.parseUser(l.User, h, a.record)
		if !known {
			u = store.User{Epoch: randomEpoch()}
		}
		before := u
		res := admit(&u, l, a.presented != nil)
		res.UnionIDChanged = known && u.UnionID != before.UnionID
		a.epochs.User = u.Epoch
		if err := db.putSession(ctx, l, a); err != nil {
			return res, err
		}
		if err := db.index(ctx, before, u); err != nil {
			return res, err
		}
		next, err := userRecord(u)
		if err != nil {
			return res, err
		}
		unread := a.record != "" && !known // other gates may remember what it said
		now, done, err := db.swap(ctx, swap{user: h, old: a.record, new: next, until: userUntil(u), tell: res.UnionIDChanged || unread})
		if err != nil {
			return res, err
		}
		if done {
			a.record = next
			return res, nil
		}
		a.record = now
		if u, ok := db.parseUser(l.User, h, now); ok && slices.ContainsFunc(u.Sessions, func(r store.SessionRef) bool { return r.Digest == l.Digest }) {
			return res, nil // the swap was made, its answer was lost, and the record has changed since
		}
	}
}

// admit applies a login to the user, and leaves what it ends on the list, where it is the first to go.
func admit(u *store.User, l store.Login, presented bool) (res store.LoginResult) {
	listed := u.Sessions
	u.Drop(l.Digest) // of a try before whose outcome was not known
	u.Drop(l.Ends)   // comes before Admit, so that a session on its way out takes no room
	if presented {
		res.Ended = append(res.Ended, l.Ends)
	}
	over, _ := u.Admit(l) // what has expired goes by itself
	res.Ended = append(res.Ended, over...)
	res.UnionID = u.UnionID

	var leaving []store.SessionRef
	for _, r := range listed {
		if slices.Contains(res.Ended, r.Digest) {
			leaving = append(leaving, r)
		}
	}
	u.Sessions = append(leaving, u.Sessions...)
	return res
}

// putSession writes the session, and in the same round the need for its master
// key unless that is on record.
func (db db) putSession(ctx context.Context, l store.Login, a *arrival) error {
	ses := store.Session{User: l.User, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires, Epochs: a.epochs}
	b, err := ses.AppendBinary(make([]byte, 0, 160))
	if err != nil {
		return err
	}
	set := func(key, value string) rueidis.Completed {
		cmd := db.c.B().Set().Key(key).Value(value).PxatMillisecondsTimestamp(l.Expires.UnixMilli()).Build()
		return cmd.ToRetryable()
	}
	cmds := []rueidis.Completed{set(db.keys.session(l.Digest), rueidis.BinaryString(b))}
	if l.UsedUntil.Before(l.Created.Add(store.MaxTouchInterval - time.Second)) {
		// A gate of the first release reads in the record that the session was seen too long ago (store's encoding of
		// UsedUntil), unless a note says something better.
		cmds = append(cmds, set(db.keys.touched(l.Digest), noteOf(l.UsedUntil)))
	}
	return db.scripts.need.runAll(ctx, db.c, db.loginNeeds(l, a), cmds...)
}

// endLeaving ends the sessions that a login ends, then takes them off the lists.
func (db db) endLeaving(ctx context.Context, l store.Login, a arrival, leaving []store.Digest) error {
	if len(leaving) == 0 {
		return nil
	}
	for _, d := range leaving {
		if err := db.endSession(ctx, d, false); err != nil {
			return err
		}
	}
	if a.presented != nil && *a.presented != l.User {
		if err := db.unlist(ctx, *a.presented, "", l.Ends); err != nil {
			return err
		}
	}
	return db.unlist(ctx, l.User, a.record, leaving...)
}
