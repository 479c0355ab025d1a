package e2e_test

import (
	"slices"
	"strings"
	"testing"
)

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
