package bolt

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// The layout of the file. Records are as store encodes them.
//
//	meta   "schema" -> schema version, one byte; "probe" -> time of the last write that tried whether the disk is back;
//	       "restored" -> time at which the file was put in place of another, eight bytes in milliseconds; may be missing
//	sess   digest -> store.Session
//	user   store.UserID.Hash -> store.User; kept for userKept after the last login, since it holds the unionid and the session_key
//	exp    expiry | digest -> nothing; grows at its right edge only. The row of a session that ended early stays until its time: taking it out would cost a page write a log-out
//	epoch  "g" -> global epoch; "a" appid -> epoch of the mini program; both made by the first login that needs them
//	union  first 16 bytes of SHA-256(unionid) | store.UserID.Hash -> nothing; an index of user that is never believed by itself
//	key    store.MasterKeyID -> until when sessions need the master key, milliseconds in eight bytes
//
// Version 1 had neither union nor key. In the sessions of versions 1 and 2 was the time when they were last seen, as
// store reads it, and a "noted" in meta said how long before another use that may have been.
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
		meta: []byte("meta"), sess: []byte("sess"), user: []byte("user"), exp: []byte("exp"), epoch: []byte("epoch"), union: []byte("union"), key: []byte("key"),
	}

	since2 = [...]int{union, key} // buckets that version 1 lacks

	keySchema   = []byte("schema")
	keyProbe    = []byte("probe")
	keyNoted    = []byte("noted") // before version 3
	keyRestored = []byte("restored")
	keyGlobal   = []byte("g")
)

// maxAppID bounds what may become a key. Real appids have 18 characters.
const maxAppID = 1024

// create makes the buckets of a new file, or checks the one that is there.
func create(tx *bolt.Tx) error {
	if tx.Bucket(bucketNames[meta]) != nil {
		_, err := checkSchema(tx)
		return err
	}
	if k, _ := tx.Cursor().First(); k != nil {
		return errForeign
	}
	for _, name := range bucketNames {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketNames[meta]).Put(keySchema, []byte{schemaVersion})
}

// checkSchema checks that this program understands the file, and returns the version of it.
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
		return 0, fmt.Errorf("the file has schema version %d, this program knows up to %d: it was written by a newer one", v[0], schemaVersion)
	}
	for i, name := range bucketNames {
		if tx.Bucket(name) == nil && !(v[0] < 2 && slices.Contains(since2[:], i)) {
			return 0, errForeign
		}
	}
	return v[0], nil
}

// expKey orders sessions by expiry, also those before 1970.
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
	return time.UnixMilli(int64(binary.BigEndian.Uint64(k) ^ 1<<63)), store.Digest(k[8:]), true
}

func appKey(appID string) []byte { return append([]byte("a"), appID...) }
