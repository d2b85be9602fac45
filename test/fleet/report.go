package main

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// table returns the results as Markdown that can be read as it is.
func table(results []*result) string {
	rows := [][]string{{
		"scenario", "requests", "errors", "retried", "waits", "renders", "per need", "purges", "500s",
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
			r.name, fmt.Sprint(r.requests), fmt.Sprint(len(r.errors)), fmt.Sprint(r.retried),
			fmt.Sprint(r.waits), fmt.Sprint(r.renders), perNeed, fmt.Sprintf("%d of %d", len(r.seen), r.purges), fmt.Sprint(r.refusals),
			lag(0.5), lag(0.99), lag(1), brief(r.slowest), brief(r.slowest - renderTime),
		})
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				fmt.Fprintf(&b, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(&b, " %s%s |", pad, cell)
			}
		}
		b.WriteByte('\n')
		if n == 0 {
			for i, w := range width {
				if i == 0 {
					fmt.Fprintf(&b, "| %s |", strings.Repeat("-", w))
				} else {
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
