package admin

import (
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

// TestKeys_OfOtherGates_AreMissing: a key that live sessions need and this gate lacks
// is shown by name; one that no session needs any more is not.
func TestKeys_OfOtherGates_AreMissing(t *testing.T) {
	own, err := keyring.Parse(keyring.NewMasterKey())
	if err != nil {
		t.Fatal(err)
	}
	hour := time.Now().Add(time.Hour)
	rows := missingKeys(own, map[keyring.ID]time.Time{
		own.Signer(): hour,
		{3}:          hour,
		{1}:          hour,
		{2}:          time.Now().Add(-time.Hour),
	})
	if len(rows) != 2 || rows[0].ID != "01000000" || rows[1].ID != "03000000" ||
		rows[0].State != keyMissing || rows[0].NeededUntil.Before(hour) {
		t.Errorf("got %+v", rows)
	}
}
