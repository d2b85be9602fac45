package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fixed are made-up results.
func fixed() *Results {
	r := &Results{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Go: "go1.26.0", System: "linux/amd64", Cores: 2,
		Mode: "full", Took: 61 * time.Second, Load: "by hand",
		Skipped: []string{"Varnish: not found: `apt-get install varnish`"},
		Targets: []TargetInfo{
			{Name: "isr", Setup: "as it is"},
			{Name: "other", Version: "v1.2.3", Doc: "https://example.com/doc", Setup: "as recommended"},
			{Name: "bare handler", Floor: true},
			{Name: "fiber", OwnServer: true},
		},
		Faults: map[string]map[string]Outcome{
			"Host":    {"isr": {"safe", ""}, "other": {"wrong", "two.example got the page of one.example"}},
			raceFault: {"isr": {"safe", ""}, "other": {"n/a", "has no such feature: x"}},
		},
	}
	for _, v := range []float64{900, 400, 500} {
		r.add("one page", "isr", v, "1 alloc")
	}
	r.add("one page", "other", 250, "5 allocs")
	r.add("one page", "bare handler", 100, "0 allocs")
	r.none("304", "other", "sends the page again")
	for _, c := range groups[0].columns { // nothing but the reason why there is nothing: no line
		r.none(c.id, "fiber", "its own server")
	}
	r.add("throughput", "isr", 40000, "")
	r.add("throughput", "other", 10000, "")
	return r
}

func TestMarkdown(t *testing.T) {
	got := fixed().markdown(fixed().plots())
	for _, want := range []string{
		"A full run on 2026-01-02, with go1.26.0 on linux/amd64, 2 cores, in 1m1s. By hand.",
		"| Host | safe | **wrong** |",
		"  - other: two.example got the page of one.example",
		"| data race | safe | – |",
		"| isr | 500 ns<br>1 alloc |",             // the median, and no ratio to itself
		"| other | 250 ns (0.5×)<br>5 allocs |",   // faster is said
		"– sends the page again",                  //
		"| *bare handler* | 100 ns (0.2×)",        //
		"| other | 10,000/s (4×) |",               // where more is better
		"| other | v1.2.3 | as recommended ([rec", //
		"![On the wire: requests a second (more is better)](wire.svg)",
		"- Varnish: not found: `apt-get install varnish`",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "its own server") {
		t.Error("a line that says nothing")
	}
	if strings.Contains(got, "hits.svg") {
		t.Error("a plot of a column without values")
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
		strings.Contains(text, "old") || strings.Count(text, "What goes wrong") != 1 {
		t.Errorf("got\n%s", text)
	}
	plot, err := os.ReadFile(filepath.Join(dir, "wire.svg"))
	if err != nil || !strings.Contains(string(plot), "40,000/s") {
		t.Errorf("%s, %v", plot, err)
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
		{46318.4, "/s", "46,318/s"}, {100, "%", "100 %"}, {0, "%", "0 %"}, {8.75, "%", "8.75 %"},
		{-512.2, "bytes", "−512 B"}, {3095, "bytes", "3,095 B"}, {1000, "count", "1,000"}, {-0.2, "count", "0"},
	} {
		if got := format(c.v, c.unit); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}
