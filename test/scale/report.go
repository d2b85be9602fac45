package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What is between these lines of README.md is written by the command.
const (
	beginMark = "<!-- results: written by the command -->"
	endMark   = "<!-- end of results -->"
)

// A row is a line of a table.
type row struct {
	name  string // of a container, or of a Store
	pages int
}

// results are all that a run has found out; the report is made of nothing else.
type results struct {
	plan
	date    time.Time
	took    time.Duration
	load    string                       // average, when it began
	values  map[row]map[string][]float64 // one a round, by column
	none    map[row]map[string]string    // why there is none
	skipped []string
	notes   []string
	wrong   []string // what went wrong

	places map[string]string // where the Stores are; empty: not there
	stops  []func()
}

func newResults(p plan) *results {
	return &results{plan: p, values: make(map[row]map[string][]float64), none: make(map[row]map[string]string), places: make(map[string]string)}
}

// add notes what a process has measured.
func (r *results) add(at row, a *answer) {
	if r.values[at] == nil {
		r.values[at], r.none[at] = make(map[string][]float64), make(map[string]string)
	}
	for column, v := range a.Values {
		r.values[at][column] = append(r.values[at][column], v)
	}
	for column, why := range a.None {
		r.none[at][column] = why
	}
}

func (r *results) skip(format string, args ...any) {
	r.skipped = appendNew(r.skipped, fmt.Sprintf(format, args...))
}
func (r *results) note(format string, args ...any) {
	r.notes = appendNew(r.notes, fmt.Sprintf(format, args...))
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// A column is one piece of work.
type column struct {
	id, title string
	unit      string // ns, ms, /s, %, bytes, count
	plain     bool   // whether it is a number that makes no ratio
}

// A group is a table.
type group struct {
	title, text string
	stores      bool // whether its lines are Stores, beside the first of them, not containers beside the map
	columns     []column
}

// groups are the tables, in the order of the report.
func (p plan) groups() []group {
	return []group{
		{"Memory and the garbage collector", "What a page takes beside its 2,048 bytes, and in how many objects for the collector; a full collection while nothing else " +
			"is to be done; and the collector's share of the processors at the usual GOGC, while all of them serve hits all over the pages, each of a request that is read from its bytes as a server does.", false, []column{
			{"fill", "generated and kept", "/s", false},
			{"overhead", "beside the payload, a page", "bytes", false},
			{"objects", "objects a page", "count1", true},
			{"gc time", "a collection", "ms", false},
			{"gc cpu", "its processor time", "ms", false},
			{"gc share", "the collector's share", "%", false},
		}},
		{"Hits, with nothing else to do", "One `ServeHTTP` after the other, by one visitor, each timed: of all pages alike (uniform), and of few of them much more often than of the others (Zipf, s = 1.1).", false, []column{
			{"uniform quiet p50", "uniform: p50", "ns", false},
			{"uniform quiet p99", "p99", "ns", false},
			{"zipf quiet p50", "Zipf: p50", "ns", false},
			{"zipf quiet p99", "p99", "ns", false},
		}},
		{"Hits, while the garbage collector always runs", "The same while one collection follows the other.", false, []column{
			{"uniform p50", "uniform: p50", "ns", false},
			{"uniform p99", "p99", "ns", false},
			{"uniform p99.9", "p99.9", "ns", false},
			{"zipf p50", "Zipf: p50", "ns", false},
			{"zipf p99", "p99", "ns", false},
			{"zipf p99.9", "p99.9", "ns", false},
		}},
		{"Purges", "Until the call returns; a tenth of the pages has the tag, and a tenth lies below the prefix. Beside it the longest wait of a visitor who asks for other pages meanwhile.", false, []column{
			{"purge tag", "a tag", "ms", false},
			{"purge tag wait", "longest hit", "ms", false},
			{"purge prefix", "a prefix", "ms", false},
			{"purge prefix wait", "longest hit", "ms", false},
			{"purge everything", "everything", "ms", false},
		}},
		{"Purges of other pages", thousands(float64(p.others)) + " purges of pages that are not there, one after the other, and hits meanwhile; isr compacts its table of invalidations in between.", false, []column{
			{"others rate", "purges", "/s", false},
			{"others p50", "hits: p50", "ns", false},
			{"others p99", "p99", "ns", false},
			{"others p99.9", "p99.9", "ns", false},
			{"others max", "longest", "ms", false},
			{"others anew", "pages made anew", "count", true},
		}},
		{"Cold start", fmt.Sprintf("A new process of isr whose %s pages are in the Store: the first one that comes from there, counted from the start of the process, and then %d visitors who ask for all pages in an order of chance, each as soon as the last one is there.",
			thousands(float64(p.stored)), visitors), true, []column{
			{"stored rate", "stored before", "/s", false},
			{"cold first", "first page", "ms", false},
			{"cold tenth", "10 % in memory", "ms", false},
			{"cold half", "50 %", "ms", false},
			{"cold all", "100 %", "ms", false},
			{"cold p50", "a first visit: p50", "ms", false},
			{"cold p99", "p99", "ms", false},
			{"cold anew", "pages made anew", "count", true},
		}},
	}
}

// markdown is the report.
func (r *results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "A run on %s, with %s, in %v. Rounds: %d. Load average at the beginning: %s.\n\n",
		r.date.UTC().Format(time.DateOnly), machine(), r.took.Round(time.Second), r.rounds, r.load)
	b.WriteString("Medians over rounds in which the containers took turns, each in a process of its own; in brackets, how many times the map's of as many pages.\n\n")
	for _, g := range r.groups() {
		r.table(&b, g)
	}
	list(&b, "What was skipped", r.skipped)
	list(&b, "Notes", r.notes)
	list(&b, "What went wrong in this run", r.wrong)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func list(b *strings.Builder, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "### %s\n\n", title)
	for _, line := range lines {
		fmt.Fprintf(b, "- %s\n", line)
	}
	b.WriteString("\n")
}

// table writes a group, a line for each container and number of pages, or for each Store.
func (r *results) table(b *strings.Builder, g group) {
	var rows []row
	if g.stores {
		for _, name := range r.stores {
			rows = append(rows, row{name, r.stored})
		}
	} else {
		for _, n := range r.sizes {
			for _, name := range r.engines {
				rows = append(rows, row{name, n})
			}
		}
	}
	rows = slices.DeleteFunc(rows, func(at row) bool { return r.values[at] == nil })
	if len(rows) == 0 {
		return
	}
	head := []string{"pages", ""}
	if g.stores {
		head = head[1:]
	}
	for _, c := range g.columns {
		head = append(head, c.title)
	}
	lines := [][]string{head, slices.Repeat([]string{"---"}, len(head))}
	for _, at := range rows {
		line := []string{thousands(float64(at.pages)), at.name}
		beside := row{"map", at.pages}
		if g.stores {
			line, beside = line[1:], row{r.stores[0], at.pages}
		}
		for _, c := range g.columns {
			line = append(line, r.show(c, at, beside))
		}
		lines = append(lines, line)
	}
	fmt.Fprintf(b, "### %s\n\n%s", g.title, g.text)
	if g.stores {
		fmt.Fprintf(b, " In brackets, how many times that of %s.", r.stores[0])
	}
	b.WriteString("\n\n")
	for _, cells := range lines {
		fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | "))
	}
	b.WriteString("\n")
}

// show is a cell of a table.
func (r *results) show(c column, at, beside row) string {
	values := r.values[at][c.id]
	if len(values) == 0 {
		if why := r.none[at][c.id]; why != "" {
			return "– " + why
		}
		return ""
	}
	v := median(values)
	text := format(v, c.unit)
	if other := median(r.values[beside][c.id]); !c.plain && at != beside && v > 0 && other > 0 {
		text += fmt.Sprintf(" (%s×)", significant(v/other, 2))
	}
	return text
}

// write puts the results into README.md in a folder.
func (r *results) write(dir string) error {
	file := filepath.Join(dir, "README.md")
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text, err := insert(string(old), r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// insert replaces what is between the marks.
func insert(text, results string) (string, error) {
	if text == "" {
		return beginMark + "\n\n" + results + "\n" + endMark + "\n", nil
	}
	before, rest, ok := strings.Cut(text, beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("no lines %q and %q", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + results + "\n" + endMark + after, nil
}

// median returns the value in the middle, and zero if there is none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// format writes a value with its unit.
func format(v float64, unit string) string {
	switch unit {
	case "ns":
		switch {
		case v >= 1e6:
			return significant(v/1e6, 3) + " ms"
		case v >= 1e4:
			return significant(v/1e3, 3) + " µs"
		}
		return significant(v, 3) + " ns"
	case "ms":
		switch {
		case v >= 1e4:
			return significant(v/1e3, 3) + " s"
		case v < 0.1:
			return significant(v*1e3, 2) + " µs"
		}
		return significant(v, 3) + " ms"
	case "/s":
		return thousands(v) + "/s"
	case "%":
		return significant(v, 2) + " %"
	case "bytes":
		return thousands(v) + " B"
	case "count1":
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return thousands(v)
}

// significant writes a number with so many digits, and no exponent.
func significant(v float64, digits int) string {
	if v == 0 {
		return "0"
	}
	after := digits - 1 - int(math.Floor(math.Log10(math.Abs(v))))
	if after < 0 {
		p := math.Pow10(-after)
		return thousands(math.Round(v/p) * p)
	}
	s := strconv.FormatFloat(v, 'f', after, 64)
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

// thousands writes a whole number with commas.
func thousands(v float64) string {
	s := strconv.FormatInt(int64(math.Round(math.Abs(v))), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v <= -0.5 {
		s = "−" + s
	}
	return s
}
