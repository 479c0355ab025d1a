package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// endSessionLua removes a session. Gates are told whether or not it was there: one may remember a session that the engine has lost.
const endSessionLua = `
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], '', 'PX', ARGV[1])
return 1
`

// End implements store.Store. As with every write here, an error leaves open whether the change was made.
func (s *Store) End(ctx context.Context, d store.Digest) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		record, err := text(db.c.Do(ctx, db.get(db.keys.session(d))))
		if err != nil {
			return err
		}
		if err := db.endSession(ctx, d, true); err != nil || record == "" {
			return err
		}
		ses, ok := db.parseSession(d, record)
		if !ok {
			return nil
		}
		return db.unlist(ctx, ses.User, "", d)
	})
}

// endSession removes a session but leaves it listed. last is whether it must not come back with a failover.
func (db db) endSession(ctx context.Context, d store.Digest, last bool) error {
	key := db.keys.session(d)
	x := call{keys: []string{key, db.keys.touched(d), db.keys.changed(key)}, args: []string{strconv.FormatInt(changeKept.Milliseconds(), 10)}}
	if last {
		return db.runLasting(ctx, db.scripts.endSession, x).Error()
	}
	return db.scripts.endSession.run(ctx, db.c, x).Error()
}

// RevokeUser implements store.Store. The epoch is what ends the sessions; their records go to save room.
func (s *Store) RevokeUser(ctx context.Context, id store.UserID) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		listed, err := db.moveUserEpoch(ctx, id)
		if err != nil || len(listed) == 0 {
			return err
		}
		db.c.DoMulti(ctx, db.unlink(listed)...) // those that stay expire
		return nil
	})
}

// moveUserEpoch returns the sessions that were listed. No session holds without a record: one that cannot be read goes, lest it ever be read again, and where there is none only the gates are
// told.
func (db db) moveUserEpoch(ctx context.Context, id store.UserID) ([]store.SessionRef, error) {
	h := id.Hash()
	record, err := text(db.c.Do(ctx, db.get(db.keys.user(h))))
	if err != nil {
		return nil, err
	}
	for {
		change := swap{user: h, old: record, tell: true, last: true}
		u, ok := db.parseUser(id, h, record)
		listed := u.Sessions
		if ok {
			u.Epoch++
			u.Sessions = nil
			change.until = userUntil(u)
			if change.new, err = userRecord(u); err != nil {
				return nil, err
			}
		}
		now, done, err := db.swap(ctx, change)
		if done || err != nil {
			return listed, err
		}
		record = now
	}
}

// Forget implements store.Store. The sessions go first, so that a second try finds what a failed one has left. The user stays in the index of their unionid, which is never believed by itself.
func (s *Store) Forget(ctx context.Context, id store.UserID) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		h := id.Hash()
		record, err := text(db.c.Do(ctx, db.get(db.keys.user(h))))
		if err != nil {
			return err
		}
		for {
			if u, ok := db.parseUser(id, h, record); ok {
				for _, res := range db.c.DoMulti(ctx, db.unlink(u.Sessions)...) {
					if err := res.Error(); err != nil {
						return err
					}
				}
			}
			now, done, err := db.swap(ctx, swap{user: h, old: record, tell: true, last: true})
			if done || err != nil {
				return err
			}
			record = now
		}
	})
}

// unlink returns the commands that remove sessions, which tell nobody. A command has one key, because a cluster refuses one with two, of which one is missing, while it moves their slot.
func (db db) unlink(listed []store.SessionRef) (cmds []rueidis.Completed) {
	for _, r := range listed {
		for _, key := range []string{db.keys.session(r.Digest), db.keys.touched(r.Digest)} {
			cmds = append(cmds, db.c.B().Unlink().Key(key).Build())
		}
	}
	return cmds
}

// RevokeApp implements store.Store. The records of the ended sessions stay until they expire.
func (s *Store) RevokeApp(ctx context.Context, appID string) error {
	return s.write(ctx, func(ctx context.Context, db db) error { return db.moveEpoch(ctx, db.keys.app(appID)) })
}

// RevokeAll implements store.Store. The records of the ended sessions stay until they expire.
func (s *Store) RevokeAll(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		if err := db.moveEpoch(ctx, db.keys.all()); err != nil {
			return err
		}
		return db.freeFirstNeeds(ctx)
	})
}

// copyWait is how long a revocation waits for the first replica.
const copyWait = 100 * time.Millisecond

// runLasting runs a script, and waits until a replica has what it did if there are replicas: replication is asynchronous, so a failover may bring back what was ended. When it takes too long
// the change is made all the same, which the operator is told once; a failover just then may lose it.
func (db db) runLasting(ctx context.Context, sc *script, x call) rueidis.RedisResult {
	if !db.link.replicas() {
		return sc.run(ctx, db.c, x)
	}
	// WAIT speaks of what was written on its own connection, which a pipeline of the two keeps to.
	wait := func() rueidis.Completed {
		return db.c.B().Wait().Numreplicas(1).Timeout(copyWait.Milliseconds()).Build()
	}
	res := db.c.DoMulti(ctx, sc.short(db.c, x), wait())
	if unknown(res[0]) {
		res = db.c.DoMulti(ctx, sc.long(db.c, x), wait())
	}
	if res[0].NonRedisError() == nil {
		n, err := res[1].AsInt64()
		db.copied(err == nil && n > 0)
	}
	return res[0]
}

// copied notes whether a revocation has reached a replica in time.
func (s *Store) copied(inTime bool) {
	switch {
	case !inTime && !s.lagging.Swap(true):
		s.log.Warn("a revocation did not reach a replica in time; a failover may lose it", zap.Duration("waited", copyWait))
	case inTime && s.lagging.Swap(false):
		s.log.Info("revocations reach a replica in time again")
	}
}
