package redis

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	_ store.Dumper = (*Store)(nil)
	_ store.Loader = (*Store)(nil)
)

// moveWait is the longest that one step of a move may take. Nobody waits for an answer there.
const moveWait = 30 * time.Second

// Dump implements store.Dumper. It walks the primaries that there are when it begins.
func (s *Store) Dump(ctx context.Context, f func(store.Item) error) error {
	const doing = "reading session store"
	var primaries []rueidis.Client
	err := s.ask(ctx, doing, moveWait, func(ctx context.Context, db db) (err error) {
		primaries, err = db.primaries(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, node := range primaries {
		for cursor := uint64(0); ; {
			var items []store.Item
			err := s.ask(ctx, doing, moveWait, func(ctx context.Context, db db) (err error) {
				items, cursor, err = db.dump(ctx, node, cursor)
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
			if cursor == 0 {
				break
			}
		}
	}
	return nil
}

func (db db) primaries(ctx context.Context) (list []rueidis.Client, err error) {
	for _, node := range db.c.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("replication").Build()).ToString()
		if err != nil {
			return nil, err
		}
		if infoField(info, "role") == "master" {
			list = append(list, node)
		}
	}
	return list, nil
}

// dump tells of the users that a primary finds in one go.
func (db db) dump(ctx context.Context, node rueidis.Client, cursor uint64) (items []store.Item, next uint64, err error) {
	prefix := string(db.keys) + "u:{"
	e, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(globLiteral(prefix)+"*").Count(scanCount).Build()).AsScanEntry()
	if err != nil {
		return nil, 0, err
	}
	users, err := db.users(ctx, prefix, e.Elements)
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
		current, ok := epochs[u.ID.AppID]
		items = append(items, store.NewItem(u, current, time.Now(), func(d store.Digest) (store.Session, bool) {
			ses, found := sessions[d]
			return ses, ok && found
		}))
	}
	return items, e.Cursor, nil
}

// users reads the records of users by their keys. Those that are gone by now are left out.
func (db db) users(ctx context.Context, prefix string, keys []string) (users []store.User, err error) {
	var hashes [][16]byte
	var cmds []rueidis.Completed
	for _, k := range keys {
		var h [16]byte
		if !unhex(h[:], k[len(prefix):max(len(prefix), len(k)-1)]) {
			db.damaged("user", nil)
			continue
		}
		hashes = append(hashes, h)
		cmds = append(cmds, db.get(k))
	}
	for i, res := range db.c.DoMulti(ctx, cmds...) {
		record, err := text(res)
		if err != nil {
			return nil, err
		}
		if u, ok := db.parseUserByHash(hashes[i], record); ok {
			users = append(users, u)
		}
	}
	return users, nil
}

// epochsOf reads the epochs of the users' mini programs and of everybody, those apart that are not there: no session holds without.
func (db db) epochsOf(ctx context.Context, users []store.User) (map[string]store.Epochs, error) {
	apps := make(map[string]bool)
	names := []string{""}
	cmds := []rueidis.Completed{db.get(db.keys.all())}
	for _, u := range users {
		if !apps[u.ID.AppID] {
			apps[u.ID.AppID] = true
			names = append(names, u.ID.AppID)
			cmds = append(cmds, db.get(db.keys.app(u.ID.AppID)))
		}
	}
	epochs := make(map[string]store.Epochs)
	var all uint64
	for i, res := range db.c.DoMulti(ctx, cmds...) {
		was, err := text(res)
		if err != nil {
			return nil, err
		}
		e, ok := db.parseEpoch(was)
		if i == 0 {
			if all = e; !ok {
				return nil, nil
			}
		} else if ok {
			epochs[names[i]] = store.Epochs{Global: all, App: e}
		}
	}
	return epochs, nil
}

// sessionsOf reads the listed sessions of the users that are there.
func (db db) sessionsOf(ctx context.Context, users []store.User) (map[store.Digest]store.Session, error) {
	var digests []store.Digest
	var cmds []rueidis.Completed
	for _, u := range users {
		for _, ref := range u.Sessions {
			digests = append(digests, ref.Digest)
			cmds = append(cmds, db.get(db.keys.session(ref.Digest)), db.get(db.keys.touched(ref.Digest)))
		}
	}
	sessions := make(map[store.Digest]store.Session)
	answers := db.c.DoMulti(ctx, cmds...)
	for i, d := range digests {
		record, err := text(answers[2*i])
		if err != nil {
			return nil, err
		}
		note, err := text(answers[2*i+1])
		if err != nil {
			return nil, err
		}
		ses, _, err := db.parsePair(d, record, note)
		switch {
		case err == nil:
			sessions[d] = ses
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	return sessions, nil
}

// Load implements store.Loader.
func (s *Store) Load(ctx context.Context, items []store.Item) (store.Loaded, error) {
	var users, sessions atomic.Int64
	err := s.ask(ctx, "writing session store", moveWait, func(ctx context.Context, db db) error {
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

// load writes sessions and record in the order of a login, for the reasons given there.
func (db db) load(ctx context.Context, it store.Item) (known bool, added int, err error) {
	id := it.User.ID
	h := id.Hash()
	a, err := db.arrive(ctx, store.Login{User: id})
	if err != nil {
		return false, 0, err
	}
	made := make(map[store.Digest]bool)
	for {
		u, known := db.parseUser(id, h, a.record)
		if !known {
			u = store.User{ID: id, Epoch: randomEpoch()}
		}
		before := u
		u.Merge(it.User)
		until := userUntil(u)
		if !until.After(time.Now()) {
			return true, 0, nil // it would be forgotten at once
		}
		a.epochs.User = u.Epoch
		if err := db.loadSessions(ctx, it, a.epochs, made); err != nil {
			return known, len(made), err
		}
		if err := db.index(ctx, before, u); err != nil {
			return known, len(made), err
		}
		next, err := userRecord(u)
		if err != nil || next == a.record {
			return known, len(made), err
		}
		unread := a.record != "" && !known // gates may remember what it said
		shows := u.UnionID != before.UnionID || !bytes.Equal(u.Phone, before.Phone)
		now, done, err := db.swap(ctx, swap{user: h, old: a.record, new: next, until: until, tell: unread || known && shows})
		if done || err != nil {
			return known, len(made), err
		}
		a.record = now
	}
}

// loadSessions writes the sessions that are not there, and of those that are until when they are used. made are those that this load has written before: they get the epochs given now,
// unless somebody has ended them.
func (db db) loadSessions(ctx context.Context, it store.Item, e store.Epochs, made map[store.Digest]bool) error {
	cmds := make([]rueidis.Completed, len(it.Sessions))
	for i, ses := range it.Sessions {
		d := it.User.Sessions[i].Digest
		ses.Epochs = e
		b, err := ses.AppendBinary(make([]byte, 0, 160))
		if err != nil {
			return err
		}
		set := db.c.B().Set().Key(db.keys.session(d)).Value(rueidis.BinaryString(b))
		if made[d] {
			cmds[i] = set.Xx().PxatMillisecondsTimestamp(ses.Expires.UnixMilli()).Build()
		} else {
			cmds[i] = set.Nx().PxatMillisecondsTimestamp(ses.Expires.UnixMilli()).Build()
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
			used = append(used, call{keys: []string{db.keys.session(d), db.keys.touched(d)}, args: []string{noteOf(it.Sessions[i].UsedUntil)}})
		}
	}
	if len(used) == 0 {
		return nil
	}
	return db.scripts.touch.runAll(ctx, db.c, used)
}
