package redis

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// endSessionScript removes a session. It tells gates also of one that did not exist:
// a gate may have cached a session that the engine has lost.
var endSessionScript = repeatable(`
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], '', 'PX', ARGV[1])
return 1
`)

// End implements store.Store.
func (s *Store) End(ctx context.Context, d store.Digest, why store.Reason) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		record, err := db.getOne(ctx, db.keys.session(d))
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
		return db.update(ctx, ses.User, unlist(d, why, s.now()))
	})
}

// endSession removes a session but leaves it listed. With lasting it must not come
// back in a failover.
func (db db) endSession(ctx context.Context, d store.Digest, lasting bool) error {
	key := db.keys.session(d)
	x := call{
		keys: []string{key, db.keys.touched(d), db.keys.changed(key)},
		args: []string{changeKept},
	}
	return db.runFor(ctx, endSessionScript, x, lasting).Error()
}

// RevokeUser implements store.Store. The epoch ends the sessions. Their records go
// to save room; those that stay expire. No session holds without a user's record, so
// a damaged one goes, too, and where there is none only the gates must know.
func (s *Store) RevokeUser(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		var listed []store.SessionRef
		err := db.update(ctx, id, func(u store.User, known bool) (*change, error) {
			if !known {
				return &change{tell: true, lasting: true}, nil
			}
			listed = u.Sessions
			u.Revoke(why, s.now())
			return &change{user: &u, tell: true, lasting: true}, nil
		})
		if err == nil {
			db.c.DoMulti(ctx, db.unlink(listed)...)
		}
		return err
	})
}

// Forget implements store.Store. The sessions go first, so that a retry finds those
// that a failed try has left. The user stays in the index of their unionid, which no
// answer relies on alone.
func (s *Store) Forget(ctx context.Context, id store.UserID, why store.Reason) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		return db.update(ctx, id, func(u store.User, known bool) (*change, error) {
			if known {
				gone := append(db.unlink(u.Sessions),
					db.c.B().Unlink().Key(db.keys.proof(id.Hash())).Build())
				for _, res := range db.c.DoMulti(ctx, gone...) {
					if err := res.Error(); err != nil {
						return nil, err
					}
				}
			}
			gone := u.Forgotten(why, s.now())
			return &change{tell: true, lasting: true, ended: gone}, nil
		})
	})
}

// now returns the time by the clock that all gates share.
func (s *Store) now() time.Time { return s.Clock().At(time.Now()) }

// unlink returns the commands that remove sessions, and tell no gate. A command has
// one key: a cluster refuses two, one of them missing, while it moves the slot.
func (db db) unlink(listed []store.SessionRef) (cmds []rueidis.Completed) {
	for _, r := range listed {
		for _, key := range []string{db.keys.session(r.Digest), db.keys.touched(r.Digest)} {
			cmds = append(cmds, db.c.B().Unlink().Key(key).Build())
		}
	}
	return cmds
}

// RevokeApp implements store.Store. The records of the ended sessions expire.
func (s *Store) RevokeApp(ctx context.Context, appID string) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		return db.moveEpoch(ctx, db.keys.app(appID))
	})
}

// RevokeAll implements store.Store. The records of the ended sessions expire.
func (s *Store) RevokeAll(ctx context.Context) error {
	return s.write(ctx, func(ctx context.Context, db db) error {
		if err := db.moveEpoch(ctx, db.keys.all()); err != nil {
			return err
		}
		return db.freeFirstNeeds(ctx)
	})
}

// makeEpochScript makes an epoch unless it has changed since the caller read it, and
// returns the epoch that is there.
var makeEpochScript = repeatable(readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
return ARGV[2]
`)

// moveEpochScript ends all sessions under an epoch. It makes the next epoch from the
// last one: run twice it goes one further, while a given number would bring back an
// epoch that another gate has ended in between. Without an epoch no session holds,
// but a gate may have cached some from before the engine lost it.
var moveEpochScript = repeatable(readLua + `
local now = read(KEYS[1])
if now ~= '' then redis.call('SET', KEYS[1], string.sub(redis.sha1hex(now .. ARGV[1]), 1, 16)) end
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return 1
`)

// parseEpoch reads an epoch; there is none when it is empty. Another spelling of the
// same number is damage, too.
func (s *Store) parseEpoch(text string) (uint64, bool) {
	if text == "" {
		return 0, false
	}
	e, err := strconv.ParseUint(text, 16, 64)
	if err != nil || len(text) != 16 || strings.ToLower(text) != text {
		s.damaged("epoch", nil)
		return 0, false
	}
	return e, true
}

// ensureEpoch returns the epoch that the caller has read from key. It makes one when
// there is none, or a damaged one.
func (db db) ensureEpoch(ctx context.Context, key, was string) (uint64, error) {
	if e, ok := db.parseEpoch(was); ok {
		return e, nil
	}
	now, err := makeEpochScript.run(ctx, db.c, call{
		keys: []string{key, db.keys.changed(key)},
		args: []string{was, fmt.Sprintf("%016x", randomEpoch()), changeKept},
	}).ToString()
	if err != nil {
		return 0, err
	}
	e, ok := db.parseEpoch(now)
	if !ok {
		return 0, fmt.Errorf("making epoch: %w", store.ErrDamaged)
	}
	return e, nil
}

// moveEpoch ends all sessions under an epoch.
func (db db) moveEpoch(ctx context.Context, key string) error {
	x := call{keys: []string{key, db.keys.changed(key)}, args: []string{rand.Text(), changeKept}}
	return ignoreNil(db.runFor(ctx, moveEpochScript, x, true).Error())
}

func randomEpoch() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	return binary.LittleEndian.Uint64(b[:])
}

// copyWait limits the time that a revocation waits for the first replica.
const copyWait = 100 * time.Millisecond

// runFor runs a script. With lasting it also waits for a replica, if there are any:
// replication is asynchronous, so a failover may bring back what a revocation has
// ended. When that takes too long, the change stays, and the log says so once.
// WAIT is about writes on its own connection, which a pipeline of the two keeps to.
func (db db) runFor(ctx context.Context, s *script, x call, lasting bool) rueidis.RedisResult {
	if !lasting || !db.link().replicas() {
		return s.run(ctx, db.c, x)
	}
	wait := func() rueidis.Completed {
		return db.c.B().Wait().Numreplicas(1).Timeout(copyWait.Milliseconds()).Build()
	}
	res := db.c.DoMulti(ctx, s.short(db.c, x), wait())
	if unknown(res[0]) {
		res = db.c.DoMulti(ctx, s.long(db.c, x), wait())
	}
	if res[0].NonRedisError() == nil {
		n, err := res[1].AsInt64()
		db.logCopied(err == nil && n > 0)
	}
	return res[0]
}

// logCopied logs when revocations begin, or cease, to reach a replica in time.
func (s *Store) logCopied(inTime bool) {
	switch {
	case !inTime && !s.lagging.Swap(true):
		s.log.Warn("a revocation did not reach a replica in time; a failover may lose it",
			zap.Duration("waited", copyWait))
	case inTime && s.lagging.Swap(false):
		s.log.Info("revocations reach a replica in time again")
	}
}
