package redis

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// layout names the keys. It is the prefix they all begin with.
//
//	s:{digest}     store.Session; gone when it expires
//	t:{digest}     until when the session is used, a sign and milliseconds in 15 decimal digits, CRC-32C of them in hex; as long as the session
//	u:{hash}       store.User, by store.UserID.Hash; for userKept after the last login, and a day longer than the last session
//	e:{app:appid}  epoch of a mini program, 16 hex digits; made by the first login
//	e:{all}        epoch of everybody
//	n:{hash}       set of the user hashes that a unionid was once known of; an index of u that is never believed by itself
//	m              hash of needs: store.MasterKeyID and the epoch of everybody in hex -> until when, in milliseconds
//	k              the same for gates of the first release: store.MasterKeyID in hex -> until when, in milliseconds
//	h:{n}id        trial write of a gate, by its heartbeat or Health; gone after some seconds
//	b:{hash}       a token bucket: when it will be full, in microseconds
//	i:x            x has changed otherwise than by a login: gone after some seconds. The keys that every gate watches. They are written in the same step as the change, so they have its hash tag
type layout string

const (
	userKept = 180 * 24 * time.Hour // since the last login: the record holds the unionid and the session_key
	userOver = 24 * time.Hour       // longer than the last session, which would be lost with the record
	unionDay = 24 * time.Hour       // how often the index is written again for a user who logs in: it must outlive the record

	trials = 16 // keys of Health, so that those of a cluster fall on all its primaries

	changeKept = 5 * time.Second // a gate hears of a key as it is written; nobody reads it
)

func (p layout) session(d store.Digest) string { return p.hex("s:{", d[:]) }
func (p layout) touched(d store.Digest) string { return p.hex("t:{", d[:]) }
func (p layout) user(h [16]byte) string        { return p.hex("u:{", h[:]) }
func (p layout) app(appID string) string       { return string(p) + "e:{app:" + appID + "}" }
func (p layout) all() string                   { return string(p) + "e:{all}" }
func (p layout) needs() string                 { return string(p) + "m" }
func (p layout) firstNeeds() string            { return string(p) + "k" }
func (p layout) trial(id string) string {
	return string(p) + "h:{" + strconv.Itoa(rand.IntN(trials)) + "}" + id
}
func (p layout) bucket(name string) string   { return p.hashed("b:{", name) }
func (p layout) union(unionID string) string { return p.hashed("n:{", unionID) }

// changed names the invalidation of a key.
func (p layout) changed(key string) string { return string(p) + "i:" + key[len(p):] }

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
