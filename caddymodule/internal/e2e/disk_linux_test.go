package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// What must be done to the product's process from within is asked for in its
// environment.
const (
	// diskEnv holds the path of a file for which the disk is full, and has room
	// again, by turns: each SIGWINCH is one.
	diskEnv = "WXGATE_E2E_DISK"
	// plainEnv takes the privilege away by which root may do what a file's mode
	// forbids.
	plainEnv = "WXGATE_E2E_PLAIN"
)

func init() {
	if os.Getenv(childEnv) == "" {
		return
	}
	if os.Getenv(plainEnv) != "" {
		obeyModes()
	}
	if path := os.Getenv(diskEnv); path != "" {
		turns := make(chan os.Signal, 1)
		signal.Notify(turns, syscall.SIGWINCH)
		go func() {
			for {
				<-turns
				giveBack, err := fillDisk(path)
				fmt.Println("the disk is full", err)
				<-turns
				fmt.Println("the disk has room", giveBack())
			}
		}()
	}
}

// obeyModes starts the process again without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
func obeyModes() {
	const prCapBSetDrop = 24
	runtime.LockOSThread() // the set belongs to the thread that calls exec
	os.Unsetenv(plainEnv)
	for _, capability := range []uintptr{1, 2} {
		if _, _, e := syscall.RawSyscall(syscall.SYS_PRCTL, prCapBSetDrop, capability, 0); e != 0 &&
			os.Getuid() == 0 {
			panic(fmt.Sprint("dropping a capability: ", e))
		}
	}
	panic(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// fillDisk makes every write to the file fail with "no space left on device",
// until the returned function is called.
func fillDisk(path string) (giveBack func() error, err error) {
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if to, _ := os.Readlink(link); to != path {
			continue
		}
		var fd int
		fmt.Sscan(filepath.Base(link), &fd)
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer full.Close()
		kept, err := syscall.Dup(fd)
		if err != nil {
			return nil, err
		}
		return func() error {
			return errors.Join(syscall.Dup3(kept, fd, syscall.O_CLOEXEC), syscall.Close(kept))
		}, syscall.Dup3(int(full.Fd()), fd, syscall.O_CLOEXEC)
	}
	return nil, fmt.Errorf("%s is not open", path)
}

// turn fills the disk or gives it room.
func (w *world) turn(t *testing.T, said string) {
	t.Helper()
	from := w.out.Len()
	w.gate.cmd.Process.Signal(syscall.SIGWINCH)
	w.gate.printed(t, from, said+" <nil>")
}

// TestP4_DiskFullThroughTheGate fills the disk under a gate. Nobody is logged
// out; guests and public routes go on; a login gets 503 before its code is
// spent; a logout gets 503 and ends the session in this gate. With room again,
// all of it goes on, and a kill then loses nothing.
func TestP4_DiskFullThroughTheGate(t *testing.T) {
	t.Parallel()
	slow(t)
	w := prepareWorld(t, mixed)
	w.env = append(w.env, diskEnv+"="+w.database())
	w.start(t)
	ada, bob, eve := w.login(t, "ada"), w.login(t, "bob"), w.login(t, "eve")
	w.checkAlive(t, ada, w.who(appA, "ada")) // in the cache, which bob's session is not
	from := w.out.Len()
	unavailable := func(r reply) {
		t.Helper()
		r.problem(t, 503, "store_unavailable")
	}

	w.turn(t, "the disk is full")
	unavailable(w.tryLogin(t, "cat")) // notices it
	spent := w.wechat.Count(exchangePath)
	for range 3 {
		unavailable(w.tryLogin(t, "cat"))
		unavailable(w.post(t, "/wx/logout", "", bearer(eve)))
		w.checkDead(t, eve)
		w.checkAlive(t, ada, w.who(appA, "ada"))
		w.checkAlive(t, bob, w.who(appA, "bob"))
		w.checkDead(t, "wxs_"+strings.Repeat("A", 41))
		for _, path := range []string{"/public/x", "/optional/x"} {
			if r := w.call(t, "GET", path, ""); !r.fromApp() {
				t.Errorf("a guest at %s is answered with %s", path, r)
			}
		}
	}
	if n := w.wechat.Count(exchangePath); n != spent {
		t.Errorf("%d codes were spent for logins that nobody can have", n-spent)
	}
	if status := w.adminGet(t, "/wechat/status"); !strings.Contains(status, `"up":false`) {
		t.Errorf("the status is %s", status)
	}

	w.turn(t, "the disk has room")
	var cat string
	eventually(t, "logins work again", func() bool {
		r := w.tryLogin(t, "cat")
		if r.status != 200 {
			unavailable(r)
			return false
		}
		cat = r.session(t).Token
		return true
	})
	eventually(t, "the log-out is made", func() bool {
		return strings.Contains(w.adminGet(t, "/wechat/status"), `"pending_revocations":0`)
	})
	w.gate.logs(t, from, map[string]int{
		"session store is unavailable": 1, "session store is back": 1,
	})
	w.gate.kill()
	if r, err := bolt.Check(w.database()); err != nil || r.Stats.Sessions != 3 || r.Damaged != 0 {
		t.Errorf("the file holds %+v, %v", r, err)
	}
	w.start(t)
	w.checkDead(t, eve)
	for user, token := range map[string]string{"ada": ada, "bob": bob, "cat": cat} {
		w.checkAlive(t, token, w.who(appA, user))
	}
}

// files are the contents of a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// TestStart_ReadOnly holds that a gate which may not write its store says so
// and ends, changes nothing, and finds everything once it may write.
func TestStart_ReadOnly(t *testing.T) {
	slow(t)
	t.Parallel()
	w := prepareWorld(t, setup{env: []string{plainEnv + "=1"}})
	w.start(t)
	token := w.login(t, "ada")
	if n := w.gate.stop(t); n != 0 {
		t.Fatalf("the gate ends with status %d", n)
	}
	before := files(t, filepath.Dir(w.database()))
	for path, modes := range map[string][2]os.FileMode{
		w.database(): {0o400, 0o600}, filepath.Dir(w.database()): {0o500, 0o700},
	} {
		if err := os.Chmod(path, modes[0]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(path, modes[1]) })
		status, printed := w.command(t, "run", "--adapter", "caddyfile", "--config",
			filepath.Join(w.home, "Caddyfile"))
		if last := tail(printed, 1000); status == 0 ||
			!strings.Contains(last, "opening session store") ||
			!strings.Contains(last, w.database()) || !strings.Contains(last, "permission denied") {
			t.Errorf("with %s read-only it ends with %d and says at last:\n%s", path, status, last)
		}
		if err := os.Chmod(path, modes[1]); err != nil {
			t.Fatal(err)
		}
	}
	if after := files(t, filepath.Dir(w.database())); !maps.Equal(before, after) {
		t.Error("something was changed")
	}
	w.start(t)
	w.checkAlive(t, token, w.who(appA, "ada"))
}

// damaged returns the one file that was set aside.
func (w *world) damaged(t *testing.T) (name, text string) {
	t.Helper()
	for name, text := range files(t, filepath.Dir(w.database())) {
		if strings.HasPrefix(name, "sessions.db.damaged-2") {
			return name, text
		}
	}
	t.Fatal("nothing was set aside")
	return "", ""
}

// TestP4_DamagedFileThroughTheGate damages the file of a killed gate. The gate
// starts with nobody logged in, keeps the file aside, tells the operator in the
// log and by a metric, and takes logins.
func TestP4_DamagedFileThroughTheGate(t *testing.T) {
	slow(t)
	t.Parallel()
	pageSize := os.Getpagesize()
	for name, damage := range map[string]func([]byte) []byte{
		"zeroed": func(b []byte) []byte { clear(b[2*pageSize:]); return b },
		"garbage": func(b []byte) []byte {
			for i := 2 * pageSize; i < len(b); i++ {
				b[i] = byte(rand.Uint32())
			}
			return b
		},
		"truncated":     func(b []byte) []byte { return b[:3*pageSize] },
		"cut to a page": func(b []byte) []byte { return b[:pageSize] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mixed)
			token := w.login(t, "ada")
			w.gate.kill()
			b, err := os.ReadFile(w.database())
			if err != nil {
				t.Fatal(err)
			}
			bad := damage(bytes.Clone(b))
			if err := os.WriteFile(w.database(), bad, 0o600); err != nil {
				t.Fatal(err)
			}
			key := files(t, filepath.Dir(w.database()))["sessions.db.key"]

			from := w.out.Len()
			w.start(t)
			w.gate.logs(t, from, map[string]int{
				"session store is damaged and was set aside":  1,
				`"set_aside":"` + w.database() + ".damaged-2": 1,
			})
			if _, text := w.damaged(t); text != string(bad) {
				t.Error("the damaged file was changed")
			}
			if now := files(t, filepath.Dir(w.database()))["sessions.db.key"]; now != key {
				t.Error("the master key was changed")
			}
			if n := w.metrics(t)["caddy_wechat_damaged_stores_total"]; n != 1 {
				t.Errorf("the metric tells of %v", n)
			}
			w.checkDead(t, token)
			bob := w.login(t, "bob")
			w.checkAlive(t, bob, w.who(appA, "bob"))
			w.gate.kill()
			w.start(t) // it is the new file now
			w.checkAlive(t, bob, w.who(appA, "bob"))
			if n := w.metrics(t)["caddy_wechat_damaged_stores_total"]; n != 0 {
				t.Errorf("after another start the metric tells of %v", n)
			}
		})
	}
}

// TestP4_FileLostUnderTheGate cuts the file under a running gate, as a dying
// disk does. Cached sessions go on, other requests get 503, and the next start
// finds the damage.
func TestP4_FileLostUnderTheGate(t *testing.T) {
	slow(t)
	t.Parallel()
	// Every transaction begins with the first two pages; with them only trees are lost.
	for pages := range 3 {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			t.Parallel()
			testFileLost(t, pages)
		})
	}
}

func testFileLost(t *testing.T, pages int) {
	w := newWorld(t, mixed)
	w.out.expect("session store")
	ada, bob := w.login(t, "ada"), w.login(t, "bob")
	eventually(t, "a session is in the cache", func() bool {
		before := w.metrics(t)["caddy_wechat_cache_hits_total"]
		w.checkAlive(t, ada, w.who(appA, "ada"))
		return w.metrics(t)["caddy_wechat_cache_hits_total"] > before
	})
	if err := os.Truncate(w.database(), int64(pages*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.call(t, "GET", "/app/x", "", bearer(bob)).problem(t, 503, "store_unavailable")
		w.tryLogin(t, "cat").problem(t, 503, "store_unavailable")
		w.checkAlive(t, ada, w.who(appA, "ada"))
		if r := w.call(t, "GET", "/optional/x", ""); !r.fromApp() {
			t.Errorf("a guest is answered with %s", r)
		}
	}
	if status := w.adminGet(t, "/wechat/status"); !strings.Contains(status, `"up":false`) {
		t.Errorf("the status is %s", status)
	}
	w.gate.logs(t, 0, map[string]int{`"msg":"session store is unavailable"`: 1})
	w.gate.stop(t)
	w.start(t)
	if pages > 0 { // nothing can be kept of nothing
		w.damaged(t)
	}
	w.checkDead(t, ada)
	w.checkAlive(t, w.login(t, "bob"), w.who(appA, "bob"))
}
