package main

import (
	"slices"
	"time"
)

// Results are all that a run has found out; the report is made of nothing else.
type Results struct {
	Date    time.Time
	Go      string
	System  string // operating system and architecture
	Cores   int
	Mode    string // full or quick
	Took    time.Duration
	Load    string // the load generators
	Notes   []string
	Skipped []string // what was left out, and how to get it
	Targets []TargetInfo
	Cells   map[string]map[string]Cell    // by column, by target
	Faults  map[string]map[string]Outcome // by fault, by target
}

// TargetInfo says what a target is.
type TargetInfo struct {
	Name, Version, Doc, Setup string
	Floor, OwnServer, Server  bool
}

// A Cell is what came of one piece of work on one target.
type Cell struct {
	Rounds []float64 // one value a round, in the unit of the column; the median is shown
	More   string    // beside it
	None   string    // why there is nothing; then the others are empty
}

// An Outcome is what came of a fault.
type Outcome struct {
	Verdict string // safe, wrong, n/a
	What    string // what happened
}

// A column is one piece of work.
type column struct {
	id, title string
	unit      string // ns, /s, ms, %, count, bytes
	higher    bool   // whether more is better
	plain     bool   // whether it is a number that makes no ratio
}

// median returns the value in the middle.
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

// add notes a value of one more round.
func (r *Results) add(column, target string, value float64, more string) {
	c := r.cell(column, target)
	c.Rounds, c.More = append(c.Rounds, value), more
	r.Cells[column][target] = c
}

// none notes why there is no value.
func (r *Results) none(column, target, why string) {
	c := r.cell(column, target)
	if len(c.Rounds) == 0 {
		c.None = why
	}
	r.Cells[column][target] = c
}

func (r *Results) cell(column, target string) Cell {
	if r.Cells == nil {
		r.Cells = make(map[string]map[string]Cell)
	}
	if r.Cells[column] == nil {
		r.Cells[column] = make(map[string]Cell)
	}
	return r.Cells[column][target]
}

// A group is a table.
type group struct {
	title, text string
	columns     []column
}

// groups are the tables of work, in the order of the report.
var groups = []group{
	{"A hit, without a network", "One `ServeHTTP` with a `ResponseWriter` that costs next to nothing. Below each time, the allocations.", []column{
		{"one page", "one page", "ns", false, false},
		{"one page, all cores", "one page, all cores", "ns", false, false},
		{"one of 1,000", "one of 1,000 pages of 10 KB", "ns", false, false},
		{"one of 100,000 (1 KB)", "one of 100,000 pages of 1 KB", "ns", false, false},
		{"gzip", "compressed, for who accepts it", "ns", false, false},
		{"304", "304 for an `If-None-Match`", "ns", false, false},
	}},
	{"On the wire", "A page of 10 KB over loopback connections that are kept alive; the server is a process of its own. " +
		"The latencies are those of an open-loop load at a constant rate.", []column{
		{"throughput", "throughput", "/s", true, false},
		{"p50", "p50", "ms", false, false},
		{"p99", "p99", "ms", false, false},
		{"p99.9", "p99.9", "ms", false, false},
	}},
	{"Under pressure", "1,000 visitors at once for a page that nobody has seen, 50 ms to render; then a page that takes 200 ms and is fresh for a second, " +
		"under a constant load; then the same while the handler fails.", []column{
		{"cold renders", "cold: renders", "count", false, true},
		{"cold worst", "cold: worst wait", "ms", false, false},
		{"expired renders", "expired: renders", "count", false, true},
		{"expired waited", "expired: visitors who waited", "%", false, true},
		{"expired p99", "expired: p99", "ms", false, false},
		{"expired max", "expired: worst wait", "ms", false, false},
		{"failing errors", "failing: visitors who saw an error", "%", false, true},
	}},
	{"Keeping house", "A hundred pages are asked for again and again, and four hundred others once in between, with room for 240 (nginx removes what is " +
		"too much behind its visitors' backs, some seconds later, and so keeps all of them here). After the restart, the page takes 50 ms where it has to be rendered.", []column{
		{"hot set", "hits of the hot set among one-off URLs", "%", true, true},
		{"overhead", "memory beyond the payload, of a page of 10 KB", "bytes", false, true},
		{"purge of a tag with 100,000 pages", "purge of a tag with 100,000 pages", "ms", false, false},
		{"restart", "first answer after a restart", "ms", false, false},
		{"prerender", "1,000 pages prerendered", "ms", false, false},
	}},
}
