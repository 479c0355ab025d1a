package session

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Blocked is whom a block keeps out: a user of one mini program, or with a Person alone
// every user with that unionid in the group, one who logs in for the first time among
// them.
type Blocked struct {
	AppID  string `json:"appid,omitempty"`
	OpenID string `json:"openid,omitempty"`
	Person
}

// Block keeps users from logging in. It is no part of a user's record, so it outlives
// Forget, and a gate of an earlier release leaves it alone.
type Block struct {
	Blocked
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: for good
	Reason string    `json:"reason,omitempty"`
}

// The blocks lie in facts of the store, each a JSON list, by the first byte of a digest
// of whom they keep out: so a login reads few of them, and the list of all is 256 reads.
const blockFacts = 256

func blockFact(n byte) string { return fmt.Sprintf("blocks %02x", n) }

func (b Blocked) fact() string {
	if b.UnionID != "" {
		return blockFact(sha256.Sum256([]byte(b.UnionID))[0])
	}
	return blockFact(User{AppID: b.AppID, OpenID: b.OpenID}.Hash()[0])
}

// Block makes a block durable, in place of an earlier one of the same user, and ends the
// sessions of those it keeps out. It returns how many users that were as far as they
// are known here. After an error the caller repeats it.
//
// The block comes first: a login that has not seen it was on record before the sessions
// end (storeLogin), so none gets through between the two.
func (s *Service) Block(ctx context.Context, b Block) (users int, err error) {
	if _, err := s.editBlocks(ctx, "blocking user", b.Blocked, &b); err != nil {
		return 0, err
	}
	if b.UnionID != "" {
		return s.RevokeUnionID(ctx, b.Person, EndBlocked)
	}
	return 1, s.RevokeUser(ctx, User{AppID: b.AppID, OpenID: b.OpenID}, EndBlocked)
}

// Unblock removes the block of exactly that user or unionid, and reports whether there
// was one that held.
func (s *Service) Unblock(ctx context.Context, who Blocked) (held bool, err error) {
	return s.editBlocks(ctx, "unblocking user", who, nil)
}

// editBlocks puts a block in the place of the one of a user, or with nil removes that,
// and reports whether it held. Blocks that are over go with it.
func (s *Service) editBlocks(
	ctx context.Context, doing string, who Blocked, put *Block,
) (held bool, err error) {
	c := s.cfg.Core
	if err := c.uses.begin(); err != nil {
		return false, wrap(doing, err)
	}
	defer c.uses.done()
	err = editBlocks(ctx, c.store, who.fact(), func(list []Block) []Block {
		n := len(list)
		list = slices.DeleteFunc(list, func(b Block) bool { return b.Blocked == who })
		if held = len(list) < n; put != nil {
			list = append(list, *put)
		}
		return list
	})
	return held, wrap(doing, c.asked(writing, err))
}

// editBlocks replaces the list in a fact by what change returns of it. It calls change
// again whenever another gate was faster. A damaged list counts as an empty one.
func editBlocks(
	ctx context.Context, st store.Store, name string, change func([]Block) []Block,
) error {
	return store.EditFact(ctx, st, name, func(was []byte) ([]byte, error) {
		list, _ := parseBlocks(was)
		if list = change(list); len(list) == 0 && was == nil {
			return nil, nil
		}
		return json.Marshal(list)
	})
}

// Blocks returns the blocks that hold, the newest first.
func (s *Service) Blocks(ctx context.Context) (all []Block, err error) {
	c := s.cfg.Core
	lists := make([][]Block, blockFacts)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range lists {
		group.Go(func() (err error) {
			lists[i], err = c.blocks(ctx, blockFact(byte(i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, wrap("listing blocks", err)
	}
	all = slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b Block) int { return b.Since.Compare(a.Since) })
	return all, nil
}

// blocks returns the blocks of one fact that hold.
func (c *Core) blocks(ctx context.Context, name string) ([]Block, error) {
	v, err := c.store.Fact(ctx, name)
	if c.asked(reading, err) != nil {
		return nil, err
	}
	list, err := parseBlocks(v)
	if err != nil {
		c.log.Error("damaged record in session store; treated as absent",
			zap.String("kind", "blocks"), zap.String("key", name))
	}
	return list, nil
}

// parseBlocks returns the blocks in a fact that hold.
func parseBlocks(v []byte) (list []Block, err error) {
	if v == nil {
		return nil, nil
	}
	if err := json.Unmarshal(v, &list); err != nil {
		return nil, fmt.Errorf("reading blocks: %w: %w", store.ErrDamaged, err)
	}
	now := time.Now()
	over := func(b Block) bool { return !b.Until.IsZero() && !now.Before(b.Until) }
	return slices.DeleteFunc(list, over), nil
}

// notBlocked returns ErrBlocked when a block holds for a user whose unionid is this;
// an unknown one is empty.
func (s *Service) notBlocked(ctx context.Context, id User, unionID string) error {
	group, ctx := errgroup.WithContext(ctx)
	find := func(who Blocked) {
		group.Go(func() error {
			list, err := s.cfg.Core.blocks(ctx, who.fact())
			if slices.ContainsFunc(list, func(b Block) bool { return b.Blocked == who }) {
				err = fmt.Errorf("%w: openid %s of %s", ErrBlocked, id.OpenID, id.AppID)
			}
			return err
		})
	}
	find(Blocked{AppID: id.AppID, OpenID: id.OpenID})
	if unionID != "" {
		find(Blocked{Person: s.person(id.AppID, unionID)})
	}
	return group.Wait()
}

// CopyBlocks adds the blocks of one store that hold to another, and returns how many
// that were. It leaves alone whom the target blocks by itself, and with since, an
// earlier state of the source, the blocks that are in there, too.
func CopyBlocks(
	ctx context.Context, from, since store.FactReader, to store.Store,
) (n int, err error) {
	for i := range blockFacts {
		name := blockFact(byte(i))
		list, err := readBlocks(ctx, from, name)
		if since != nil && err == nil {
			var before []Block
			before, err = readBlocks(ctx, since, name)
			list = slices.DeleteFunc(list, func(b Block) bool {
				return slices.ContainsFunc(before, b.same)
			})
		}
		if err == nil && len(list) > 0 {
			n += len(list)
			err = editBlocks(ctx, to, name, func(there []Block) []Block {
				for _, b := range list {
					if !slices.ContainsFunc(there, b.same) {
						there = append(there, b)
					}
				}
				return there
			})
		}
		if err != nil {
			return n, wrap("copying blocks", err)
		}
	}
	return n, nil
}

func (b Block) same(other Block) bool { return b.Blocked == other.Blocked }

func readBlocks(ctx context.Context, from store.FactReader, name string) ([]Block, error) {
	v, err := from.Fact(ctx, name)
	if err != nil {
		return nil, err
	}
	return parseBlocks(v)
}
