package session

import (
	"context"
	"errors"
	"slices"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Groups says which Open Platform account each mini program belongs to. A unionid
// means a person only within one account. Nil Groups are one group of all mini
// programs, whose name is empty.
type Groups struct {
	// Names has the name of the group of each configured mini program, by its appid.
	// The group of any other is a group of its own, named after its appid: the
	// merchants of a third-party platform have accounts of their own.
	Names map[string]string
}

// Of returns the group of a mini program.
func (g *Groups) Of(appID string) string {
	if g == nil {
		return ""
	}
	if name, ok := g.Names[appID]; ok {
		return name
	}
	return appID
}

// Person is all users with a unionid in the mini programs of one group.
type Person struct {
	UnionID string `json:"unionid,omitempty"`

	// OpenPlatform is the name of the group.
	OpenPlatform string `json:"open_platform,omitempty"`
}

// person returns who a user of a mini program is by a unionid.
func (s *Service) person(appID, unionID string) Person {
	return Person{UnionID: unionID, OpenPlatform: s.cfg.Groups.Of(appID)}
}

// usersOf returns the users that a person has. The store finds those of all groups.
func (c *Core) usersOf(ctx context.Context, who Person, groups *Groups) ([]User, error) {
	ids, err := c.store.ByUnionID(ctx, who.UnionID)
	elsewhere := func(id User) bool { return groups.Of(id.AppID) != who.OpenPlatform }
	return slices.DeleteFunc(ids, elsewhere), c.asked(reading, err)
}

// UsersByUnionID returns what is known of the users with a unionid, in all mini
// programs of its group. None is no error.
func (s *Service) UsersByUnionID(ctx context.Context, who Person) ([]UserInfo, error) {
	ids, err := s.cfg.Core.usersOf(ctx, who, s.cfg.Groups)
	if err != nil {
		return nil, wrap("finding users", err)
	}
	var users []UserInfo
	for _, id := range ids {
		u, err := s.User(ctx, id)
		if errors.Is(err, ErrUnknownUser) {
			continue // gone in the meantime
		}
		if err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, nil
}

// RevokeUnionID ends every session of the users with a unionid, in all mini
// programs of its group, and returns how many users that were. When one fails it goes on
// with the others. The caller repeats a call that returned an error.
func (s *Service) RevokeUnionID(
	ctx context.Context, who Person, why Reason,
) (users int, err error) {
	return s.eachWith(ctx, who, "revoking unionid", why, s.RevokeUser)
}

// ForgetUnionID is Forget for the users with a unionid, as RevokeUnionID is
// RevokeUser.
func (s *Service) ForgetUnionID(
	ctx context.Context, who Person, why Reason,
) (users int, err error) {
	return s.eachWith(ctx, who, "forgetting unionid", why, s.Forget)
}

func (s *Service) eachWith(
	ctx context.Context, who Person, doing string, why Reason,
	end func(context.Context, User, Reason) error,
) (users int, err error) {
	c, all := s.cfg.Core, revocation{kind: ofUnionID, person: who}
	ids, err := c.usersOf(ctx, who, s.cfg.Groups)
	if err != nil {
		c.revocations.record(all, s.cfg.Groups, why, err)
		return 0, wrap(doing, err)
	}
	for _, id := range ids {
		if failed := end(ctx, id, why); failed != nil {
			err = failed
			continue
		}
		users++
	}
	if err == nil {
		c.revocations.settle(all)
	}
	return users, err
}

// bind makes a unionid that became known that of the user. The empty one is no
// news.
func (s *Service) bind(ctx context.Context, u store.User, unionID string) error {
	if unionID == "" || unionID == u.UnionID && s.proven(u.ID, unionID, u.Proof) {
		return nil
	}
	res, err := s.amend(ctx, u.ID, store.Amendment{
		UnionID: unionID,
		Proof:   store.Proof(s.cfg.Keys.ProveUnionID(keyring.User(u.ID), unionID)),
	})
	if err == nil && res.UnionIDChanged && s.cfg.UnionIDBound != nil {
		s.cfg.UnionIDBound(u.ID, res.UnionIDWas != "" && res.UnionIDWas != unionID)
	}
	if err != nil {
		return err
	}
	// A block by unionid could not keep out who was not known by it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	err = s.notBlocked(ctx, u.ID, unionID)
	if errors.Is(err, ErrBlocked) {
		err = errors.Join(err, s.RevokeUser(ctx, u.ID, EndBlocked))
	}
	return err
}

// proven reports whether a gate wrote a unionid of a user. None is not proven.
func (s *Service) proven(u User, unionID string, p store.Proof) bool {
	return unionID != "" && s.cfg.Keys.Proves(keyring.Proof(p), keyring.User(u), unionID)
}
