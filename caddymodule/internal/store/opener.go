package store

import "go.uber.org/zap"

// Opener is a Caddy module in the namespace `wechat.stores`.
type Opener interface {
	// Identity names the resource, such as a file or a server and database,
	// without a secret. Two configurations with one identity share one open store.
	Identity() string

	// Open opens the store. Only the start of a configuration calls it; validation
	// does not.
	Open(log *zap.Logger) (Store, error)
}

// KeyKeeper is an Opener that keeps a master key beside the store, for an
// operator who gives none.
type KeyKeeper interface {
	// MasterKey returns the key. The first call ever makes it.
	MasterKey() (string, error)
}

// Beginner is an Opener that can tell before it opens the store that it would begin
// an empty one. A reload asks, since an empty store logs all users out.
type Beginner interface {
	// Begins reports that there is no store yet at the place of this one.
	Begins() bool

	// MayBegin reports that the operator consents to an empty store.
	MayBegin() bool
}
