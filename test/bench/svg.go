package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A plot is a bar chart of one column.
type plot struct {
	file, title, group string
	unit               string
	log                bool // whether the bars are on a logarithmic scale
	bars               []bar
}

type bar struct {
	name  string
	value float64
	floor bool
}

// plots are the columns that are worth a picture, as far as they have values.
func (r *Results) plots() (plots []plot) {
	for _, p := range []struct {
		file, title, column string
		log                 bool
	}{
		{"hits.svg", "A hit, one of 1,000 pages of 10 KB: time, logarithmic (less is better)", "one of 1,000", true},
		{"wire.svg", "On the wire: requests a second (more is better)", "throughput", false},
		{"latency.svg", "On the wire: 99th percentile of the latency (less is better)", "p99", true},
		{"expired.svg", "A page expires under load: the longest wait (less is better)", "expired max", true},
	} {
		for _, g := range groups {
			for _, c := range g.columns {
				if c.id != p.column {
					continue
				}
				made := plot{file: p.file, title: p.title, group: g.title, unit: c.unit, log: p.log}
				for _, t := range r.Targets {
					if cell := r.Cells[c.id][t.Name]; len(cell.Rounds) > 0 {
						made.bars = append(made.bars, bar{t.Name, median(cell.Rounds), t.Floor})
					}
				}
				if len(made.bars) > 1 {
					plots = append(plots, made)
				}
			}
		}
	}
	return plots
}

// svg draws the plot, on white, so that it can be read on dark pages, too.
func (p plot) svg() string {
	const width, left, right, top, step = 760, 150, 110, 40, 26
	height := top + step*len(p.bars) + 12
	lowest, highest := math.Inf(1), 0.0
	for _, b := range p.bars {
		lowest, highest = min(lowest, b.value), max(highest, b.value)
	}
	length := func(v float64) float64 {
		share := v / highest
		if p.log { // from half of the least on, so that the shortest bar can be seen
			low := math.Log10(max(lowest, 1e-9)) - 0.3
			share = (math.Log10(max(v, 1e-9)) - low) / (math.Log10(max(highest, 1e-9)) - low)
		}
		if highest <= 0 || math.IsNaN(share) {
			share = 0
		}
		return max(2, share*(width-left-right))
	}
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n", width, height, width, height)
	fmt.Fprintf(&s, "<title>%s</title>\n", html.EscapeString(p.title))
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&s, `<text x="12" y="22" font-size="14" font-weight="bold">%s</text>`+"\n", html.EscapeString(p.title))
	for i, b := range p.bars {
		y := top + step*i
		colour := "#8aa4c0"
		switch {
		case b.name == "isr":
			colour = "#1f6f43"
		case b.floor:
			colour = "#c9c9c9"
		}
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+16, html.EscapeString(b.name))
		fmt.Fprintf(&s, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, left, y+3, length(b.value), step-8, colour)
		fmt.Fprintf(&s, `<text x="%.1f" y="%d">%s</text>`+"\n", left+length(b.value)+6, y+16, html.EscapeString(format(b.value, p.unit)))
	}
	s.WriteString("</svg>\n")
	return s.String()
}
