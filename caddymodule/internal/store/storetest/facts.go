package storetest

import (
	"bytes"
	"sync/atomic"
	"testing"
)

func (f *fixture) fact(name string) []byte {
	f.t.Helper()
	v, err := f.Fact(f.t.Context(), name)
	f.must(err)
	return v
}

// A fact is replaced only by who knows it, survives a restart, and does not end with
// the sessions.
func testFact(t *testing.T, f *fixture) {
	if v := f.fact("a"); v != nil {
		t.Errorf("of an empty store: %q", v)
	}
	binary := []byte{0, 0xff, '{', '\r', '\n', 0}
	for _, step := range []struct{ was, value, want []byte }{
		{[]byte("x"), []byte("y"), nil}, // there is none
		{nil, []byte("first"), []byte("first")},
		{nil, []byte("late"), []byte("first")},
		{[]byte("firs"), []byte("late"), []byte("first")},
		{[]byte("first"), binary, binary},
		{binary, binary, binary},
		{binary, []byte("last"), []byte("last")},
	} {
		got, err := f.SetFact(t.Context(), "a", step.was, step.value)
		f.must(err)
		if !bytes.Equal(got, step.want) || (got == nil) != (step.want == nil) {
			t.Errorf("%q for %q: %q, want %q", step.value, step.was, got, step.want)
		}
		f.reopen()
		if got := f.fact("a"); !bytes.Equal(got, step.want) {
			t.Errorf("reopened: %q, want %q", got, step.want)
		}
	}
	f.must(f.RevokeAll(t.Context()))
	if got := f.fact("a"); string(got) != "last" {
		t.Errorf("after a revocation: %q", got)
	}
	if got := f.fact("b"); got != nil {
		t.Errorf("another name: %q", got)
	}
}

// factParallel checks that of gates which come at the same time one wins.
func factParallel(t *testing.T, a, b *fixture) {
	var won atomic.Int64
	parallel(workers, func(i int) {
		mine := []byte{byte(i + 1)}
		got, err := []*fixture{a, b}[i%2].SetFact(t.Context(), "race", nil, mine)
		if err != nil {
			t.Error(err)
		}
		if bytes.Equal(got, mine) {
			won.Add(1)
		}
	})
	if n := won.Load(); n != 1 || len(a.fact("race")) != 1 {
		t.Errorf("%d of them won", n)
	}
}
