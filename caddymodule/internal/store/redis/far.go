package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	// lookupLife is how long a look-up may go on after its check has given up, so
	// that the client's retry finds the answer in the cache.
	lookupLife = 500 * time.Millisecond

	// answerTime is what a check waits beyond read_timeout.
	answerTime = 10 * time.Millisecond
)

// Patience implements store.Patient.
func (s *Store) Patience() (check, lookup time.Duration) {
	check = s.config().ReadTimeout + answerTime
	return check, max(check, lookupLife)
}

// recordSlow counts a look-up as failed that answered after its check gave up.
func (s *Store) recordSlow(began time.Time) {
	limit := s.config().ReadTimeout
	if took := time.Since(began); took > limit {
		s.link().recordFailure(began, fmt.Errorf("%w: a look-up took %v; read_timeout is %v",
			errSlow, took.Round(time.Millisecond), limit))
	}
}

// roundTrips holds the round-trip times of the last heartbeats of one tracker. The
// shortest tells the distance: a busy machine or server lengthens the others.
type roundTrips struct {
	times [8]time.Duration
	n     int
}

func (r *roundTrips) add(d time.Duration) {
	r.times[r.n%len(r.times)] = d
	r.n++
}

func (r *roundTrips) shortest() time.Duration {
	return slices.Min(r.times[:min(r.n, len(r.times))])
}

// surveyed is the number of heartbeats after which a round-trip time is certain
// enough for a warning.
const surveyed = 4

// measure takes the round-trip times of the primaries after a heartbeat. It warns
// once when a look-up in two rounds does not fit into read_timeout.
func (l *link) measure(c *contact) {
	var rtt time.Duration
	certain := true
	for _, t := range c.trackers {
		rtt = max(rtt, t.trips.shortest())
		certain = certain && t.trips.n >= surveyed
	}
	l.rtt.Store(int64(rtt))
	if certain && 2*rtt > l.cfg.ReadTimeout {
		fits := (4 * rtt).Truncate(10*time.Millisecond) + 10*time.Millisecond
		l.warn(c.trackers[0], "distance", "redis is far away; look-ups may exceed read_timeout",
			fmt.Sprintf("set read_timeout %v in store redis", fits),
			zap.Duration("round_trip", rtt),
			zap.Duration("read_timeout", l.cfg.ReadTimeout))
	}
}

// roundTrip returns the time of one round to the farthest primary.
func (l *link) roundTrip() time.Duration { return time.Duration(l.rtt.Load()) }

// isFar reports whether two rounds would take half of read_timeout. A cluster needs
// both, since the records may be on different servers.
func (s *Store) isFar() bool {
	l := s.link()
	return !l.cfg.Cluster && 4*l.roundTrip() > l.cfg.ReadTimeout && !s.noFar.Load()
}

// farScript reads in one round what a look-up needs. It finds the user's key from
// the session's record, by the SHA-256 of store.UserID.Hash, which takes the server
// 0.1 ms. So only a gate that is far away asks it. It returns the session's record
// and note, and, if it can read the record, the user's hash and record, the two
// epochs and the proof. The keys of the latter cannot be declared: a server that insists on that
// is asked in two rounds.
var farScript = repeatable(readLua + `
local record, note = read(KEYS[1]), read(KEYS[2])
local at = 50
local function text()
	local n = string.byte(record, at)
	if not n or n > 127 or #record < at + n then return nil end
	at = at + n + 1
	return string.sub(record, at - n, at - 1)
end
local appid, openid = text(), text()
if string.byte(record) ~= 1 or not openid then return {record, note} end

local band, bxor, ror, tobit = bit.band, bit.bxor, bit.ror, bit.tobit
local k = {` + sha256Constants + `}
local text = appid .. '\0' .. openid
local n = #text
text = text .. '\128' .. string.rep('\0', (55 - n) % 64) ..
	string.rep('\0', 6) .. string.char(math.floor(n / 32), n % 32 * 8)
local sum = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
	0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
for from = 1, #text, 64 do
	local w = {}
	for i = 1, 16 do
		local p, q, r, s = string.byte(text, from + i * 4 - 4, from + i * 4 - 1)
		w[i] = ((p * 256 + q) * 256 + r) * 256 + s
	end
	for i = 17, 64 do
		local x, y = w[i - 15], w[i - 2]
		x = bxor(ror(x, 7), ror(x, 18), bit.rshift(x, 3))
		y = bxor(ror(y, 17), ror(y, 19), bit.rshift(y, 10))
		w[i] = tobit(w[i - 16] + x + w[i - 7] + y)
	end
	local a, b, c, d, e, f, g, h = unpack(sum)
	for i = 1, 64 do
		local t = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(g, band(e, bxor(f, g)))
		t = t + k[i] + w[i]
		local u = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(c, bxor(a, b)))
		h, g, f, e, d, c, b, a = g, f, e, tobit(d + t), c, b, a, tobit(t + u)
	end
	for i, v in ipairs({a, b, c, d, e, f, g, h}) do sum[i] = tobit(sum[i] + v) end
end
local hash = ''
for i = 1, 4 do hash = hash .. bit.tohex(sum[i]) end
return {record, note, hash, read(ARGV[1] .. 'u:{' .. hash .. '}'),
	read(ARGV[1] .. 'e:{app:' .. appid .. '}'), read(ARGV[1] .. 'e:{all}'),
	read(ARGV[1] .. 'p:{' .. hash .. '}')}
`)

// sha256Constants are the first 32 bits of the fractional parts of the cube roots of
// the first 64 primes.
const sha256Constants = `
0x428a2f98,0x71374491,0xb5c0fbcf,0xe9b5dba5,0x3956c25b,0x59f111f1,0x923f82a4,0xab1c5ed5,
0xd807aa98,0x12835b01,0x243185be,0x550c7dc3,0x72be5d74,0x80deb1fe,0x9bdc06a7,0xc19bf174,
0xe49b69c1,0xefbe4786,0x0fc19dc6,0x240ca1cc,0x2de92c6f,0x4a7484aa,0x5cb0a9dc,0x76f988da,
0x983e5152,0xa831c66d,0xb00327c8,0xbf597fc7,0xc6e00bf3,0xd5a79147,0x06ca6351,0x14292967,
0x27b70a85,0x2e1b2138,0x4d2c6dfc,0x53380d13,0x650a7354,0x766a0abb,0x81c2c92e,0x92722c85,
0xa2bfe8a1,0xa81a664b,0xc24b8b70,0xc76c51a3,0xd192e819,0xd6990624,0xf40e3585,0x106aa070,
0x19a4c116,0x1e376c08,0x2748774c,0x34b0bcb5,0x391c0cb3,0x4ed8aa4a,0x5b9cca4f,0x682e6ff3,
0x748f82ee,0x78a5636f,0x84c87814,0x8cc70208,0x90befffa,0xa4506ceb,0xbef9a3f7,0xc67178f2`

// readFar reads the texts of a look-up in one round: two, or all of them with the
// user's hash. It returns none when the server forbids the script. The first one
// sends the script's text, so that it needs no second round to do so.
func (db db) readFar(ctx context.Context, d store.Digest) (texts []string, err error) {
	x := call{
		keys: []string{db.keys.session(d), db.keys.touched(d)}, args: []string{string(db.keys)},
	}
	var res rueidis.RedisResult
	if db.farKnown.Load() {
		res = farScript.run(ctx, db.c, x)
	} else {
		res = db.c.Do(ctx, farScript.long(db.c, x))
	}
	texts, err = res.AsStrSlice()
	if forbidden(err) {
		db.noFar.Store(true)
		return nil, nil
	}
	db.farKnown.Store(err == nil)
	return texts, err
}

// forbidden reports whether the server does not run a script, now and ever.
func forbidden(err error) bool {
	said, ok := rueidis.IsRedisErr(err)
	if !ok {
		return false
	}
	code, _, _ := strings.Cut(said.Error(), " ")
	return code == "ERR" || code == "NOPERM"
}
