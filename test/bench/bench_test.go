package main

import (
	"log"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/isrtest"
	"github.com/isr-go/isr/test/bench/internal/trial"
)

// The tests' binary is a child, too: it holds the same peers.
func TestMain(m *testing.M) {
	if trial.IsChild() {
		if err := trial.Child(append(allPeers(), naivePeer)); err != nil {
			log.Fatal(err)
		}
		return
	}
	var err error
	if tmp, err = os.MkdirTemp("", "bench-test-"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(tmp)
	os.Exit(code)
}

// testTarget is a peer in a child.
func testTarget(t *testing.T, p trial.Peer) *target {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &target{Peer: p, binary: self}
	out.start = func(c trial.Config) (*server, error) { return serveChild(self, p.Name, c) }
	return out
}

func testBench(t *testing.T, targets ...*target) *bench {
	return &bench{ctx: t.Context(), quick: true, only: regexp.MustCompile(""), targets: targets, begin: time.Now()}
}

// isr does none of the things that the command looks for in all caches.
func TestFaultsOfISR(t *testing.T) {
	b := testBench(t)
	isr := testTarget(t, isrPeer)
	for _, f := range faults {
		t.Run(f.title, func(t *testing.T) {
			t.Parallel()
			if got := b.try(isr, f); got.Verdict != "safe" {
				t.Errorf("%s: %s", got.Verdict, got.What)
			}
		})
	}
}

// A cache that does everything wrong is not taken for a safe one: each fault can
// be seen.
func TestFaultsAreSeen(t *testing.T) {
	b := testBench(t)
	naive := testTarget(t, naivePeer)
	for _, f := range faults {
		if slices.Contains([]string{"panic in the background", "the first visitor leaves"}, f.title) {
			continue // it renews nothing in the background, and shares no run
		}
		t.Run(f.title, func(t *testing.T) {
			t.Parallel()
			if got := b.try(naive, f); got.Verdict != "wrong" {
				t.Errorf("%s: %s", got.Verdict, got.What)
			}
		})
	}
}

// What is not a cache keeps nothing: where there is nothing to purge and nothing
// that runs in the background, that is what is said.
func TestNoSuchFeature(t *testing.T) {
	b := testBench(t)
	origin := testTarget(t, originPeer)
	for _, f := range faults {
		if f.title != "panic in the background" && f.title != "purge during a render" {
			continue
		}
		if got := b.try(origin, f); got.Verdict != "n/a" || !strings.HasPrefix(got.What, errNone.Error()) {
			t.Errorf("%s: %+v", f.title, got)
		}
	}
}

// A child that ends at once is an error that says why, not a wait.
func TestChildThatFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = serveChild(self, "no such", usual)
	if err == nil || !strings.Contains(err.Error(), `no peer "no such"`) {
		t.Errorf("got %v", err)
	}
}

// The quick rows work, for isr and for a floor.
func TestHits(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"isr", "bare handler"} {
		var rows trial.Rows
		if err := ask(t.Context(), self, trial.Order{Do: "cost", Peer: name, Config: usual, Time: time.Millisecond}, &rows); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"one page", "one page, all cores", "one of 1,000"} {
			if row := rows[want]; row.Ns <= 0 || row.None != "" {
				t.Errorf("%s: %s: %+v", name, want, row)
			}
		}
		if row := rows["304"]; name == "isr" && row.Ns <= 0 || name != "isr" && row.None == "" {
			t.Errorf("%s: 304: %+v", name, row)
		}
	}
}

// What the rows of isr's table say of renders is so: one for a thousand visitors.
func TestColdISR(t *testing.T) {
	b := testBench(t, testTarget(t, isrPeer))
	b.cold()
	if got := b.res.Cells["cold renders"]["isr"].Rounds; !slices.Equal(got, []float64{1}) {
		t.Errorf("%v renders, want 1; %q", got, b.res.Notes)
	}
	if got := b.res.Cells["cold worst"]["isr"]; len(got.Rounds) != 1 || got.Rounds[0] < 50 || got.More != "" {
		t.Errorf("worst wait %+v", got)
	}
}

// The floors that pages are kept in generate each of them once, and what they take is
// measured; those that keep nothing have no such line.
func TestFloorsForMemory(t *testing.T) {
	var targets []*target
	for _, p := range floors {
		targets = append(targets, testTarget(t, p))
	}
	b := testBench(t, targets...)
	b.memory()
	if len(b.res.Notes) > 0 {
		t.Errorf("%q", b.res.Notes)
	}
	for _, p := range floors {
		cell, measured := b.res.Cells["overhead"][p.Name]
		if measured != p.Keeps {
			t.Errorf("%s: measured: %v, want %v", p.Name, measured, p.Keeps)
		}
		// A table of pages that has grown is larger than they need, and twice that is far too much.
		if v := median(cell.Rounds); measured && (v <= 0 || v > trial.PageBytes) {
			t.Errorf("%s: %v bytes beside the payload", p.Name, v)
		}
		if !p.Keeps {
			continue
		}
		origin := new(trial.Origin)
		cache, err := p.New(origin, usual)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			w := isrtest.Do(cache.Handler, "GET", "/page/7")
			if !trial.Rendered(w.Body.Bytes(), "/page/7", 0, trial.PageBytes) || w.Header().Get("Etag") == "" {
				t.Errorf("%s: %d bytes, %v", p.Name, w.Body.Len(), w.Header())
			}
		}
		if n := origin.Renders("page"); n != 1 {
			t.Errorf("%s: %d renders, want 1", p.Name, n)
		}
	}
}
