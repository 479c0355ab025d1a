package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// layout names the keys. It is the prefix that they all begin with.
//
//	s:{digest}     store.Session; gone when it expires
//	t:{digest}     note until when the session is used (noteOf); as long as the session
//	u:{hash}       store.User, by store.UserID.Hash; for userKept after the last login,
//	               and a day longer than the last session
//	p:{hash}       store.Proof of the user's unionid, which gates of before do not write;
//	               as long as n
//	e:{app:appid}  epoch of a mini program, 16 hex digits; the first login makes it
//	e:{all}        epoch of all
//	n:{hash}       set of the user hashes that a unionid was once known of; an index of
//	               u that no answer relies on alone
//	m              hash of needs for master keys: store.MasterKeyID and the epoch of all,
//	               in hex -> until when, in milliseconds
//	k              the same for gates of the first release, without the epoch
//	f:{name}       store.Store.Fact of that name
//	id:{n}         store.Identity, written once; n is 0, or in a cluster below 16
//	h:{n}id        trial write of a gate, by its heartbeat or Health; some seconds
//	b:{hash}       rate limit: when the bucket will be full, in microseconds
//	i:x            x has changed otherwise than by a login; some seconds. Every gate
//	               tracks these keys. A change writes them in the same step, so they
//	               have its hash tag
type layout string

const (
	userKept = 180 * 24 * time.Hour // the record holds the unionid and the session_key
	userOver = 24 * time.Hour       // a session must not outlive the record
	unionDay = 24 * time.Hour       // between writes to the index, which outlives the record

	changeKept = "5000" // milliseconds; gates react to the write and never read the key

	trials = 16 // keys of Health, so that those of a cluster fall on all its primaries
)

func (p layout) session(d store.Digest) string { return p.hex("s:{", d[:]) }
func (p layout) touched(d store.Digest) string { return p.hex("t:{", d[:]) }
func (p layout) user(h [16]byte) string        { return p.hex("u:{", h[:]) }
func (p layout) proof(h [16]byte) string       { return p.hex("p:{", h[:]) }
func (p layout) app(appID string) string       { return string(p) + "e:{app:" + appID + "}" }
func (p layout) all() string                   { return string(p) + "e:{all}" }
func (p layout) union(unionID string) string   { return p.hashed("n:{", unionID) }
func (p layout) needs() string                 { return string(p) + "m" }
func (p layout) fact(name string) string       { return string(p) + "f:{" + name + "}" }
func (p layout) firstNeeds() string            { return string(p) + "k" }
func (p layout) bucket(name string) string     { return p.hashed("b:{", name) }

func (p layout) trial(id string) string {
	return string(p) + "h:{" + strconv.Itoa(rand.IntN(trials)) + "}" + id
}

// changed names the invalidation of a key.
func (p layout) changed(key string) string { return string(p) + invalidations + key[len(p):] }

func (p layout) hashed(kind, name string) string {
	sum := sha256.Sum256([]byte(name))
	return p.hex(kind, sum[:16])
}

func (p layout) hex(kind string, name []byte) string {
	var buf [128]byte
	b := append(buf[:0], p...)
	b = append(b, kind...)
	b = hex.AppendEncode(b, name)
	return string(append(b, '}'))
}

// unhex reads exactly as many bytes as dst has.
func unhex(dst []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(dst)) {
		return false
	}
	_, err := hex.Decode(dst, []byte(s))
	return err == nil
}

func millis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
