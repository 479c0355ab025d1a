package redis

import (
	"context"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// A login writes the session first, and then the user's record that lists it. With
// that it takes effect: before, no other gate knows the session, so none can have
// ended it. Sessions that the login ends stay listed until they are gone. So an
// outage at any step leaves no live session off the list, and none over MaxPerUser
// that the next login does not end.
//
// The epochs come from before. If a revocation falls between, the session is born
// dead: the user's epoch moves with the record, and each look-up compares the others.

// Login implements store.Store. After an error the session may exist; no client
// knows its token. A retry of the same login makes no second session.
func (s *Store) Login(ctx context.Context, l store.Login) (store.LoginResult, error) {
	return result(ctx, s.write, func(ctx context.Context, db db) (store.LoginResult, error) {
		found, err := db.readFor(ctx, l)
		if err != nil {
			return store.LoginResult{}, err
		}
		res, record, err := db.login(ctx, l, found)
		if err != nil {
			return res, err
		}
		return res, db.endLeaving(ctx, l, found.presented, record, res.Ended)
	})
}

// loginState is all that a login depends on.
type loginState struct {
	record    string               // of the user
	epochs    store.Epochs         // of the mini program and of all
	presented *store.UserID        // whose session the client presented; nil without one
	needed    map[string]time.Time // recorded needs for master keys
}

func (db db) readFor(ctx context.Context, l store.Login) (found loginState, err error) {
	keys := []string{db.keys.user(l.User.Hash()), db.keys.app(l.User.AppID), db.keys.all()}
	if !l.Ends.IsZero() {
		keys = append(keys, db.keys.session(l.Ends))
	}
	cmds := db.gets(keys)
	recent := db.lastNeeds.Load()
	if recent == nil || time.Since(recent.at) > needsFresh {
		recent = &recentNeeds{at: time.Now()}
		cmds = append(cmds, db.c.B().Hgetall().Key(db.keys.needs()).Build())
	}
	answers := db.c.DoMulti(ctx, cmds...)
	texts, err := textsOf(answers[:len(keys)])
	if err != nil {
		return found, err
	}
	found.record = texts[0]
	if len(answers) > len(keys) {
		if recent.needs, err = db.needs(answers[len(keys)]); err != nil {
			return found, err
		}
		db.lastNeeds.Store(recent)
	}
	found.needed = recent.needs
	if found.epochs.App, err = db.ensureEpoch(ctx, keys[1], texts[1]); err != nil {
		return found, err
	}
	if found.epochs.Global, err = db.ensureEpoch(ctx, keys[2], texts[2]); err != nil {
		return found, err
	}
	if len(texts) > 3 && texts[3] != "" {
		if ses, ok := db.parseSession(l.Ends, texts[3]); ok {
			found.presented = &ses.User
		}
	}
	return found, nil
}

// login writes the session and the user's record, and returns the latter. When a
// record that another call has written since lists the session, then an earlier
// write succeeded and its answer was lost.
func (db db) login(
	ctx context.Context, l store.Login, found loginState,
) (res store.LoginResult, record string, err error) {
	retry := false
	apply := func(u store.User, known bool) (*change, error) {
		isNew := func(r store.SessionRef) bool { return r.Digest == l.Digest }
		if retry && slices.ContainsFunc(u.Sessions, isNew) {
			return nil, nil
		}
		retry = true
		if !known {
			u = store.User{Epoch: randomEpoch()}
		}
		before := u
		res = applyLogin(&u, l, found.presented != nil)
		res.UnionIDChanged = known && u.UnionID != before.UnionID
		found.epochs.User = u.Epoch
		if err := db.putSession(ctx, l, found); err != nil {
			return nil, err
		}
		return &change{user: &u, tell: res.UnionIDChanged}, db.index(ctx, before, u)
	}
	record, err = db.updateFrom(ctx, l.User, found.record, apply)
	return res, record, err
}

// applyLogin applies a login to the user. Sessions that it ends stay listed, where
// they are the first to go. Those that have expired need no end.
func applyLogin(u *store.User, l store.Login, presented bool) (res store.LoginResult) {
	listed := u.Sessions
	u.Drop(l.Digest) // of an earlier try
	u.Drop(l.Ends)   // before Admit, so that it does not count
	if presented {
		res.Ended = append(res.Ended, l.Ends)
	}
	over, _ := u.Admit(l)
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

// putSession writes the session and, in the same round, the need for its master key
// unless that is recorded.
func (db db) putSession(ctx context.Context, l store.Login, found loginState) error {
	ses := store.Session{
		User: l.User, Created: l.Created, UsedUntil: l.UsedUntil, Expires: l.Expires,
		Epochs: found.epochs,
	}
	b, err := ses.AppendBinary(make([]byte, 0, 160))
	if err != nil {
		return err
	}
	set := func(key, value string) rueidis.Completed {
		cmd := db.c.B().Set().Key(key).Value(value)
		return cmd.PxatMillisecondsTimestamp(l.Expires.UnixMilli()).Build().ToRetryable()
	}
	cmds := []rueidis.Completed{set(db.keys.session(l.Digest), rueidis.BinaryString(b))}
	if l.UsedUntil.Before(l.Created.Add(store.MaxTouchInterval - time.Second)) {
		// A gate of the first release reads a time of the last use in the record that
		// is too long ago (the encoding of UsedUntil). The note corrects it.
		cmds = append(cmds, set(db.keys.touched(l.Digest), noteOf(l.UsedUntil)))
	}
	return needScript.runAll(ctx, db.c, db.loginNeeds(l, found), cmds...)
}

// endLeaving ends the sessions that a login ends, then takes them off the lists.
func (db db) endLeaving(
	ctx context.Context, l store.Login, presented *store.UserID, record string,
	leaving []store.Digest,
) error {
	if len(leaving) == 0 {
		return nil
	}
	for _, d := range leaving {
		if err := db.endSession(ctx, d, false); err != nil {
			return err
		}
	}
	if presented != nil && *presented != l.User {
		if err := db.update(ctx, *presented, unlist(l.Ends)); err != nil {
			return err
		}
	}
	_, err := db.updateFrom(ctx, l.User, record, unlist(leaving...))
	return err
}
