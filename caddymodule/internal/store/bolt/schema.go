package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// The buckets of the file. Package store encodes the records. Times are
// milliseconds in eight bytes.
//
//	meta   "schema" -> schema version, one byte
//	       "probe" -> time of the last write that tried whether the disk is back
//	       "restored" -> time of the restore, in a restored file
//	       "identity" -> store.Identity
//	       "backup" -> time of the last backup
//	sess   digest -> store.Session
//	user   store.UserID.Hash -> store.User, until userKept after the last login
//	exp    expiry | digest -> nothing
//	epoch  "g" -> global epoch; "a" appid -> epoch of the mini program
//	union  first 16 bytes of SHA-256(unionid) | store.UserID.Hash -> store.Proof, or nothing
//	key    store.MasterKeyID -> until when sessions need the master key
//
// exp grows at its right edge only. The row of a session that ended early stays
// until its time: removing it would cost a page write for each log-out. A row of
// union is only a hint (byUnionID).
//
// Version 1 had neither union nor key. Version 2 had "noted" in meta, wrote when
// a session was last seen in place of UsedUntil, and left a row of key empty
// while a gate signed with it.
const schemaVersion = 3

// The buckets, as indexes of bucketNames.
const (
	meta = iota
	sess
	user
	exp
	epoch
	union
	key
)

var (
	bucketNames = [...][]byte{
		meta:  []byte("meta"),
		sess:  []byte("sess"),
		user:  []byte("user"),
		exp:   []byte("exp"),
		epoch: []byte("epoch"),
		union: []byte("union"),
		key:   []byte("key"),
	}
	since2 = [...]int{union, key} // buckets that version 1 lacks

	keySchema   = []byte("schema")
	keyProbe    = []byte("probe")
	keyNoted    = []byte("noted") // before version 3
	keyRestored = []byte("restored")
	keyIdentity = []byte("identity")
	keyBackup   = []byte("backup")
	keyGlobal   = []byte("g")
)

// maxAppID bounds the part of an appid in a key. Real appids have 18 characters.
const maxAppID = 1024

// upgradeBatch bounds the users that one transaction of an upgrade indexes.
const upgradeBatch = 10_000

// create makes the buckets of a new file, or checks those of an old one. It gives
// the file an identity.
func create(tx *bolt.Tx) error {
	if tx.Bucket(bucketNames[meta]) != nil {
		if _, err := checkSchema(tx); err != nil {
			return err
		}
		return ensureIdentity(tx, time.Time{})
	}
	if k, _ := tx.Cursor().First(); k != nil {
		return errForeign
	}
	for _, name := range bucketNames {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return errors.Join(tx.Bucket(bucketNames[meta]).Put(keySchema, []byte{schemaVersion}),
		ensureIdentity(tx, time.Now()))
}

// ensureIdentity gives a file an identity that has none, or an unreadable one.
func ensureIdentity(tx *bolt.Tx, created time.Time) error {
	m := tx.Bucket(bucketNames[meta])
	if _, err := store.ParseIdentity(string(m.Get(keyIdentity))); err == nil {
		return nil
	}
	return m.Put(keyIdentity, []byte(store.NewIdentity(created).String()))
}

// checkSchema returns the file's version, and an error when this program does not
// know it.
func checkSchema(tx *bolt.Tx) (version byte, err error) {
	m := tx.Bucket(bucketNames[meta])
	if m == nil {
		return 0, errForeign
	}
	v := m.Get(keySchema)
	if len(v) != 1 || v[0] == 0 {
		return 0, errForeign
	}
	if v[0] > schemaVersion {
		return 0, fmt.Errorf("the file has schema version %d, this program knows up to %d: "+
			"it was written by a newer one", v[0], schemaVersion)
	}
	for i, name := range bucketNames {
		if tx.Bucket(name) == nil && !(v[0] < 2 && slices.Contains(since2[:], i)) {
			return 0, errForeign
		}
	}
	return v[0], nil
}

// isOld reports whether an older program wrote the file and this one can read it as it
// is. The error says that there is no room for the copy that the upgrade keeps.
func (o *opening) isOld() (old bool, err error) {
	err = o.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(bucketNames[meta]) == nil {
			return nil // create judges the file
		}
		version, err := checkSchema(tx)
		if old = version == 2; err != nil || !old {
			return err
		}
		return checkRoom(o.path, tx.Size())
	})
	return old, err
}

// bringUp upgrades a file that was opened as it is.
func (o *opening) bringUp() error {
	err := upgrade(o.db, func(f func(*bolt.Tx) error) error {
		return o.update(func(tx *bolt.Tx) (rows, error) { return rows{}, f(tx) })
	}, o.log)
	if err := errors.Join(err, SyncDir(filepath.Dir(o.path))); err != nil {
		return err
	}
	o.old.Store(false)
	return nil
}

// upgrade brings the file of an older program up to schemaVersion. The version
// changes with the last step: an interrupted upgrade begins anew, and until then
// the older program still understands the file.
func upgrade(db *bolt.DB, update func(func(*bolt.Tx) error) error, log *zap.Logger) error {
	var version byte
	err := db.View(func(tx *bolt.Tx) (err error) {
		version, err = checkSchema(tx)
		return err
	})
	if err != nil || version == schemaVersion {
		return err
	}
	if err := keepOld(db, version, log); err != nil {
		return fmt.Errorf("keeping the session store as it is before the upgrade: %w", err)
	}
	damaged := 0
	open := func(tx *bolt.Tx) *tables {
		return &tables{tx: tx, damaged: func(string, []byte) { damaged++ }}
	}
	if version < 2 {
		err = upgrade1(db, open)
	}
	if err == nil {
		err = update(func(tx *bolt.Tx) error {
			m := tx.Bucket(bucketNames[meta])
			return errors.Join(open(tx).endOpenNeeds(), ensureIdentity(tx, time.Time{}),
				m.Delete(keyNoted), m.Put(keySchema, []byte{schemaVersion}))
		})
	}
	if err == nil {
		log.Info("session store brought up to date", zap.Uint8("from_version", version),
			zap.Uint8("version", schemaVersion), zap.Int("damaged_users", damaged))
	}
	return err
}

// oldSuffix and the version follow the name of the store in the name of the copy
// that an upgrade keeps.
const oldSuffix = ".schema-"

// keepOld copies the file beside itself for the program that wrote it. The copy of
// the upgrade before goes.
func keepOld(db *bolt.DB, version byte, log *zap.Logger) error {
	path := db.Path()
	tmp, err := makeTemp(path)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = db.View(func(tx *bolt.Tx) error {
		if err := checkRoom(path, tx.Size()); err != nil {
			return err
		}
		_, err := tx.WriteTo(tmp)
		return err
	})
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	before, err := filepath.Glob(globEscape(path) + oldSuffix + "*")
	for _, old := range before {
		err = errors.Join(err, os.Remove(old))
	}
	kept := path + oldSuffix + strconv.Itoa(int(version))
	if err := errors.Join(err, os.Rename(tmp.Name(), kept)); err != nil {
		return err
	}
	log.Info("session store kept before its upgrade", zap.String("kept", kept))
	return nil
}

// globEscape makes a path a pattern that matches nothing else.
func globEscape(path string) string {
	return strings.NewReplacer(`*`, `[*]`, `?`, `[?]`, `[`, `[[]`).Replace(path)
}

// upgrade1 makes the buckets that version 1 lacks.
func upgrade1(db *bolt.DB, open func(*bolt.Tx) *tables) error {
	err := db.Update(func(tx *bolt.Tx) error {
		for _, i := range since2 {
			if _, err := tx.CreateBucketIfNotExists(bucketNames[i]); err != nil {
				return err
			}
		}
		return nil
	})
	for from := []byte{}; err == nil && from != nil; {
		err = db.Update(func(tx *bolt.Tx) (err error) {
			from, err = open(tx).indexUnions(from)
			return err
		})
	}
	return err
}

// indexUnions indexes the unionids of up to upgradeBatch users from a key on. It
// returns the key to go on from; nil at the end.
func (t *tables) indexUnions(from []byte) (next []byte, err error) {
	c := t.bucket(user).Cursor()
	n := 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		if n++; n > upgradeBatch {
			return slices.Clone(k), nil
		}
		if u, ok := t.getUserByKey(k); ok {
			if err := t.indexUnion(store.User{}, u); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// expKey sorts sessions by expiry, also those before 1970.
func expKey(expires time.Time, d store.Digest) []byte {
	b := make([]byte, 0, 8+len(d))
	b = binary.BigEndian.AppendUint64(b, uint64(expires.UnixMilli())^1<<63)
	return append(b, d[:]...)
}

// splitExpKey is the inverse of expKey.
func splitExpKey(k []byte) (time.Time, store.Digest, bool) {
	if len(k) != 8+len(store.Digest{}) {
		return time.Time{}, store.Digest{}, false
	}
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(k) ^ 1<<63))
	return at, store.Digest(k[8:]), true
}

func appKey(appID string) []byte { return append([]byte("a"), appID...) }

// Identity implements store.Identified. The file is as old as its identity, or
// was made by a release that gave none.
func (s *Store) Identity(ctx context.Context) (store.Identity, error) {
	return read(ctx, s, func(t *tables) (store.Identity, error) {
		id := t.bucket(meta).Get(keyIdentity)
		if id == nil && s.open.Load().old.Load() {
			return store.Identity{}, nil // the upgrade gives it one
		}
		return store.ParseIdentity(string(id))
	})
}

// factKey names a fact in the bucket meta, so that files keep their schema.
func factKey(name string) []byte { return []byte("fact " + name) }

// Fact implements store.Store.
func (s *Store) Fact(ctx context.Context, name string) (value []byte, err error) {
	err = s.read(ctx, func(t *tables) error {
		value = bytes.Clone(t.bucket(meta).Get(factKey(name)))
		return nil
	})
	return value, err
}

// SetFact implements store.Store.
func (s *Store) SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error) {
	return write(ctx, s, func(t *tables) ([]byte, error) {
		if now := t.bucket(meta).Get(factKey(name)); !bytes.Equal(now, was) {
			return bytes.Clone(now), nil
		}
		return value, t.bucket(meta).Put(factKey(name), value)
	})
}
