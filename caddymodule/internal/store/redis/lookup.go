package redis

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Lookup implements store.Store, in two rounds.
func (s *Store) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	var rec store.Record
	err := s.read(ctx, func(ctx context.Context, db db) (err error) {
		rec, err = db.lookup(ctx, d)
		return err
	})
	return rec, err
}

func (db db) lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	ses, signed, err := db.session(ctx, d)
	if err != nil {
		return store.Record{}, err
	}
	if !signed {
		// A gate of the first release does not see the uses at this one before the next note, which may be long in coming.
		db.Touch(d, ses.UsedUntil)
	}
	h := ses.User.Hash()
	res := db.c.DoMulti(
		ctx,
		db.get(db.keys.user(h)),
		db.get(db.keys.app(ses.User.AppID)),
		db.get(db.keys.all()),
	)
	var texts [3]string
	for i := range texts {
		if texts[i], err = text(res[i]); err != nil {
			return store.Record{}, err
		}
	}
	u, ok1 := db.parseUser(ses.User, h, texts[0])
	app, ok2 := db.parseEpoch(texts[1])
	all, ok3 := db.parseEpoch(texts[2])
	if !ok1 || !ok2 || !ok3 {
		return store.Record{}, store.ErrNotFound
	}
	return store.Record{Session: ses, UnionID: u.UnionID, Phone: u.Phone, Current: store.Epochs{Global: all, App: app, User: u.Epoch}}, nil
}

// session reads a session and its note, or returns store.ErrNotFound. These are two commands, because a cluster refuses one with two keys, of which one is missing, while it moves
// their slot.
func (db db) session(ctx context.Context, d store.Digest) (ses store.Session, signed bool, err error) {
	res := db.c.DoMulti(ctx, db.get(db.keys.session(d)), db.get(db.keys.touched(d)))
	record, err := text(res[0])
	if err != nil {
		return store.Session{}, false, err
	}
	note, err := text(res[1])
	if err != nil {
		return store.Session{}, false, err
	}
	return db.parsePair(d, record, note)
}

// parsePair makes a session of its record and its note; "" for what is not there. It is not signed when it may have been
// a gate of the first release that wrote of its last use.
func (db db) parsePair(d store.Digest, record, note string) (ses store.Session, signed bool, err error) {
	if record == "" {
		return store.Session{}, false, store.ErrNotFound
	}
	ses, ok := db.parseSession(d, record)
	if !ok {
		return store.Session{}, false, store.ErrNotFound
	}
	if note == "" {
		return ses, ses.UsedUntil.Before(ses.Created.Add(store.MaxTouchInterval)), nil
	}
	until, signed, ok := db.parseNote(d, note)
	if ok && until.After(ses.UsedUntil) {
		ses.UsedUntil = until
	}
	return ses, signed, nil
}

func (s *Store) parseSession(d store.Digest, record string) (store.Session, bool) {
	var ses store.Session
	if err := ses.UnmarshalBinary([]byte(record)); err != nil {
		s.damaged("session", d[:])
		return store.Session{}, false
	}
	return ses, true
}

// User implements store.Store.
func (s *Store) User(ctx context.Context, id store.UserID) (store.User, error) {
	var u store.User
	err := s.read(ctx, func(ctx context.Context, db db) error {
		h := id.Hash()
		record, err := text(db.c.Do(ctx, db.get(db.keys.user(h))))
		if err != nil {
			return err
		}
		var ok bool
		if u, ok = db.parseUser(id, h, record); !ok {
			return store.ErrNotFound
		}
		return nil
	})
	return u, err
}

func (db db) get(key string) rueidis.Completed { return db.c.B().Get().Key(key).Build() }

// foreign is what stands for a key that holds no string, which is none of ours: as a record it is damaged. The scripts read the same.
const foreign = "WRONGTYPE"

// readLua is what scripts read records with.
const readLua = `
local function read(key)
	local v = redis.pcall('GET', key)
	if type(v) ~= 'table' then return v or '' end
	if string.find(v.err, 'WRONGTYPE', 1, true) then return 'WRONGTYPE' end
	return redis.call('GET', key)
end
`

// text returns the string that a key holds; the empty one, which no record is, when there is none.
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

// wrongType reports whether a key was found to hold something else than its name says.
func wrongType(err error) bool {
	said, ok := rueidis.IsRedisErr(err)
	return ok && strings.HasPrefix(said.Error(), foreign)
}
