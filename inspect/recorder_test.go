package inspect_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/inspect"
)

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec inspect.Recorder
		h := inspect.Handler(newApp(isr.Options{}).site, inspect.Options{Recorder: &rec})
		observe := func(n int, e isr.Event) {
			for range n {
				rec.Observe(e)
			}
		}
		observe(3, isr.Event{Kind: isr.Miss})
		observe(2, isr.Event{Kind: isr.Generated, Duration: 100 * time.Millisecond})
		observe(1, isr.Event{Kind: isr.Failed, Duration: 400 * time.Millisecond, Err: errors.New("no")})
		time.Sleep(15 * time.Second)
		observe(1000, isr.Event{Kind: isr.Hit, Duration: time.Hour})
		observe(4, isr.Event{Kind: isr.StaleHit})
		observe(5, isr.Event{Kind: isr.Passed})
		observe(1, isr.Event{Kind: isr.Purged})
		observe(1, isr.Event{Kind: -1})
		observe(1, isr.Event{Kind: isr.StoreFailed + 1})
		time.Sleep(5 * time.Second)

		got := asJSON(t, h, "/").History
		if len(got.Buckets) != 60 || got.BucketSeconds != 10 {
			t.Fatalf("%d buckets of %v s, want 60 of 10 s", len(got.Buckets), got.BucketSeconds)
		}
		bucket := func(start string, counts ...float64) map[string]any {
			b := map[string]any{"start": start}
			for i, name := range []string{"hits", "stale", "misses", "passed", "generated", "failed", "meanSeconds", "slowestSeconds"} {
				b[name] = 0.0
				if i < len(counts) {
					b[name] = counts[i]
				}
			}
			return b
		}
		want := []map[string]any{
			bucket("1999-12-31T23:59:50Z"),
			bucket("2000-01-01T00:00:00Z", 0, 0, 3, 0, 2, 1, 0.2, 0.4),
			bucket("2000-01-01T00:00:10Z", 1000, 4, 0, 5),
			bucket("2000-01-01T00:00:20Z"),
		}
		if diff := cmp.Diff(want, got.Buckets[56:]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}

		document := get(h, "/").Body.String()
		for _, part := range []string{
			`aria-label="Visits in the last 10 minutes. 1,012 visits: 1,000 hits, 4 stale, 3 misses, 5 passed."`,
			`aria-label="Generation time in the last 10 minutes. 3 generations, of which 1 failed: 200 ms on average, the slowest 400 ms."`,
			`<title>00:00:10, 1,000 hit, 4 stale, 5 passed</title>`,
			`<title>00:00:00, 2 generated, 200 ms on average, the slowest 400 ms, 1 failed</title>`,
		} {
			if !strings.Contains(document, part) {
				t.Errorf("the page has no %s", part)
			}
		}

		// The ring comes round: the bucket of ten minutes ago counts anew.
		time.Sleep(9*time.Minute + 40*time.Second)
		rec.Observe(isr.Event{Kind: isr.Hit})
		got = asJSON(t, h, "/").History
		if diff := cmp.Diff(bucket("2000-01-01T00:10:00Z", 1), got.Buckets[59]); diff != "" {
			t.Errorf("ten minutes later (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(bucket("2000-01-01T00:00:10Z", 1000, 4, 0, 5), got.Buckets[0]); diff != "" {
			t.Errorf("the oldest (-want +got):\n%s", diff)
		}
		time.Sleep(time.Hour)
		if read := text(get(h, "/").Body.String()); !strings.Contains(read, "no visits") || !strings.Contains(read, "no generations") {
			t.Errorf("an hour later: %s", read)
		}
	})
}

func TestRecorderCountsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rec inspect.Recorder
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 1000 {
					rec.Observe(isr.Event{Kind: isr.Generated, Duration: time.Duration(i*1000+j) * time.Microsecond})
				}
			})
		}
		all.Wait()
		h := inspect.Handler(newApp(isr.Options{}).site, inspect.Options{Recorder: &rec})
		got := asJSON(t, h, "/").History.Buckets[59]
		if diff := cmp.Diff("8000 0.004 0.007999", fmt.Sprint(got["generated"], " ", got["meanSeconds"], " ", got["slowestSeconds"])); diff != "" {
			t.Errorf("generated, mean, slowest (-want +got):\n%s", diff)
		}
	})
}

func TestRecorderAllocates(t *testing.T) {
	var rec inspect.Recorder
	if n := testing.AllocsPerRun(100, func() { rec.Observe(isr.Event{Kind: isr.Generated, Duration: time.Second}) }); n != 0 {
		t.Errorf("Observe allocates %v times", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var rec inspect.Recorder
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			rec.Observe(isr.Event{Kind: isr.Hit, Duration: time.Millisecond})
		}
	})
}
