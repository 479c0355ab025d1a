package redis

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	touchEvery = time.Second // longest time that a noted touch waits to be written
	touchBatch = 512         // touches in one round
)

// touchLua notes until when a session is used, if the session is there and no note says longer. An unsigned note is read as
// parseNote reads it, and replaced by one that says the same.
const touchLua = readLua + `
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 0 end
local function used(note)
	local at = tonumber(string.sub(note, 1, 16)) or 0
	if string.sub(note, 1, 1) ~= '+' then at = at + 3600000 end
	return at
end
if used(read(KEYS[2])) <= used(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1], 'PX', left) end
return 1
`

// Touch implements store.Store. A time before 1970 is no time of ours, and the record has no room for its sign.
func (s *Store) Touch(d store.Digest, until time.Time) {
	if until.UnixMilli() >= 0 {
		s.touches.Add(d, until)
	}
}

// flushLoop writes touches until Close, and then what is left.
func (s *Store) flushLoop() {
	defer close(s.flushed)
	timer := time.NewTimer(touchEvery)
	timer.Stop()
	for {
		select {
		case <-s.touches.Arrived():
			timer.Reset(touchEvery)
		case <-timer.C:
			_ = s.flush() // the link tells of an outage
		case <-s.closing:
			if err := s.flush(); err != nil {
				s.log.Warn("notes of the last uses of sessions are lost", zap.Error(err))
			}
			return
		}
	}
}

// flush writes what Touch has collected. What could not be written waits for the next time: the sessions were in use all the same, and an outage must not bring their idle limit.
func (s *Store) flush() error {
	used := s.touches.Take()
	if len(used) == 0 {
		return nil
	}
	err := s.writeTouches(used)
	if err != nil {
		for d, until := range used {
			s.touches.Add(d, until)
		}
	}
	return err
}

func (s *Store) writeTouches(used map[store.Digest]time.Time) error {
	c, err := s.link.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.cfg.WriteTimeout, errSlow)
	defer cancel()
	calls := make([]call, 0, len(used))
	for d, until := range used {
		calls = append(calls, call{keys: []string{s.keys.session(d), s.keys.touched(d)}, args: []string{noteOf(until)}})
	}
	for batch := range slices.Chunk(calls, touchBatch) {
		if err := s.scripts.touch.runAll(ctx, c, batch); err != nil {
			return cause(ctx, err)
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// noteOf returns the note that a session is used until t. It carries a sum like all records: a bit that flips must
// not keep an idle session alive. The sign tells it from the notes of the first release, which say when the session was
// last seen. That release reads past the sign: to it, the session was seen a little later than it was.
func noteOf(until time.Time) string {
	b := fmt.Appendf(make([]byte, 0, noteLen), "%+016d", until.UnixMilli())
	return string(fmt.Appendf(b, "%08x", crc32.Checksum(b, castagnoli)))
}

const noteLen = 24

// parseNote reads what noteOf wrote. It reads an unsigned note as one that was made at the longest interval, since the
// one at which it was made is not known.
func (s *Store) parseNote(d store.Digest, note string) (until time.Time, signed, ok bool) {
	if len(note) == noteLen {
		ms, err1 := strconv.ParseInt(note[:16], 10, 64)
		sum, err2 := strconv.ParseUint(note[16:], 16, 32)
		if err1 == nil && err2 == nil && uint32(sum) == crc32.Checksum([]byte(note[:16]), castagnoli) {
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
