package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
)

// TestMain lets the test's own binary be the children, too.
func TestMain(m *testing.M) {
	if childMain() {
		return
	}
	os.Exit(m.Run())
}

// A short run measures all that the report has a place for, in every container and on
// every Store.
func TestEverythingIsMeasured(t *testing.T) {
	p := plan{
		sizes: []int{1000}, engines: engineNames(), stores: storeNames(), rounds: 1,
		length: 10 * time.Millisecond, others: 2000, stored: 200,
	}
	r := newResults(p)
	defer r.stop()
	var out strings.Builder
	if err := r.measure(t.Context(), &out); err != nil || r.wrong != nil {
		t.Fatalf("%v, %q\n%s", err, r.wrong, &out)
	}
	stores := p.stores
	for _, s := range r.skipped {
		if os.Getenv("CI") == "true" {
			t.Errorf("skipped %s", s)
		}
		t.Logf("skipped %s", s)
		stores = slices.DeleteFunc(slices.Clone(stores), func(name string) bool { return strings.HasPrefix(s, name+":") })
	}
	for _, g := range p.groups() {
		names, pages := p.engines, p.sizes[0]
		if g.stores {
			names, pages = stores, p.stored
		}
		for _, name := range names {
			for _, c := range g.columns {
				at := row{name, pages}
				if len(r.values[at][c.id]) == 0 && r.none[at][c.id] == "" {
					t.Errorf("%s: nothing for %q, %q", name, g.title, c.title)
				}
			}
		}
	}
	for _, name := range stores {
		// On a machine that is busy, what comes late from the Store is made anew.
		isrtest.Eventually(t, name, func() error {
			if anew := r.values[row{name, p.stored}]["cold anew"]; anew[len(anew)-1] < float64(p.stored) {
				return nil
			}
			r.coldStart(t.Context(), name, &out)
			return fmt.Errorf("no page came from the Store; %q", r.wrong)
		})
	}
	if v := r.values[row{"isr", 1000}]["others anew"]; v[0] != 0 {
		t.Errorf("purges of other pages have made %v pages anew", v)
	}
	t.Log(r.markdown())
}

// The flags choose, and what they cannot mean is an error.
func TestFlags(t *testing.T) {
	dir := t.TempDir()
	err := run(t.Context(), []string{"-pages", "100", "-engines", "map", "-stores", "", "-rounds", "2", "-for", "1ms", "-others", "10", "-out", dir}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil || !strings.Contains(string(text), "| 100 | map |") || strings.Contains(string(text), "| isr |") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, args := range [][]string{
		{"-pages", "1"}, {"-pages", "many"}, {"-engines", "memcached"}, {"-stores", "disk"}, {"-rounds", "0"}, {"-for", "0s"}, {"-stored", "0"},
	} {
		if err := run(t.Context(), args, t.Output()); err == nil {
			t.Errorf("%q is no error", args)
		}
	}
}

// Pages that do not fit into memory are left out, and the report says so.
func TestMemoryThatThereIs(t *testing.T) {
	const million = 1_000_000
	for _, c := range []struct {
		available int64
		want      int
	}{{100 << 30, 100}, {6 << 30, 50}, {4 << 30, 20}, {3 << 30, 0}} {
		got, err := gcPercent(million, c.available)
		if got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("a million pages in %d bytes: %d, %v", c.available, got, err)
		}
	}
	// What goes wrong is said, and is no reason not to measure the rest.
	r := newResults(plan{sizes: []int{100}, engines: []string{"none", "map"}, rounds: 1, length: 1, others: 1})
	if err := r.measure(t.Context(), t.Output()); err != nil || len(r.wrong) != 1 || r.values[row{"map", 100}] == nil {
		t.Errorf("%v, wrong %q", err, r.wrong)
	}
	r = newResults(plan{sizes: []int{1 << 40}, engines: []string{"map"}, rounds: 1})
	if err := r.measure(t.Context(), t.Output()); err != nil || len(r.skipped) != 1 {
		t.Errorf("%v, skipped %q", err, r.skipped)
	}
	if text := r.markdown(); !strings.Contains(text, "- 1,099,511,627,776 pages want") {
		t.Error(text)
	}
}

// A quantile is within a hundredth and a half of what it says.
func TestHistogram(t *testing.T) {
	var h histogram
	for i := range 100_000 {
		h.add(time.Duration(i) * 1000)
	}
	for _, q := range []float64{0.001, 0.5, 0.99, 0.999} {
		want := q * 100_000 * 1000
		if got := float64(h.quantile(q)); got < 0.98*want || got > 1.02*want {
			t.Errorf("%v: %v, want about %v", q, got, want)
		}
	}
	if got := h.quantile(1); got != h.max {
		t.Errorf("the longest is %v, want %v", got, h.max)
	}
	if got := new(histogram).quantile(0.5); got != 0 {
		t.Errorf("of none: %v", got)
	}
	h = histogram{}
	h.add(-1)
	h.add(1 << 62) // more than there is a bucket for
	if got := h.quantile(0); got != 0 {
		t.Errorf("the shortest is %v", got)
	}
}
