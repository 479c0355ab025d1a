package redis

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// spendScript takes one from a bucket and returns 0, or the microseconds until the
// bucket is not empty (GCRA). The record is the time when the bucket will be full,
// by the server's clock, and it expires then. A time too far ahead comes from a clock
// that was set back, or from another rate.
var spendScript = once(readLua + `
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local every, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(read(KEYS[1])) or now
full = math.max(now, math.min(full, now + every * burst)) + every
local wait = full - now - every * burst
if wait > 0 then return math.ceil(wait) end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return 0
`)

// Spend implements store.Shared. It takes one round, so it waits no longer than a
// look-up.
func (s *Store) Spend(ctx context.Context, key string, r store.Rate) (time.Duration, error) {
	return result(ctx, s.read, func(ctx context.Context, db db) (time.Duration, error) {
		us, err := spendScript.run(ctx, db.c, call{
			keys: []string{db.keys.bucket(key)},
			args: []string{
				strconv.FormatInt(max(1, r.Every.Microseconds()), 10),
				strconv.Itoa(max(1, r.Burst)),
			},
		}).AsInt64()
		return time.Duration(us) * time.Microsecond, err
	})
}

// The need for a master key is a fact under an epoch: a session needs its key while
// it lives, and it lives under the epoch of all that its login saw. So a revocation
// of all ends every need, and no later login can lose its need to a revocation that
// overtakes it.
//
// Gates of the first release keep needs in another hash, which they replace as a
// whole. This release adds its needs there and reads that hash, so that both refuse
// to start without a key that sessions need.

// readNeedsLua reads a hash of needs, and removes a key that is no hash.
const readNeedsLua = `
local function readNeeds(key)
	local all = redis.pcall('HGETALL', key)
	if not all.err then return all end
	if not string.find(all.err, 'WRONGTYPE', 1, true) then return redis.call('HGETALL', key) end
	redis.call('DEL', key)
	return {}
end
`

// needScript lengthens the need in a field of a hash, and removes needs of the past.
var needScript = repeatable(readNeedsLua + `
local all, field, ends, now = readNeeds(KEYS[1]), ARGV[1], ARGV[2], tonumber(ARGV[3])
local kept = {}
for i = 1, #all, 2 do
	local at = tonumber(all[i + 1])
	if all[i] == field then
		if not at or at > tonumber(ends) then ends = all[i + 1] end
	elseif not at or at > now then
		kept[#kept + 1] = all[i]
		kept[#kept + 1] = all[i + 1]
	end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], field, ends)
for i = 1, #kept, 2 do redis.call('HSET', KEYS[1], kept[i], kept[i + 1]) end
return 1
`)

// freeScript shortens all needs in a hash.
var freeScript = repeatable(readNeedsLua + `
local all = readNeeds(KEYS[1])
for i = 1, #all, 2 do
	local at = tonumber(all[i + 1])
	if not at or at > tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], all[i], ARGV[1]) end
end
return 1
`)

const (
	// freeAfter is the rest of a need of the first release after a revocation of all:
	// its gates record once a minute that they still sign with a key.
	freeAfter = 2 * time.Minute

	needsKept = 24 * time.Hour // after the end of a need, for clocks that differ
)

// openEnd stands for a need of the first release without an end.
var openEnd = time.Date(9999, time.January, 1, 0, 0, 0, 0, time.UTC)

// MasterKeys implements store.Store.
func (s *Store) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	type needs = map[store.MasterKeyID]time.Time
	return result(ctx, s.read, func(ctx context.Context, db db) (needs, error) {
		hash := func(key string) rueidis.Completed { return db.c.B().Hgetall().Key(key).Build() }
		answers := db.c.DoMulti(ctx, append(db.gets([]string{db.keys.all()}),
			hash(db.keys.needs()), hash(db.keys.firstNeeds()))...)
		epoch, err := text(answers[0])
		if err != nil {
			return nil, err
		}
		all := make(needs)
		for i, suffix := range []string{epoch, ""} {
			fields, err := db.needs(answers[1+i])
			if err != nil {
				return nil, err
			}
			for field, until := range fields {
				if id, ok := parseNeedField(field, suffix); ok && until.After(all[id]) {
					all[id] = until
				}
			}
		}
		return all, nil
	})
}

// NeedMasterKeys implements store.Loader.
func (s *Store) NeedMasterKeys(
	ctx context.Context, needs map[store.MasterKeyID]time.Time,
) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		was, err := db.getOne(ctx, db.keys.all())
		if err != nil {
			return err
		}
		epoch, err := db.ensureEpoch(ctx, db.keys.all(), was)
		if err != nil {
			return err
		}
		var calls []call
		for id, until := range needs {
			calls = append(calls, db.needCalls(id, epoch, until, time.Now())...)
		}
		return needScript.runAll(ctx, db.c, calls)
	})
}

// needsFresh is how long logins go by the needs that one of them has read. It is
// shorter than a failover, which may lose a need.
const needsFresh = time.Second

// recentNeeds are the needs of this release at a time.
type recentNeeds struct {
	at    time.Time
	needs map[string]time.Time
}

// loginNeeds returns the runs of needScript for a login, none when the need is on
// record.
func (db db) loginNeeds(l store.Login, found loginState) []call {
	recorded := found.needed[needField(l.MasterKey, found.epochs.Global)]
	until := l.MasterKeyNeed(recorded)
	if until.Equal(recorded) {
		return nil
	}
	db.lastNeeds.Store(nil)
	return db.needCalls(l.MasterKey, found.epochs.Global, until, l.Created)
}

// needCalls returns the runs of needScript that record a need, for this release and
// for the first.
func (db db) needCalls(id store.MasterKeyID, epoch uint64, until, now time.Time) []call {
	old := millis(now.Add(-needsKept))
	return []call{
		{[]string{db.keys.needs()}, []string{needField(id, epoch), millis(until), old}},
		{[]string{db.keys.firstNeeds()}, []string{id.String(), millis(until), old}},
	}
}

// freeFirstNeeds makes the needs of the first release end soon.
func (db db) freeFirstNeeds(ctx context.Context) error {
	return freeScript.run(ctx, db.c, call{
		keys: []string{db.keys.firstNeeds()},
		args: []string{millis(time.Now().Add(freeAfter))},
	}).Error()
}

// needs reads the answer to HGETALL.
func (s *Store) needs(res rueidis.RedisResult) (map[string]time.Time, error) {
	fields, err := res.AsStrMap()
	if wrongType(err) {
		s.damaged("key", nil)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	needs := make(map[string]time.Time, len(fields))
	for field, v := range fields {
		ms, err := strconv.ParseInt(v, 10, 64)
		switch {
		case v == "":
			needs[field] = openEnd
		case err != nil:
			s.damaged("key", []byte(field))
		default:
			needs[field] = time.UnixMilli(ms)
		}
	}
	return needs, nil
}

func needField(id store.MasterKeyID, epoch uint64) string {
	b := append(make([]byte, 0, 12), id[:]...)
	return hex.EncodeToString(binary.BigEndian.AppendUint64(b, epoch))
}

// parseNeedField reads the name of a field that ends in suffix.
func parseNeedField(field, suffix string) (id store.MasterKeyID, ok bool) {
	n := hex.EncodedLen(len(id))
	if len(field) != n+len(suffix) || field[n:] != suffix {
		return id, false
	}
	return id, unhex(id[:], field[:n])
}

// setFactScript replaces a fact unless it has changed since the caller read it, and
// returns the fact that is there.
var setFactScript = repeatable(readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
`)

// Fact implements store.Store.
func (s *Store) Fact(ctx context.Context, name string) ([]byte, error) {
	return result(ctx, s.read, func(ctx context.Context, db db) ([]byte, error) {
		v, err := db.getOne(ctx, db.keys.fact(name))
		return bytesOf(v), err
	})
}

// SetFact implements store.Store.
func (s *Store) SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error) {
	return result(ctx, s.write, func(ctx context.Context, db db) ([]byte, error) {
		x := call{
			keys: []string{db.keys.fact(name)}, args: []string{string(was), string(value)},
		}
		now, err := db.runFor(ctx, setFactScript, x, true).ToString()
		return bytesOf(now), err
	})
}

// bytesOf returns nil for what is not there.
func bytesOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}
