package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/redistest"
)

// TestMain runs more tests at a time than there are processors, since most of them
// wait, and collects garbage less often, since they open many connections. In the end
// it looks for goroutines that are left. The library's client of a cluster takes some
// seconds to end its own.
func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(400)
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "20")
	}
	code := m.Run()
	redistest.EndShared()
	var left error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if left = goleak.Find(); left == nil {
			os.Exit(code)
		}
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, left)
	os.Exit(max(code, 1))
}

// rounds returns n, or few with -short.
func rounds(n, few int) int {
	if testing.Short() {
		return few
	}
	return n
}

// notShort skips a test that waits for seconds.
func notShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("slow outage or failover; run without -short")
	}
}

// patience limits the wait for something that must happen before long.
const patience = time.Minute

// await waits until ok, and fails the test after patience.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

// tb is what a test and a rapid test have in common.
type tb interface {
	Helper()
	Fatal(...any)
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patient is the heartbeat of tests that are not about silence: a busy machine makes
// no outage for them.
var patient = pace{100 * time.Millisecond, 10 * time.Second, 20 * time.Second}

// brisk notices silence, but not before a busy machine has had its time.
var brisk = pace{50 * time.Millisecond, 2 * time.Second, 2500 * time.Millisecond}

var prefixes atomic.Int64

// config is for a busy machine, with keys of its own, and special characters of
// patterns in their prefix.
func config(addr string) Config {
	return Config{
		Addresses:    []string{addr},
		Prefix:       fmt.Sprintf(`wx\gate*[%d]?:`, prefixes.Add(1)),
		DialTimeout:  5 * time.Second,
		ReadTimeout:  5 * time.Second,
		WriteTimeout: 10 * time.Second,
		pace:         patient,
		queue:        8, // the default costs megabytes
	}
}

// with is a configuration for the same keys by another way.
func with(cfg Config, addr string) Config {
	cfg.Addresses = []string{addr}
	return cfg
}

// open returns when the store is in contact: until then every call fails at once.
func open(t testing.TB, cfg Config) (*Store, error) {
	s, err := Open(cfg)
	if err == nil {
		await(t, "the store is in contact", func() bool { return s.Health(t.Context()) == nil })
	}
	return s, err
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := open(t, cfg)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// fixture is a store on the shared server or one of its own, and a connection beside it.
type fixture struct {
	*Store
	t   testing.TB
	srv *redistest.Server
	cfg Config
	c   rueidis.Client
}

// newFixture uses the shared server.
func newFixture(t testing.TB, edit ...func(*Config)) *fixture {
	t.Helper()
	return fixtureAt(t, redistest.Shared(t), edit...)
}

func fixtureAt(t testing.TB, srv *redistest.Server, edit ...func(*Config)) *fixture {
	t.Helper()
	cfg := config(srv.Addr)
	for _, e := range edit {
		e(&cfg)
	}
	return &fixture{Store: mustOpen(t, cfg), t: t, srv: srv, cfg: cfg, c: raw(t, srv.Addr)}
}

// serverWith is a server with the option, or the shared one without.
func serverWith(t testing.TB, opt redistest.Option) *redistest.Server {
	t.Helper()
	if opt == nil {
		return redistest.Shared(t)
	}
	return redistest.Start(t, opt)
}

// do sends a command that must succeed, beside the store.
func (f *fixture) do(args ...string) rueidis.RedisResult {
	f.t.Helper()
	res := do(f.c, args...)
	must(f.t, ignoreNil(res.Error()))
	return res
}

// get returns a record by its key without the prefix.
func (f *fixture) get(key string) string {
	f.t.Helper()
	v, err := text(do(f.c, "GET", f.cfg.Prefix+key))
	must(f.t, err)
	return v
}

// ttls returns the keys of the store, without the prefix, with their times to live.
func (f *fixture) ttls() map[string]time.Duration {
	f.t.Helper()
	all, err := f.do("KEYS", "*").AsStrSlice()
	must(f.t, err)
	ttls := make(map[string]time.Duration)
	for _, k := range all {
		if name, ok := strings.CutPrefix(k, f.cfg.Prefix); ok {
			ms, err := f.do("PTTL", k).AsInt64()
			must(f.t, err)
			ttls[name] = time.Duration(ms) * time.Millisecond
		}
	}
	return ttls
}

// raw is a connection beside the store, with a password if there is one.
func raw(t testing.TB, addr string, password ...string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true,
		Password: strings.Join(password, ""),
	})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func do(c rueidis.Client, args ...string) rueidis.RedisResult {
	return c.Do(context.Background(), c.B().Arbitrary(args...).Build())
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// sessionKey and userKey name keys without the prefix.
func sessionKey(d store.Digest) string { return "s:{" + hexOf(d[:]) + "}" }
func noteKey(d store.Digest) string    { return "t:{" + hexOf(d[:]) + "}" }

func userKey(id store.UserID) string {
	h := id.Hash()
	return "u:{" + hexOf(h[:]) + "}"
}

func userOf(openID string) store.UserID {
	return store.UserID{AppID: "wx0123456789abcdef", OpenID: openID}
}

// newLogin is a login of an hour that begins now.
func newLogin(id store.UserID, edit ...func(*store.Login)) store.Login {
	now := time.UnixMilli(time.Now().UnixMilli())
	l := store.Login{
		User:      id,
		UnionID:   "union of " + id.OpenID,
		Key:       store.SealedKey{Tag: [8]byte{1}, Box: make([]byte, 54)},
		Created:   now,
		Expires:   now.Add(time.Hour),
		UsedUntil: now.Add(time.Minute),
	}
	rand.Read(l.Digest[:])
	for _, e := range edit {
		e(&l)
	}
	return l
}

// old moves a login back so far that MaxPerUser may end its session.
func old(l *store.Login) { l.Created = l.Created.Add(-2 * store.Grace) }

func maxPerUser(n int) func(*store.Login)    { return func(l *store.Login) { l.MaxPerUser = n } }
func ends(d store.Digest) func(*store.Login) { return func(l *store.Login) { l.Ends = d } }
func unionID(s string) func(*store.Login)    { return func(l *store.Login) { l.UnionID = s } }

// mustLogin logs in, and returns the login.
func mustLogin(t tb, s store.Store, l store.Login) store.Login {
	t.Helper()
	_, err := s.Login(context.Background(), l)
	must(t, err)
	return l
}

func mustUser(t tb, s store.Store, id store.UserID) store.User {
	t.Helper()
	u, err := s.User(context.Background(), id)
	must(t, err)
	return u
}

// accepted reports whether the session holds.
func accepted(t tb, s store.Store, d store.Digest) bool {
	t.Helper()
	rec, err := s.Lookup(context.Background(), d)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal("lookup:", err)
	}
	return err == nil && rec.Current == rec.Session.Epochs
}

// isUnavailable reports whether an error means an outage and nothing else.
func isUnavailable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrNotFound)
}
