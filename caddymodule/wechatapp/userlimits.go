package wechatapp

import (
	"context"
	"errors"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// UserLimits bounds the calls of one user for the user's own data; more sessions
// allow no more calls. It outlives configurations. The limits are fixed, far above
// what a person does with a mini program.
type UserLimits struct {
	decrypts *limit.Buckets[session.User]
	failures *limit.Buckets[session.User] // refused data: may be guesses (docs/threats.md#t29)
	phones   *limit.Buckets[session.User] // numbers cost money (docs/wechat.md#phone-code)
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

// AllowDecrypt takes one call of a user from the limits, before the gate reads the
// data. The call counts as refused data until DecryptSettled says otherwise, so
// that calls at the same time count in full (docs/threats.md#t41).
func (l *Live) AllowDecrypt(u session.User) (wait time.Duration, ok bool) {
	if wait, ok = l.Users.failures.Take(u); !ok {
		return limit.Spread(wait), ok
	}
	if wait, ok = l.Users.decrypts.Take(u); !ok {
		l.Users.failures.Give(u)
	}
	return limit.Spread(wait), ok
}

// DecryptSettled ends a call that AllowDecrypt allowed. Only refused data keeps
// its place in the limit of failures.
func (l *Live) DecryptSettled(u session.User, err error) {
	if !errors.Is(err, session.ErrData) {
		l.Users.failures.Give(u)
	}
}

// AllowPhone takes one telephone number of a user from the limits: that of this
// gate, then the one that all gates of the store share.
func (l *Live) AllowPhone(ctx context.Context, u session.User) (wait time.Duration, ok bool) {
	phones := l.Users.phones
	if wait, ok = phones.Take(u); !ok {
		return limit.Spread(wait), ok
	}
	return l.spend(ctx, "phone "+u.AppID+" "+u.OpenID, phones.Rate())
}
