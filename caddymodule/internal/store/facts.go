package store

import (
	"bytes"
	"context"
)

// FactReader is the part of a Store that a copy of its file has, too.
type FactReader interface {
	Fact(ctx context.Context, name string) ([]byte, error)
}

// Facts is the part of a Store that keeps facts.
type Facts interface {
	FactReader
	SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error)
}

// EditFact replaces a fact by what change returns of its value, durably. It calls change
// again whenever another gate was faster. A change that returns the value as it is, or an
// error, writes nothing. The error is that of change or of f.
func EditFact(
	ctx context.Context, f Facts, name string, change func(was []byte) ([]byte, error),
) error {
	was, err := f.Fact(ctx, name)
	for err == nil {
		var value []byte
		value, err = change(was)
		if err != nil || bytes.Equal(value, was) {
			return err
		}
		was, err = f.SetFact(ctx, name, was, value)
		if bytes.Equal(was, value) {
			return err
		}
	}
	return err
}
