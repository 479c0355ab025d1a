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
	Consenter

	// Begins reports that there is no store yet at the place of this one.
	Begins() bool
}

// Renewer is an Opener whose open store can take up settings that do not belong to
// its identity, such as a password.
type Renewer interface {
	// Renew makes st, which an Opener of the same identity has opened, take up the
	// settings of this one. An error says why it keeps the old ones for now.
	Renew(st Store) error
}

// Consenter is an Opener whose operator may consent to an empty store. One that is no
// Beginner only tells when it is open whether it is empty.
type Consenter interface {
	// MayBegin reports that the operator consents to an empty store in the place of
	// one with sessions.
	MayBegin() bool
}
