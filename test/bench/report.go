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

// write puts the results into README.md in a directory, and the plots beside it.
func (r *Results) write(dir string) error {
	plots := r.plots()
	for _, p := range plots {
		if err := os.WriteFile(filepath.Join(dir, p.file), []byte(p.svg()), 0o644); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "README.md")
	old, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	text, err := insert(string(old), r.markdown(plots))
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

// markdown is the report.
func (r *Results) markdown(plots []plot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "A %s run on %s, with %s on %s, %d cores, in %v. %s.\n\n",
		r.Mode, r.Date.Format(time.DateOnly), r.Go, r.System, r.Cores, r.Took.Round(time.Second), upper(r.Load))
	b.WriteString("Times and rates are medians over rounds in which the targets took turns; in brackets, how many times as good " +
		"isr is (× below 1: the other one is better).\n\n")
	r.matrix(&b)
	for _, g := range groups {
		r.table(&b, g)
		for _, p := range plots {
			if p.group == g.title {
				fmt.Fprintf(&b, "![%s](%s)\n\n", p.title, p.file)
			}
		}
	}
	r.setups(&b)
	list(&b, "What was skipped", r.Skipped)
	list(&b, "What went wrong in this run", r.Notes)
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// text is markdown for a terminal.
func (r *Results) text() string {
	return strings.NewReplacer("**", "", "`", "", "<br>", "; ").Replace(r.markdown(nil))
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

func upper(s string) string {
	if s == "" {
		return "Nothing was measured on the wire"
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// none is before what says why there is nothing.
const none = "– "

// label is a target's name in a table.
func (t TargetInfo) label() string {
	switch {
	case t.Floor:
		return "*" + t.Name + "*"
	case t.Server, t.OwnServer:
		return t.Name + " (own server)"
	}
	return t.Name
}

// table writes a group, a line for each target that has something in it.
func (r *Results) table(b *strings.Builder, g group) {
	var rows [][]string
	for _, t := range r.Targets {
		row := []string{t.label()}
		for _, c := range g.columns {
			row = append(row, r.show(c, t.Name))
		}
		if says(row[1:]) {
			rows = append(rows, row)
		}
	}
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "### %s\n\n", g.title)
	if g.text != "" {
		fmt.Fprintf(b, "%s\n\n", g.text)
	}
	head := []string{""}
	for _, c := range g.columns {
		head = append(head, c.title)
	}
	writeTable(b, head, rows)
}

// says reports whether there is more in a line than that there is nothing.
func says(cells []string) bool {
	return slices.ContainsFunc(cells, func(text string) bool {
		return text != "" && (text != cells[0] || !strings.HasPrefix(text, none))
	})
}

func writeTable(b *strings.Builder, head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	line(slices.Repeat([]string{"---"}, len(head)))
	for _, row := range rows {
		line(row)
	}
	b.WriteString("\n")
}

// show is a cell of a table.
func (r *Results) show(c column, target string) string {
	cell, ok := r.Cells[c.id][target]
	switch {
	case !ok:
		return ""
	case len(cell.Rounds) == 0:
		return none + cell.None
	}
	text := format(median(cell.Rounds), c.unit)
	if ratio, ok := r.ratio(c, target); ok && target != "isr" {
		text += fmt.Sprintf(" (%s×)", significant(ratio, 2))
	}
	if cell.More != "" {
		text += "<br>" + cell.More
	}
	return text
}

// ratio says how many times as good isr is as a target.
func (r *Results) ratio(c column, target string) (float64, bool) {
	ours, theirs := median(r.Cells[c.id]["isr"].Rounds), median(r.Cells[c.id][target].Rounds)
	if c.plain || ours <= 0 || theirs <= 0 {
		return 0, false
	}
	if c.higher {
		return ours / theirs, true
	}
	return theirs / ours, true
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
		return significant(v, 3) + " %"
	case "bytes":
		return thousands(v) + " B"
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

// matrix writes the table of faults, and below it what happened.
func (r *Results) matrix(b *strings.Builder) {
	var names []string
	for _, t := range r.Targets {
		for _, outcomes := range r.Faults {
			if _, ok := outcomes[t.Name]; ok {
				names = append(names, t.Name)
				break
			}
		}
	}
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(b, "### What goes wrong\n\nEach of these was done to each of these caches just now. %s\n\n",
		"– means that the cache has no such feature.")
	var rows [][]string
	var told []string
	all := append(slices.Clone(faults), fault{title: raceFault,
		why: "Under a load of all kinds, the race detector has nothing to say."})
	for _, f := range all {
		outcomes := r.Faults[f.title]
		if len(outcomes) == 0 {
			continue
		}
		row := []string{f.title}
		lines := []string{"**" + f.title + "**: " + f.why}
		for _, name := range names {
			o := outcomes[name]
			switch o.Verdict {
			case "":
				row = append(row, "")
			case "n/a":
				row = append(row, "–")
			case "wrong":
				row = append(row, "**wrong**")
				lines = append(lines, "  - "+name+": "+o.What)
			default:
				row = append(row, o.Verdict)
			}
			if o.Verdict == "n/a" && !strings.HasPrefix(o.What, errNone.Error()) {
				lines = append(lines, "  - "+name+": "+o.What)
			}
		}
		rows = append(rows, row)
		told = append(told, strings.Join(lines, "\n"))
	}
	writeTable(b, append([]string{""}, names...), rows)
	fmt.Fprintf(b, "<details><summary>What was asked, and what happened</summary>\n\n- %s\n\n</details>\n\n", strings.Join(told, "\n- "))
}

// setups says what was measured.
func (r *Results) setups(b *strings.Builder) {
	var rows [][]string
	for _, t := range r.Targets {
		setup := t.Setup
		if t.Doc != "" {
			setup += " ([recommended](" + t.Doc + "))"
		}
		rows = append(rows, []string{t.label(), t.Version, setup})
	}
	b.WriteString("### How they were set up\n\n")
	writeTable(b, []string{"", "version", "configuration"}, rows)
}
