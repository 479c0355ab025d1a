package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// rootLikeCaddys returns a root command with commands of Caddy's names.
func rootLikeCaddys() *cobra.Command {
	root := &cobra.Command{Use: "wxgate", Version: "v2"}
	for _, name := range append([]string{"version", "run"}, notOurs...) {
		root.AddCommand(&cobra.Command{
			Use: name, RunE: func(*cobra.Command, []string) error { panic(name) },
		})
	}
	return root
}

func TestMakeOurs_Commands_FitThisBinary(t *testing.T) {
	root := rootLikeCaddys()
	makeOurs(root)
	var names []string
	for _, c := range root.Commands() {
		names = append(names, c.Name())
	}
	if !slices.Equal(names, []string{"run", "version"}) {
		t.Errorf("commands %q", names)
	}
	for _, args := range [][]string{{"version"}, {"--version"}} {
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetArgs(args)
		if err := root.Execute(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"wxgate ", "\nCaddy ", "\ngo1"} {
			if !strings.Contains("\n"+out.String(), want) {
				t.Errorf("%q prints %q without %q", args, &out, want)
			}
		}
	}
}
