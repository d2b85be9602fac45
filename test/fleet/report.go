package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What is between these lines of README.md is written by the command.
const beginMark, endMark = "<!-- measured -->\n", "<!-- end -->\n"

// intoReadme puts the tables into a file, where there is one.
func intoReadme(file, tables string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), beginMark)
	_, after, ends := strings.Cut(rest, endMark)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the tables", file)
	}
	return os.WriteFile(file, []byte(before+beginMark+"\n"+tables+"\n"+endMark+after), 0o644)
}

// tables returns the results as Markdown that can be read as it is. Those with a crowd of
// visitors have a table of their own.
func tables(results []*result) string {
	var few, many []*result
	for _, r := range results {
		if r.visitors == crowd {
			many = append(many, r)
		} else {
			few = append(few, r)
		}
	}
	var b strings.Builder
	if few != nil {
		b.WriteString(table(few, "waits"))
	}
	if few != nil && many != nil {
		b.WriteString("\nNew builds, under some 2,000 requests a second:\n\n")
	}
	if many != nil {
		b.WriteString(table(many, "retried", "500s"))
	}
	return b.String()
}

// table returns a table of the results, without some of the columns.
func table(results []*result, without ...string) string {
	rows := [][]string{{
		"scenario", "store", "requests", "errors", "retried", "waits", "renders", "per need", "purges", "500s",
		"old p50", "p99", "worst", "slowest", "over render",
	}}
	for _, r := range results {
		lag := func(q float64) string {
			if len(r.seen) == 0 {
				return "–"
			}
			return brief(r.lag(q))
		}
		perNeed := "–"
		if r.needed > 0 {
			perNeed = fmt.Sprintf("%.2f", r.rendersPerNeed())
		}
		rows = append(rows, []string{
			r.name, r.store, fmt.Sprint(r.requests), fmt.Sprint(len(r.errors)), fmt.Sprint(r.retried),
			fmt.Sprint(r.waits), fmt.Sprint(r.renders), perNeed, fmt.Sprintf("%d of %d", len(r.seen), r.purges), fmt.Sprint(r.refusals),
			lag(0.5), lag(0.99), lag(1), brief(r.slowest), brief(r.slowest - renderTime),
		})
	}
	for i := len(rows[0]) - 1; i >= 0; i-- {
		if slices.Contains(without, rows[0][i]) {
			for n := range rows {
				rows[n] = slices.Delete(rows[n], i, i+1)
			}
		}
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	const words = 2 // columns that have no numbers
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			switch {
			case i == 0:
				fmt.Fprintf(&b, "| %s%s |", cell, pad)
			case i < words:
				fmt.Fprintf(&b, " %s%s |", cell, pad)
			default:
				fmt.Fprintf(&b, " %s%s |", pad, cell)
			}
		}
		b.WriteByte('\n')
		if n == 0 {
			for i, w := range width {
				switch {
				case i == 0:
					fmt.Fprintf(&b, "| %s |", strings.Repeat("-", w))
				case i < words:
					fmt.Fprintf(&b, " %s |", strings.Repeat("-", w))
				default:
					fmt.Fprintf(&b, " %s: |", strings.Repeat("-", w-1))
				}
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// brief returns a duration as people want it in a table.
func brief(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
