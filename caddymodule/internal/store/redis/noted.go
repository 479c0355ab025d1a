package redis

import (
	"context"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Noted implements store.Store.
func (s *Store) Noted(ctx context.Context) (store.Noting, error) {
	var n store.Noting
	err := s.read(ctx, func(ctx context.Context, db db) error {
		record, err := text(db.c.Do(ctx, db.get(db.keys.noted())))
		if err != nil || record == "" {
			return err
		}
		var ok bool
		if n, ok = parseNoted(record); !ok {
			db.damaged("noted", nil)
		}
		return nil
	})
	return n, err
}

// SetNoted implements store.Store.
func (s *Store) SetNoted(ctx context.Context, n store.Noting) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		cmd := db.c.B().Set().Key(db.keys.noted()).Value(notedRecord(n)).Build()
		if n.Every <= 0 {
			cmd = db.c.B().Del().Key(db.keys.noted()).Build()
		}
		return db.c.Do(ctx, cmd).Error()
	})
}

// notedRecord carries a sum like all records.
func notedRecord(n store.Noting) string {
	b := fmt.Appendf(nil, "%016d%016d", n.Every.Milliseconds(), n.Since.UnixMilli())
	return string(fmt.Appendf(b, "%08x", crc32.Checksum(b, castagnoli)))
}

// parseNoted reads what notedRecord wrote.
func parseNoted(record string) (store.Noting, bool) {
	if len(record) != 40 {
		return store.Noting{}, false
	}
	every, err1 := strconv.ParseInt(record[:16], 10, 64)
	since, err2 := strconv.ParseInt(record[16:32], 10, 64)
	sum, err3 := strconv.ParseUint(record[32:], 16, 32)
	if err1 != nil || err2 != nil || err3 != nil || uint32(sum) != crc32.Checksum([]byte(record[:32]), castagnoli) {
		return store.Noting{}, false
	}
	return store.Noting{Every: time.Duration(every) * time.Millisecond, Since: time.UnixMilli(since)}, true
}
