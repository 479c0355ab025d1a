package redis

import (
	"context"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// setKeysLua replaces a hash.
const setKeysLua = `
redis.call('DEL', KEYS[1])
for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
`

// SetKeys implements store.Store.
func (s *Store) SetKeys(ctx context.Context, keys map[store.KeyID]time.Time) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		x := call{keys: []string{db.keys.masterKeys()}}
		for id, until := range keys {
			v := ""
			if !until.IsZero() {
				v = millis(until)
			}
			x.args = append(x.args, id.String(), v)
		}
		return db.scripts.setKeys.run(ctx, db.c, x).Error()
	})
}

// Keys implements store.Store.
func (s *Store) Keys(ctx context.Context) (map[store.KeyID]time.Time, error) {
	var keys map[store.KeyID]time.Time
	err := s.read(ctx, func(ctx context.Context, db db) error {
		fields, err := db.c.Do(ctx, db.c.B().Hgetall().Key(db.keys.masterKeys()).Build()).AsStrMap()
		if wrongType(err) {
			db.damaged("key", nil)
		} else if err != nil {
			return err
		}
		keys = make(map[store.KeyID]time.Time, len(fields))
		for name, v := range fields {
			if id, until, ok := parseKey(name, v); ok {
				keys[id] = until
			} else {
				db.damaged("key", []byte(name))
			}
		}
		return nil
	})
	return keys, err
}

func parseKey(name, v string) (id store.KeyID, until time.Time, ok bool) {
	if len(name) != hex.EncodedLen(len(id)) {
		return id, until, false
	}
	if _, err := hex.Decode(id[:], []byte(name)); err != nil || v == "" {
		return id, until, err == nil
	}
	ms, err := strconv.ParseInt(v, 10, 64)
	return id, time.UnixMilli(ms), err == nil
}
