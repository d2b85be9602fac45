package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func fixed() *results {
	r := newResults(plan{sizes: []int{10_000}, engines: []string{"isr", "map"}, stores: []string{"store/file", "store/redis"}, rounds: 3, others: 300_000, stored: 100})
	r.date, r.took, r.load = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), 61*time.Second, "0.25"
	for _, v := range []float64{700, 900, 800} {
		r.add(row{"isr", 10_000}, &answer{map[string]float64{"overhead": v}, map[string]string{"purge tag": "has none"}})
	}
	r.add(row{"map", 10_000}, &answer{map[string]float64{"overhead": 400}, nil})
	r.add(row{"store/file", 100}, &answer{map[string]float64{"cold first": 10}, nil})
	r.add(row{"store/redis", 100}, &answer{map[string]float64{"cold first": 25}, nil})
	r.skip("store/postgres: there is none")
	r.skip("store/postgres: there is none")
	return r
}

// The report has medians, and beside each how many times the map's it is.
func TestMarkdown(t *testing.T) {
	got := fixed().markdown()
	for _, want := range []string{
		"A run on 2026-01-02, with go", "in 1m1s. Rounds: 3. Load average at the beginning: 0.25.",
		"| 10,000 | isr |  | 800 B (2×) |", "| 10,000 | map |  | 400 B |",
		"| 10,000 | isr | – has none |",
		"| store/file |  | 10 ms |", "| store/redis |  | 25 ms (2.5×) |",
		"300,000 purges of pages",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "- store/postgres: there is none"); n != 1 {
		t.Errorf("what was skipped is said %d times", n)
	}
}

// The command replaces its part of README.md, and nothing else.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "README.md")
	if err := os.WriteFile(file, []byte("# Title\n\n"+beginMark+"\nold\n"+endMark+"\nthe end\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := fixed().write(dir); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	if !strings.HasPrefix(text, "# Title\n\n"+beginMark) || !strings.HasSuffix(text, endMark+"\nthe end\n") ||
		strings.Contains(text, "old\n") || strings.Count(text, "### Cold start") != 1 {
		t.Errorf("got\n%s", text)
	}
	if err := os.WriteFile(file, []byte("# A README of someone's\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := fixed().write(dir); err == nil {
		t.Error("a README without the marks was overwritten")
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		v          float64
		unit, want string
	}{
		{416.3, "ns", "416 ns"}, {2626, "ns", "2,630 ns"}, {29681, "ns", "29.7 µs"}, {1.4e6, "ns", "1.4 ms"},
		{0.262, "ms", "0.262 ms"}, {0.017, "ms", "17 µs"}, {26500, "ms", "26.5 s"},
		{46318.4, "/s", "46,318/s"}, {8.75, "%", "8.8 %"}, {0, "%", "0 %"},
		{-512.2, "bytes", "−512 B"}, {3095, "bytes", "3,095 B"}, {1000, "count", "1,000"}, {9.04, "count1", "9.0"},
	} {
		if got := format(c.v, c.unit); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}
