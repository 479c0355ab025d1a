package store

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A record at rest is a version byte, fixed-width little-endian numbers and
// length-prefixed strings, then a CRC-32C: no engine notices a bit that flips
// inside a value. All engines keep the same bytes. A record has one spelling.
//
// UsedUntil is kept as the time one MaxTouchInterval before it. The first release
// kept there when the session was last seen. So its records read as if it noted
// at the longest interval, and no session in use ends (docs/stores.md#idle).
//
// A user without a telephone number has version 1, as in the first release, so
// that an older program can read it. For the same reason Ends stand before the
// sessions in their list, as sessions that have expired, with a digest that no token
// has: the id, the reason, zeros. An older program drops them at the next login.
const (
	sessionVersion   = 1
	userVersion      = 1
	phoneUserVersion = 2 // ends with the number, which is not empty

	seenBefore = uint64(MaxTouchInterval / time.Millisecond)
)

// AppendBinary implements encoding.BinaryAppender. The error is always nil.
func (s Session) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, sessionVersion)
	b = appendTime(b, s.Created)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.UsedUntil.UnixMilli())-seenBefore)
	b = appendTime(b, s.Expires)
	b = binary.LittleEndian.AppendUint64(b, s.Epochs.Global)
	b = binary.LittleEndian.AppendUint64(b, s.Epochs.App)
	b = binary.LittleEndian.AppendUint64(b, s.Epochs.User)
	b = appendBytes(b, s.User.AppID)
	b = appendBytes(b, s.User.OpenID)
	return appendSum(b, start), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It keeps no reference to
// b. The error wraps ErrDamaged.
func (s *Session) UnmarshalBinary(b []byte) error {
	d := newDecoder(b)
	d.version(sessionVersion, sessionVersion)
	out := Session{
		Created:   d.time(),
		UsedUntil: time.UnixMilli(int64(d.uint64() + seenBefore)),
		Expires:   d.time(),
		Epochs:    Epochs{Global: d.uint64(), App: d.uint64(), User: d.uint64()},
		User:      UserID{AppID: string(d.bytes()), OpenID: string(d.bytes())},
	}
	if err := d.end("session"); err != nil {
		return err
	}
	*s = out
	return nil
}

// AppendBinary implements encoding.BinaryAppender. The error is always nil.
func (u User) AppendBinary(b []byte) ([]byte, error) {
	start := len(b)
	version := byte(userVersion)
	if len(u.Phone) > 0 {
		version = phoneUserVersion
	}
	b = append(b, version)
	b = binary.LittleEndian.AppendUint64(b, u.Epoch)
	b = binary.LittleEndian.AppendUint64(b, u.KeyVersion)
	b = appendTime(b, u.LastLogin)
	b = appendBytes(b, u.ID.AppID)
	b = appendBytes(b, u.ID.OpenID)
	b = appendBytes(b, u.UnionID)
	for _, k := range []SealedKey{u.Key, u.PrevKey} {
		b = append(b, k.Tag[:]...)
		b = appendBytes(b, k.Box)
	}
	b = binary.AppendUvarint(b, uint64(len(u.Ends)+len(u.Sessions)))
	for _, e := range u.Ends {
		b = e.ref().appendTo(b)
	}
	for _, s := range u.Sessions {
		b = s.appendTo(b)
	}
	if version == phoneUserVersion {
		b = appendBytes(b, u.Phone)
	}
	return appendSum(b, start), nil
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler. It keeps no reference to
// b. The error wraps ErrDamaged.
func (u *User) UnmarshalBinary(b []byte) error {
	d := newDecoder(b)
	version := d.version(userVersion, phoneUserVersion)
	out := User{
		Epoch:      d.uint64(),
		KeyVersion: d.uint64(),
		LastLogin:  d.time(),
		ID:         UserID{AppID: string(d.bytes()), OpenID: string(d.bytes())},
		UnionID:    string(d.bytes()),
		Key:        d.sealedKey(),
		PrevKey:    d.sealedKey(),
	}
	for range d.count(len(Digest{}) + 16) {
		ref := SessionRef{
			Digest: Digest(d.take(len(Digest{}))), Created: d.time(), Expires: d.time(),
		}
		if e, ok := endOf(ref); ok {
			d.bad = d.bad || len(out.Sessions) > 0
			out.Ends = append(out.Ends, e)
		} else {
			out.Sessions = append(out.Sessions, ref)
		}
	}
	if version == phoneUserVersion {
		out.Phone = d.box()
		d.bad = d.bad || out.Phone == nil
	}
	if err := d.end("user"); err != nil {
		return err
	}
	*u = out
	return nil
}

func (s SessionRef) appendTo(b []byte) []byte {
	b = append(b, s.Digest[:]...)
	b = appendTime(b, s.Created)
	return appendTime(b, s.Expires)
}

// ref returns the form of an end at rest.
func (e End) ref() SessionRef {
	ref := SessionRef{Created: e.Created, Expires: e.At}
	copy(ref.Digest[:], e.Session[:])
	ref.Digest[len(e.Session)] = byte(e.Reason)
	return ref
}

// endOf is the inverse of End.ref.
func endOf(ref SessionRef) (e End, ok bool) {
	e = End{
		Session: ref.Digest.ID(), Created: ref.Created, At: ref.Expires,
		Reason: Reason(ref.Digest[len(e.Session)]),
	}
	return e, e.Reason != 0 && e.ref().Digest == ref.Digest
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(t.UnixMilli()))
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendSum closes the record that begins at start.
func appendSum(b []byte, start int) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// newDecoder checks and removes the sum of a record.
func newDecoder(b []byte) decoder {
	n := len(b) - 4
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return decoder{bad: true}
	}
	return decoder{rest: b[:n]}
}

// decoder reads a record. After the first damage every read returns zeros, and
// end reports it.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad, d.rest = true, nil
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// count reads the number of items of at least size bytes each. It refuses more
// items than the record has room for, which would waste memory, and a number
// padded with zeros, which would be a second spelling.
func (d *decoder) count(size int) int {
	n, used := binary.Uvarint(d.rest)
	padded := used > 1 && d.rest[used-1] == 0
	if d.bad || used <= 0 || padded || n > uint64((len(d.rest)-used)/size) {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[used:]
	return int(n)
}

func (d *decoder) version(oldest, newest byte) byte {
	v := d.take(1)[0]
	d.bad = d.bad || v < oldest || v > newest
	return v
}

func (d *decoder) uint64() uint64  { return binary.LittleEndian.Uint64(d.take(8)) }
func (d *decoder) time() time.Time { return time.UnixMilli(int64(d.uint64())) }
func (d *decoder) bytes() []byte   { return d.take(d.count(1)) }

// box reads an envelope into memory of its own; the empty one is nil.
func (d *decoder) box() []byte { return append([]byte(nil), d.bytes()...) }

func (d *decoder) sealedKey() SealedKey {
	return SealedKey{Tag: [8]byte(d.take(8)), Box: d.box()}
}

func (d *decoder) end(what string) error {
	if d.bad || len(d.rest) != 0 {
		return fmt.Errorf("reading %s record: %w", what, ErrDamaged)
	}
	return nil
}
