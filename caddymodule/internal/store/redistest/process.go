package redistest

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
)

// process is a running child.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawn starts a child whose output goes to a file. The kernel ends the child with
// the thread that started it, so spawn keeps that thread: a test that panics leaves
// no server behind, and none ends early.
func spawn(binary string, args []string, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, dieWithParent()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(p.done)
		}
	}()
	return p, <-started
}

// kill ends the child, paused or not, and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// signal sends a signal by name: package syscall has STOP and CONT only on some
// systems.
func (p *process) signal(name string) error {
	return exec.Command("sh", "-c", "kill -"+name+" "+strconv.Itoa(p.cmd.Process.Pid)).Run()
}

// ended reports whether the child is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
