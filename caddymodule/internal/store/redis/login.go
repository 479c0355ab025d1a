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
// ended it. Sessions that the login ends or shortens stay listed as they are until
// that is done. So an outage at any step leaves no live session off the list, and none
// over MaxPerUser that the next login does not end.
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
		db.link().noteUsed()
		return res, db.endLeaving(ctx, l, found.presented, record, res.Ended)
	})
}

// loginState is all that a login depends on.
type loginState struct {
	record    string               // of the user
	proof     store.Proof          // of the user's unionid
	epochs    store.Epochs         // of the mini program and of all
	presented *presented           // session that the client presented; nil without one
	needed    map[string]time.Time // recorded needs for master keys
}

// presented is a session that a login replaces.
type presented struct {
	store.Session
	record string
}

func (db db) readFor(ctx context.Context, l store.Login) (found loginState, err error) {
	h := l.User.Hash()
	keys := []string{
		db.keys.user(h), db.keys.app(l.User.AppID), db.keys.all(), db.keys.proof(h),
	}
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
	found.record, found.proof = texts[0], proofOf(texts[3])
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
	if len(texts) > 4 && texts[4] != "" {
		if ses, ok := db.parseSession(l.Ends, texts[4]); ok {
			found.presented = &presented{ses, texts[4]}
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
		if u.UnionID != "" {
			u.Proof = found.proof
		}
		before := u
		res = applyLogin(&u, l)
		res.UnionIDChanged = known && (u.UnionID != before.UnionID || u.Proof != before.Proof)
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
// they are the first to go, and one that it shortens with its time. Those that have
// expired need no end.
func applyLogin(u *store.User, l store.Login) (res store.LoginResult) {
	u.Drop(l.Digest) // of an earlier try
	listed := u.Sessions
	res.Ended, _ = u.Admit(l)
	res.UnionID, res.Proof = u.UnionID, u.Proof

	var leaving []store.SessionRef
	for _, r := range listed {
		i := slices.IndexFunc(u.Sessions, func(s store.SessionRef) bool {
			return s.Digest == r.Digest
		})
		switch {
		case i >= 0:
			u.Sessions[i] = r
		case slices.Contains(res.Ended, r.Digest):
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

// endLeaving ends the sessions that a login ends and shortens the one that it
// replaces, then changes the lists.
func (db db) endLeaving(
	ctx context.Context, l store.Login, old *presented, record string, leaving []store.Digest,
) error {
	for _, d := range leaving {
		if err := db.endSession(ctx, d, false); err != nil {
			return err
		}
	}
	own := relist(leaving, store.Digest{}, time.Time{})
	if old != nil && !slices.Contains(leaving, l.Ends) {
		by := l.EndsBy(old.Expires)
		if err := db.shortenSession(ctx, l.Ends, *old, by); err != nil {
			return err
		}
		if old.User == l.User {
			own = relist(leaving, l.Ends, by)
		} else if err := db.update(ctx, old.User, relist(nil, l.Ends, by)); err != nil {
			return err
		}
	}
	_, err := db.updateFrom(ctx, l.User, record, own)
	return err
}

// shortenScript makes a session and its note expire sooner, and tells gates. It leaves
// alone a session that has changed since the caller read it: that was another login
// with the same token, or its end.
var shortenScript = repeatable(readLua + `
if read(KEYS[1]) == ARGV[1] then
	redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
	local note = read(KEYS[2])
	if note ~= '' then redis.call('SET', KEYS[2], note, 'PXAT', ARGV[3]) end
end
redis.call('SET', KEYS[3], '', 'PX', ARGV[4])
return 1
`)

func (db db) shortenSession(
	ctx context.Context, d store.Digest, old presented, by time.Time,
) error {
	if by.Equal(old.Expires) {
		return nil // by an earlier try
	}
	ses := old.Session
	ses.Expires = by
	b, err := ses.AppendBinary(make([]byte, 0, 160))
	if err != nil {
		return err
	}
	key := db.keys.session(d)
	return shortenScript.run(ctx, db.c, call{
		keys: []string{key, db.keys.touched(d), db.keys.changed(key)},
		args: []string{old.record, rueidis.BinaryString(b), millis(by), changeKept},
	}).Error()
}
