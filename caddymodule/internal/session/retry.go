package session

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	// clockSkew is how far apart the clocks of gates may be: a session of another gate may bear a time as much later than it was made.
	clockSkew = time.Second

	retryFirst = 100 * time.Millisecond
	retryMost  = time.Second
)

// revoked takes note of the outcome of a revocation: done, it is marked; not done for want of a store, it becomes pending. That covers all that a mark would, in case the change has gone
// through nevertheless, and leaves everybody else in the cache, who in an outage could not be looked up again.
func (c *Core) revoked(r revocation, err error) {
	if errors.Is(err, ErrUnavailable) {
		before := time.Now()
		if c.shared != nil {
			before = before.Add(clockSkew)
		}
		kept, start := c.pending.add(r, before)
		if start {
			c.work.Go(c.retry)
		}
		if kept {
			return
		}
	}
	c.mark(r)
	if err != nil {
		return
	}
	c.pending.done(r)
	if c.shared != nil {
		c.lately.add(r, time.Now())
	}
}

// mark stops believing what the cache has of the sessions that a revocation ended.
func (c *Core) mark(r revocation) {
	switch r.kind {
	case ofSession:
		c.cache.void(digestKey(r.digest))
	case ofUser:
		c.cache.void(userKey(r.user))
	default:
		c.cache.voidAll()
	}
}

// retry carries out what is pending, one at a time, until nothing is.
func (c *Core) retry() {
	for wait := retryFirst; ; {
		select {
		case <-time.After(wait):
		case <-c.closing.Done():
		}
		r, d, ok := c.pending.next()
		if !ok {
			return
		}
		err := c.closing.Err()
		if err == nil {
			_, err = survive(c, func() (struct{}, error) { return struct{}{}, c.carryOut(r, d) })
		}
		switch over := !time.Now().Before(d.until); {
		case err == nil && d.again:
		case err == nil:
			c.outage.Log.Info("revocation carried out after all", r.fields()...)
		case over || c.closing.Err() != nil || !errors.Is(err, ErrUnavailable):
			c.outage.Log.Error("revocation given up", append(r.fields(), zap.Bool("expired", over), zap.Error(err))...)
		default:
			wait = min(max(2*wait, retryFirst), retryMost)
			continue
		}
		c.mark(r)
		c.pending.drop(r, d)
		wait = 0
	}
}

// carryOut makes a pending revocation durable. Sessions that were made since it was asked for are left alone, except by those of a whole mini program and of everybody: their epochs know no
// time, and whoever logged in after the store could be written again and before this gate tried has to do so once more.
func (c *Core) carryOut(r revocation, d due) error {
	ctx, cancel := context.WithTimeout(c.closing, storeTimeout)
	defer cancel()
	switch r.kind {
	case ofSession:
		return c.asked(writing, c.store.End(ctx, r.digest))
	case ofUser:
		return c.endUser(ctx, r.user, d.before)
	case ofUnionID:
		ids, err := c.store.ByUnionID(ctx, r.unionID)
		if c.asked(reading, err) != nil {
			return err
		}
		for _, id := range ids {
			err = errors.Join(err, c.endUser(ctx, id, d.before))
		}
		return err
	case ofApp:
		return c.asked(writing, c.store.RevokeApp(ctx, r.user.AppID))
	}
	return c.asked(writing, c.store.RevokeAll(ctx))
}

// endUser ends the sessions of a user that were created until a time, in Unix milliseconds.
func (c *Core) endUser(ctx context.Context, id store.UserID, before int64) error {
	u, err := c.store.User(ctx, id)
	if errors.Is(c.asked(reading, err), ErrUnavailable) {
		return err
	}
	later := func(ref store.SessionRef) bool { return ref.Created.UnixMilli() > before }
	if !slices.ContainsFunc(u.Sessions, later) {
		return c.asked(writing, c.store.RevokeUser(ctx, id)) // rather than by the list, which is never the judge of a session
	}
	err = nil
	for _, ref := range slices.DeleteFunc(u.Sessions, later) {
		err = errors.Join(err, c.asked(writing, c.store.End(ctx, ref.Digest)))
	}
	return err
}

// fields names the target in the log, as the line of the failed call does.
func (r revocation) fields() []zap.Field {
	switch r.kind {
	case ofSession:
		return []zap.Field{zap.String("target", "session"), zap.String("session", hex.EncodeToString(r.digest[:sessionIDLen/2]))}
	case ofUser:
		return []zap.Field{zap.String("target", "user"), zap.String("appid", r.user.AppID), zap.String("openid", r.user.OpenID)}
	case ofUnionID:
		return []zap.Field{zap.String("target", "unionid"), zap.String("unionid", r.unionID)}
	case ofApp:
		return []zap.Field{zap.String("target", "app"), zap.String("appid", r.user.AppID)}
	}
	return []zap.Field{zap.String("target", "all")}
}
