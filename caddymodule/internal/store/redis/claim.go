package redis

import (
	"context"
	"strconv"
	"time"
)

// claimLua takes a name. Each claim has a value of its own, so one whose answer was lost is known again.
const claimLua = readLua + `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if read(KEYS[1]) == ARGV[1] then return 1 end
return 0
`

// unclaimLua gives up a name if the store with the given id holds it. Sent twice it could give up the next claim, too.
const unclaimLua = readLua + `
if string.sub(read(KEYS[1]), 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`

// Claim implements store.Shared. After an error the name may be taken until ttl is over.
func (s *Store) Claim(ctx context.Context, name [32]byte, ttl time.Duration) (bool, error) {
	var mine bool
	err := s.write(ctx, func(ctx context.Context, db db) error {
		value := s.id + " " + strconv.FormatUint(s.claims.Add(1), 10)
		n, err := db.scripts.claim.run(ctx, db.c, call{
			keys: []string{db.keys.claim(name)},
			args: []string{value, strconv.FormatInt(max(1, ttl.Milliseconds()), 10)},
		}).AsInt64()
		mine = n == 1
		return err
	})
	return mine && err == nil, err
}

// Unclaim implements store.Shared.
func (s *Store) Unclaim(ctx context.Context, name [32]byte) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		return db.scripts.unclaim.run(ctx, db.c, call{keys: []string{db.keys.claim(name)}, args: []string{s.id + " "}}).Error()
	})
}
