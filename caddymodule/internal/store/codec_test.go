package store_test

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	_ encoding.BinaryAppender    = store.Session{}
	_ encoding.BinaryUnmarshaler = (*store.Session)(nil)
	_ encoding.BinaryAppender    = store.User{}
	_ encoding.BinaryUnmarshaler = (*store.User)(nil)
)

func encode(t interface{ Fatal(args ...any) }, v encoding.BinaryAppender) []byte {
	b, err := v.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func times() *rapid.Generator[time.Time] {
	odd := rapid.SampledFrom([]int64{0, -1, math.MinInt64, math.MaxInt64})
	return rapid.Map(rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1<<42), odd), time.UnixMilli)
}

func userIDs() *rapid.Generator[store.UserID] {
	return rapid.Custom(func(t *rapid.T) store.UserID {
		return store.UserID{
			AppID: rapid.String().Draw(t, "appid"), OpenID: rapid.String().Draw(t, "openid"),
		}
	})
}

// digests never yields one that ends like that of an end at rest.
func digests() *rapid.Generator[store.Digest] {
	return rapid.Custom(func(t *rapid.T) store.Digest {
		d := store.Digest(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		d[31] |= 1
		return d
	})
}

func ends() *rapid.Generator[store.End] {
	return rapid.Custom(func(t *rapid.T) store.End {
		id := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "id")
		return store.End{
			Session: store.SessionID(id), Created: times().Draw(t, "created"),
			At: times().Draw(t, "at"), Reason: store.Reason(rapid.ByteMin(1).Draw(t, "reason")),
		}
	})
}

// boxes never yields an empty one, which reads as nil.
func boxes() *rapid.Generator[[]byte] {
	return rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 300), func(b []byte) []byte {
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

func sealedKeys() *rapid.Generator[store.SealedKey] {
	return rapid.Custom(func(t *rapid.T) store.SealedKey {
		tag := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "tag")
		return store.SealedKey{Tag: [8]byte(tag), Box: boxes().Draw(t, "box")}
	})
}

func sessions() *rapid.Generator[store.Session] {
	return rapid.Custom(func(t *rapid.T) store.Session {
		return store.Session{
			User:      userIDs().Draw(t, "user"),
			Created:   times().Draw(t, "created"),
			UsedUntil: times().Draw(t, "used until"),
			Expires:   times().Draw(t, "expires"),
			Epochs: store.Epochs{
				Global: rapid.Uint64().Draw(t, "global"),
				App:    rapid.Uint64().Draw(t, "app"),
				User:   rapid.Uint64().Draw(t, "user epoch"),
			},
		}
	})
}

func users() *rapid.Generator[store.User] {
	return rapid.Custom(func(t *rapid.T) store.User {
		u := store.User{
			ID:         userIDs().Draw(t, "id"),
			UnionID:    rapid.String().Draw(t, "unionid"),
			Epoch:      rapid.Uint64().Draw(t, "epoch"),
			KeyVersion: rapid.Uint64().Draw(t, "version"),
			Key:        sealedKeys().Draw(t, "key"),
			PrevKey:    sealedKeys().Draw(t, "previous"),
			Phone:      boxes().Draw(t, "phone"),
			LastLogin:  times().Draw(t, "login"),
		}
		for range rapid.IntRange(0, 12).Draw(t, "sessions") {
			u.Sessions = append(u.Sessions, store.SessionRef{
				Digest:  digests().Draw(t, "digest"),
				Created: times().Draw(t, "created"),
				Expires: times().Draw(t, "expires"),
			})
		}
		for range rapid.IntRange(0, store.MaxEnds).Draw(t, "ends") {
			u.Ends = append(u.Ends, ends().Draw(t, "end"))
		}
		return u
	})
}

func TestCodec_RoundTrip_NothingLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, u := sessions().Draw(t, "session"), users().Draw(t, "user")
		var gotS store.Session
		var gotU store.User
		for _, c := range []struct {
			b    []byte
			into encoding.BinaryUnmarshaler
		}{{encode(t, s), &gotS}, {encode(t, u), &gotU}} {
			if err := c.into.UnmarshalBinary(c.b); err != nil {
				t.Fatal(err)
			}
			clear(c.b) // the record must not point into its bytes
		}
		if !reflect.DeepEqual(gotS, s) || !reflect.DeepEqual(gotU, u) {
			t.Fatalf("got %+v, want %+v; got %+v, want %+v", gotS, s, gotU, u)
		}
	})
}

func TestCodec_Append_KeepsWhatIsThere(t *testing.T) {
	for _, v := range []encoding.BinaryAppender{store.Session{User: alice}, store.User{ID: alice}} {
		b, err := v.AppendBinary([]byte("before"))
		if err != nil || !bytes.Equal(b, append([]byte("before"), encode(t, v)...)) {
			t.Errorf("%T: %q, %v", v, b, err)
		}
	}
}

func TestCodec_Damaged_RefusedAndReceiverKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, u := sessions().Draw(t, "session"), users().Draw(t, "user")
		for name, b := range damages(t, encode(t, s)) {
			got := s
			err := got.UnmarshalBinary(b)
			if !errors.Is(err, store.ErrDamaged) || !reflect.DeepEqual(got, s) {
				t.Fatalf("%s session: %v, %+v", name, err, got)
			}
		}
		for name, b := range damages(t, encode(t, u)) {
			got := u
			err := got.UnmarshalBinary(b)
			if !errors.Is(err, store.ErrDamaged) || !reflect.DeepEqual(got, u) {
				t.Fatalf("%s user: %v, %+v", name, err, got)
			}
		}
	})
}

// damages spoils a record as a disk would and, with a new sum, as a bug would.
func damages(t *rapid.T, b []byte) map[string][]byte {
	body := b[:len(b)-4]
	bit := rapid.IntRange(0, 8*len(b)-1).Draw(t, "bit")
	flipped := bytes.Clone(b)
	flipped[bit/8] ^= 1 << (bit % 8)
	more := rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(t, "more")
	return map[string][]byte{
		"cut":      b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")],
		"extended": append(bytes.Clone(b), more...),
		"flipped":  flipped,
		"short":    summed(body[:rapid.IntRange(0, len(body)-1).Draw(t, "short")]),
		"long":     summed(append(bytes.Clone(body), more...)),
		"newer":    summed(append([]byte{body[0] + 1}, body[1:]...)),
		"older":    summed(append([]byte{body[0] - 1}, body[1:]...)),
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// summed closes a record as the codec does.
func summed(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

// body is a record without its sum, so that a fuzzer gets past it.
func body(tb testing.TB, v encoding.BinaryAppender) []byte {
	b := encode(tb, v)
	return b[:len(b)-4]
}

// releasedUser is a record of the first release, without its sum.
const releasedUser = "" +
	"01070000000000000002000000000000006052e6cf8b0100001277783031323334353637383961626364656606" +
	"6f416c69636505756e696f6e010000000000000003010101020000000000000003020202010000000000000000" +
	"0000000000000000000000000000000000000000000000016052e6cf8b010000e0401dd08b010000"

// A record of the first release reads as it was meant. A user without a telephone
// number is written as that release wrote it, so that an older program reads it.
func TestCodec_FirstRelease_SameBytes(t *testing.T) {
	b, err := hex.DecodeString(releasedUser)
	if err != nil {
		t.Fatal(err)
	}
	want := store.User{
		ID: alice, UnionID: "union", Epoch: 7, LastLogin: noon,
		KeyVersion: 2, Key: key(1), PrevKey: key(2),
	}
	want.Admit(login(1))
	var got store.User
	if err := got.UnmarshalBinary(summed(b)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %v; want %+v", got, err, want)
	}
	if again := body(t, want); !bytes.Equal(again, b) {
		t.Errorf("written as %x, want %x", again, b)
	}
	want.Phone = []byte("sealed")
	with := body(t, want)
	number := string(with[len(b):])
	if with[0] != 2 || !bytes.Equal(with[1:len(b)], b[1:]) || number != "\x06sealed" {
		t.Errorf("with a number: %x", with)
	}
}

// An older program reads ends as sessions that have expired, before all others, and
// drops them at the next login. So they need no new version of the record.
func TestCodec_Ends_AreExpiredSessionsToOlderPrograms(t *testing.T) {
	u := store.User{ID: alice}
	u.Admit(login(1))
	without := body(t, u)
	list := bytes.Index(without, encode(t, u)[len(without)-48:len(without)]) - 1
	u.Revoke(store.EndRevoked, noon.Add(time.Minute))
	u.Admit(login(2))
	b := body(t, u)
	id := digest(1).ID()
	want := append(slices.Clone(id[:]), byte(store.EndRevoked))
	want = append(want, make([]byte, 32-len(want))...)
	want = binary.LittleEndian.AppendUint64(want, uint64(login(1).Created.UnixMilli()))
	want = binary.LittleEndian.AppendUint64(want, uint64(noon.Add(time.Minute).UnixMilli()))
	if b[0] != 1 || b[list] != 2 || !bytes.Equal(b[list+1:list+49], want) {
		t.Errorf("version %d, %d entries: %x, want %x", b[0], b[list], b[list+1:], want)
	}
}

// A record has one spelling.
func TestCodec_SecondSpelling_IsDamage(t *testing.T) {
	padded := body(t, store.Session{})
	padded = append(padded[:len(padded)-1], 0x80, 0x00) // an openid of length 0 in two bytes
	err := new(store.Session).UnmarshalBinary(summed(padded))
	if !errors.Is(err, store.ErrDamaged) {
		t.Errorf("padded length: %v", err)
	}
	u := store.User{Sessions: []store.SessionRef{{Digest: digest(1)}, {}}}
	u.Sessions[1].Digest[8] = byte(store.EndLogout) // an end behind a session
	err = new(store.User).UnmarshalBinary(encode(t, u))
	if !errors.Is(err, store.ErrDamaged) {
		t.Errorf("an end behind a session: %v", err)
	}
	noNumber := append(append([]byte{2}, body(t, store.User{})[1:]...), 0)
	err = new(store.User).UnmarshalBinary(summed(noNumber))
	if !errors.Is(err, store.ErrDamaged) {
		t.Errorf("an empty number: %v", err)
	}
}

func FuzzSession(f *testing.F) {
	f.Add(body(f, store.Session{}))
	f.Add(body(f, store.Session{
		User: alice, Created: noon, UsedUntil: noon, Expires: noon.Add(time.Hour),
		Epochs: store.Epochs{Global: 1, App: 2, User: 3},
	}))
	f.Add([]byte{1})
	f.Add(append(body(f, store.Session{})[:49], 0xff, 0xff, 0xff, 0xff, 0x0f, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s store.Session
		decodeFuzzed(t, summed(b), &s, func() []byte { return encode(t, s) })
	})
}

func FuzzUser(f *testing.F) {
	u := store.User{
		ID: alice, UnionID: "union", Epoch: 7, LastLogin: noon,
		KeyVersion: 2, Key: key(1), PrevKey: key(2),
	}
	f.Add(body(f, store.User{}))
	f.Add(body(f, u))
	u.Admit(login(1))
	u.Admit(login(2))
	f.Add(body(f, u))
	empty := body(f, store.User{})
	f.Add(append(empty[:len(empty)-1:len(empty)-1], 0xff, 0xff, 0xff, 0xff, 0x7f))
	u.Revoke(store.EndRevoked, noon)
	u.Admit(login(3))
	f.Add(body(f, u))
	u.Phone = []byte("sealed")
	f.Add(body(f, u))
	f.Add(body(f, store.User{Phone: []byte{0}}))
	f.Add(append([]byte{2}, empty[1:]...))
	released, _ := hex.DecodeString(releasedUser)
	f.Add(released)
	f.Fuzz(func(t *testing.T, b []byte) {
		var u store.User
		decodeFuzzed(t, summed(b), &u, func() []byte { return encode(t, u) })
	})
}

// decodeFuzzed reads b into v: v refuses it as damaged, or again writes the same.
func decodeFuzzed(t *testing.T, b []byte, v encoding.BinaryUnmarshaler, again func() []byte) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := v.UnmarshalBinary(b)
	runtime.ReadMemStats(&after)
	// The list of sessions grows by doubling, and an entry is twice as large in
	// memory. The constant covers the error and the rest of the test process.
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(len(b))*16+256<<10; got > most {
		t.Fatalf("%d bytes allocated for a record of %d", got, len(b))
	}
	switch {
	case err != nil && !errors.Is(err, store.ErrDamaged):
		t.Fatalf("error without its sentinel: %v", err)
	case err == nil && !bytes.Equal(again(), b):
		t.Fatalf("%x decodes and re-encodes as %x", b, again())
	}
}
