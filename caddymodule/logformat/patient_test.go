package logformat

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// TestPatient_ReaderStalls_WritersGoOn writes far more than a pipe and the buffer hold
// while no one reads. All writes return; then the lines come in order, those that were
// lost are counted, and the log goes on as before.
func TestPatient_ReaderStalls_WritersGoOn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, before := newPatient(w), Dropped()
	const lines = 3 * bufferedLines
	for i := range lines {
		fmt.Fprintf(p, "line %d %s\n", i, strings.Repeat("x", 100))
	}
	lost := Dropped() - before
	if lost == 0 || !p.stuck.Load() {
		t.Fatalf("lost %d: the reader did not stall", lost)
	}
	sc, next, told := bufio.NewScanner(r), 0, ""
	for told == "" && sc.Scan() {
		if strings.HasPrefix(sc.Text(), "line ") {
			if !strings.HasPrefix(sc.Text(), fmt.Sprintf("line %d ", next)) {
				t.Fatalf("line %d is %q", next, sc.Text())
			}
			next++
			continue
		}
		told = sc.Text()
	}
	if next+int(lost) != lines || !strings.Contains(told, fmt.Sprintf(`"count":%d}`, lost)) {
		t.Errorf("%d lines came, %d were lost, and the log says %q", next, lost, told)
	}
	for i := range 3 { // waited for again: each is in the pipe when Write returns
		fmt.Fprintf(p, "after %d\n", i)
		if r.SetReadDeadline(time.Now().Add(20*time.Second)) != nil || !sc.Scan() ||
			sc.Text() != fmt.Sprintf("after %d", i) {
			t.Errorf("afterwards %q", sc.Text())
		}
	}
}

func TestPatientWriter_Config_SharesCaddysKeys(t *testing.T) {
	for to, want := range map[string]string{
		"": "std:err", "stderr": "std:err", "stdout": "std:out",
	} {
		p := &PatientWriter{To: to}
		if err := p.Provision(caddy.Context{}); err != nil || p.WriterKey() != want {
			t.Errorf("%q: key %q, %v", to, p.WriterKey(), err)
		}
	}
	if err := (&PatientWriter{To: "file"}).Provision(caddy.Context{}); err == nil {
		t.Error("a file is accepted")
	}
}
