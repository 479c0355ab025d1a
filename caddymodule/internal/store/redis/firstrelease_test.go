package redis

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strconv"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// Gates of a fleet are replaced one after another, so gates of the first
// release and of this one share a Redis for a while. What the one writes must
// let the other go on with the session (P4).

// firstRelease is what a gate of commit b85d719 has written for two logins of
// one user, of which the first was used afterwards. The sessions last for a
// hundred years.
var firstRelease = map[string]string{
	"s:{65727fa4c8f8084ea47c257c6bfbc485a5ceb973d210bf87a8c6958e95e4fe1a}": "" +
		"016163232da20100006163232da20100006193586e8004000040b849505166d47dbd69bf8945ad5c68ff54c2" +
		"d9993ac398127778303132333435363738396162636465661c6f6d466b6d32476f6b7962644e776973647770" +
		"797143695434473541867a4966",
	"s:{f9395c5acd66879d97552910f74f27be46c00f2e93a28c51cdea538a08acbed0}": "" +
		"015263232da20100005263232da20100005293586e8004000040b849505166d47dbd69bf8945ad5c68ff54c2" +
		"d9993ac398127778303132333435363738396162636465661c6f6d466b6d32476f6b7962644e776973647770" +
		"797143695434473541baf8fdbe",
	"t:{f9395c5acd66879d97552910f74f27be46c00f2e93a28c51cdea538a08acbed0}": "" +
		"303030313739363035333632353835373332373465353965",
	"u:{d5222f361614ce0a9a640ead85bf32a6}": "" +
		"01ff54c2d9993ac39801000000000000006163232da201000012777830313233343536373839616263646566" +
		"1c6f6d466b6d32476f6b7962644e7769736477707971436954344735411c6f4a52565271436a63736b4f3434" +
		"6f39576b32306e376136334b474ed371538ed2f1356f3901f0d9200651bf7f6af4937c0b26925b989e703111" +
		"fc10d0e16dbf23e00c08d25a533f1b780c5d7446df07dd524f7003d0d634b5733cf7dee20000000000000000" +
		"0002f9395c5acd66879d97552910f74f27be46c00f2e93a28c51cdea538a08acbed05263232da20100005293" +
		"586e8004000065727fa4c8f8084ea47c257c6bfbc485a5ceb973d210bf87a8c6958e95e4fe1a6163232da201" +
		"00006193586e800400004a20b5af",
	"e:{app:wx0123456789abcdef}": "" +
		"36383563616434353839626636396264",
	"e:{all}": "" +
		"37646434363635313530343962383430",
}

// TestFirstRelease_ItsSessions_Accepted: a session of the first release holds,
// as used up to an hour after it was last seen. A gate of that release hears of
// it, so that it does not end a session which is used here.
func TestFirstRelease_ItsSessions_Accepted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for key, value := range firstRelease {
		b, err := hex.DecodeString(value)
		must(t, err)
		f.do("SET", f.cfg.Prefix+key, string(b), "EX", "3000000000")
	}
	for name, seen := range map[string]int64{
		"65727fa4c8f8084ea47c257c6bfbc485a5ceb973d210bf87a8c6958e95e4fe1a": 1796053623649,
		"f9395c5acd66879d97552910f74f27be46c00f2e93a28c51cdea538a08acbed0": 1796053625857,
	} {
		b, err := hex.DecodeString(name)
		must(t, err)
		d := store.Digest(b)
		rec, err := f.Lookup(t.Context(), d)
		must(t, err)
		until := time.UnixMilli(seen).Add(time.Hour)
		if rec.Session.Epochs != rec.Current || !rec.Session.UsedUntil.Equal(until) {
			t.Errorf("%s: used until %v, want %v; %+v", name[:4], rec.Session.UsedUntil, until, rec)
		}
		await(t, "the first release reads the same", func() bool {
			at, ok := firstNote(f.get(noteKey(d)))
			return ok && at.Equal(until)
		})
		f.Touch(d, until.Add(-time.Second)) // must not shorten the first release's note
		must(t, f.flush())
		rec, err = f.Lookup(t.Context(), d)
		must(t, err)
		if got := rec.Session.UsedUntil; !got.Equal(until) {
			t.Errorf("%s: used until %v after an earlier note, want %v", name[:4], got, until)
		}
	}
}

// TestFirstRelease_ReadsOurs: a gate of the first release reads every record of
// a session, sees no session earlier than it was in use, and notes later uses
// over ours.
func TestFirstRelease_ReadsOurs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	seen := func(l store.Login) time.Time {
		t.Helper()
		at, ok := firstSession(f.get(sessionKey(l.Digest)), l)
		if !ok {
			t.Fatalf("the first release cannot read %q", f.get(sessionKey(l.Digest)))
		}
		if text := f.get(noteKey(l.Digest)); text != "" {
			noted, ok := firstNote(text)
			if !ok {
				t.Fatalf("the first release cannot read %q", text)
			}
			if noted.After(at) {
				at = noted
			}
		}
		return at
	}
	for _, interval := range []time.Duration{
		250 * time.Millisecond, time.Minute, time.Hour - time.Millisecond,
	} {
		l := mustLogin(t, f, newLogin(userOf("oAlice"), func(l *store.Login) {
			l.UsedUntil = l.Created.Add(interval)
		}))
		if at := seen(l); at.Before(l.Created.Add(-time.Second)) || at.After(l.UsedUntil) {
			t.Errorf("noted each %v: seen at %v after the login", interval, at.Sub(l.Created))
		}
		if writes := f.get(noteKey(l.Digest)) != ""; writes != (interval < time.Hour-time.Second) {
			t.Errorf("noted each %v: the login wrote a note: %v", interval, writes)
		}
		used := l.Created.Add(2 * time.Hour)
		f.Touch(l.Digest, used.Add(interval))
		must(t, f.flush())
		if at := seen(l); at.Before(used) || at.After(used.Add(interval)) {
			t.Errorf("noted each %v: used after 2h, seen after %v", interval, at.Sub(l.Created))
		}
		for _, step := range []struct {
			at   time.Time
			wins bool
		}{{used, false}, {used.Add(2 * time.Hour), true}} {
			text := firstNoteOf(step.at)
			f.do("EVAL", firstTouchLua, "2",
				f.cfg.Prefix+sessionKey(l.Digest), f.cfg.Prefix+noteKey(l.Digest), text)
			if won := f.get(noteKey(l.Digest)) == text; won != step.wins {
				t.Errorf("noted each %v: a note of the first release %v after ours holds: %v",
					interval, step.at.Sub(used), won)
			}
		}
		rec, err := f.Lookup(t.Context(), l.Digest)
		must(t, err)
		if want := used.Add(3 * time.Hour); !rec.Session.UsedUntil.Equal(want) {
			t.Errorf("noted each %v: used until %v, want %v", interval, rec.Session.UsedUntil, want)
		}
	}
}

// What follows is as commit b85d719 had it.

const firstTouchLua = `
local function read(key)
	local v = redis.pcall('GET', key)
	if type(v) ~= 'table' then return v or '' end
	if string.find(v.err, 'WRONGTYPE', 1, true) then return 'WRONGTYPE' end
	return redis.call('GET', key)
end
local left = redis.call('PTTL', KEYS[1])
if left <= 0 then return 0 end
local last = tonumber(string.sub(read(KEYS[2]), 1, 16)) or 0
local new = tonumber(string.sub(ARGV[1], 1, 16))
if last < new then redis.call('SET', KEYS[2], ARGV[1], 'PX', left) end
return 1
`

var firstCRC = crc32.MakeTable(crc32.Castagnoli)

func firstNoteOf(at time.Time) string {
	digits := strconv.FormatInt(at.UnixMilli(), 10)
	b := []byte("0000000000000000"[len(digits):] + digits)
	sum := strconv.FormatUint(uint64(crc32.Checksum(b, firstCRC)), 16)
	return string(b) + "00000000"[len(sum):] + sum
}

func firstNote(text string) (time.Time, bool) {
	if len(text) != 24 {
		return time.Time{}, false
	}
	ms, err1 := strconv.ParseInt(text[:16], 10, 64)
	sum, err2 := strconv.ParseUint(text[16:], 16, 32)
	ok := err1 == nil && err2 == nil && uint32(sum) == crc32.Checksum([]byte(text[:16]), firstCRC)
	return time.UnixMilli(ms), ok
}

// firstSession reads when a session was last seen, if the record is that of the login.
func firstSession(record string, l store.Login) (seen time.Time, ok bool) {
	b := []byte(record)
	n := len(b) - 4
	if n < 49 || b[0] != 1 || binary.LittleEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], firstCRC) {
		return time.Time{}, false
	}
	at := func(i int) time.Time { return time.UnixMilli(int64(binary.LittleEndian.Uint64(b[i:]))) }
	id := string(
		rune(len(l.User.AppID)),
	) + l.User.AppID + string(
		rune(len(l.User.OpenID)),
	) + l.User.OpenID
	return at(9), at(1).Equal(l.Created) && at(17).Equal(l.Expires) && string(b[49:n]) == id
}
