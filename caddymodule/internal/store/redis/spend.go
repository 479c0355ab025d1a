package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// spendLua takes one from a bucket and returns 0, or how many microseconds it is empty for (GCRA). What is kept is when the bucket will be full, by the server's clock, so that it goes by
// itself at that moment. A time further away than an empty bucket takes to fill comes from a clock that was set back, or from another rate.
const spendLua = readLua + `
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(read(KEYS[1])) or now
full = math.max(now, math.min(full, now + every * burst)) + every
local wait = full - now - every * burst
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return 0
`

// Spend implements store.Shared. It needs no more than one answer, so it waits as short as a look-up.
func (s *Store) Spend(ctx context.Context, key string, r store.Rate) (time.Duration, error) {
	var wait time.Duration
	err := s.read(ctx, func(ctx context.Context, db db) error {
		us, err := db.scripts.spend.run(ctx, db.c, call{
			keys: []string{db.keys.bucket(key)},
			args: []string{strconv.FormatInt(max(1, r.Every.Microseconds()), 10), strconv.Itoa(max(1, r.Burst))},
		}).AsInt64()
		wait = time.Duration(us) * time.Microsecond
		return err
	})
	return wait, err
}
