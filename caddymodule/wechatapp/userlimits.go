package wechatapp

import (
	"context"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// UserLimits bounds the calls of one user for the user's own data; more sessions
// allow no more calls. It survives reloads. The limits are fixed, far above what a
// person does with a mini program.
type UserLimits struct {
	decrypts *limit.Buckets[session.User]
	failures *limit.Buckets[session.User] // refused data: the user may be guessing (THREATS.md 29)
	phones   *limit.Buckets[session.User] // numbers cost money (WECHAT.md 6.1)
}

// NewUserLimits returns limits that no call has used.
func NewUserLimits() *UserLimits {
	return &UserLimits{
		decrypts: limit.NewBuckets[session.User](limit.Rate{Events: 60, Per: time.Minute}),
		failures: limit.NewBuckets[session.User](limit.Rate{Events: 10, Per: time.Minute}),
		phones:   limit.NewBuckets[session.User](limit.Rate{Events: 10, Per: time.Hour}),
	}
}

// Destruct has nothing to release.
func (*UserLimits) Destruct() error { return nil }

// AllowDecrypt asks whether a user may have data decrypted.
func (l *Live) AllowDecrypt(u session.User) (wait time.Duration, ok bool) {
	if wait, ok = l.Users.failures.Peek(u); !ok {
		return wait, ok
	}
	return l.Users.decrypts.Take(u)
}

// DecryptFailed counts refused data of a user.
func (l *Live) DecryptFailed(u session.User) { l.Users.failures.Spend(u) }

// AllowPhone asks whether a user may have a telephone number, here and then at the
// other gates of the store.
func (l *Live) AllowPhone(ctx context.Context, u session.User) (wait time.Duration, ok bool) {
	phones := l.Users.phones
	if wait, ok = phones.Take(u); !ok {
		return wait, ok
	}
	return l.spend(ctx, "phone "+u.AppID+" "+u.OpenID, phones.Rate())
}
