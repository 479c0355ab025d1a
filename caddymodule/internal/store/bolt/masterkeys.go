package bolt

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// MasterKeys implements store.Store.
func (s *Store) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	var needs map[store.MasterKeyID]time.Time
	err := s.read(ctx, func(t *tables) error {
		needs = t.masterKeys()
		return nil
	})
	return needs, err
}

// NeedMasterKeys implements store.Loader.
func (s *Store) NeedMasterKeys(ctx context.Context, needs map[store.MasterKeyID]time.Time) error {
	return s.write(ctx, func(t *tables) error {
		for id, until := range needs {
			if t.masterKey(id).Before(until) {
				if err := t.putMasterKey(id, until); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// needMasterKey records that a login's session needs its master key. Records of
// the past go when one changes.
func (t *tables) needMasterKey(l store.Login) error {
	recorded := t.masterKey(l.MasterKey)
	until := l.MasterKeyNeed(recorded)
	if until.Equal(recorded) {
		return nil
	}
	for id, until := range t.masterKeys() {
		if until.Before(l.Created) {
			if err := t.bucket(key).Delete(id[:]); err != nil {
				return err
			}
		}
	}
	return t.putMasterKey(l.MasterKey, until)
}

// freeMasterKeys records that no session needs a master key.
func (t *tables) freeMasterKeys() error {
	for id := range t.masterKeys() {
		if err := t.bucket(key).Delete(id[:]); err != nil {
			return err
		}
	}
	return nil
}

// endOpenNeeds writes the end of each need that version 2 left open.
func (t *tables) endOpenNeeds() error {
	for id, until := range t.masterKeys() {
		if err := t.putMasterKey(id, until); err != nil {
			return err
		}
	}
	return nil
}

func (t *tables) masterKeys() map[store.MasterKeyID]time.Time {
	needs := make(map[store.MasterKeyID]time.Time)
	b := t.bucket(key)
	if b == nil { // of a file that no gate of this version has opened yet
		return needs
	}
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		until, ok := t.parseNeed(v)
		if len(k) != len(store.MasterKeyID{}) || !ok {
			t.damaged("key", k)
			continue
		}
		needs[store.MasterKeyID(k)] = until
	}
	return needs
}

// masterKey returns until when a master key is needed; the zero time when there
// is no record.
func (t *tables) masterKey(id store.MasterKeyID) time.Time {
	v := t.bucket(key).Get(id[:])
	if v == nil {
		return time.Time{}
	}
	until, ok := t.parseNeed(v)
	if !ok {
		t.damaged("key", id[:])
	}
	return until
}

// parseNeed reads a record. Version 2 left it empty while a gate signed with the
// key: then every session in the file may need it.
func (t *tables) parseNeed(v []byte) (until time.Time, ok bool) {
	switch len(v) {
	case 0:
		return t.lastExpiry(), true
	case 8:
		return time.UnixMilli(int64(binary.LittleEndian.Uint64(v))), true
	}
	return time.Time{}, false
}

func (t *tables) putMasterKey(id store.MasterKeyID, until time.Time) error {
	v := binary.LittleEndian.AppendUint64(nil, uint64(until.UnixMilli()))
	return t.bucket(key).Put(id[:], v)
}
