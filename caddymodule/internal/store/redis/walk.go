package redis

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	_ store.Dumper = (*Store)(nil)
	_ store.Loader = (*Store)(nil)
)

const (
	scanCount = 1000             // keys in one step: well under a millisecond of the server
	walkWait  = 30 * time.Second // for one step of a dump or load, or for Stats
)

// Stats implements store.Store. Bytes and FreeBytes are those of the primaries, with
// all other data in them; FreeBytes is 0 without a limit. It asks each session for
// its time to live, since a record of the last one could get lost.
func (s *Store) Stats(ctx context.Context) (store.Stats, error) {
	by := func(ctx context.Context, f func(context.Context, db) error) error {
		return s.ask(ctx, "measuring session store", walkWait, f)
	}
	return result(ctx, by, func(ctx context.Context, db db) (st store.Stats, err error) {
		primaries, err := db.primaries(ctx)
		if err != nil {
			return st, err
		}
		for _, p := range primaries {
			used, limit := infoBytes(p.info, "used_memory"), infoBytes(p.info, "maxmemory")
			st.Bytes += max(used, limit)
			st.FreeBytes += max(0, limit-used)
			for next := uint64(0); ; {
				var keys []string
				if keys, next, err = db.scan(ctx, p, next, "[su]:"); err != nil {
					return st, err
				}
				if err := db.count(ctx, keys, &st); err != nil {
					return st, err
				}
				if next == 0 {
					break
				}
			}
		}
		return st, nil
	})
}

// count adds the keys of users, and of sessions that still have time to live.
func (db db) count(ctx context.Context, keys []string, st *store.Stats) error {
	var cmds []rueidis.Completed
	for _, k := range keys {
		if strings.HasPrefix(k, string(db.keys)+"s:") {
			cmds = append(cmds, db.c.B().Pttl().Key(k).Build())
		} else {
			st.Users++
		}
	}
	for _, res := range db.c.DoMulti(ctx, cmds...) {
		left, err := res.AsInt64()
		if err != nil {
			return err
		}
		if left < 0 {
			continue
		}
		st.Sessions++
		until := time.Now().Add(time.Duration(left) * time.Millisecond)
		if until.After(st.LastExpiry) {
			st.LastExpiry = until
		}
	}
	return nil
}

// node is a primary with its answer to INFO.
type node struct {
	rueidis.Client
	info string
}

func (db db) primaries(ctx context.Context) (list []node, err error) {
	for _, c := range db.c.Nodes() {
		info, err := c.Do(ctx, c.B().Info().Build()).ToString()
		if err != nil {
			return nil, err
		}
		if infoField(info, "role") == "master" {
			list = append(list, node{c, info})
		}
	}
	return list, nil
}

// scan returns the keys that a primary finds in one step, and the cursor of the
// next. kind is a pattern for what follows the prefix.
func (db db) scan(
	ctx context.Context, n node, cursor uint64, kind string,
) (keys []string, next uint64, err error) {
	pattern := globLiteral(string(db.keys)) + kind + "*"
	scan := n.B().Scan().Cursor(cursor).Match(pattern).Count(scanCount).Build()
	e, err := n.Do(ctx, scan).AsScanEntry()
	return e.Elements, e.Cursor, err
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

// Dump implements store.Dumper. It walks the primaries that there are at its begin.
func (s *Store) Dump(ctx context.Context, f func(store.Item) error) error {
	by := func(ctx context.Context, f func(context.Context, db) error) error {
		return s.ask(ctx, "reading session store", walkWait, f)
	}
	primaries, err := result(ctx, by, func(ctx context.Context, db db) ([]node, error) {
		return db.primaries(ctx)
	})
	if err != nil {
		return err
	}
	for _, p := range primaries {
		for next := uint64(0); ; {
			var items []store.Item
			err := by(ctx, func(ctx context.Context, db db) (err error) {
				items, next, err = db.dump(ctx, p, next)
				return err
			})
			if err != nil {
				return err
			}
			for _, it := range items {
				if err := f(it); err != nil {
					return err
				}
			}
			if next == 0 {
				break
			}
		}
	}
	return nil
}

// dump returns the users that a primary finds in one step.
func (db db) dump(
	ctx context.Context, p node, cursor uint64,
) (items []store.Item, next uint64, err error) {
	keys, next, err := db.scan(ctx, p, cursor, "u:{")
	if err != nil {
		return nil, 0, err
	}
	hashes := make([]string, len(keys))
	for i, k := range keys {
		hashes[i] = strings.TrimSuffix(strings.TrimPrefix(k, string(db.keys)+"u:{"), "}")
	}
	users, err := db.usersByHash(ctx, "user", hashes)
	if err != nil {
		return nil, 0, err
	}
	epochs, err := db.epochsOf(ctx, users)
	if err != nil {
		return nil, 0, err
	}
	sessions, err := db.sessionsOf(ctx, users)
	if err != nil {
		return nil, 0, err
	}
	for _, u := range users {
		current, known := epochs[u.ID.AppID]
		find := func(d store.Digest) (store.Session, bool) {
			ses, found := sessions[d]
			return ses, known && found
		}
		items = append(items, store.NewItem(u, current, time.Now(), find))
	}
	return items, next, nil
}

// epochsOf reads the epochs of the users' mini programs and of all. It skips a mini
// program without an epoch: no session holds there.
func (db db) epochsOf(ctx context.Context, users []store.User) (map[string]store.Epochs, error) {
	apps := []string{""}
	keys := []string{db.keys.all()}
	epochs := make(map[string]store.Epochs)
	for _, u := range users {
		if _, ok := epochs[u.ID.AppID]; !ok {
			epochs[u.ID.AppID] = store.Epochs{}
			apps = append(apps, u.ID.AppID)
			keys = append(keys, db.keys.app(u.ID.AppID))
		}
	}
	texts, err := db.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	all, ok := db.parseEpoch(texts[0])
	if !ok {
		return nil, nil
	}
	for i, app := range apps[1:] {
		if e, ok := db.parseEpoch(texts[i+1]); ok {
			epochs[app] = store.Epochs{Global: all, App: e}
		} else {
			delete(epochs, app)
		}
	}
	return epochs, nil
}

// sessionsOf reads the sessions on the users' lists that exist.
func (db db) sessionsOf(
	ctx context.Context, users []store.User,
) (map[store.Digest]store.Session, error) {
	var digests []store.Digest
	var keys []string
	for _, u := range users {
		for _, ref := range u.Sessions {
			digests = append(digests, ref.Digest)
			keys = append(keys, db.keys.session(ref.Digest), db.keys.touched(ref.Digest))
		}
	}
	texts, err := db.get(ctx, keys...)
	if err != nil {
		return nil, err
	}
	sessions := make(map[store.Digest]store.Session)
	for i, d := range digests {
		if ses, _, ok := db.parsePair(d, texts[2*i], texts[2*i+1]); ok {
			sessions[d] = ses
		}
	}
	return sessions, nil
}

// Load implements store.Loader.
func (s *Store) Load(ctx context.Context, items []store.Item) (store.Loaded, error) {
	var users, sessions atomic.Int64
	err := s.ask(ctx, "writing session store", walkWait, func(ctx context.Context, db db) error {
		return inParallel(len(items), func(i int) error {
			known, added, err := db.load(ctx, items[i])
			if err == nil && !known {
				users.Add(1)
			}
			sessions.Add(int64(added))
			return err
		})
	})
	return store.Loaded{Users: int(users.Load()), Sessions: int(sessions.Load())}, err
}

// load writes sessions and record in the order of a login, for the same reasons.
func (db db) load(ctx context.Context, it store.Item) (known bool, added int, err error) {
	id := it.User.ID
	found, err := db.readFor(ctx, store.Login{User: id})
	if err != nil {
		return false, 0, err
	}
	made := make(map[store.Digest]bool)
	_, err = db.updateFrom(ctx, id, found.record, func(u store.User, listed bool) (*change, error) {
		known = listed
		if !known {
			u = store.User{ID: id, Epoch: randomEpoch()}
		}
		if u.UnionID != "" {
			u.Proof = found.proof
		}
		before := u
		u.Merge(it.User)
		if !userUntil(u).After(time.Now()) {
			known = true // it would expire at once
			return nil, nil
		}
		found.epochs.User = u.Epoch
		if err := db.loadSessions(ctx, it, found.epochs, made); err != nil {
			return nil, err
		}
		shows := u.UnionID != before.UnionID || !bytes.Equal(u.Phone, before.Phone)
		return &change{user: &u, tell: known && shows}, db.index(ctx, before, u)
	})
	return known, len(made), err
}

// loadSessions writes the sessions that do not exist, and the notes of those that
// do. Sessions in made come from this load: they get the epochs given now, unless
// a revocation has ended them.
func (db db) loadSessions(
	ctx context.Context, it store.Item, e store.Epochs, made map[store.Digest]bool,
) error {
	cmds := make([]rueidis.Completed, len(it.Sessions))
	for i, ses := range it.Sessions {
		d := it.User.Sessions[i].Digest
		ses.Epochs = e
		b, err := ses.AppendBinary(make([]byte, 0, 160))
		if err != nil {
			return err
		}
		set := db.c.B().Set().Key(db.keys.session(d)).Value(rueidis.BinaryString(b))
		expires := ses.Expires.UnixMilli()
		if made[d] {
			cmds[i] = set.Xx().PxatMillisecondsTimestamp(expires).Build()
		} else {
			cmds[i] = set.Nx().PxatMillisecondsTimestamp(expires).Build()
		}
	}
	var used []call
	for i, res := range db.c.DoMulti(ctx, cmds...) {
		d := it.User.Sessions[i].Digest
		switch err := res.Error(); {
		case err == nil:
			made[d] = true
		case !rueidis.IsRedisNil(err):
			return err
		case !made[d]:
			used = append(used, db.touchCall(d, it.Sessions[i].UsedUntil))
		}
	}
	if len(used) == 0 {
		return nil
	}
	return touchScript.runAll(ctx, db.c, used)
}
