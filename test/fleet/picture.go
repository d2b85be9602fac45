package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The picture, in pixels. Its axis is logarithmic: what counts is how many times
// longer one is than the other.
const (
	left, right, top = 150, 20, 46 // margins
	plotWidth        = 620
	rowHeight        = 46
	zeroWidth        = 110 // for those that nobody has seen the old page of
)

var (
	axisFrom  = 100 * time.Microsecond
	axisUntil = 10 * time.Second
)

// along returns where on the axis a duration is.
func along(d time.Duration) float64 {
	if d <= 0 {
		return left + zeroWidth*0.4
	}
	x := math.Log(float64(d)/float64(axisFrom)) / math.Log(float64(axisUntil)/float64(axisFrom))
	return left + zeroWidth + plotWidth*min(1, max(0, x))
}

// picture returns an SVG of how long after a purge the old page was still seen: a
// row for each scenario, a dot for each purge, and strokes for the median, the 99th
// percentile and the bar.
func picture(results []*result) []byte {
	var rows []*result
	for _, r := range results {
		if len(r.seen) > 0 {
			rows = append(rows, r)
		}
	}
	width, bottom := left+zeroWidth+plotWidth+right, top+rowHeight*len(rows)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="system-ui, sans-serif" font-size="12">
<style>
svg { background: #fff; color: #222 }
text { fill: currentColor }
.grid { stroke: currentColor; opacity: .15 }
.dot { fill: #2a6fbb; opacity: .45 }
.median { stroke: currentColor; stroke-width: 2 }
.p99 { stroke: currentColor; stroke-width: 2; stroke-dasharray: 3 2 }
.bar { stroke: #c33; stroke-width: 2 }
.key { opacity: .75 }
@media (prefers-color-scheme: dark) { svg { background: #111; color: #ddd } .dot { fill: #6db3ff } .bar { stroke: #f66 } }
</style>
<title>How long after an acknowledged purge the old page was still seen anywhere</title>
`, width, bottom+46)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14">How long after an acknowledged purge the old page was still seen anywhere</text>`+"\n", left)
	line := func(class string, x, from, until float64) {
		fmt.Fprintf(&b, `<line class="%s" x1="%.1f" x2="%.1[2]f" y1="%.1f" y2="%.1f"/>`+"\n", class, x, from, until)
	}
	for d := axisFrom; d <= axisUntil; d *= 10 {
		line("grid", along(d), top-8, float64(bottom))
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", along(d), bottom+16, d)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">not at all</text>`+"\n", along(0), bottom+16)
	for i, r := range rows {
		y := float64(top + rowHeight*i)
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left-10, y+rowHeight/2+4, r.name+", "+r.store)
		for n, s := range r.seen {
			_, spread := math.Modf(float64(n) * math.Phi) // so that they do not hide each other
			x := along(s.lag)
			if s.lag == 0 {
				_, across := math.Modf(float64(n) * math.Sqrt2)
				x += (across - 0.5) * zeroWidth * 0.6
			}
			fmt.Fprintf(&b, `<circle class="dot" cx="%.1f" cy="%.1f" r="2.5"/>`+"\n", x, y+6+spread*(rowHeight-14))
		}
		line("median", along(r.lag(0.5)), y+2, y+rowHeight-4)
		line("p99", along(r.lag(0.99)), y+2, y+rowHeight-4)
		if bar := max(r.maxLag, r.maxWorst); bar > 0 {
			line("bar", along(bar), y, y+rowHeight-2)
		}
	}
	fmt.Fprintf(&b, `<text class="key" x="%d" y="%d">A dot is a purge. Strokes: the median; dashed, the 99th percentile; red, the bar, for that or for all.</text>`+"\n</svg>\n", left, bottom+36)
	return []byte(b.String())
}
