package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// makeEpochLua makes an epoch unless another gate has made it since it was looked at, and returns what it then is.
const makeEpochLua = readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
return ARGV[2]
`

// moveEpochLua ends all sessions under an epoch. The next one comes from the last: run twice, it goes one further, where a given number would bring back what another gate has ended in between.
// Where there is no epoch no session holds, but a gate's cache may remember some from before the engine lost it.
const moveEpochLua = readLua + `
local now = read(KEYS[1])
if now ~= '' then redis.call('SET', KEYS[1], string.sub(redis.sha1hex(now .. ARGV[1]), 1, 16)) end
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return 1
`

// parseEpoch reads an epoch; the empty one is none.
func (s *Store) parseEpoch(text string) (uint64, bool) {
	if text == "" {
		return 0, false
	}
	e, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 {
		s.damaged("epoch", nil)
		return 0, false
	}
	return e, true
}

// ensureEpoch returns the epoch that was read from key, and makes one when there is none or it cannot be read.
func (db db) ensureEpoch(ctx context.Context, key, was string) (uint64, error) {
	if e, ok := db.parseEpoch(was); ok {
		return e, nil
	}
	now, err := db.scripts.makeEpoch.run(ctx, db.c, call{
		keys: []string{key, db.keys.changed(key)},
		args: []string{was, fmt.Sprintf("%016x", randomEpoch()), strconv.FormatInt(changeKept.Milliseconds(), 10)},
	}).ToString()
	if err != nil {
		return 0, err
	}
	e, ok := db.parseEpoch(now)
	if !ok {
		return 0, fmt.Errorf("making epoch: %w", store.ErrDamaged)
	}
	return e, nil
}

// moveEpoch ends all sessions under an epoch.
func (db db) moveEpoch(ctx context.Context, key string) error {
	res := db.runLasting(ctx, db.scripts.moveEpoch, call{keys: []string{key, db.keys.changed(key)}, args: []string{rand.Text(), strconv.FormatInt(changeKept.Milliseconds(), 10)}})
	return ignoreNil(res.Error())
}

func ignoreNil(err error) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	return err
}

func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return binary.LittleEndian.Uint64(b[:])
}
