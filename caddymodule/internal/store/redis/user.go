package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// swapUserLua replaces a user's record if it is what was read, or already what it is to become: then the answer to the same call was lost. It returns nil, or the record that was there.
// The second key is there only when gates are told: a cluster refuses a script with a key that is missing while it moves the slot, and logins must go on.
const swapUserLua = readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] and now ~= ARGV[2] then return now end
if ARGV[2] == '' then
	redis.call('DEL', KEYS[1])
else
	redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
end
if KEYS[2] then redis.call('SET', KEYS[2], '', 'PX', ARGV[4]) end
return false
`

// swap is one try to replace a user's record.
type swap struct {
	user     [16]byte
	old, new string // empty: none
	until    time.Time
	tell     bool // records that Lookup returned become wrong by it
	last     bool // it must survive a failover
}

// swap returns the record that is there instead of s.old, and whether the swap was made.
func (db db) swap(ctx context.Context, s swap) (now string, done bool, err error) {
	key := db.keys.user(s.user)
	x := call{keys: []string{key}, args: []string{s.old, s.new, millis(s.until)}}
	if s.tell {
		x.keys = append(x.keys, db.keys.changed(key))
		x.args = append(x.args, strconv.FormatInt(changeKept.Milliseconds(), 10))
	}
	var res rueidis.RedisResult
	if s.last {
		res = db.runLasting(ctx, db.scripts.swapUser, x)
	} else {
		res = db.scripts.swapUser.run(ctx, db.c, x)
	}
	now, err = res.ToString()
	if rueidis.IsRedisNil(err) {
		return "", true, nil
	}
	return now, false, err
}

// parseUser reads the record of a user; the empty one is none.
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

func userRecord(u store.User) (string, error) {
	b, err := u.AppendBinary(make([]byte, 0, 512))
	return rueidis.BinaryString(b), err
}

// userUntil returns when a user is forgotten who does not log in again.
func userUntil(u store.User) time.Time {
	until := u.LastLogin.Add(userKept)
	for _, r := range u.Sessions {
		if t := r.Expires.Add(userOver); t.After(until) {
			until = t
		}
	}
	return until
}

// unlist takes sessions off their user's list. record is the user's if it is known, to save a round.
func (db db) unlist(ctx context.Context, id store.UserID, record string, gone ...store.Digest) (err error) {
	h := id.Hash()
	if record == "" {
		if record, err = text(db.c.Do(ctx, db.get(db.keys.user(h)))); err != nil {
			return err
		}
	}
	for {
		u, ok := db.parseUser(id, h, record)
		if !ok {
			return nil
		}
		listed := false
		for _, d := range gone {
			listed = u.Drop(d) || listed
		}
		if !listed {
			return nil
		}
		next, err := userRecord(u)
		if err != nil {
			return err
		}
		now, done, err := db.swap(ctx, swap{user: h, old: record, new: next, until: userUntil(u)})
		if done || err != nil {
			return err
		}
		record = now
	}
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
