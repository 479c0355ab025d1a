package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Identified is a Store that can tell itself from another one in its place: from
// an emptied server, a wrong path, a file that was begun anew.
type Identified interface {
	// Identity returns what the store has recorded of itself. It reads one record.
	Identity(ctx context.Context) (Identity, error)
}

// Identity names the records of a store. The first program that opens the store
// writes it. It stays as long as the records do, and goes with them into a backup.
type Identity struct {
	ID      string    // random, 16 hex digits
	Created time.Time // zero when the store is older than its identity
}

// NewIdentity returns the identity of a store that begins at the given time, or is
// older when that is the zero time.
func NewIdentity(created time.Time) Identity {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return Identity{ID: hex.EncodeToString(b[:]), Created: created}
}

// String returns the form at rest: the ID and, after a space, Created in
// milliseconds, 0 for the zero time.
func (i Identity) String() string {
	ms := int64(0)
	if !i.Created.IsZero() {
		ms = i.Created.UnixMilli()
	}
	return i.ID + " " + strconv.FormatInt(ms, 10)
}

// ParseIdentity reads the form at rest.
func ParseIdentity(text string) (Identity, error) {
	id, created, ok := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(created, 10, 64)
	if b, notHex := hex.DecodeString(id); !ok || err != nil || notHex != nil || len(b) != 8 {
		return Identity{}, fmt.Errorf("reading identity of session store: %w", ErrDamaged)
	}
	i := Identity{ID: id}
	if ms != 0 {
		i.Created = time.UnixMilli(ms)
	}
	return i, nil
}
