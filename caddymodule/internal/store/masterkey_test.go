package store_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

func TestMasterKeyNeed_Login_CoversSessionAndLittleMore(t *testing.T) {
	start := time.UnixMilli(1_700_000_000_000)
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(1, int64(400*24*time.Hour)).Draw(t, "life"))
		recorded := start.Add(time.Duration(rapid.Int64Range(-int64(life), 2*int64(life)).Draw(t, "recorded")))
		l := store.Login{Created: start, Expires: start.Add(life)}
		until := l.MasterKeyNeed(recorded)
		switch {
		case until.Before(l.Expires) || until.Before(recorded):
			t.Fatalf("needed until %v, the session lives until %v", until, l.Expires)
		case until.Equal(recorded):
		case recorded.After(l.Expires) || until.Sub(l.Expires) > min(life/20, time.Hour)+time.Millisecond:
			t.Fatalf("a need until %v became one until %v, the session lives until %v", recorded, until, l.Expires)
		case !until.Equal(time.UnixMilli(until.UnixMilli())) || !l.MasterKeyNeed(until).Equal(until):
			t.Fatalf("%v does not stay as it is at rest", until)
		}
	})
}
