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

// touchLua notes when a session was seen, if it is there and was not seen later.
const touchLua = readLua + `
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 0 end
local last = tonumber(string.sub(read(KEYS[2]), 1, 16)) or 0
if last < tonumber(string.sub(ARGV[1], 1, 16)) then redis.call('SET', KEYS[2], ARGV[1], 'PX', left) end
return 1
`

// Touch implements store.Store. A time before 1970 is no time of ours, and the record has no room for its sign.
func (s *Store) Touch(d store.Digest, t time.Time) {
	if t.UnixMilli() >= 0 {
		s.touches.Add(d, t)
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
				s.log.Warn("the last times that sessions were seen at are lost", zap.Error(err))
			}
			return
		}
	}
}

// flush writes what Touch has collected. What could not be written waits for the next time: the sessions were in use all the same, and an outage must not bring their idle limit.
func (s *Store) flush() error {
	seen := s.touches.Take()
	if len(seen) == 0 {
		return nil
	}
	err := s.writeTouches(seen)
	if err != nil {
		for d, t := range seen {
			s.touches.Add(d, t)
		}
	}
	return err
}

func (s *Store) writeTouches(seen map[store.Digest]time.Time) error {
	c, err := s.link.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.cfg.WriteTimeout, errSlow)
	defer cancel()
	calls := make([]call, 0, len(seen))
	for d, t := range seen {
		calls = append(calls, call{keys: []string{s.keys.session(d), s.keys.touched(d)}, args: []string{touchRecord(t)}})
	}
	for batch := range slices.Chunk(calls, touchBatch) {
		if err := s.scripts.touch.runAll(ctx, c, batch); err != nil {
			return cause(ctx, err)
		}
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// touchRecord carries a sum like all records: a bit that flips must not keep an idle session alive.
func touchRecord(t time.Time) string {
	b := fmt.Appendf(make([]byte, 0, 24), "%016d", t.UnixMilli())
	return string(fmt.Appendf(b, "%08x", crc32.Checksum(b, castagnoli)))
}

// parseTouch reads what touchRecord wrote.
func (s *Store) parseTouch(d store.Digest, record string) (time.Time, bool) {
	if len(record) == 24 {
		ms, err1 := strconv.ParseInt(record[:16], 10, 64)
		sum, err2 := strconv.ParseUint(record[16:], 16, 32)
		if err1 == nil && err2 == nil && uint32(sum) == crc32.Checksum([]byte(record[:16]), castagnoli) {
			return time.UnixMilli(ms), true
		}
	}
	s.damaged("touch", d[:])
	return time.Time{}, false
}
