package probe

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Result is the outcome of a row.
type Result string

const (
	Held     Result = "held"
	Fell     Result = "fell"
	NotTried Result = "not tried"
)

// The ways to see what the app received.
const (
	SeenByEcho   = "echo"       // the echo app saw every byte
	SeenInAnswer = "reflection" // values were searched in the answers
)

// Row is one attack in one role.
type Row struct {
	Threat int    `json:"threat"` // row of docs/threats.md
	Attack string `json:"attack"`
	As     string `json:"as"` // a role: user, guest or public
	Tries  string `json:"tries"`
	Judged string `json:"judged"` // what counts as fallen
	Result Result `json:"result"`
	// Evidence is what the app saw, how the gate held, or why the row was not tried.
	Evidence string `json:"evidence,omitempty"`
}

// Report holds the findings of a run. It holds no part of the credential.
type Report struct {
	URL   string `json:"url"`
	Seen  string `json:"seen"`
	HTTP2 bool   `json:"http2"` // HTTP/2 was tried, too
	Rows  []Row  `json:"rows"`
}

// Count returns how many rows came out so.
func (r Report) Count(result Result) (n int) {
	for _, row := range r.Rows {
		if row.Result == result {
			n++
		}
	}
	return n
}

// WriteText writes the report as a table for people.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Probe of %s\n", r.URL)
	if r.Seen == SeenByEcho {
		b.WriteString("Seen by the echo app behind the gate, byte for byte.\n")
	} else {
		b.WriteString("Seen in what the answers reflect of the request. This way cannot see " +
			"trailers, raw lines and duplicates, nor requests whose answer reflects nothing: " +
			"use --echo for those.\n")
	}
	b.WriteString("user: with the credential. guest: without. public: without, under --public.\n")
	for rows := r.Rows; len(rows) > 0; {
		n := slices.IndexFunc(rows, func(row Row) bool { return row.Threat != rows[0].Threat })
		if n < 0 {
			n = len(rows)
		}
		writeKind(&b, rows[:n])
		rows = rows[n:]
	}
	r.writeSummary(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeKind writes the rows of one kind of attack: a line for each attack, a
// column for each role, and under it what fell.
func writeKind(b *strings.Builder, rows []Row) {
	fmt.Fprintf(b, "\n%2d  %s. Falls if %s.\n%s", rows[0].Threat, rows[0].Tries, rows[0].Judged,
		strings.Repeat(" ", 60))
	for _, as := range everyone {
		fmt.Fprintf(b, "  %-6s", as)
	}
	b.WriteString("\n")
	for len(rows) > 0 {
		n := slices.IndexFunc(rows, func(row Row) bool { return row.Attack != rows[0].Attack })
		if n < 0 {
			n = len(rows)
		}
		line := fmt.Sprintf("    %-56s", rows[0].Attack)
		var fallen []string
		for _, as := range everyone {
			cell := ""
			for _, row := range rows[:n] {
				if row.As == string(as) {
					cell = map[Result]string{Held: "held", Fell: "FELL", NotTried: "-"}[row.Result]
					if row.Result == Fell {
						fallen = append(fallen, fmt.Sprintf("      %s: %s\n", as, row.Evidence))
					}
				}
			}
			line += fmt.Sprintf("  %-6s", cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n" + strings.Join(fallen, ""))
		rows = rows[n:]
	}
}

func (r Report) writeSummary(b *strings.Builder) {
	fmt.Fprintf(b, "\n%d held, %d FELL, %d not tried\n", r.Count(Held), r.Count(Fell),
		r.Count(NotTried))
	reasons := make(map[string]int)
	var order []string
	for _, row := range r.Rows {
		if row.Result == NotTried {
			if reasons[row.Evidence] == 0 {
				order = append(order, row.Evidence)
			}
			reasons[row.Evidence]++
		}
	}
	for _, reason := range order {
		fmt.Fprintf(b, "  -  %d: %s\n", reasons[reason], reason)
	}
}
