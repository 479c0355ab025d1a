// Package assertion owns the proof that travels with a request: a JWT, signed with
// ES256, that says whose the request is to an app that does not trust its network
// (docs/design.md#assertion). It owns the keys, their life and their rotation, and
// what a site signs.
//
// It must not know sessions, HTTP or Caddy.
package assertion

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

const (
	// Life is how long an assertion is valid.
	Life = time.Minute

	// Lead is how long a new key is published before it signs: longer than verifiers
	// keep the key set (KeySetAge), than a gate takes to hear of it (Every), and than
	// both together.
	Lead = 10 * time.Minute

	// KeySetAge is how long a verifier may keep the key set.
	KeySetAge = 5 * time.Minute

	// Every is how often a gate asks the store for the keys.
	Every = time.Minute

	// grace is how long an old key stays published after the next one signs: for its
	// last assertion, and for gates whose clocks differ.
	grace = 3 * Life
)

// ErrNoKey means that no key to sign with is known, since the store has not answered
// yet, or not for so long that another gate may have rotated the key.
var ErrNoKey = errors.New("no assertion key")

// fact is the name of the keys in the store.
const fact = "assertion"

// Box is where a configuration finds the keys, and what opens them.
type Box struct {
	Facts  store.Facts
	Ring   *keyring.Ring
	Shared bool // other gates use the same store
}

// Keys are the keys of a store as this process knows them. The zero value knows none.
// They outlive configurations, and outages of the store. It is safe for concurrent
// use.
type Keys struct {
	set atomic.Pointer[set]
	mu  sync.Mutex // one change at a time
}

// set is what the store said last. It never changes.
type set struct {
	keys   []*key    // by from
	until  time.Time // it holds no longer without another answer; zero: always
	sealed []byte
}

type key struct {
	ID      string
	From    time.Time // signs from then on
	private *ecdsa.PrivateKey
	signer  jose.Signer
}

// record is the form of a set at rest, inside its envelope.
type record struct {
	Keys []recordKey `json:"keys"`
}

type recordKey struct {
	Private []byte `json:"private"` // the scalar
	From    int64  `json:"from"`    // Unix seconds
}

// Load asks the store for the keys, and makes the first one. Gates that do so at the
// same time end with the same keys. With reseal it seals them anew when another master
// key has become the first. After an error the keys known before stay.
func (k *Keys) Load(ctx context.Context, b Box, reseal bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.change(ctx, b, reseal, func(known []*key) ([]*key, error) {
		if len(known) > 0 {
			return known, nil
		}
		if last := k.set.Load(); last != nil {
			return last.keys, nil // the store has lost them
		}
		first, err := newKey(time.Unix(0, 0))
		return []*key{first}, err
	})
	if err != nil {
		return fmt.Errorf("loading assertion keys: %w", err)
	}
	return nil
}

// Rotate makes a new key, which signs after Lead, and returns its id and that time. A
// key that does not sign yet is the new one. Keys that the ring cannot open are
// replaced, and the new one signs at once: its old assertions fail.
func (k *Keys) Rotate(ctx context.Context, b Box) (id string, from time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err = k.rotate(ctx, b, time.Now())
	if err != nil {
		return "", time.Time{}, fmt.Errorf("rotating assertion key: %w", err)
	}
	keys := k.set.Load().keys
	last := keys[len(keys)-1]
	return last.ID, last.From, nil
}

func (k *Keys) rotate(ctx context.Context, b Box, now time.Time) error {
	rotated := func(known []*key) ([]*key, error) {
		if len(known) > 0 && known[len(known)-1].From.After(now) {
			return known, nil
		}
		from := now.Add(Lead)
		if len(known) == 0 {
			from = time.Unix(0, 0)
		}
		next, err := newKey(from)
		if err != nil {
			return nil, err
		}
		return append(published(known, now), next), nil
	}
	err := k.change(ctx, b, true, rotated)
	if errors.Is(err, errSealed) {
		old, factErr := b.Facts.Fact(ctx, fact)
		if factErr != nil {
			return factErr
		}
		next, keyErr := rotated(nil)
		if keyErr != nil {
			return keyErr
		}
		_, err = k.put(ctx, b, old, next)
	}
	return err
}

// errSealed means that the ring does not open the keys.
var errSealed = errors.New("the assertion keys in the store do not open: put the master key " +
	"that sealed them back behind the new one in seal_key, or make a new assertion key with " +
	"`wxgate wechat keys rotate-assertion`")

// change replaces the keys in the store by what f makes of them, which may be the
// same. Where another gate comes first, f gets the keys of that one.
func (k *Keys) change(
	ctx context.Context, b Box, reseal bool, f func([]*key) ([]*key, error),
) error {
	asked := time.Now()
	sealed, err := b.Facts.Fact(ctx, fact)
	if err != nil {
		return err
	}
	for {
		known, current, err := open(b.Ring, sealed)
		if err != nil {
			return err
		}
		next, err := f(known)
		if err != nil {
			return err
		}
		if (current || !reseal) && slices.Equal(next, known) {
			k.keep(b, known, sealed, asked)
			return nil
		}
		now, err := k.put(ctx, b, sealed, next)
		if err != nil || now == nil {
			return err
		}
		sealed = now
	}
}

// put writes keys in place of a record. It returns the other record that is there
// when another gate came first, else nil.
func (k *Keys) put(ctx context.Context, b Box, was []byte, keys []*key) ([]byte, error) {
	asked := time.Now()
	sealed, err := seal(b.Ring, keys)
	if err != nil {
		return nil, err
	}
	now, err := b.Facts.SetFact(ctx, fact, was, sealed)
	switch {
	case err != nil:
		return nil, err
	case !slices.Equal(now, sealed):
		return now, nil
	}
	k.keep(b, keys, sealed, asked)
	return nil, nil
}

// keep makes keys those of this process. Those of a shared store hold until a rotation
// after asked may sign.
func (k *Keys) keep(b Box, keys []*key, sealed []byte, asked time.Time) {
	s := &set{keys: keys, sealed: sealed}
	if b.Shared {
		s.until = asked.Add(Lead)
	}
	if old := k.set.Load(); old != nil && slices.Equal(old.sealed, sealed) {
		s.keys = old.keys
	}
	k.set.Store(s)
}

// CopyKeys puts the keys of one store into another that has none, sealed as they are, so
// that verifiers see no change. It reports whether it has. A ring that does not open
// them copies nothing; a nil ring is not asked.
func CopyKeys(
	ctx context.Context, from store.FactReader, to store.Facts, ring *keyring.Ring,
) (bool, error) {
	sealed, err := from.Fact(ctx, fact)
	if err == nil && ring != nil {
		if _, _, err := open(ring, sealed); err != nil {
			return false, nil
		}
	}
	var now []byte
	if err == nil && sealed != nil {
		now, err = to.SetFact(ctx, fact, nil, sealed)
	}
	if err != nil {
		return false, fmt.Errorf("copying assertion keys: %w", err)
	}
	return now != nil && slices.Equal(now, sealed), nil
}

// open returns the keys of a record, none of nil, and whether it needs no new seal.
func open(ring *keyring.Ring, sealed []byte) (keys []*key, current bool, err error) {
	if sealed == nil {
		return nil, false, nil
	}
	text, current, err := ring.OpenShared(fact, sealed)
	if err != nil {
		return nil, false, fmt.Errorf("%w (%w)", errSealed, err)
	}
	var rec record
	if err := json.Unmarshal([]byte(text), &rec); err != nil || len(rec.Keys) == 0 {
		return nil, false, fmt.Errorf("%w (damaged)", errSealed)
	}
	for _, r := range rec.Keys {
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), r.Private)
		if err != nil {
			return nil, false, fmt.Errorf("%w (damaged)", errSealed)
		}
		k, err := prepare(private, time.Unix(r.From, 0))
		if err != nil {
			return nil, false, err
		}
		keys = append(keys, k)
	}
	return keys, current, nil
}

func seal(ring *keyring.Ring, keys []*key) ([]byte, error) {
	var rec record
	for _, k := range keys {
		private, err := k.private.Bytes()
		if err != nil {
			return nil, err
		}
		rec.Keys = append(rec.Keys, recordKey{Private: private, From: k.From.Unix()})
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	return ring.SealShared(fact, string(text)), nil
}

func newKey(from time.Time) (*key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return prepare(private, time.Unix(from.Unix(), 0))
}

// prepare names a key by a digest of its public half.
func prepare(private *ecdsa.PrivateKey, from time.Time) (*key, error) {
	point, err := private.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(point)
	k := &key{
		ID:   base64.RawURLEncoding.EncodeToString(sum[:9]),
		From: from, private: private,
	}
	k.signer, err = jose.NewSigner(
		jose.SigningKey{
			Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: k.ID},
		},
		(&jose.SignerOptions{}).WithType("JWT"),
	)
	return k, err
}

// published returns the keys that verifiers may still need at a time: all but those
// whose last assertion has ended.
func published(keys []*key, now time.Time) []*key {
	for len(keys) > 1 && now.After(keys[1].From.Add(grace)) {
		keys = keys[1:]
	}
	return slices.Clip(keys)
}

// signs returns the key that signs at a time.
func (s *set) signs(now time.Time) *key {
	for i := len(s.keys) - 1; i > 0; i-- {
		if !now.Before(s.keys[i].From) {
			return s.keys[i]
		}
	}
	return s.keys[0]
}

// current returns the keys to sign with. The error is ErrNoKey.
func (k *Keys) current(now time.Time) (*set, error) {
	if k == nil {
		return nil, ErrNoKey
	}
	s := k.set.Load()
	if s == nil || !s.until.IsZero() && now.After(s.until) {
		return nil, ErrNoKey
	}
	return s, nil
}

// Known reports whether there is a key to sign with.
func (k *Keys) Known() bool {
	_, err := k.current(time.Now())
	return err == nil
}

// Public returns the key set for verifiers (RFC 7517), the last known one while the
// store is away. The error is ErrNoKey.
func (k *Keys) Public() ([]byte, error) {
	if k == nil || k.set.Load() == nil {
		return nil, ErrNoKey
	}
	s := k.set.Load()
	var out jose.JSONWebKeySet
	for _, key := range published(s.keys, time.Now()) {
		out.Keys = append(out.Keys, jose.JSONWebKey{
			Key: key.private.Public(), KeyID: key.ID, Algorithm: string(jose.ES256), Use: "sig",
		})
	}
	return json.Marshal(out)
}

// Key tells of one key.
type Key struct {
	ID    string
	From  time.Time // the zero time for the first key
	Signs bool
}

// List tells of the published keys, oldest first.
func (k *Keys) List() (out []Key) {
	if k == nil || k.set.Load() == nil {
		return nil
	}
	s, now := k.set.Load(), time.Now()
	for _, key := range published(s.keys, now) {
		row := Key{ID: key.ID, Signs: key == s.signs(now)}
		if key.From.Unix() > 0 {
			row.From = key.From
		}
		out = append(out, row)
	}
	return out
}
