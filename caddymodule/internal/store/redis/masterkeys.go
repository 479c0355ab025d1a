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

// The need for a master key is a fact under an epoch: a session needs its key
// while it lives, and it lives under the epoch of everybody that its login saw.
// So revoking everybody ends every need, and no later login can lose its need
// to a revocation that overtakes it.
//
// Gates of the first release keep needs of their own in another hash, which
// they replace as a whole. Gates of this release add their needs there and read
// what is there, so that both refuse a start without a key that sessions need.

// readNeedsLua reads a hash of needs. What is no hash is removed.
const readNeedsLua = `
local function readNeeds(key)
	local all = redis.pcall('HGETALL', key)
	if not all.err then return all end
	if not string.find(all.err, 'WRONGTYPE', 1, true) then return redis.call('HGETALL', key) end
	redis.call('DEL', key)
	return {}
end
`

// needLua lengthens the need in a field of a hash, and removes those of the past.
const needLua = readNeedsLua + `
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
redis.call('HSET', KEYS[1], field, ends, unpack(kept))
return 1
`

// freeLua shortens all needs in a hash.
const freeLua = readNeedsLua + `
local all = readNeeds(KEYS[1])
for i = 1, #all, 2 do
	local at = tonumber(all[i + 1])
	if not at or at > tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], all[i], ARGV[1]) end
end
return 1
`

const (
	// freeAfter is how long needs of the first release last after a revocation of
	// everybody: its gates record once a minute that they still sign with a key.
	freeAfter = 2 * time.Minute

	// needsKept is how long a need stays on record after its end, for gates whose
	// clocks differ.
	needsKept = 24 * time.Hour
)

// openEnd stands for a need of the first release without an end.
var openEnd = time.Date(9999, time.January, 1, 0, 0, 0, 0, time.UTC)

// needsFresh is how long logins go by the needs that one of them has read: much
// shorter than a failover takes, which may lose a need.
const needsFresh = time.Second

// recentNeeds are the needs of this release as they were at a time.
type recentNeeds struct {
	at    time.Time
	needs map[string]time.Time
}

// MasterKeys implements store.Store.
func (s *Store) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	needs := make(map[store.MasterKeyID]time.Time)
	err := s.read(ctx, func(ctx context.Context, db db) error {
		answers := db.c.DoMulti(ctx,
			db.get(db.keys.all()),
			db.c.B().Hgetall().Key(db.keys.needs()).Build(),
			db.c.B().Hgetall().Key(db.keys.firstNeeds()).Build(),
		)
		epoch, err := text(answers[0])
		if err != nil {
			return err
		}
		for i, suffix := range []string{epoch, ""} {
			fields, err := db.needs(answers[1+i])
			if err != nil {
				return err
			}
			for field, until := range fields {
				if id, ok := parseNeedField(field, suffix); ok && until.After(needs[id]) {
					needs[id] = until
				}
			}
		}
		return nil
	})
	return needs, err
}

// NeedMasterKeys implements store.Loader.
func (s *Store) NeedMasterKeys(ctx context.Context, needs map[store.MasterKeyID]time.Time) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		was, err := text(db.c.Do(ctx, db.get(db.keys.all())))
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
		return db.scripts.need.runAll(ctx, db.c, calls)
	})
}

// loginNeeds returns the runs of needLua for a login.
func (db db) loginNeeds(l store.Login, a *arrival) []call {
	recorded := a.needs[needField(l.MasterKey, a.epochs.Global)]
	until := l.MasterKeyNeed(recorded)
	if until.Equal(recorded) {
		return nil
	}
	db.lastNeeds.Store(nil)
	return db.needCalls(l.MasterKey, a.epochs.Global, until, l.Created)
}

// needCalls returns the runs of needLua that record a need: for this release,
// and for the first.
func (db db) needCalls(id store.MasterKeyID, epoch uint64, until, now time.Time) []call {
	old := millis(now.Add(-needsKept))
	return []call{
		{keys: []string{db.keys.needs()}, args: []string{needField(id, epoch), millis(until), old}},
		{keys: []string{db.keys.firstNeeds()}, args: []string{id.String(), millis(until), old}},
	}
}

// freeFirstNeeds lets the needs of the first release end soon.
func (db db) freeFirstNeeds(ctx context.Context) error {
	return db.scripts.free.run(ctx, db.c, call{
		keys: []string{db.keys.firstNeeds()},
		args: []string{millis(time.Now().Add(freeAfter))},
	}).Error()
}

// needs reads the answer of HGETALL.
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
	if len(field) != hex.EncodedLen(len(id))+len(suffix) || field[hex.EncodedLen(len(id)):] != suffix {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(field[:hex.EncodedLen(len(id))]))
	return id, err == nil
}
