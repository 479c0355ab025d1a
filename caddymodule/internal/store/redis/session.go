package redis

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Lookup implements store.Store, in two rounds: only the session's record names the
// user, whose record may be on another server. A gate that is far from its server
// asks in one round, if it can. A look-up may take longer than its check waits.
func (s *Store) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	began := time.Now()
	by := func(ctx context.Context, f func(context.Context, db) error) error {
		_, most := s.Patience()
		return s.ask(ctx, "reading session store", most, f)
	}
	rec, err := result(ctx, by, func(ctx context.Context, db db) (store.Record, error) {
		return db.lookup(ctx, d)
	})
	if err == nil {
		s.recordSlow(began)
	}
	return rec, err
}

func (db db) lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	var texts []string
	var err error
	if db.isFar() {
		texts, err = db.readFar(ctx, d)
	}
	if texts == nil && err == nil {
		texts, err = db.get(ctx, db.keys.session(d), db.keys.touched(d))
	}
	if err != nil {
		return store.Record{}, err
	}
	ses, signed, ok := db.parsePair(d, texts[0], texts[1])
	if !ok {
		return store.Record{}, store.ErrNotFound
	}
	if !signed {
		// A gate of the first release sees the uses at this gate only in a note, and
		// the next note may come late.
		db.Touch(d, ses.UsedUntil)
	}
	h := ses.User.Hash()
	if len(texts) > 2 && texts[2] == hex.EncodeToString(h[:]) {
		texts = texts[3:]
	} else {
		texts, err = db.get(ctx, db.keys.user(h), db.keys.app(ses.User.AppID), db.keys.all(),
			db.keys.proof(h))
	}
	if err != nil {
		return store.Record{}, err
	}
	u, ok1 := db.parseUser(ses.User, h, texts[0])
	app, ok2 := db.parseEpoch(texts[1])
	all, ok3 := db.parseEpoch(texts[2])
	if !ok1 || !ok2 || !ok3 {
		return store.Record{}, store.ErrNotFound
	}
	return store.Record{
		Session: ses,
		UnionID: u.UnionID,
		Proof:   proofOf(texts[3]),
		Phone:   u.Phone,
		Current: store.Epochs{Global: all, App: app, User: u.Epoch},
	}, nil
}

// parsePair makes a session of its record and its note, which are empty when they
// do not exist. The result is not signed when a gate of the first release may have
// written its last use.
func (db db) parsePair(d store.Digest, record, note string) (ses store.Session, signed, ok bool) {
	if record == "" {
		return store.Session{}, false, false
	}
	if ses, ok = db.parseSession(d, record); !ok {
		return store.Session{}, false, false
	}
	if note == "" {
		return ses, ses.UsedUntil.Before(ses.Created.Add(store.MaxTouchInterval)), true
	}
	until, signed, readable := db.parseNote(d, note)
	if readable && until.After(ses.UsedUntil) {
		ses.UsedUntil = until
	}
	return ses, signed, true
}

func (s *Store) parseSession(d store.Digest, record string) (store.Session, bool) {
	var ses store.Session
	if err := ses.UnmarshalBinary([]byte(record)); err != nil {
		s.damaged("session", d[:])
		return store.Session{}, false
	}
	return ses, true
}

const (
	touchEvery = time.Second // longest time that a note waits for its write
	touchBatch = 512         // notes in one round
)

// touchScript writes a note if the session exists and no note is later. It reads an
// unsigned note as parseNote does, and replaces one that says the same.
var touchScript = repeatable(readLua + `
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 0 end
local function used(note)
	local at = tonumber(string.sub(note, 1, 16)) or 0
	if string.sub(note, 1, 1) ~= '+' then at = at + 3600000 end
	return at
end
if used(read(KEYS[2])) <= used(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1], 'PX', left) end
return 1
`)

// Touch implements store.Store. It skips a time before 1970, for whose sign the
// note has no room.
func (s *Store) Touch(d store.Digest, until time.Time) {
	if until.UnixMilli() >= 0 {
		s.touches.Add(d, until)
	}
}

// flushLoop writes notes until Close, and then the rest.
func (s *Store) flushLoop() {
	defer close(s.flushed)
	timer := time.NewTimer(touchEvery)
	timer.Stop()
	for {
		select {
		case <-s.touches.Arrived():
			timer.Reset(touchEvery)
		case <-timer.C:
			_ = s.flush() // the link logs an outage
		case <-s.closing:
			if err := s.flush(); err != nil {
				s.log.Warn("notes of the last uses of sessions are lost", zap.Error(err))
			}
			return
		}
	}
}

// flush writes the notes that Touch has collected. Notes that fail wait for the
// next time, so that an outage does not bring the idle timeout.
func (s *Store) flush() error {
	used := s.touches.Take()
	for batch := range slices.Chunk(slices.Collect(maps.Keys(used)), touchBatch) {
		if err := s.writeNotes(used, batch); err != nil {
			for d, until := range used {
				s.touches.Add(d, until)
			}
			return err
		}
		for _, d := range batch {
			delete(used, d)
		}
	}
	return nil
}

func (s *Store) writeNotes(used map[store.Digest]time.Time, batch []store.Digest) error {
	c, err := s.link().client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.config().WriteTimeout, errSlow)
	defer cancel()
	calls := make([]call, len(batch))
	for i, d := range batch {
		calls[i] = s.touchCall(d, used[d])
	}
	if err := touchScript.runAll(ctx, c, calls); err != nil {
		return cause(ctx, err)
	}
	return nil
}

func (s *Store) touchCall(d store.Digest, until time.Time) call {
	return call{
		keys: []string{s.keys.session(d), s.keys.touched(d)},
		args: []string{noteOf(until)},
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// noteOf returns the note that a session is used until t: a sign, milliseconds in
// 15 digits, and their CRC-32C in hex, so that a flipped bit keeps no idle session
// alive. The first release writes no sign and the time of the last use instead. It
// reads past the sign: to it, the session was used a little later than it was.
func noteOf(until time.Time) string {
	b := fmt.Appendf(make([]byte, 0, noteLen), "%+016d", until.UnixMilli())
	return string(fmt.Appendf(b, "%08x", crc32.Checksum(b, castagnoli)))
}

const noteLen = 24

// parseNote reads what noteOf writes. It reads an unsigned note as made at the
// longest interval, since it does not know the interval of that gate.
func (s *Store) parseNote(d store.Digest, note string) (until time.Time, signed, ok bool) {
	if len(note) == noteLen {
		ms, err1 := strconv.ParseInt(note[:16], 10, 64)
		sum, err2 := strconv.ParseUint(note[16:], 16, 32)
		intact := uint32(sum) == crc32.Checksum([]byte(note[:16]), castagnoli)
		if err1 == nil && err2 == nil && intact {
			until, signed = time.UnixMilli(ms), note[0] == '+'
			if !signed {
				until = until.Add(store.MaxTouchInterval)
			}
			return until, signed, true
		}
	}
	s.damaged("touch", d[:])
	return time.Time{}, false, false
}

// get reads keys in one round. A missing key is empty, which no record is.
func (db db) get(ctx context.Context, keys ...string) ([]string, error) {
	return textsOf(db.c.DoMulti(ctx, db.gets(keys)...))
}

func (db db) getOne(ctx context.Context, key string) (string, error) {
	return text(db.c.Do(ctx, db.gets([]string{key})[0]))
}

// gets returns one command for each key, since a cluster refuses a command with a
// missing key while it moves the slot.
func (db db) gets(keys []string) []rueidis.Completed {
	cmds := make([]rueidis.Completed, len(keys), len(keys)+2)
	for i, k := range keys {
		cmds[i] = db.c.B().Get().Key(k).Build()
	}
	return cmds
}

func textsOf(answers []rueidis.RedisResult) (texts []string, err error) {
	texts = make([]string, len(answers))
	for i, res := range answers {
		if texts[i], err = text(res); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// foreign stands for a key that holds no string: as a record it is damaged. The
// scripts read the same.
const foreign = "WRONGTYPE"

// readLua reads a record in a script.
const readLua = `
local function read(key)
	local v = redis.pcall('GET', key)
	if type(v) ~= 'table' then return v or '' end
	if string.find(v.err, 'WRONGTYPE', 1, true) then return 'WRONGTYPE' end
	return redis.call('GET', key)
end
`

// text returns the string that a key holds, empty for a missing key.
func text(res rueidis.RedisResult) (string, error) {
	s, err := res.ToString()
	switch {
	case rueidis.IsRedisNil(err):
		return "", nil
	case wrongType(err):
		return foreign, nil
	}
	return s, err
}

// wrongType reports whether a key holds another kind than its name says.
func wrongType(err error) bool {
	said, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(said.Error(), foreign)
}
