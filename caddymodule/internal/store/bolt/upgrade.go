package bolt

import (
	"errors"
	"slices"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/zap"
)

// upgradeBatch bounds the users that one transaction enters into the index of unionids.
const upgradeBatch = 10_000

// upgrade brings the file of an older program up to schemaVersion. The version changes with the last step: whoever is interrupted begins anew, and an older program still understands the file.
func upgrade(db *bolt.DB, log *zap.Logger) error {
	var version byte
	err := db.View(func(tx *bolt.Tx) (err error) {
		version, err = checkSchema(tx)
		return err
	})
	if err != nil || version == schemaVersion {
		return err
	}
	damaged := 0
	if version >= 2 {
		err = db.Update(func(tx *bolt.Tx) error {
			return (&tables{tx: tx, damaged: func(string, []byte) {}}).conclude()
		})
	} else {
		err = upgrade1(db, &damaged)
	}
	if err == nil {
		log.Info("session store brought up to date", zap.Uint8("from_version", version), zap.Uint8("version", schemaVersion), zap.Int("damaged_users", damaged))
	}
	return err
}

// conclude is the last step. The sessions need none: they read as store.Session says.
func (t *tables) conclude() error {
	m := t.bucket(meta)
	return errors.Join(t.endOpenNeeds(), m.Delete(keyNoted), m.Put(keySchema, []byte{schemaVersion}))
}

// upgrade1 makes what version 1 lacks.
func upgrade1(db *bolt.DB, damaged *int) error {
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
			t := &tables{tx: tx, damaged: func(string, []byte) { *damaged++ }}
			if from, err = t.indexUnions(from); err != nil || from != nil {
				return err
			}
			return t.conclude()
		})
	}
	return err
}

// indexUnions enters the unionids of up to upgradeBatch users from a key on, and returns the key to go on from, or nil when all are entered.
func (t *tables) indexUnions(from []byte) (next []byte, err error) {
	c := t.bucket(user).Cursor()
	n := 0
	for k, _ := c.Seek(from); k != nil; k, _ = c.Next() {
		if n++; n > upgradeBatch {
			return slices.Clone(k), nil
		}
		if len(k) != 16 {
			t.damaged("user", k)
			continue
		}
		u, ok := t.getUserByHash([16]byte(k))
		if !ok || u.UnionID == "" {
			continue
		}
		if err := t.indexUnion(u.ID, "", u.UnionID); err != nil {
			return nil, err
		}
	}
	return nil, nil
}
