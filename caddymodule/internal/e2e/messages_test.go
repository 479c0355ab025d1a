package e2e_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	referencePage = "caddymodule/docs/reference.md"
	chinesePage   = "caddymodule/docs/reference.zh-CN.md"
)

// rowsOf returns the cells of the tables below an anchor, up to the next one.
func rowsOf(page, anchor string) (rows [][]string) {
	_, rest, _ := strings.Cut(page, `<a id="`+anchor+`"></a>`)
	section, _, _ := strings.Cut(rest, "<a id=")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `") {
			rows = append(rows, strings.Split(strings.Trim(line, "| \n"), " | "))
		}
	}
	return rows
}

var quoted = regexp.MustCompile("`([^`]*)`")

// linesOf returns what the first cells of the tables below an anchor quote.
func linesOf(page, anchor string) (lines []string) {
	for _, cells := range rowsOf(page, anchor) {
		for _, m := range quoted.FindAllStringSubmatch(cells[0], -1) {
			lines = append(lines, m[1])
		}
	}
	return lines
}

// explains reports whether a line of a table is the beginning of a message. An
// ellipsis in the line stands for any text.
func explains(line, text string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(line), unknownPart, ".*")
	return regexp.MustCompile("^" + pattern).MatchString(text)
}

// TestReference_LogLines_AreAll: an operator searches the reference for the line
// in the log, finds it, and finds what to do.
func TestReference_LogLines_AreAll(t *testing.T) {
	page, code := manual(t, referencePage), productCode(t)
	lines := slices.Concat(linesOf(page, "log-lines"), linesOf(page, "validate"))
	found := messagesIn(t, code)
	if len(lines) < 40 || len(found) < 60 {
		t.Errorf("%d lines in the tables, %d in the code", len(lines), len(found))
	}
	for _, m := range found {
		explained := func(line string) bool { return explains(line, m.text) }
		switch {
		case !m.loud:
		case m.text == unknownPart:
			t.Errorf("%s: this test cannot tell what is logged", m.where)
		case !slices.ContainsFunc(lines, explained):
			t.Errorf("%s: %s#log-lines has no row for %q, with what to do",
				m.where, referencePage, m.text)
		}
	}
	all := strings.Join(slices.Collect(maps.Values(code)), "\n")
	for _, line := range lines {
		written := func(m message) bool { return explains(line, m.text) }
		if !slices.ContainsFunc(found, written) && !strings.Contains(all, `"`+line) {
			t.Errorf("no log line begins with %q", line)
		}
	}
}

// TestReference_Codes_AreAll: the tables of codes name what the gate answers.
func TestReference_Codes_AreAll(t *testing.T) {
	page := manual(t, referencePage)
	listed := slices.Concat(linesOf(page, "codes"), linesOf(page, "api-codes"))
	compareNames(t, "code", listed, `Code:\s+"([a-z_]+)"`, func(string) bool { return true })
}

// TestReference_Metrics_AreAll: the table of metrics names what the gate counts.
func TestReference_Metrics_AreAll(t *testing.T) {
	listed := linesOf(manual(t, referencePage), "metrics")
	for i, name := range listed {
		listed[i] = strings.TrimPrefix(name, "caddy_wechat_")
	}
	compareNames(t, "metric", listed, `(?:\b(?:opts|describe)\(\s*|\bName:\s+)"(\w+)"`,
		func(text string) bool { return strings.Contains(text, "client_golang/prometheus") })
}

// compareNames compares a list with the names that a pattern finds in some files.
func compareNames(
	t *testing.T, what string, listed []string, pattern string, of func(text string) bool,
) {
	t.Helper()
	var used []string
	for _, text := range productCode(t) {
		if !of(text) {
			continue
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			used = append(used, m[1])
		}
	}
	if len(used) < 15 {
		t.Errorf("the code has %q only", used)
	}
	for _, name := range used {
		if !slices.Contains(listed, name) {
			t.Errorf("%s does not list the %s %s", referencePage, what, name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(used, name) {
			t.Errorf("%s lists the %s %s, which the code does not have", referencePage, what, name)
		}
	}
}

// TestReference_Chinese_HasTheSameRows: the Chinese page has the tables of codes,
// log lines and findings, row by row.
func TestReference_Chinese_HasTheSameRows(t *testing.T) {
	english, chinese := manual(t, referencePage), manual(t, chinesePage)
	for _, anchor := range []string{"codes", "api-codes", "log-lines", "validate"} {
		en, zh := linesOf(english, anchor), linesOf(chinese, anchor)
		if i := differAt(en, zh); i >= 0 || len(en) == 0 {
			t.Errorf("%s#%s and %s differ from row %d on: %q and %q", referencePage, anchor,
				chinesePage, i+1, en[max(i, 0):], zh[max(i, 0):])
		}
		for _, row := range rowsOf(chinese, anchor) {
			if han := regexp.MustCompile(`\p{Han}`); !han.MatchString(row[len(row)-1]) {
				t.Errorf("#%s: %s says nothing", anchor, row[0])
			}
		}
	}
}

// TestReference_Codes_HaveWordsOnThePage: the playground says in two languages what
// each code means.
func TestReference_Codes_HaveWordsOnThePage(t *testing.T) {
	codes := linesOf(manual(t, referencePage), "codes")
	if len(codes) < 15 {
		t.Errorf("the codes are %q", codes)
	}
	for _, name := range []string{"en.js", "zh.js"} {
		words := manual(t, "cmd/internal/playground/page/"+name)
		for _, code := range codes {
			if !strings.HasPrefix(code, `"`) && !strings.Contains(words, "'code."+code+"': '") {
				t.Errorf("%s has no words for 'code.%s'", name, code)
			}
		}
	}
}

// differAt returns the first place where two lists differ, or -1.
func differAt(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}

// TestReference_LogLines_AreFound: a line is found however the code makes its text.
func TestReference_LogLines_AreFound(t *testing.T) {
	const code = `package p

type finding struct{ What string }

var found = finding{What: "a field"}

func f(subject string) {
	log.Error("two " +
		"parts", zap.Error(err))
	text := "a variable"
	if subject != "" {
		text = subject + " of a caller"
	}
	log.Warn(text)
	log.Log(level, fmt.Sprintf("%d are unknown", n))
	log.Warn(found.What)
	log.Info("quiet")
	log.Log(zap.InfoLevel, "quiet, too")
	log.Error(unknown())
	err.Error()
}

func g() { f("the subject") }
`
	var loud []string
	for _, m := range messagesIn(t, map[string]string{"p/p.go": code}) {
		if m.loud {
			loud = append(loud, m.text)
		}
	}
	slices.Sort(loud)
	want := []string{
		"a field", "a variable", "the subject of a caller", "two parts", unknownPart,
		"… are unknown",
	}
	if !slices.Equal(loud, want) {
		t.Errorf("got %q, want %q", loud, want)
	}
	for line, explained := range map[string]bool{
		"a fie": true, "a … of": true, "field": false, "…field": true,
	} {
		if got := explains(line, "a field of wheat"); got != explained {
			t.Errorf("%q: %t", line, got)
		}
	}
}

// message is a line that the code writes to the log. A part that only the running
// program knows is an ellipsis.
type message struct {
	text  string
	where string
	loud  bool // it may be a warning or an error
}

const unknownPart = "…"

// speech finds what the code writes to the log. It follows a text that is not
// constant to the assignments of a variable, to the callers of a function, and to
// the literals that set a field.
type speech struct {
	set    *token.FileSet
	calls  map[string][]call
	fields map[string][]ast.Expr
	busy   map[ast.Expr]bool
}

// call is a call and the function that it stands in.
type call struct {
	*ast.CallExpr
	in *ast.FuncDecl
}

// methods are those of zap's Logger that write a line of a level, and Log, whose
// first argument is the level.
var methods = map[string]struct {
	text int // which argument
	loud bool
}{
	"Info": {0, false}, "Warn": {0, true}, "Error": {0, true}, "DPanic": {0, true},
	"Log": {1, true},
}

// messagesIn returns the log lines of Go files, by path.
func messagesIn(tb testing.TB, files map[string]string) (found []message) {
	tb.Helper()
	s := &speech{
		set: token.NewFileSet(), calls: make(map[string][]call),
		fields: make(map[string][]ast.Expr), busy: make(map[ast.Expr]bool),
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file, err := parser.ParseFile(s.set, name, files[name], 0)
		if err != nil {
			tb.Fatal(err)
		}
		s.read(file)
	}
	for method, m := range methods {
		for _, c := range s.calls[method] {
			if len(c.Args) <= m.text || ofPackage(c.Fun, "zap", "http") {
				continue
			}
			loud := m.loud && (m.text == 0 || !ofPackage(c.Args[0], "zap", "zapcore") ||
				!quiet(c.Args[0]))
			for _, text := range s.texts(c.Args[m.text], c.in) {
				found = append(found, message{text, s.set.Position(c.Pos()).String(), loud})
			}
		}
	}
	return found
}

// ofPackage reports whether an expression is a name of one of the packages.
func ofPackage(e ast.Expr, names ...string) bool {
	selector, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	id, ok := selector.X.(*ast.Ident)
	return ok && slices.Contains(names, id.Name)
}

// quiet reports whether an expression is a level below that of warnings.
func quiet(e ast.Expr) bool {
	name := e.(*ast.SelectorExpr).Sel.Name
	return name == "DebugLevel" || name == "InfoLevel"
}

// read collects the calls and fields of a file.
func (s *speech) read(file *ast.File) {
	for _, d := range file.Decls {
		in, _ := d.(*ast.FuncDecl)
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				s.calls[called(n)] = append(s.calls[called(n)], call{n, in})
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok {
					s.fields[key.Name] = append(s.fields[key.Name], n.Value)
				}
			}
			return true
		})
	}
}

// called returns the name of the function or method that is called.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// texts returns what an expression in a function may be. One that leads back to
// itself adds nothing.
func (s *speech) texts(e ast.Expr, in *ast.FuncDecl) (all []string) {
	if s.busy[e] {
		return nil
	}
	s.busy[e] = true
	defer delete(s.busy, e)
	add := func(e ast.Expr, in *ast.FuncDecl) { all = append(all, s.texts(e, in)...) }
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			all = []string{text}
		}
	case *ast.BinaryExpr:
		for _, a := range s.texts(e.X, in) {
			for _, b := range s.texts(e.Y, in) {
				all = append(all, a+b)
			}
		}
	case *ast.CallExpr:
		if called(e) == "Sprintf" {
			for _, format := range s.texts(e.Args[0], in) {
				all = append(all, verb.ReplaceAllString(format, unknownPart))
			}
		}
	case *ast.SelectorExpr:
		for _, value := range s.near(e, s.fields[e.Sel.Name]) {
			add(value, nil)
		}
	case *ast.Ident:
		if in == nil {
			break
		}
		i := parameter(in, e.Name)
		if _, counted := methods[in.Name.Name]; counted && i >= 0 {
			return nil // the calls of that function are messages themselves
		}
		for _, value := range assigned(in, e.Name) {
			add(value, in)
		}
		for _, c := range s.callers(in) {
			if i >= 0 && i < len(c.Args) {
				add(c.Args[i], c.in)
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if others := slices.DeleteFunc(slices.Clone(all), isUnknown); len(others) > 0 {
		return others
	}
	return []string{unknownPart}
}

// near returns the values that stand in the package of a node, or else all.
func (s *speech) near(n ast.Node, values []ast.Expr) []ast.Expr {
	far := func(v ast.Expr) bool { return s.folder(v) != s.folder(n) }
	if here := slices.DeleteFunc(slices.Clone(values), far); len(here) > 0 {
		return here
	}
	return values
}

func (s *speech) folder(n ast.Node) string { return path.Dir(s.set.Position(n.Pos()).Filename) }

func isUnknown(text string) bool { return text == unknownPart }

// callers returns the calls of a function: those of its package, when no other can
// call it.
func (s *speech) callers(f *ast.FuncDecl) (all []call) {
	for _, c := range s.calls[f.Name.Name] {
		if f.Name.IsExported() || s.folder(c) == s.folder(f) {
			all = append(all, c)
		}
	}
	return all
}

var verb = regexp.MustCompile(`%[a-z]`)

// parameter returns which parameter of a function has a name, or -1.
func parameter(f *ast.FuncDecl, name string) int {
	i := 0
	for _, field := range f.Type.Params.List {
		for _, id := range field.Names {
			if id.Name == name {
				return i
			}
			i++
		}
	}
	return -1
}

// assigned returns what a function assigns to a variable.
func assigned(f *ast.FuncDecl, name string) (values []ast.Expr) {
	ast.Inspect(f, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok {
			return true
		}
		for i := range min(len(a.Lhs), len(a.Rhs)) {
			if id, ok := a.Lhs[i].(*ast.Ident); ok && id.Name == name {
				values = append(values, a.Rhs[i])
			}
		}
		return true
	})
	return values
}

// productCode returns the Go files of the gate, without tests and what serves them.
func productCode(tb testing.TB) map[string]string {
	tb.Helper()
	files := sources(tb, ".go")
	maps.DeleteFunc(files, func(name, _ string) bool {
		testing := []string{"storetest", "redistest", "apptest", "caddytest", "weixintest", "e2e"}
		return strings.HasSuffix(name, "_test.go") ||
			slices.Contains(testing, path.Base(path.Dir(name))) ||
			!strings.HasPrefix(name, "caddymodule/")
	})
	return files
}
