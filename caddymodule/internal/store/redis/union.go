package redis

import (
	"context"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// indexLua adds to a set that must live as long as its longest-lived member. What is no set is replaced.
const indexLua = `
local added = redis.pcall('SADD', KEYS[1], ARGV[1])
if type(added) == 'table' then
	if string.find(added.err, 'WRONGTYPE', 1, true) then redis.call('DEL', KEYS[1]) end
	redis.call('SADD', KEYS[1], ARGV[1])
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
`

// index enters a user under the unionid that a login leaves them with. It comes before the record, so no record is ever missing from the index; a row that is no longer true stays until the
// set expires, since taking it out could hit a login that has just made it true again.
func (db db) index(ctx context.Context, before, after store.User) error {
	sameDay := before.LastLogin.Truncate(unionDay).Equal(after.LastLogin.Truncate(unionDay))
	if after.UnionID == "" || before.UnionID == after.UnionID && sameDay {
		return nil
	}
	h := after.ID.Hash()
	kept := time.Until(userUntil(after)) + 2*unionDay
	return db.scripts.index.run(ctx, db.c, call{
		keys: []string{db.keys.union(after.UnionID)},
		args: []string{hex.EncodeToString(h[:]), strconv.FormatInt(max(1, kept.Milliseconds()), 10)},
	}).Error()
}

// ByUnionID implements store.Store.
func (s *Store) ByUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	var ids []store.UserID
	err := s.read(ctx, func(ctx context.Context, db db) (err error) {
		ids, err = db.byUnionID(ctx, unionID)
		return err
	})
	return ids, err
}

// byUnionID asks the users' records which members of the index are true.
func (db db) byUnionID(ctx context.Context, unionID string) ([]store.UserID, error) {
	if unionID == "" {
		return nil, nil
	}
	members, err := db.c.Do(ctx, db.c.B().Smembers().Key(db.keys.union(unionID)).Build()).AsStrSlice()
	if wrongType(err) {
		db.damaged("unionid", nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var hashes [][16]byte
	var cmds []rueidis.Completed
	for _, m := range members {
		var h [16]byte
		if !unhex(h[:], m) {
			db.damaged("unionid", nil)
			continue
		}
		hashes = append(hashes, h)
		cmds = append(cmds, db.get(db.keys.user(h)))
	}
	var ids []store.UserID
	for i, res := range db.c.DoMulti(ctx, cmds...) {
		record, err := text(res)
		if err != nil {
			return nil, err
		}
		if u, ok := db.parseUserByHash(hashes[i], record); ok && u.UnionID == unionID {
			ids = append(ids, u.ID)
		}
	}
	return ids, nil
}
