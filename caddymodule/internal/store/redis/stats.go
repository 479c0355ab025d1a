package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	scanCount = 1000             // keys that a server looks at in one go: well under a millisecond
	statsWait = 30 * time.Second // longest walk
)

// Stats implements store.Store. Bytes and FreeBytes are those of the primaries, with all that else is stored there; nothing is said to be free when they have no limit.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	var st store.Stats
	err := s.ask(ctx, "measuring session store", statsWait, func(ctx context.Context, db db) (err error) {
		st = store.Stats{}
		for _, node := range db.c.Nodes() {
			if err = db.addNode(ctx, node, &st); err != nil {
				break
			}
		}
		return err
	})
	if err != nil {
		return store.Stats{}, err
	}
	return st, nil
}

// addNode adds what one node holds if it is a primary.
func (db db) addNode(ctx context.Context, node rueidis.Client, st *store.Stats) error {
	info, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		return err
	}
	if infoField(info, "role") != "master" {
		return nil
	}
	used, limit := infoBytes(info, "used_memory"), infoBytes(info, "maxmemory")
	st.Bytes += max(used, limit)
	st.FreeBytes += max(0, limit-used)
	return db.walk(ctx, node, st)
}

// walk counts the sessions and users of one node. It asks each session for its time to live: a note of the last one would have to be believed, and could get lost.
func (db db) walk(ctx context.Context, node rueidis.Client, st *store.Stats) error {
	sessions, users := string(db.keys)+"s:", string(db.keys)+"u:"
	for cursor := uint64(0); ; {
		e, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(globLiteral(string(db.keys))+"[su]:*").Count(scanCount).Build()).AsScanEntry()
		if err != nil {
			return err
		}
		var cmds []rueidis.Completed
		for _, k := range e.Elements {
			switch {
			case strings.HasPrefix(k, sessions):
				cmds = append(cmds, db.c.B().Pttl().Key(k).Build())
			case strings.HasPrefix(k, users):
				st.Users++
			}
		}
		if err := db.addSessions(ctx, cmds, st); err != nil {
			return err
		}
		if cursor = e.Cursor; cursor == 0 {
			return nil
		}
	}
}

// addSessions adds the sessions that still have time to live.
func (db db) addSessions(ctx context.Context, pttls []rueidis.Completed, st *store.Stats) error {
	for _, res := range db.c.DoMulti(ctx, pttls...) {
		left, err := res.AsInt64()
		if err != nil {
			return err
		}
		if left < 0 {
			continue
		}
		st.Sessions++
		if until := time.Now().Add(time.Duration(left) * time.Millisecond); until.After(st.LastExpiry) {
			st.LastExpiry = until
		}
	}
	return nil
}

// globLiteral makes a pattern that matches only s.
func globLiteral(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}

// infoField returns a field of INFO, which is lines of name:value.
func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func infoBytes(info, name string) int64 {
	n, _ := strconv.ParseInt(infoField(info, name), 10, 64)
	return n
}
