package session

import (
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Reason says why sessions end.
type Reason = store.Reason

// The reasons that callers give; those of the gate itself are in package store.
const (
	EndLogout    = store.EndLogout    // the user logged out
	EndRevoked   = store.EndRevoked   // the operator ended it
	EndByApp     = store.EndByApp     // the app ended it
	EndBlocked   = store.EndBlocked   // the operator blocked the user
	EndForgotten = store.EndForgotten // the operator or the app had the user forgotten
	EndCancelled = store.EndCancelled // WeChat said that the user cancelled the account
	EndWithdrawn = store.EndWithdrawn // WeChat said that the user withdrew consent
)

// ended logs how a session ended, once for all gates that share the store.
func (c *Core) ended(e store.Ended) {
	c.audit.Info("session ended", zap.String("appid", e.User.AppID),
		zap.String("openid", e.User.OpenID), zap.Stringer("session", e.Session),
		zap.Stringer("reason", e.Reason), zap.Time("at", e.At))
}
