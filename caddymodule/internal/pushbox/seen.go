// Package pushbox owns what gates remember of WeChat's pushes, in facts of the store:
// which they have taken, and which an app has yet to get. All gates of a store share it,
// and it survives a restart.
//
// It must not know HTTP, the protocol of pushes or what a push asks for.
package pushbox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Digest names a push.
type Digest [sha256.Size]byte

const (
	seenFacts = 64    // by the first byte of the digest, so that few pushes meet
	maxSeen   = 16384 // in one fact: 25 a second for each, over eleven minutes

	seenDigest = 12 // bytes of a digest: enough to tell pushes apart
	seenEntry  = seenDigest + 4
)

// Seen remembers pushes until they cannot come again.
type Seen struct{ Facts store.Facts }

func seenFact(d Digest) string { return fmt.Sprintf("pushes seen %02x", d[0]%seenFacts) }

// Has reports whether a push was added. The error is that of Facts.
func (s Seen) Has(ctx context.Context, d Digest, now time.Time) (bool, error) {
	list, err := s.Facts.Fact(ctx, seenFact(d))
	return slices.ContainsFunc(entries(list, now), func(e []byte) bool {
		return bytes.Equal(e[:seenDigest], d[:seenDigest])
	}), err
}

// Add remembers a push until a time. It does so durably. The error is that of Facts.
func (s Seen) Add(ctx context.Context, d Digest, until, now time.Time) error {
	entry := binary.BigEndian.AppendUint32(slices.Clone(d[:seenDigest]), uint32(until.Unix()))
	return store.EditFact(ctx, s.Facts, seenFact(d), func(was []byte) ([]byte, error) {
		list := append(entries(was, now), entry)
		return bytes.Join(list[max(0, len(list)-maxSeen):], nil), nil
	})
}

// entries returns the entries of a fact that hold at a time, oldest first. A damaged
// end counts as absent.
func entries(list []byte, now time.Time) (out [][]byte) {
	for e := range slices.Chunk(list, seenEntry) {
		if len(e) == seenEntry && binary.BigEndian.Uint32(e[seenDigest:]) > uint32(now.Unix()) {
			out = append(out, e)
		}
	}
	return out
}
