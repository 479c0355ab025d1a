package caddymodule

import (
	"context"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// allowances count what the endpoints for data of the caller are used for, user by user: a second session is no second helping. It outlives configurations. The limits are far above what a
// person does with a mini program, and fixed.
type allowances struct {
	opens    *limit.Buckets[store.UserID] // calls of decrypt
	failures *limit.Buckets[store.UserID] // those of them whose data was refused: somebody may be guessing (THREATS.md 29)
	phones   *limit.Buckets[store.UserID] // numbers asked of WeChat, which cost money (WECHAT.md 6.1)
}

func newAllowances() *allowances {
	return &allowances{
		opens:    limit.NewBuckets[store.UserID](limit.Rate{Events: 60, Per: time.Minute}),
		failures: limit.NewBuckets[store.UserID](limit.Rate{Events: 10, Per: time.Minute}),
		phones:   limit.NewBuckets[store.UserID](limit.Rate{Events: 10, Per: time.Hour}),
	}
}

// Destruct has nothing to release.
func (*allowances) Destruct() error { return nil }

// decrypt asks whether a user may have data opened.
func (s *allowances) decrypt(u store.UserID) (wait time.Duration, ok bool) {
	if wait, ok = s.failures.Peek(u); !ok {
		return wait, ok
	}
	return s.opens.Take(u)
}

// decryptFailed notes that data of a user was refused.
func (s *allowances) decryptFailed(u store.UserID) { s.failures.Spend(u) }

// letPhone asks whether a user may have a number, here and then at the other gates of the store.
func (live *running) letPhone(ctx context.Context, u store.UserID) (wait time.Duration, ok bool) {
	phones := live.allowances.phones
	if wait, ok = phones.Take(u); !ok {
		return wait, ok
	}
	return live.spend(ctx, "phone "+u.AppID+" "+u.OpenID, phones.Rate())
}

// tooMany is the answer to a user who has reached a limit of the allowances.
func tooMany(wait time.Duration) problem {
	p := probLimited
	p.detail, p.retryAfter = "too many calls of this kind: try again later", wait
	return p
}
