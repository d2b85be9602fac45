package inspect

import (
	"fmt"
	"math"
)

// The charts' coordinates: a bar is barWidth wide, the highest chartHeight high.
// A part that is not nothing is at least leastPart high, so that one failure is
// seen among thousands of successes.
const (
	barWidth    = 10
	chartHeight = 1000
	leastPart   = 25
)

// A chart is a bar chart over the last minutes.
type chart struct {
	Name    string
	Top     string // what the highest bar stands for
	Summary string // the chart in words, for those who do not see it
	Legend  []series
	Bars    []bar
	Width   int
}

// A series is one of the colours of a chart.
type series struct{ Class, Name, Total string }

// A bar is a stretch of time.
type bar struct {
	X     int
	Title string
	Parts []part
}

// A part of a bar has the colour of a series.
type part struct {
	Class     string
	Y, Height int
}

// Charts returns the history as charts.
func (h *history) Charts() []chart {
	return []chart{h.outcomes(), h.generations()}
}

func (h *history) outcomes() chart {
	names := [...]string{"hit", "stale", "miss", "passed"}
	counts := func(s *sample) [len(names)]uint64 { return [...]uint64{s.Hits, s.Stale, s.Misses, s.Passed} }
	var totals [len(names)]uint64
	var all, highest uint64
	for i := range h.Buckets {
		sum := uint64(0)
		for j, n := range counts(&h.Buckets[i]) {
			sum += n
			totals[j] += n
		}
		all += sum
		highest = max(highest, sum)
	}
	c := h.chart("Visits", "no visits")
	for j, name := range names {
		c.Legend = append(c.Legend, series{name, name, formatCount(totals[j])})
	}
	if all == 0 {
		return c
	}
	c.Top = formatCount(highest) + " in 10 s"
	c.Summary = fmt.Sprintf("%s visits: %s hits, %s stale, %s misses, %s passed",
		formatCount(all), c.Legend[0].Total, c.Legend[1].Total, c.Legend[2].Total, c.Legend[3].Total)
	for i := range h.Buckets {
		s := &h.Buckets[i]
		b, y := h.bar(i), chartHeight
		for j, n := range counts(s) {
			if n > 0 {
				height := min(y, max(leastPart, int(math.Round(float64(n)/float64(highest)*chartHeight*0.9))))
				y -= height
				b.Parts = append(b.Parts, part{names[j], y, height})
				b.Title += fmt.Sprintf(", %s %s", formatCount(n), names[j])
			}
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

func (h *history) generations() chart {
	var n, failed uint64
	var sum, slowest float64
	for i := range h.Buckets {
		s := &h.Buckets[i]
		runs := s.Generated + s.Failed
		n, failed = n+runs, failed+s.Failed
		sum += s.MeanSeconds * float64(runs)
		slowest = max(slowest, s.SlowestSeconds)
	}
	c := h.chart("Generation time", "no generations")
	c.Legend = []series{{"mean", "mean", "–"}, {"slowest", "slowest", "–"}, {"failed", "failed", formatCount(failed)}}
	if n == 0 {
		return c
	}
	c.Top = formatSeconds(slowest)
	c.Legend[0].Total, c.Legend[1].Total = formatSeconds(sum/float64(n)), formatSeconds(slowest)
	c.Summary = fmt.Sprintf("%s generations, of which %s failed: %s on average, the slowest %s",
		formatCount(n), formatCount(failed), c.Legend[0].Total, c.Top)
	for i := range h.Buckets {
		s := &h.Buckets[i]
		b := h.bar(i)
		if runs := s.Generated + s.Failed; runs > 0 {
			height := func(seconds float64) int {
				return max(leastPart, int(math.Round(seconds/max(slowest, 1e-9)*chartHeight)))
			}
			for _, p := range [...]part{{Class: "slowest", Height: height(s.SlowestSeconds)}, {Class: "mean", Height: height(s.MeanSeconds)}} {
				p.Y = chartHeight - p.Height
				b.Parts = append(b.Parts, p)
			}
			b.Title += fmt.Sprintf(", %s generated, %s on average, the slowest %s",
				formatCount(s.Generated), formatSeconds(s.MeanSeconds), formatSeconds(s.SlowestSeconds))
			if s.Failed > 0 {
				b.Parts = append(b.Parts, part{"failed", chartHeight - 2*leastPart, 2 * leastPart})
				b.Title += fmt.Sprintf(", %s failed", formatCount(s.Failed))
			}
		}
		c.Bars = append(c.Bars, b)
	}
	return c
}

func (h *history) chart(name, nothing string) chart {
	return chart{Name: name, Top: nothing, Summary: nothing, Width: len(h.Buckets) * barWidth}
}

func (h *history) bar(i int) bar {
	return bar{X: i * barWidth, Title: h.Buckets[i].Start.Format("15:04:05")}
}
