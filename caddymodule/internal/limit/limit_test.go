package limit_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wxgate/wxgate/caddymodule/internal/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	perMinute = func(n int) limit.Rate { return limit.Rate{Events: n, Per: time.Minute} }
	phone     = netip.MustParseAddr("203.0.113.7")
	other     = netip.MustParseAddr("203.0.113.8")
)

// enter begins and ends one login.
func enter(t *testing.T, l *limit.Limiter, client netip.Addr) (time.Duration, bool) {
	t.Helper()
	leave, wait, ok := enterBoth(l, client)
	switch {
	case ok && (wait != 0 || leave == nil):
		t.Fatalf("allowed, with a wait of %v", wait)
	case !ok && (wait < time.Second || leave != nil):
		t.Fatalf("refused, with a wait of %v", wait)
	case ok:
		leave()
	}
	return wait, ok
}

// allowed returns how many of n logins are allowed.
func allowed(t *testing.T, l *limit.Limiter, client netip.Addr, n int) (in int) {
	t.Helper()
	for range n {
		if _, ok := enter(t, l, client); ok {
			in++
		}
	}
	return in
}

func wantAllowed(t *testing.T, l *limit.Limiter, client netip.Addr, n, want int) {
	t.Helper()
	if got := allowed(t, l, client, n); got != want {
		t.Errorf("%v: %d of %d allowed, want %d", client, got, n, want)
	}
}

func TestLimiter_NoLimit_AllowsAll(t *testing.T) {
	l := limit.New(limit.Config{})
	var leaves []func()
	for range 1_000 {
		leave, _, ok := enterBoth(l, phone)
		if !ok {
			t.Fatal("refused without a limit")
		}
		leaves = append(leaves, leave)
	}
	for _, leave := range leaves {
		leave()
	}
}

func TestLimiter_EmptyBucket_RefillsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(30)})
		wantAllowed(t, l, phone, 100, 30)
		time.Sleep(2*time.Second - time.Millisecond)
		wantAllowed(t, l, phone, 5, 0)
		time.Sleep(time.Millisecond)
		wantAllowed(t, l, phone, 5, 1)
		time.Sleep(20 * time.Second)
		wantAllowed(t, l, phone, 50, 10)
		time.Sleep(time.Hour)
		wantAllowed(t, l, phone, 100, 30)
	})
}

// A refusal does not make the wait longer, and after the wait the login is
// allowed.
func TestLimiter_Refused_WaitIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			rate limit.Rate
			wait time.Duration
		}{
			{limit.Rate{Events: 1, Per: time.Hour}, time.Hour},
			{perMinute(10), 6 * time.Second},
			{limit.Rate{Events: 100, Per: time.Second}, time.Second},
		} {
			for name, cfg := range map[string]limit.Config{
				"client": {PerClient: tt.rate}, "total": {Total: tt.rate},
			} {
				l := limit.New(cfg)
				wantAllowed(t, l, phone, tt.rate.Events, tt.rate.Events)
				for range 50 {
					if wait, ok := enter(t, l, phone); ok || wait != tt.wait {
						t.Fatalf("%s, %+v: allowed %v, wait %v", name, tt.rate, ok, wait)
					}
				}
				time.Sleep(tt.wait)
				if _, ok := enter(t, l, phone); !ok {
					t.Errorf("%s, %+v: refused after the wait", name, tt.rate)
				}
			}
		}
	})
}

// One bucket for an IPv4 address and for the IPv6 network of one subscriber.
func TestThreat26_AddressForms_ShareBuckets(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"203.0.113.7", "203.0.113.7", true},
		{"203.0.113.7", "203.0.113.6", false},
		{"203.0.113.7", "::ffff:203.0.113.7", true},
		{"::ffff:203.0.113.7", "::ffff:203.0.113.6", false},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"2001:db8:0:1::1%eth0", "2001:db8:0:1::2%eth1", true},
		{"fe80::1%eth0", "fe80::1", true},
		{"::ffff:203.0.113.7%eth0", "203.0.113.7", true},
		{"203.0.113.7", "::203.0.113.7", false},
		{"0.0.0.0", "::", false},
	} {
		l := limit.New(limit.Config{PerClient: perMinute(1), PerPrivateClient: perMinute(1)})
		wantAllowed(t, l, netip.MustParseAddr(tt.a), 2, 1)
		want := 1
		if tt.same {
			want = 0
		}
		wantAllowed(t, l, netip.MustParseAddr(tt.b), 2, want)
	}
	l := limit.New(limit.Config{PerClient: perMinute(1), PerPrivateClient: perMinute(1)})
	wantAllowed(t, l, netip.Addr{}, 3, 1) // all unknown clients share one
	wantAllowed(t, l, netip.MustParseAddr("0.0.0.0"), 3, 1)
}

var addresses = []struct {
	addr   string
	public bool
}{
	{"203.0.113.7", true},
	{"2001:db8::1", true},
	{"::ffff:203.0.113.7", true},
	{"11.0.0.1", true},
	{"172.15.255.255", true},
	{"172.32.0.0", true},
	{"100.63.255.255", true},
	{"100.128.0.0", true},
	{"169.253.255.255", true},
	{"fe00::1", true},
	{"10.1.2.3", false},
	{"172.16.0.0", false},
	{"172.31.255.255", false},
	{"192.168.1.1", false},
	{"127.0.0.1", false},
	{"127.255.255.255", false},
	{"169.254.1.1", false},
	{"100.64.0.0", false},
	{"100.127.255.255", false},
	{"::1", false},
	{"fd00::1", false},
	{"fc00::1", false},
	{"fe80::1", false},
	{"fe80::1%eth0", false},
	{"0.0.0.0", false},
	{"::", false},
	{"::ffff:10.1.2.3", false},
	{"::ffff:100.64.0.1", false},
	{"::ffff:127.0.0.1", false},
	{"::ffff:169.254.1.1", false},
}

func TestIsPublic_Addresses_Classified(t *testing.T) {
	for _, tt := range addresses {
		if got := limit.IsPublic(netip.MustParseAddr(tt.addr)); got != tt.public {
			t.Errorf("%s: public is %v", tt.addr, got)
		}
	}
	if limit.IsPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestLimiter_PrivateAddress_HasItsOwnRate(t *testing.T) {
	cfg := limit.Config{PerClient: perMinute(2), PerPrivateClient: perMinute(5)}
	for _, tt := range addresses {
		synctest.Test(t, func(t *testing.T) {
			l, client := limit.New(cfg), netip.MustParseAddr(tt.addr)
			want := 5
			if tt.public {
				want = 2
			}
			wantAllowed(t, l, client, 20, want)
			l.Set(limit.Config{PerClient: perMinute(3), PerPrivateClient: perMinute(6)})
			time.Sleep(time.Hour)
			wantAllowed(t, l, client, 20, want+1)
		})
	}
}

// A client whose own bucket is empty takes nothing from the total.
func TestLimiter_ManyClients_TotalHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(5), Total: perMinute(20)})
		wantAllowed(t, l, phone, 1000, 5)
		wantAllowed(t, l, other, 1000, 5)
		in := 0
		for i := range 100 {
			in += allowed(t, l, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)
		}
		if in != 10 {
			t.Errorf("%d allowed beside the 10 before, want 10", in)
		}
		time.Sleep(3 * time.Second)
		wantAllowed(t, l, netip.MustParseAddr("198.51.100.200"), 3, 1)
	})
}

// A second call of end has no effect, and a refusal for want of room takes
// nothing.
func TestLimiter_InFlight_CapHolds(t *testing.T) {
	l := limit.New(limit.Config{PerClient: perMinute(6), InFlight: 2})
	leave := func() func() {
		t.Helper()
		f, _, ok := enterBoth(l, phone)
		if !ok {
			t.Fatal("refused with room")
		}
		return f
	}
	full := func() {
		t.Helper()
		for range 10 {
			if f, wait, ok := enterBoth(l, phone); ok || wait != time.Second || f != nil {
				t.Fatalf("full: allowed %v, wait %v", ok, wait)
			}
		}
	}
	a, b := leave(), leave()
	full()
	for range 3 {
		a()
	}
	c := leave()
	full()
	b()
	c()
	wantAllowed(t, l, phone, 10, 3) // six in all
}

func TestThreat32_Reload_RefillsNoBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := limit.Config{
			PerClient: perMinute(10), PerPrivateClient: perMinute(10),
			Total: perMinute(100), InFlight: 1,
		}
		l := limit.New(cfg)
		wantAllowed(t, l, phone, 20, 10)
		wantAllowed(t, l, other, 4, 4)
		leave, _, ok := enterBoth(l, other)
		for range 5 {
			l.Set(cfg)
		}
		if _, _, again := enterBoth(l, other); !ok || again {
			t.Error("a reload forgets the login in flight")
		}
		leave()
		wantAllowed(t, l, phone, 5, 0)
		wantAllowed(t, l, other, 20, 5)

		cfg.PerClient = perMinute(60)
		l.Set(cfg)
		wantAllowed(t, l, phone, 5, 0)
		time.Sleep(2 * time.Second)
		wantAllowed(t, l, phone, 5, 2) // at the new pace
		cfg.PerClient = perMinute(1)
		l.Set(cfg)
		time.Sleep(time.Hour)
		wantAllowed(t, l, phone, 5, 1)

		cfg.Total = perMinute(3)
		l.Set(cfg)
		time.Sleep(time.Hour)
		in := 0
		for i := range 10 {
			in += allowed(t, l, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 1)
		}
		if in != 3 {
			t.Errorf("%d allowed under a total of 3", in)
		}
	})
}

func TestSet_OldGeneration_HasNewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(10)})
		wantAllowed(t, l, phone, 1, 1)
		for i := range limit.MaxBuckets {
			enter(t, l, address(i))
		}
		l.Set(limit.Config{PerClient: perMinute(3)})
		time.Sleep(time.Hour)
		wantAllowed(t, l, phone, 20, 3)
	})
}

func TestSet_NewLimit_StartsWithFullBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{})
		wantAllowed(t, l, phone, 50, 50)
		l.Set(limit.Config{PerClient: perMinute(5), Total: perMinute(8)})
		wantAllowed(t, l, phone, 50, 5)
		wantAllowed(t, l, other, 50, 3)
		l.Set(limit.Config{})
		wantAllowed(t, l, phone, 50, 50)
	})
}

func TestRate_Above_Compares(t *testing.T) {
	hour := limit.Rate{Events: 60, Per: time.Hour}
	for _, tt := range []struct {
		a, b limit.Rate
		want bool
	}{
		{perMinute(2), perMinute(1), true},
		{perMinute(1), perMinute(2), false},
		{perMinute(1), hour, false},
		{hour, perMinute(1), false},
		{limit.Rate{}, perMinute(1), true},
		{perMinute(1), limit.Rate{}, false},
		{limit.Rate{}, limit.Rate{}, false},
	} {
		if got := tt.a.Above(tt.b); got != tt.want {
			t.Errorf("%+v above %+v: %v", tt.a, tt.b, got)
		}
	}
}

func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestThreat26_MillionAddresses_MemoryIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("it counts to a million")
	}
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(5), Total: perMinute(1000)})
		in := 0
		for i := range 1_000_000 {
			in += allowed(t, l, address(i), 1)
			if n := l.Buckets(); n > 2*limit.MaxBuckets {
				t.Fatalf("%d buckets after %d addresses", n, i)
			}
		}
		if in != 1000 {
			t.Errorf("%d allowed, want the 1000 of the total", in)
		}
	})
}

func TestThreat26_FloodOfOthers_RefillsNoBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(5)})
		wantAllowed(t, l, phone, 10, 5)
		for i := range 4 * limit.MaxBuckets {
			enter(t, l, address(i))
			if i%(limit.MaxBuckets/2) == 0 {
				wantAllowed(t, l, phone, 1, 0)
			}
		}
		wantAllowed(t, l, phone, 5, 0)
	})
}

func TestLimiter_Concurrent_CountsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := limit.Config{PerClient: perMinute(100), Total: perMinute(1000), InFlight: 50}
		l := limit.New(cfg)
		in := make([]int, 16)
		var wg sync.WaitGroup
		for i := range in {
			wg.Go(func() {
				for range 500 {
					if leave, _, ok := enterBoth(l, address(i)); ok {
						in[i]++
						leave()
					}
				}
			})
		}
		wg.Go(func() {
			for range 100 {
				l.Set(cfg)
			}
		})
		wg.Wait()
		sum := 0
		for _, n := range in {
			sum += n
			if n > 100 {
				t.Errorf("%d allowed of one client", n)
			}
		}
		if sum != 1000 {
			t.Errorf("%d allowed, want 1000", sum)
		}
	})
}

func BenchmarkEnter(b *testing.B) {
	high := limit.Rate{Events: 1 << 40, Per: time.Second}
	for name, cfg := range map[string]limit.Config{
		"allowed": {PerClient: high, Total: high, InFlight: 1000},
		"refused": {PerClient: limit.Rate{Events: 1, Per: 1000 * time.Hour}},
	} {
		for _, clients := range []int{1, 1 << 12, 1 << 20} {
			if name == "refused" && clients == 1<<20 {
				continue // every client is evicted before it comes again
			}
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				l := limit.New(cfg)
				for i := range clients {
					if leave, _, ok := enterBoth(l, address(i)); ok {
						leave()
					}
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					leave, _, ok := enterBoth(l, address(i&(clients-1)))
					if ok != (name == "allowed") {
						b.Fatal(ok)
					}
					if ok {
						leave()
					}
					i++
				}
			})
		}
	}
}

// enterBoth calls Allow and Begin, as a login does. WeChat accepts the code.
func enterBoth(l *limit.Limiter, client netip.Addr) (leave func(), wait time.Duration, ok bool) {
	if wait, by := l.Allow(client); by != "" {
		return nil, wait, false
	}
	end, wait, by := l.Begin(context.Background(), client)
	if by != "" {
		return nil, wait, false
	}
	return func() { end(false) }, 0, true
}

// A login that is allowed and not begun takes no room in flight.
func TestBegin_Full_Refuses(t *testing.T) {
	l := limit.New(limit.Config{InFlight: 1})
	for range 3 {
		if _, by := l.Allow(phone); by != "" {
			t.Fatal("refused")
		}
	}
	end, _, by := l.Begin(t.Context(), phone)
	if by != "" {
		t.Fatal("there is no room")
	}
	if _, wait, by := l.Begin(t.Context(), other); by != limit.OfInFlight || wait != time.Second {
		t.Error("there is room for a second")
	}
	if wait, by := l.Allow(phone); by != limit.OfInFlight || wait != time.Second {
		t.Error("allowed without room")
	}
	end(false)
	end(false)
	for range 2 {
		_, _, by = l.Begin(t.Context(), phone)
	}
	if by == "" {
		t.Error("ending twice makes room for two")
	}
}

// school is a limit as the gate has by default, for one address at a time.
func school() *limit.Limiter {
	return limit.New(limit.Config{PerClient: perMinute(600), Refused: perMinute(30)})
}

// crowd lets n logins of a client begin at once, each for a second.
func crowd(l *limit.Limiter, client netip.Addr, n int, refused bool) (in int) {
	var wg sync.WaitGroup
	var count atomic.Int32
	for range n {
		wg.Go(func() {
			if _, by := l.Allow(client); by != "" {
				return
			}
			end, _, by := l.Begin(context.Background(), client)
			if by != "" {
				return
			}
			time.Sleep(time.Second)
			count.Add(1)
			end(refused)
		})
	}
	wg.Wait()
	return int(count.Load())
}

func TestThreat42_ClassBehindOneAddress_LogsIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := school()
		if n := crowd(l, phone, 60, false); n != 60 {
			t.Errorf("%d of 60 at once", n)
		}
		wantAllowed(t, l, phone, 100, 100)
	})
}

// Codes that WeChat refuses keep their place, however many come at once.
func TestThreat42_RefusedCodes_CountStrictly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := school()
		if n := crowd(l, phone, 100, true); n != 30 {
			t.Errorf("%d refused codes at once, want 30", n)
		}
		if wait, by := l.Allow(phone); by != limit.OfRefused || wait < time.Second {
			t.Errorf("allowed after 30 refused codes, wait %v", wait)
		}
		if _, by := l.Allow(other); by != "" {
			t.Error("another client is refused")
		}
		time.Sleep(4 * time.Second)
		if n := crowd(l, phone, 10, true); n < 2 || n > 3 {
			t.Errorf("%d after a wait, want 2 or 3", n)
		}
	})
}

// A login that waits for others gives up with its client, and within 5 s.
func TestBegin_Waiting_GivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Refused: limit.Rate{Events: 1, Per: time.Hour}})
		end, _, _ := l.Begin(t.Context(), phone)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, wait, by := l.Begin(ctx, phone); by != limit.OfRefused || wait < time.Second ||
			time.Since(began) != time.Second {
			t.Errorf("client gone: %q, %v after %v", by, wait, time.Since(began))
		}
		_, _, by := l.Begin(t.Context(), phone)
		if by != limit.OfRefused || time.Since(began) != 6*time.Second {
			t.Errorf("%q after %v", by, time.Since(began))
		}
		end(false)
		if _, _, by := l.Begin(t.Context(), phone); by != "" {
			t.Error("refused when there is room")
		}
	})
}

// One who holds a /48 has 65536 times a /64.
func TestThreat42_WideNetwork_CountsBesideNarrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{PerClient: perMinute(5), Refused: perMinute(2)})
		in, guesses := 0, 0
		for i := range 100 {
			client := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:%x::1", i))
			if i < 50 {
				in += allowed(t, l, client, 3)
				continue
			}
			for range 2 {
				if end, _, by := l.Begin(t.Context(), client); by == "" {
					guesses++
					end(true)
				}
			}
		}
		if in != 50 || guesses != 20 {
			t.Errorf("%d logins and %d refused codes of a /48, want 50 and 20", in, guesses)
		}
		wantAllowed(t, l, netip.MustParseAddr("2001:db8:2::1"), 9, 5)
	})
}

func TestThreat42_Spread_LongerWithinBound(t *testing.T) {
	for _, tt := range []struct{ wait, most time.Duration }{
		{0, 0},
		{time.Second, 2 * time.Second},
		{20 * time.Second, 25 * time.Second},
		{time.Minute, time.Minute},
		{time.Hour, time.Hour},
	} {
		seen := make(map[time.Duration]bool)
		for range 50 {
			got := limit.Spread(tt.wait)
			if seen[got] = true; got < tt.wait || got > tt.most {
				t.Errorf("%v became %v", tt.wait, got)
			}
		}
		if spread := len(seen) > 1; spread != (tt.most > tt.wait) {
			t.Errorf("%v has %d values", tt.wait, len(seen))
		}
	}
}

func TestBucket_Addresses_NameAndRate(t *testing.T) {
	l := limit.New(limit.Config{
		PerClient: perMinute(1), PerPrivateClient: perMinute(2), Total: perMinute(1000),
	})
	for client, want := range map[string]struct {
		name string
		rate limit.Rate
	}{
		"203.0.113.7":        {"203.0.113.7/32", perMinute(1)},
		"::ffff:203.0.113.7": {"203.0.113.7/32", perMinute(1)},
		"2001:db8:1:2:3::4":  {"2001:db8:1:2::/64", perMinute(1)},
		"2001:db8:1:2:9::9":  {"2001:db8:1:2::/64", perMinute(1)},
		"fe80::1%eth0":       {"fe80::/64", perMinute(2)},
		"10.0.0.1":           {"10.0.0.1/32", perMinute(2)},
		"::ffff:10.0.0.1":    {"10.0.0.1/32", perMinute(2)},
	} {
		if name, r := l.Bucket(netip.MustParseAddr(client)); name != want.name || r != want.rate {
			t.Errorf("%s: %q, %v", client, name, r)
		}
	}
	if name, r := l.Bucket(netip.Addr{}); name == "" || r != perMinute(2) {
		t.Errorf("an invalid address: %q, %v", name, r)
	}
	wantAllowed(t, l, netip.MustParseAddr("2001:db8:1:2:3::4"), 2, 1)
	wantAllowed(t, l, netip.MustParseAddr("2001:db8:1:2:9::9"), 1, 0)
	l.Set(limit.Config{})
	if _, r := l.Bucket(phone); r != (limit.Rate{}) {
		t.Errorf("without a limit: %v", r)
	}
}
