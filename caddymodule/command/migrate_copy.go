package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/component"
	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// migrateBatch is the number of users that are written at a time.
const migrateBatch = 256

// copy copies users and sessions, and prints its progress every m.every.
func (m *migration) copy(ctx context.Context, stores *migrateStores, r *migrated) error {
	batch := make([]store.Item, 0, migrateBatch)
	flush := func() error {
		n, err := stores.to.store.(store.Loader).Load(ctx, batch)
		r.Users.Added += n.Users
		r.Sessions.Added += n.Sessions
		batch = batch[:0]
		return err
	}
	told := time.Now()
	err := stores.from.source.Dump(ctx, func(it store.Item) error {
		it, news, err := stores.news(ctx, it)
		if err != nil || !news {
			return err
		}
		r.Users.Read++
		r.Sessions.Read += len(it.Sessions)
		if now := time.Now(); now.Sub(told) >= m.every {
			told = now
			stores.tell(m.progress, r)
		}
		if batch = append(batch, it); len(batch) < cap(batch) {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// copyPlatforms copies the state of the third-party platforms, and returns of how many.
func (s *migrateStores) copyPlatforms(ctx context.Context) (n int, err error) {
	for _, id := range s.platforms {
		if s.ring == nil {
			break
		}
		copied, err := component.Copy(ctx, id, s.from.source, s.to.store, s.ring)
		if err != nil {
			return n, err
		}
		if copied {
			n++
		}
	}
	return n, nil
}

func (s *migrateStores) copyBlocks(ctx context.Context) (int, error) {
	if s.since == nil {
		return session.CopyBlocks(ctx, s.from.source, nil, s.to.store)
	}
	return session.CopyBlocks(ctx, s.from.source, s.since, s.to.store)
}

func (s *migrateStores) tell(progress io.Writer, r *migrated) {
	of := ""
	if s.from.users > 0 {
		of = fmt.Sprintf(" of %d", s.from.users)
	}
	fmt.Fprintf(progress, "%d%s users, %d sessions\n", r.Users.Read, of, r.Sessions.Read)
}

// news returns the part of an item that is newer than the backup, or all of it
// without a backup. It reports false for a user without news: the target may have
// deleted that user.
func (s *migrateStores) news(ctx context.Context, it store.Item) (store.Item, bool, error) {
	if s.since == nil {
		return it, true, nil
	}
	before, err := s.since.User(ctx, it.User.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return it, false, err
	}
	fresh := store.Item{User: it.User}
	fresh.User.Sessions = nil
	for i, ref := range it.User.Sessions {
		switch _, err := s.since.Lookup(ctx, ref.Digest); {
		case errors.Is(err, store.ErrNotFound):
			fresh.User.Sessions = append(fresh.User.Sessions, ref)
			fresh.Sessions = append(fresh.Sessions, it.Sessions[i])
		case err != nil:
			return it, false, err
		}
	}
	return fresh, len(fresh.Sessions) > 0 || !sameFacts(before, it.User), nil
}

// sameFacts reports whether two records of a user differ in their sessions at most.
func sameFacts(a, b store.User) bool {
	a.Sessions, a.Ends, a.Epoch = nil, nil, 0
	b.Sessions, b.Ends, b.Epoch = nil, nil, 0
	return reflect.DeepEqual(a, b)
}

// carryEnds ends in the target the sessions that ended in the source since the
// backup. It deletes there the users that the source has deleted since.
func (s *migrateStores) carryEnds(ctx context.Context) (n int, err error) {
	err = s.since.Dump(ctx, func(it store.Item) error {
		now, err := s.from.source.User(ctx, it.User.ID)
		switch {
		case errors.Is(err, store.ErrNotFound):
			n += len(it.Sessions)
			return s.forget(ctx, it.User)
		case err != nil:
			return err
		}
		for _, ref := range it.User.Sessions {
			rec, err := s.from.source.Lookup(ctx, ref.Digest)
			if err == nil && rec.Current == rec.Session.Epochs {
				continue
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err := s.to.store.End(ctx, ref.Digest, whyEnded(now, ref.Digest)); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// whyEnded returns the reason that the source has on record.
func whyEnded(u store.User, d store.Digest) store.Reason {
	for _, e := range u.Ends {
		if e.Session == d.ID() {
			return e.Reason
		}
	}
	return store.EndRevoked
}

// forget removes from the target the user of the backup, or only the sessions of the
// backup if the user has logged in there since.
func (s *migrateStores) forget(ctx context.Context, before store.User) error {
	now, err := s.to.store.User(ctx, before.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !now.LastLogin.After(before.LastLogin):
		return s.to.store.Forget(ctx, before.ID, store.EndForgotten)
	}
	for _, ref := range before.Sessions {
		if err := s.to.store.End(ctx, ref.Digest, store.EndForgotten); err != nil {
			return err
		}
	}
	return nil
}

// neededKeys returns until when the target needs master keys of the source.
func (s *migrateStores) neededKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	needs, err := s.from.source.MasterKeys(ctx)
	maps.DeleteFunc(needs, func(_ store.MasterKeyID, until time.Time) bool {
		return !until.After(time.Now())
	})
	return needs, err
}

// checkKeys refuses a migration that would log users out: seal_key lacks their keys.
func (s *migrateStores) checkKeys(needed map[store.MasterKeyID]time.Time) error {
	if s.ring == nil {
		return nil
	}
	var missing []string
	for id := range needed {
		if !s.ring.Has(keyring.ID(id)) {
			missing = append(missing, id.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf(
		"seal_key lacks the master keys that the sessions of %s were made under (%s): "+
			"put the content of <database>.key, or what seal_key was there, "+
			"into seal_key of all gates, behind a newer one if there is one",
		s.from.name, strings.Join(missing, ", "),
	)
}
