package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// promises lists the Caddy modules that each plugin package of this module registers, by the package's place in it.
var promises = map[string][]string{
	"caddymodule":            {"admin.api.wechat", "caddy.logging.encoders.wechat", "http.handlers.wechat_api", "http.handlers.wechat_auth", "wechat", "wechat.stores.bolt"},
	"caddymodule/redisstore": {"wechat.stores.redis"},
}

// listedModule is an entry of Caddy's list-modules. Source is the Go module it comes from; Caddy leaves it empty for
// those of the main module, which is this one.
type listedModule struct {
	Name   string `json:"module_name"`
	Source string `json:"package_url"`
}

// verify asks the program for its modules and returns the names of those that are not Caddy's own.
func verify(ctx context.Context, m *manifest, mod *module, program string) ([]string, error) {
	cmd := exec.CommandContext(ctx, program, "list-modules", "--skip-standard", "--json")
	interruptible(cmd)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asking the program for its modules: %w", err)
	}
	var listed []listedModule
	if err := json.Unmarshal(out, &listed); err != nil {
		return nil, fmt.Errorf("reading the program's list of modules: %w", err)
	}
	return judgeModules(m, mod, listed)
}

// judgeModules holds the listed modules against what the plugins promise: every module by name for a package of ours, at
// least one module for a foreign one.
func judgeModules(m *manifest, mod *module, listed []listedModule) ([]string, error) {
	bySource := make(map[string][]string)
	for _, l := range listed {
		bySource[l.Source] = append(bySource[l.Source], l.Name)
	}
	var problems []error
	for i, p := range m.Plugins {
		key := fmt.Sprintf("plugins[%d]", i)
		if source := mod.Packages[p.Path].Module; !source.Main {
			if len(bySource[source.Path]) == 0 {
				problems = append(problems, m.wrong(key, "%s registers no Caddy module; remove it or name the package that does", p.Path))
			}
			continue
		}
		for _, name := range promises[strings.TrimPrefix(p.Path, mod.Path+"/")] {
			if !slices.Contains(bySource[""], name) {
				problems = append(problems, m.wrong(key, "the program lacks %s, which %s promises; is it registered in an init?", name, p.Path))
			}
		}
	}
	return slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(bySource))...))), errors.Join(problems...)
}
