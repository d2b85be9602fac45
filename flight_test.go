package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// Of the runs whose visitors have left, MaxRegenerations go on. The others are
// cancelled, do not count as failures, and cannot be joined.
func TestAbandonedRunsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: 10 * time.Second, obeys: true}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 20, MaxRegenerations: 3})
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { visit(site, fmt.Sprint("/", i), time.Second) })
		}
		all.Wait()
		synctest.Wait()
		if n := c.now.Load(); n != 3 {
			t.Errorf("%d abandoned runs go on, want 3", n)
		}
		if n := c.most.Load(); n > 20+3 {
			t.Errorf("%d runs at a time", n)
		}
		begin := time.Now()
		if res := get(site, "/honest"); res.StatusCode != 200 || time.Since(begin) > 10*time.Second {
			t.Errorf("%d after %v", res.StatusCode, time.Since(begin))
		}
		time.Sleep(time.Minute)
		if s := site.Stats(); s.Failed != 0 || s.Generating != 0 || s.Pages != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// A handler that ignores its context keeps its slot until it returns: a client that
// sends requests and leaves gets no more handlers than there are slots.
func TestHandlersThatIgnoreTheirContextKeepTheirSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: 10 * time.Second}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 20, MaxRegenerations: 3})
		var all sync.WaitGroup
		for i := range 4000 {
			all.Go(func() { visit(site, fmt.Sprint("/", i), time.Duration(i)*time.Millisecond) })
		}
		all.Wait()
		time.Sleep(time.Minute)
		if n := c.most.Load(); n > 20+3 {
			t.Errorf("%d handlers at a time", n)
		}
		begin := time.Now()
		if res := get(site, "/honest"); res.StatusCode != 200 || time.Since(begin) != 10*time.Second {
			t.Errorf("%d after %v", res.StatusCode, time.Since(begin))
		}
	})
}

// A renewal goes on when its visitor leaves, and so does a run that was asked for by
// name.
func TestRenewalsAreNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{obeys: true}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxRegenerations: 1, Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: -1}})
		for i := range 10 {
			get(site, fmt.Sprint("/", i))
		}
		time.Sleep(time.Minute)
		c.takes = 10 * time.Second
		for i := range 10 {
			go visit(site, fmt.Sprint("/", i), time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		site.Revalidate(ctx, "/named")
		go visit(site, "/named", time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i := range 10 {
			if got := get(site, fmt.Sprint("/", i)).Header.Get("Cache-Status"); got != "isr; hit; ttl=59" && got != "isr; hit; ttl=60" {
				t.Errorf("/%d: %s", i, got)
			}
		}
		if got := get(site, "/named").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" && got != "isr; hit; ttl=59" {
			t.Errorf("/named: %s", got)
		}
	})
}

// Nested pages count towards the bound of runs whose visitors have left.
func TestAbandonedNestedPagesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var site *isr.Site
		parts := &slowHandler{takes: 10 * time.Second, obeys: true}
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			part, ok := strings.CutPrefix(r.URL.Path, "/page")
			if !ok {
				parts.ServeHTTP(w, r)
				return
			}
			in := httptest.NewRecorder()
			site.ServeHTTP(in, httptest.NewRequest("GET", "/part"+part, nil).WithContext(r.Context()))
			io.Copy(w, in.Body)
		})
		site = isr.Wrap(h, isr.Options{MaxGenerations: 2, MaxRegenerations: 1})
		for i := range 100 {
			visit(site, fmt.Sprint("/page", i), time.Millisecond)
			synctest.Wait()
		}
		// One page that goes on with its part, and one part whose page was cancelled.
		if got := parts.now.Load(); got > 2 {
			t.Errorf("%d abandoned parts go on", got)
		}
		time.Sleep(time.Minute)
		if got := parts.now.Load(); got != 0 || site.Stats().Generating != 0 {
			t.Errorf("%d parts, %+v", got, site.Stats())
		}
	})
}

// However often a page is asked for anew, there is one run of it, and one that waits.
func TestOneRunAndOneWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: time.Second}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxRegenerations: 4, Default: isr.Route{Tags: []string{"t"}}})
		get(site, "/hot")
		c.calls.Store(0)
		var all sync.WaitGroup
		begin := time.Now()
		for i := range 200 {
			time.Sleep(time.Millisecond)
			all.Go(func() {
				var err error
				switch i % 4 {
				case 0, 1:
					err = site.Revalidate(t.Context(), "/hot")
				case 2:
					err = site.RevalidateTag(t.Context(), "t")
				case 3:
					get(site, "/hot")
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(begin); c.calls.Load() != 2 || c.most.Load() != 1 || took > 3*time.Second {
			t.Errorf("%d runs, %d at a time, in %v", c.calls.Load(), c.most.Load(), took)
		}
	})
}

// Superseded runs do not hold on to their pages, whether there is no Store or one that
// is down.
func TestSupersededRunsAreForgotten(t *testing.T) {
	for name, second := range map[string]store.Store{"no store": nil, "down": memory.New()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					time.Sleep(3 * time.Second)
					w.Write(make([]byte, 1<<20))
				}}
				in := fleet(t, nil, isr.Options{MaxBytes: 8 << 20, Default: isr.Route{Tags: []string{"all"}}})
				if second != nil {
					st := &faultyStore{Store: second}
					st.set(down)
					in.store = st
				}
				site := in.start(&c)
				get(site, "/")
				before := heap()
				for range 40 {
					site.RevalidateTag(t.Context(), "all")
					get(site, "/")
					time.Sleep(2 * time.Second)
				}
				if grown := heap() - before; grown > 20<<20 {
					t.Errorf("the heap has grown by %d MB, for %d MB of pages", grown>>20, site.Stats().Bytes>>20)
				}
			})
		})
	}
}

// Nor do visitors who leave during a stream have more handlers than there are slots, but no
// slot is taken for those who read it, however slowly, or by a handler past its Timeout.
func TestHandlersOfDesertedStreamsTakeASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c slowHandler
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("x", 6000))
			c.ServeHTTP(w, r)
		}), isr.Options{MaxGenerations: 4, MaxRegenerations: 2, MaxPageBytes: 5000, Default: isr.Route{Timeout: time.Minute}})
		c.takes = 10 * time.Second
		for i := range 200 {
			recovered(func() { visit(site, fmt.Sprint("/", i), 10*time.Millisecond) })
		}
		if n := c.most.Load(); n > 4 {
			t.Errorf("%d handlers at a time of visitors who leave, want 4", n)
		}
		time.Sleep(time.Minute)

		c.most.Store(0)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				if got := body(site, fmt.Sprint("/reads/", i)); len(got) != 6004 {
					t.Errorf("%d bytes", len(got))
				}
			})
			synctest.Wait()
		}
		if n := c.most.Load(); n != 20 {
			t.Errorf("%d streams at a time, want 20: they take no slots", n)
		}
		all.Wait()
		synctest.Wait()

		c.takes = time.Hour // longer than a handler may have a slot
		for i := range 4 {
			recovered(func() { visit(site, fmt.Sprint("/hangs/", i), 10*time.Millisecond) })
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		c.takes = 0
		begin := time.Now()
		got := body(site, "/honest")
		if took := time.Since(begin).Round(time.Second); len(got) != 6004 || took != 30*time.Second {
			t.Errorf("%d bytes after %v", len(got), took)
		}
		time.Sleep(time.Hour)
	})
}

// A page that may not be stored has one run at a time, too, although what comes of it is
// known before its handler returns. Visitors do not wait for that: their own requests pass.
func TestOneRunOfWhatMayNotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs, passes slowHandler
		runs.takes = 10 * time.Second
		site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !isr.Generating(r.Context()) {
				passes.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Set-Cookie", "a=b")
			w.WriteHeader(http.StatusOK)
			runs.ServeHTTP(w, r)
		}), isr.Options{Origin: "http://example.com", MaxRegenerations: 16, Default: isr.Route{Timeout: 20 * time.Second}})
		begin := time.Now()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { site.Revalidate(t.Context(), "/hot") })
			synctest.Wait()
		}
		for range 2 {
			asked := time.Now()
			if res := get(site, "/hot"); res.StatusCode != http.StatusOK || time.Since(asked) != 0 {
				t.Errorf("a visitor got %d after %v", res.StatusCode, time.Since(asked))
			}
			time.Sleep(time.Second)
		}
		all.Wait()
		if n := runs.calls.Load(); n != 2 || runs.most.Load() != 1 || passes.calls.Load() != 2 {
			t.Errorf("%d runs, %d at a time, %d visitors passed", n, runs.most.Load(), passes.calls.Load())
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("the second run began after %v", took)
		}
		time.Sleep(time.Minute)
		synctest.Wait()

		runs.takes = time.Hour // no longer than Timeout is the next run kept waiting
		begin = time.Now()
		site.Revalidate(t.Context(), "/hot")
		site.Revalidate(t.Context(), "/hot")
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("behind a handler that hangs the next run began after %v", took)
		}
		time.Sleep(time.Hour)
	})
}
