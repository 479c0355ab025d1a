package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TestFleet_Example runs the example, which checks itself.
func TestFleet_Example(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, program := range []string{"bash", "curl", "redis-server"} {
		need(t, program)
	}
	cmd := exec.CommandContext(t.Context(), "bash",
		filepath.Join(moduleRoot, "examples/deploy/redis-fleet/run"), "--once")
	cmd.Env = append(os.Environ(), "BASE_PORT="+portOf(freeAddrs(t, 15)))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("it ends with %v:\n%s", err, tail(string(out), 6000))
	}
	if n := strings.Count(string(out), " 200 "); n != 7 {
		t.Errorf("it prints\n%s", out)
	}
}

// TestFleet_ExampleAdapts checks the load balancer's file, which has no gate
// and is in no other test.
func TestFleet_ExampleAdapts(t *testing.T) {
	text, err := os.ReadFile(
		filepath.Join(moduleRoot, "examples/deploy/redis-fleet/balancer.caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := adapt(string(text)); err != nil {
		t.Error(err)
	}
	if string(caddyfile.Format(text)) != string(text) {
		t.Error("it is not formatted as `wxgate fmt` does")
	}
}

// TestReadme_FleetOptions: the table names exactly the words that the parser knows.
func TestReadme_FleetOptions(t *testing.T) {
	around := func(lines string) string {
		return "{\nwechat {\napp " + appA + " {env.X}\nstore redis a:1 {\n" + lines + "\n}\n}\n}\n"
	}
	table := optionTable(t, readme(t), "In the block `store redis`:")
	if got, want := keys(table), standsHere(t, around("no_such_word")); !slices.Equal(got, want) {
		t.Errorf("the table names %q, the parser knows %q", got, want)
	}
	for word, inner := range table {
		_, err := adapt(around(word + " {\nno_such_word\n}"))
		if err == nil || !strings.Contains(err.Error(), "expected ") {
			if len(inner) > 0 {
				t.Errorf("the table gives %s the words %q, the parser none", word, inner)
			}
			continue
		}
		want := standsHere(t, around(word+" {\nno_such_word\n}"))
		if slices.Sort(inner); !slices.Equal(inner, want) {
			t.Errorf("the table gives %s the words %q, the parser knows %q", word, inner, want)
		}
	}
}
