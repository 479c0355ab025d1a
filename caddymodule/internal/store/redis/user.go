package redis

import (
	"context"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// swapScript replaces a user's record if it is the one that was read, or already
// the new one, after a lost answer. It returns nil, or the record that is there.
// The second key is there only when gates have to know: a cluster refuses a script
// with a missing key while it moves the slot, and logins must go on.
var swapScript = repeatable(readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] and now ~= ARGV[2] then return now end
if ARGV[2] == '' then
	redis.call('DEL', KEYS[1])
else
	redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
if KEYS[2] then redis.call('SET', KEYS[2], '', 'PX', ARGV[4]) end
return false
`)

// change is what update does with a user's record.
type change struct {
	user    *store.User   // nil removes the record
	tell    bool          // records that Lookup returned become wrong
	lasting bool          // it must survive a failover
	ended   []store.Ended // beside those on the user's record
}

// update reads a user's record and replaces it by the change that f returns, if
// any. It calls f again whenever another call was faster.
func (db db) update(
	ctx context.Context, id store.UserID, f func(u store.User, known bool) (*change, error),
) error {
	record, err := db.getOne(ctx, db.keys.user(id.Hash()))
	if err != nil {
		return err
	}
	_, err = db.updateFrom(ctx, id, record, f)
	return err
}

// updateFrom is update for a record that the caller has read. It returns the
// record that it leaves.
func (db db) updateFrom(
	ctx context.Context, id store.UserID, record string,
	f func(u store.User, known bool) (*change, error),
) (string, error) {
	h := id.Hash()
	for {
		u, known := db.parseUser(id, h, record)
		c, err := f(u, known)
		if err != nil || c == nil {
			return record, err
		}
		if record != "" && !known {
			c.tell = true // gates may have cached what the damaged record said
		}
		next, until := "", time.Time{}
		if c.user != nil {
			next, err = userRecord(*c.user)
			if err != nil || next == record && !c.tell {
				return record, err
			}
			until = userUntil(*c.user)
		}
		now, done, err := db.swap(ctx, h, record, next, until, c)
		if err != nil {
			return record, err
		}
		if done {
			if c.user != nil {
				db.TellEnds(c.user.TakeEnds())
			}
			db.TellEnds(c.ended)
			return next, nil
		}
		record = now
	}
}

// swap returns the record that is there instead of old, and whether it is next now.
func (db db) swap(
	ctx context.Context, h [16]byte, old, next string, until time.Time, c *change,
) (now string, done bool, err error) {
	key := db.keys.user(h)
	x := call{keys: []string{key}, args: []string{old, next, millis(until)}}
	if c.tell {
		x.keys = append(x.keys, db.keys.changed(key))
		x.args = append(x.args, changeKept)
	}
	now, err = db.runFor(ctx, swapScript, x, c.lasting).ToString()
	if rueidis.IsRedisNil(err) {
		return "", true, nil
	}
	return now, false, err
}

// Amend implements store.Store. As with every write here, an error leaves open
// whether the change was made. When an answer is lost and the record changes before
// the retry, the change is made once, but the result does not show it.
func (s *Store) Amend(
	ctx context.Context, id store.UserID, a store.Amendment,
) (store.Amended, error) {
	return result(ctx, s.write, func(ctx context.Context, db db) (res store.Amended, err error) {
		return res, db.update(ctx, id, func(u store.User, known bool) (*change, error) {
			if !known {
				return nil, store.ErrNotFound
			}
			before := u
			res = u.Amend(a)
			shows := res.UnionIDChanged || a.Phone != nil
			return &change{user: &u, tell: shows}, db.index(ctx, before, u)
		})
	})
}

// User implements store.Store.
func (s *Store) User(ctx context.Context, id store.UserID) (store.User, error) {
	return result(ctx, s.read, func(ctx context.Context, db db) (store.User, error) {
		h := id.Hash()
		texts, err := db.get(ctx, db.keys.user(h), db.keys.proof(h))
		if err != nil {
			return store.User{}, err
		}
		u, ok := db.parseUser(id, h, texts[0])
		if !ok {
			return store.User{}, store.ErrNotFound
		}
		u.Proof = proofOf(texts[1])
		return u, nil
	})
}

// parseUser reads the record of a user; there is none when it is empty.
func (s *Store) parseUser(id store.UserID, h [16]byte, record string) (store.User, bool) {
	u, ok := s.parseUserByHash(h, record)
	return u, ok && u.ID == id
}

func (s *Store) parseUserByHash(h [16]byte, record string) (store.User, bool) {
	if record == "" {
		return store.User{}, false
	}
	var u store.User
	if err := u.UnmarshalBinary([]byte(record)); err != nil || u.ID.Hash() != h {
		s.damaged("user", h[:])
		return store.User{}, false
	}
	return u, true
}

// proofOf reads a proof. Without one, or with a damaged one, nothing is proven.
func proofOf(text string) (p store.Proof) {
	if len(text) == len(p) {
		copy(p[:], text)
	}
	return p
}

func userRecord(u store.User) (string, error) {
	b, err := u.AppendBinary(make([]byte, 0, 512))
	return rueidis.BinaryString(b), err
}

// userUntil returns when the record of a user expires without another login.
func userUntil(u store.User) time.Time {
	until := u.LastLogin.Add(userKept)
	for _, r := range u.Sessions {
		if t := r.Expires.Add(userOver); t.After(until) {
			until = t
		}
	}
	return until
}

// unlist takes a session off its user's list and notes its end.
func unlist(
	gone store.Digest, why store.Reason, at time.Time,
) func(u store.User, known bool) (*change, error) {
	return func(u store.User, known bool) (*change, error) {
		if !known || !u.EndSession(gone, why, at) {
			return nil, nil
		}
		return &change{user: &u}, nil
	}
}

// relist takes sessions off their user's list, and makes it show when another one,
// if any, ends.
func relist(
	gone []store.Digest, sooner store.Digest, at time.Time,
) func(u store.User, known bool) (*change, error) {
	return func(u store.User, known bool) (*change, error) {
		changed := u.Shorten(sooner, at)
		for _, d := range gone {
			changed = u.Drop(d) || changed
		}
		if !known || !changed {
			return nil, nil
		}
		return &change{user: &u}, nil
	}
}

// indexScript adds to a set that lives as long as its longest-lived member. It
// replaces a key that is no set.
var indexScript = repeatable(`
local added = redis.pcall('SADD', KEYS[1], ARGV[1])
if type(added) == 'table' then
	if string.find(added.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[1]) end
	redis.call('SADD', KEYS[1], ARGV[1])
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
`)

// index enters a user under their unionid and writes its proof. It comes before the
// record, so the index misses none, and a new unionid shows with its proof. A row that
// is no longer true stays until the set expires: its removal could hit a login that
// makes it true again.
func (db db) index(ctx context.Context, before, after store.User) error {
	sameDay := before.LastLogin.Truncate(unionDay).Equal(after.LastLogin.Truncate(unionDay))
	same := before.UnionID == after.UnionID && before.Proof == after.Proof
	if after.UnionID == "" || same && sameDay {
		return nil
	}
	h := after.ID.Hash()
	kept := max(time.Millisecond, time.Until(userUntil(after))+2*unionDay)
	var proof []rueidis.Completed
	if after.Proof != (store.Proof{}) {
		set := db.c.B().Set().Key(db.keys.proof(h)).Value(rueidis.BinaryString(after.Proof[:]))
		proof = append(proof, set.Px(kept).Build().ToRetryable())
	}
	return indexScript.runAll(ctx, db.c, []call{{
		keys: []string{db.keys.union(after.UnionID)},
		args: []string{hex.EncodeToString(h[:]), strconv.FormatInt(kept.Milliseconds(), 10)},
	}}, proof...)
}

// ByUnionID implements store.Store. The users' records tell which members of the
// index are true.
func (s *Store) ByUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	return result(ctx, s.read, func(ctx context.Context, db db) (ids []store.UserID, err error) {
		if unionID == "" {
			return nil, nil
		}
		members := db.c.B().Smembers().Key(db.keys.union(unionID)).Build()
		hashes, err := db.c.Do(ctx, members).AsStrSlice()
		if wrongType(err) {
			db.damaged("unionid", nil)
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		users, err := db.usersByHash(ctx, "unionid", hashes)
		for _, u := range users {
			if u.UnionID == unionID {
				ids = append(ids, u.ID)
			}
		}
		return ids, err
	})
}

// usersByHash reads users by the hex of their hashes. It skips those that are gone,
// and records of that kind as damaged for a name that is no hash.
func (db db) usersByHash(
	ctx context.Context, kind string, names []string,
) (users []store.User, err error) {
	var hashes [][16]byte
	var keys []string
	for _, name := range names {
		var h [16]byte
		if !unhex(h[:], name) {
			db.damaged(kind, nil)
			continue
		}
		hashes = append(hashes, h)
		keys = append(keys, db.keys.user(h))
	}
	for _, h := range hashes {
		keys = append(keys, db.keys.proof(h))
	}
	texts, err := db.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	for i, h := range hashes {
		if u, ok := db.parseUserByHash(h, texts[i]); ok {
			u.Proof = proofOf(texts[len(hashes)+i])
			users = append(users, u)
		}
	}
	return users, nil
}
