//go:build unix

package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
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

// manifest decodes the documents of a YAML file.
func manifest(t *testing.T, name string) (documents []map[string]any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(deployFile(t, name)))
	for {
		var d map[string]any
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return documents
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		documents = append(documents, d)
	}
}

// at follows keys and indices into a manifest; what is missing is nil.
func at(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	return v
}

// wants compares places of a manifest, written as JSON.
func wants(t *testing.T, where string, v any, want map[string]string) {
	t.Helper()
	for path, value := range want {
		var steps []any
		for step := range strings.SplitSeq(path, ".") {
			if n, err := strconv.Atoi(step); err == nil {
				steps = append(steps, n)
				continue
			}
			steps = append(steps, step)
		}
		if got, err := json.Marshal(at(v, steps...)); err != nil || string(got) != value {
			t.Errorf("%s: %s is %s, want %s", where, path, got, value)
		}
	}
}

// secretNames are the variables of the Caddyfiles that no manifest may spell out.
var secretNames = []string{"WX_SECRET", "WX_SEAL_KEY", "REDIS_PASSWORD"}

// TestGuide_Docker_ComposeHolds checks who reaches whom in compose.yaml, and runs the
// command of its Redis.
func TestGuide_Docker_ComposeHolds(t *testing.T) {
	t.Parallel()
	services := at(manifest(t, "docker/compose.yaml")[0], "services")
	stop := gracePeriod(t, deployFile(t, "docker/Caddyfile")) + stopTime
	wants(t, "compose.yaml", services, map[string]string{
		"app.ports": "null", "redis.ports": "null", "app.networks": `["app"]`,
		"redis.networks": `["store"]`, "gate.networks": `["app","store"]`,
		"app.read_only": "true", "gate.read_only": "true", "redis.read_only": "true",
		"gate.cap_drop": `["ALL"]`, "gate.stop_grace_period": `"30s"`,
		"gate.volumes.0": `"data:/data"`, "gate.build.context": `"../../.."`,
		"gate.build.dockerfile": `"examples/deploy/docker/Dockerfile"`,
	})
	if stop != 30*time.Second {
		t.Errorf("a stop takes %s, compose.yaml waits 30s", stop)
	}
	for _, service := range []string{"gate", "redis"} {
		for _, name := range secretNames {
			value := at(services, service, "environment", name)
			if value != nil && value != "${"+name+":?write it into .env}" {
				t.Errorf("%s: %s is %q", service, name, value)
			}
		}
	}

	need(t, "redis-server")
	addr, dir := freeAddr(t), t.TempDir()
	command := strings.NewReplacer("$$", "$", "/tmp/redis.conf", dir+"/redis.conf").
		Replace(fmt.Sprint(at(services, "redis", "command", 2)))
	const password = "canary-password"
	env := []string{"REDIS_PASSWORD=" + password, "REDIS_DIR=" + dir}
	spawn(t, dir, env, addr, "sh", "-c", command+" --port "+portOf(addr))
	conn, br := dial(t, addr)
	for _, c := range []struct{ call, want string }{
		{"PING", "-NOAUTH"},
		{"AUTH " + password, "+OK"},
		{"CONFIG GET appendonly", "*2"},
	} {
		io.WriteString(conn, c.call+"\r\n")
		if line, err := br.ReadString('\n'); err != nil || !strings.HasPrefix(line, c.want) {
			t.Errorf("Redis answers %s with %q, %v", c.call, line, err)
		}
	}
}

// TestGuide_Docker_ImageBuilds lets the go command judge the build of the Dockerfile and
// the program the image's configuration, and runs the health check.
func TestGuide_Docker_ImageBuilds(t *testing.T) {
	slow(t)
	t.Parallel()
	dockerfile := deployFile(t, "docker/Dockerfile")
	for line := range strings.Lines(dockerfile) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "COPY" || strings.HasPrefix(words[1], "--from") {
			continue
		}
		for _, name := range words[1 : len(words)-1] {
			if _, err := os.Stat(filepath.Join(moduleRoot, name)); err != nil {
				t.Error(err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(moduleRoot, "xcaddy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Flags string `json:"build_flags"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	build := regexp.MustCompile(`(?m)^RUN (.*go build .*)$`).FindStringSubmatch(dockerfile)
	if build == nil {
		t.Fatal("no go build")
	}
	for flag := range strings.FieldsSeq(manifest.Flags + " -pgo=cmd/wxbuild/release.pgo") {
		if !strings.Contains(build[1], flag) {
			t.Errorf("the image is built without %s, a flag of cmd/wxbuild", flag)
		}
	}
	// CI builds with these flags; here the go command judges them.
	cmd := exec.Command("sh", "-c", strings.Replace(build[1], "go build", "go build -n", 1))
	cmd.Dir = moduleRoot
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out), 2000))
	}
	w := prepareWorld(t, setup{})
	w.env = []string{
		"WX_SECRET=canary-secret", "WX_SEAL_KEY=" + fleetSealKey, "REDIS_ADDR=127.0.0.1:1",
		"REDIS_PASSWORD=" + fleetPassword,
	}
	config := w.write(t, "image.Caddyfile", deployFile(t, "docker/Caddyfile"))
	if status, said := w.command(t, "wechat", "validate", "--config", config); status != 0 {
		t.Errorf("validate: status %d: %s", status, said)
	}

	check := regexp.MustCompile(`(?s)\nHEALTHCHECK .*?CMD (\[.*?\])\n`).
		FindStringSubmatch(dockerfile)
	var args []string
	if check == nil || json.Unmarshal([]byte(check[1]), &args) != nil || args[0] != "/wxgate" {
		t.Fatal("no health check: ", check)
	}
	const socket = "unix//run/wxgate/admin.sock"
	if !strings.Contains(deployFile(t, "docker/Caddyfile"), "admin "+socket+"|0600\n") {
		t.Errorf("the Caddyfile has no %s", socket)
	}
	own := "unix/" + filepath.Join(w.home, "admin.sock")
	for i, arg := range args {
		args[i] = strings.ReplaceAll(arg, socket, own)
	}
	w.admin = own + "|0600"
	w.start(t)
	if status, said := w.command(t, args[1:]...); status != 0 {
		t.Errorf("a gate that serves: status %d: %s", status, said)
	}
	w.gate.stop(t)
	if status, said := w.command(t, args[1:]...); status == 0 {
		t.Errorf("no gate: status %d: %s", status, said)
	}
}

// TestGuide_Kubernetes_ManifestsHold checks the manifests against the Caddyfile and
// each other.
func TestGuide_Kubernetes_ManifestsHold(t *testing.T) {
	t.Parallel()
	caddyfile := deployFile(t, "kubernetes/Caddyfile")
	stop := gracePeriod(t, caddyfile) + stopTime
	deployment := manifest(t, "kubernetes/deployment.yaml")[0]
	pod := at(deployment, "spec", "template")
	gate := at(pod, "spec", "containers", 1)
	wants(t, "deployment.yaml", pod, map[string]string{
		"metadata.labels":                    `{"app":"orders"}`,
		"spec.terminationGracePeriodSeconds": fmt.Sprint(stop.Seconds()),
		"spec.containers.0.ports":            "null",
		"spec.containers.0.volumeMounts":     "null",
	})
	wants(t, "deployment.yaml: gate", gate, map[string]string{
		"ports":                                    `[{"containerPort":8081,"name":"gate"}]`,
		"livenessProbe.httpGet":                    `{"path":"/wx/livez","port":"gate"}`,
		"readinessProbe.httpGet":                   `{"path":"/wx/readyz","port":"gate"}`,
		"volumeMounts.1":                           `{"mountPath":"/run/wxgate","name":"run"}`,
		"securityContext.readOnlyRootFilesystem":   "true",
		"securityContext.runAsNonRoot":             "true",
		"securityContext.allowPrivilegeEscalation": "false",
	})
	for _, line := range []string{"http://:8081 {", "admin unix//run/wxgate/admin.sock|0600"} {
		if !strings.Contains(caddyfile, line) {
			t.Errorf("the Caddyfile has no %s", line)
		}
	}
	given, _ := at(gate, "env").([]any)
	var names []string
	for _, v := range given {
		name := fmt.Sprint(at(v, "name"))
		names = append(names, name)
		if at(v, "value") != nil || at(v, "valueFrom", "secretKeyRef", "name") != "wxgate" ||
			at(v, "valueFrom", "secretKeyRef", "key") != name {
			t.Errorf("%s is not of the Secret", name)
		}
	}
	for _, m := range regexp.MustCompile(`{env\.(\w+)}`).FindAllStringSubmatch(caddyfile, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("the gate gets no %s", m[1])
		}
	}
	kustomization := manifest(t, "kubernetes/kustomization.yaml")[0]
	wants(t, "kustomization.yaml", kustomization, map[string]string{
		"resources":          `["deployment.yaml","service.yaml","pdb.yaml"]`,
		"configMapGenerator": `[{"files":["Caddyfile"],"name":"wxgate"}]`,
	})
	wants(t, "service.yaml", manifest(t, "kubernetes/service.yaml")[0], map[string]string{
		"spec.selector": `{"app":"orders"}`, "spec.ports.0.targetPort": `"gate"`,
	})
	wants(t, "pdb.yaml", manifest(t, "kubernetes/pdb.yaml")[0], map[string]string{
		"spec.selector.matchLabels": `{"app":"orders"}`, "spec.minAvailable": "1",
		"apiVersion": `"policy/v1"`,
	})
}
