package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	"github.com/wxgate/wxgate/caddymodule/internal/cli"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// TestRestoreCommand holds that restore checks the backup first and keeps the
// old database.
func TestRestoreCommand(t *testing.T) {
	dir := t.TempDir()
	empty := func(name string) string {
		path := filepath.Join(dir, name)
		st, err := bolt.Open(bolt.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kept, db, junk := empty("kept"), empty("s.db"), filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{kept}, "required flag"},
		{[]string{"--to", db}, "accepts 1 arg"},
		{[]string{filepath.Join(dir, "nowhere"), "--to", db}, "nowhere"},
		{[]string{junk, "--to", db}, db},
	} {
		status, out, said := caddytest.RunCommand(t, restoreCommand(), append(tt.args, "--yes")...)
		if status != cli.Failed || !strings.Contains(said, tt.want) || out != "" {
			t.Errorf("%v: %d %s", tt.args, status, said)
		}
	}
	if after, err := os.ReadFile(db); err != nil || !bytes.Equal(before, after) {
		t.Error("a refused restore changed the database")
	}
	status, out, said := caddytest.RunCommand(t, restoreCommand(), kept, "--to", db)
	if status != cli.Failed || !strings.Contains(said, "say --yes") || out != "" {
		t.Errorf("without a terminal: %d %s\n%s", status, said, out)
	}
	status, out, said = caddytest.RunCommand(t, restoreCommand(), "--yes", kept, "--to", db)
	if status != 0 ||
		!strings.Contains(out, "copied "+kept+" over "+db+", the old one is kept as "+db+
			".replaced-") ||
		!strings.Contains(out, "There is no "+db+".key") {
		t.Errorf("%d %s\n%s", status, said, out)
	}
	if err := os.WriteFile(db+".key", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := filepath.Join(dir, "fresh.db")
	status, out, said = caddytest.RunCommand(t, restoreCommand(), "--yes", kept, "--to", fresh)
	if status != 0 || !strings.Contains(out, "over "+fresh+"; there was no old one\n") ||
		!strings.Contains(out, fresh+".key, or what seal_key names") {
		t.Errorf("%d %s\n%s", status, said, out)
	}
	if _, err := bolt.Check(fresh); err != nil {
		t.Error(err)
	}
	running, err := bolt.Open(bolt.Config{Path: db})
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close()
	status, _, said = caddytest.RunCommand(t, restoreCommand(), "--yes", kept, "--to", db)
	if status != cli.Failed || !strings.Contains(said, db) {
		t.Errorf("restoring under a running gate: %d %s", status, said)
	}
}
