//go:build unix

package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// deployFile reads a file of a guide below examples/deploy.
func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleRoot, "examples/deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// gracePeriod reads what a Caddyfile sets.
func gracePeriod(t *testing.T, caddyfile string) time.Duration {
	t.Helper()
	config, err := adapt(caddyfile)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Apps struct {
			HTTP struct {
				ShutdownDelay time.Duration `json:"shutdown_delay"`
				GracePeriod   time.Duration `json:"grace_period"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil || c.Apps.HTTP.GracePeriod == 0 {
		t.Fatal(c, err)
	}
	return c.Apps.HTTP.ShutdownDelay + c.Apps.HTTP.GracePeriod
}

// stopTime is what a gate needs to stop, after the grace period.
const stopTime = 20 * time.Second

// TestGuide_Systemd_UnitIsValid lets systemd judge the unit, and holds that the time to
// stop suffices and that the secret comes from where the unit puts it.
func TestGuide_Systemd_UnitIsValid(t *testing.T) {
	t.Parallel()
	unit, caddyfile := deployFile(t, "systemd/wxgate.service"), deployFile(t, "systemd/Caddyfile")
	want := gracePeriod(t, caddyfile) + stopTime
	if line := fmt.Sprintf("\nTimeoutStopSec=%ds\n", int(want.Seconds())); !strings.Contains(
		unit,
		line,
	) {
		t.Errorf("the unit has no %q", line)
	}
	id := regexp.MustCompile(`(?m)^LoadCredential=(\w+):`).FindStringSubmatch(unit)
	if id == nil || !strings.Contains(caddyfile, "/"+id[1]+"}") {
		t.Errorf("the Caddyfile does not read the credential %q", id)
	}

	w := prepareWorld(t, setup{})
	secret := w.write(t, id[1], secretOf(appA))
	w.env = []string{"CREDENTIALS_DIRECTORY=" + filepath.Dir(secret)}
	config := w.write(t, "Caddyfile", caddyfile)
	status, said := w.command(t, "wechat", "validate", "--strict", "--config", config)
	if status != 0 {
		t.Errorf("validate: status %d: %s", status, said)
	}

	need(t, "systemd-analyze")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	installed := strings.ReplaceAll(unit, "/usr/local/bin/wxgate", self)
	if installed == unit {
		t.Error("the unit does not run /usr/local/bin/wxgate")
	}
	file := w.write(t, "wxgate.service", installed)
	for _, args := range [][]string{
		{"verify", file},
		{"security", "--offline=true", "--threshold=25", file}, // of 100, the less the better
	} {
		out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
		if err != nil || args[0] == "verify" && strings.Contains(string(out), "wxgate") {
			t.Errorf("systemd-analyze %s: %v\n%s", args, err, out)
		}
	}
}
