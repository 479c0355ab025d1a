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
