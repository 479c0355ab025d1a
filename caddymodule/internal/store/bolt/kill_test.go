package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

const (
	// childEnv holds the path of the store that this test binary writes to when
	// it is run as the child.
	childEnv = "WXGATE_TEST_BOLT_CHILD"
	// roundsEnv sets the number of kills.
	roundsEnv = "WXGATE_TEST_KILL_ROUNDS"
)

// child logs in, ends and revokes from 16 goroutines until it is killed. Each
// step is a line on stdout: in lower case before it is begun, in upper case
// when the store has acknowledged it.
func child(path string) {
	s, err := bolt.Open(bolt.Config{Path: path})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(what string, worker, n int) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("%s %d %d\n", what, worker, n)
	}
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				l := childLogin(w, n)
				_, err := s.Login(ctx, l)
				die(err)
				say("L", w, n)
				s.Touch(l.Digest, l.Created.Add(time.Second))
				switch {
				case n%perUser == perUser-1 && w%2 == 0:
					say("r", w, n)
					die(s.RevokeUser(ctx, l.User, store.EndRevoked))
					say("R", w, n)
				case n%3 == 2:
					say("e", w, n-1)
					die(s.End(ctx, childLogin(w, n-1).Digest, store.EndLogout))
					say("E", w, n-1)
				}
			}
		})
	}
	wg.Wait()
}

// perUser is the number of logins a worker makes for one user. Half of the
// workers then revoke the user.
const perUser = 20

// childLogin is the n-th login of a worker; workers and processes share no users.
func childLogin(w, n int) store.Login {
	now := time.Now()
	return store.Login{
		User: childUser(os.Getpid(), w, n), Digest: digest(os.Getpid(), w, n),
		Key:       store.SealedKey{Tag: [8]byte{byte(n)}, Box: []byte(fmt.Sprint("key ", n))},
		MasterKey: store.MasterKeyID{byte(w)}, Created: now,
		Expires: now.Add(time.Hour + time.Duration(n)*time.Minute), // the need grows
	}
}

func childUser(pid, w, n int) store.UserID {
	return store.UserID{
		AppID:  "wx0123456789abcdef",
		OpenID: fmt.Sprintf("o%d-%d-%d", pid, w, n/perUser),
	}
}

// After a kill in the middle of writes, the file has every acknowledged login,
// and no session whose end was acknowledged.
func TestP2_KilledLosesNothing(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	if v := os.Getenv(roundsEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q", roundsEnv, v)
		}
		rounds = n
	}
	path := newPath(t)
	var logins, ended int
	for range rounds {
		pid, lines := runAndKill(t, path)
		s, err := bolt.Open(bolt.Config{Path: path})
		must(t, err)
		if s.SetAside() != "" {
			t.Fatalf("the file counts as damaged after a kill: %s", s.SetAside())
		}
		l, e := checkKilled(t, s, pid, lines)
		logins, ended = logins+l, ended+e
		must(t, s.Close())
		if err := bolt.Strays(path); err != nil {
			t.Fatalf("the indexes are wrong: %v", err)
		}
	}
	t.Logf("%d kills: %d logins and %d ends acknowledged", rounds, logins, ended)
	if logins == 0 || ended == 0 {
		t.Error("the child did not get to write anything")
	}
}

func runAndKill(t *testing.T, path string) (pid int, lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	r := bufio.NewReader(out)
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break // a line cut short was not read by anybody
		}
		must(t, err)
		if lines = append(lines, strings.TrimSpace(line)); len(lines) == 1 {
			soon := 50*time.Millisecond + rand.N(350*time.Millisecond)
			time.AfterFunc(soon, func() { cmd.Process.Kill() })
		}
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return cmd.Process.Pid, lines
}

type fate struct{ begun, done bool }

// checkKilled compares the store with what the child said, and returns the
// numbers of logins and ends it had acknowledged.
func checkKilled(t *testing.T, s *bolt.Store, pid int, lines []string) (logins, ended int) {
	t.Helper()
	fates := make(map[[2]int]*fate) // by worker and login
	for _, line := range lines {
		var what string
		var w, n int
		if _, err := fmt.Sscanf(line, "%s %d %d", &what, &w, &n); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		from := n
		if what == "r" || what == "R" {
			from = n - perUser + 1 // all of the user's
		}
		for ; from <= n; from++ {
			f := fates[[2]int{w, from}]
			if f == nil {
				f = new(fate)
				fates[[2]int{w, from}] = f
			}
			f.begun = f.begun || what != "L"
			f.done = f.done || what == "E" || what == "R"
		}
	}
	needs, err := s.MasterKeys(t.Context())
	must(t, err)
	for at, f := range fates {
		rec, err := s.Lookup(t.Context(), digest(pid, at[0], at[1]))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		holds := err == nil && rec.Current == rec.Session.Epochs &&
			rec.Session.User == childUser(pid, at[0], at[1])
		switch {
		case f.done && holds:
			t.Errorf("worker %d, login %d: acknowledged end is gone", at[0], at[1])
		case !f.begun && !holds:
			t.Errorf("worker %d, login %d: acknowledged login is gone: %v", at[0], at[1], err)
		}
		until := needs[store.MasterKeyID{byte(at[0])}]
		if holds && until.Before(rec.Session.Expires) {
			t.Errorf("worker %d, login %d: its master key is needed until %v only",
				at[0], at[1], until)
		}
		logins++
		if f.done {
			ended++
		}
		if at[1]%perUser == 0 {
			checkList(t, s, childUser(pid, at[0], at[1]))
		}
	}
	return logins, ended
}

// checkList: what a user's record lists is what holds.
func checkList(t *testing.T, s *bolt.Store, id store.UserID) {
	t.Helper()
	u, err := s.User(t.Context(), id)
	if err != nil {
		t.Errorf("user of an acknowledged login: %v", err)
	}
	for _, ref := range u.Sessions {
		if rec, err := s.Lookup(t.Context(), ref.Digest); err != nil ||
			rec.Session.Epochs.User != u.Epoch {
			t.Errorf("a listed session does not hold: %v", err)
		}
	}
}
