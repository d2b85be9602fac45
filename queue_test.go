package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Visitors of unknown pages have MaxGenerations runs at a time; sixteen times as many
// are queued, and the rest get a 503 with Retry-After.
func TestMaxGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: time.Second}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 4})
		var all sync.WaitGroup
		var served, refused atomic.Int64
		for i := range 100 {
			all.Go(func() {
				switch res := get(site, fmt.Sprint("/", i)); {
				case res.StatusCode == 200:
					served.Add(1)
				case res.StatusCode == 503 && res.Header.Get("Retry-After") == "1" && res.Header.Get("Cache-Control") == "no-store" &&
					res.Header.Get("Cache-Status") == "isr; fwd=uri-miss; detail=busy":
					refused.Add(1)
				default:
					t.Errorf("%d %v", res.StatusCode, res.Header)
				}
			})
		}
		all.Wait()
		if served.Load() != 4+64 || refused.Load() != 32 || c.most.Load() != 4 {
			t.Errorf("%d served, %d refused, %d at a time", served.Load(), refused.Load(), c.most.Load())
		}
		if s := site.Stats(); s.Failed != 0 || s.Generating != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Visitors of stored pages come before those of unknown pages; where the queue is full,
// or no slot is free in time, they get the old page.
func TestStoredPagesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{}
		rt := isr.Route{TTL: time.Second, StaleWhileRevalidate: -1, StaleIfError: time.Hour, Timeout: 10 * time.Second}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 1, Default: rt})
		get(site, "/known")
		get(site, "/known/too")
		time.Sleep(time.Second)
		c.takes = 3 * time.Second
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() { get(site, fmt.Sprint("/unknown/", i)) })
		}
		synctest.Wait()
		begin := time.Now()
		if res := get(site, "/known"); res.StatusCode != 200 || time.Since(begin) != 6*time.Second {
			t.Errorf("%d after %v: want it after the run under way, before all others", res.StatusCode, time.Since(begin))
		}
		all.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()

		c.takes = 8 * time.Second
		for i := range 17 {
			all.Go(func() { get(site, fmt.Sprint("/new/", i)) })
		}
		synctest.Wait()
		begin = time.Now()
		res := get(site, "/known/too")
		if got := res.Header.Get("Cache-Status"); got != "isr; fwd=stale; detail=busy" || res.StatusCode != 200 || time.Since(begin) != 0 {
			t.Errorf("with a full queue: %d %q after %v", res.StatusCode, got, time.Since(begin))
		}
		all.Wait()
		time.Sleep(time.Minute)
	})
}

// Time in the queue counts: nobody waits longer than Route.Timeout.
func TestTimeoutInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 1,
			Default: isr.Route{Timeout: 10 * time.Second},
			Routes:  map[string]isr.Route{"/slow": {TTL: time.Second, StaleWhileRevalidate: -1}},
		})
		get(site, "/slow")
		time.Sleep(time.Second)
		c.takes = 25 * time.Second
		go get(site, "/slow")
		synctest.Wait()
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				begin := time.Now()
				if status := get(site, fmt.Sprint("/", i)).StatusCode; status != 503 || time.Since(begin) != 10*time.Second {
					t.Errorf("%d after %v", status, time.Since(begin))
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		if n := c.calls.Load(); n != 2 {
			t.Errorf("%d runs, want none for visitors who have left the queue", n)
		}
	})
}

// A visitor whose run turns out to be older than a purge before the visit waits for the
// next run, but not for longer than Timeout in all, nor than Patience.
func TestTimeoutOfTwoRuns(t *testing.T) {
	for _, patience := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				w.Header().Set("Cache-Tag", fmt.Sprint("made-", n)) // not known before it is generated
				if n > 1 || patience == 0 {
					time.Sleep(9 * time.Second)
				}
				fmt.Fprint(w, "page ", n)
			}}
			site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: -1, Timeout: 10 * time.Second, Patience: patience}})
			want, status, tag := 10*time.Second, http.StatusGatewayTimeout, "made-1"
			if patience > 0 {
				body(site, "/")
				time.Sleep(time.Minute)
				want, status, tag = patience, http.StatusOK, "made-2"
			}
			go body(site, "/")
			time.Sleep(7 * time.Second)
			if err := site.PurgeTag(t.Context(), tag); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			res := get(site, "/")
			if took := time.Since(begin); took != want || res.StatusCode != status {
				t.Errorf("Patience %v: %d after %v, want %d after %v", patience, res.StatusCode, took, status, want)
			}
			time.Sleep(time.Minute)
		})
	}
}

// A Revalidate keeps its place in the queue, no matter who else asks for that page or
// leaves; visitors who do need no place of their own.
func TestRenewalsKeepTheirPlace(t *testing.T) {
	for name, ask := range map[string]func(site *isr.Site){
		"another editor who leaves": func(site *isr.Site) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			site.Revalidate(ctx, "/1")
		},
		"a visitor who leaves, where there is no room for visitors": func(site *isr.Site) {
			for i := range 17 {
				go body(site, fmt.Sprint("/unknown/", i))
				synctest.Wait()
			}
			visit(site, "/1", time.Millisecond)
		},
		"a visitor who stays, where there is no room for visitors": func(site *isr.Site) {
			for i := range 17 {
				go body(site, fmt.Sprint("/unknown/", i))
				synctest.Wait()
			}
			if res := get(site, "/1"); res.StatusCode != http.StatusOK {
				t.Errorf("a visitor got %d", res.StatusCode)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &slowHandler{takes: time.Second}
			var begun sync.Map // path to time; a visitor's slot and a renewal's may be free at the same
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				begun.Store(r.URL.Path, time.Now())
				c.ServeHTTP(w, r)
			}), isr.Options{Origin: "https://example.com", MaxGenerations: 1, MaxRegenerations: 1})
			for i := range 4 {
				go site.Revalidate(context.Background(), fmt.Sprint("/", i))
				synctest.Wait()
			}
			ask(site)
			time.Sleep(time.Minute)
			var before int
			first, _ := begun.Load("/1")
			for _, path := range []string{"/2", "/3"} {
				if at, _ := begun.Load(path); at.(time.Time).Before(first.(time.Time)) {
					before++
				}
			}
			if before > 0 {
				t.Errorf("%s: %d pages that were asked for later were generated first", name, before)
			}
		})
	}
}

// Revalidate does not queue behind visitors, even if a visitor has asked for that page.
func TestEditorsDoNotQueueWithVisitors(t *testing.T) {
	for name, route := range map[string]isr.Route{
		"visitors":     {},
		"placeholders": {Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &slowHandler{takes: time.Second}
			site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: route, MaxGenerations: 1, MaxRegenerations: 1})
			for i := range 10 {
				go body(site, fmt.Sprint("/", i))
				synctest.Wait()
			}
			begin := time.Now()
			if err := site.Revalidate(t.Context(), "/9"); err != nil || time.Since(begin) != time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(begin))
			}
			time.Sleep(time.Minute)
		})
	}
}

// A page that the Store has does not queue behind pages that must be generated: after a
// restart with a handler that hangs, the stored pages are shown.
func TestStoredPagesDoNotQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{MaxGenerations: 2, MaxRegenerations: 1})
		c := &slowHandler{}
		one := in.start(c)
		for i := range 20 {
			get(one, fmt.Sprint("/known/", i))
		}
		synctest.Wait()
		c.takes = time.Hour
		c.obeys = true
		two := in.start(c)
		for i := range 40 {
			go get(two, fmt.Sprint("/unknown/", i))
		}
		synctest.Wait()
		for i := range 20 {
			begin := time.Now()
			if res := get(two, fmt.Sprint("/known/", i)); res.StatusCode != 200 || time.Since(begin) != 0 {
				t.Errorf("%d after %v", res.StatusCode, time.Since(begin))
			}
		}
		time.Sleep(time.Hour)
	})
}

// A page that asks the Site for another one, with its own context, needs no slot for
// that.
func TestNestedPagesTakeNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var site *isr.Site
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			part := strings.TrimPrefix(r.URL.Path, "/page")
			if part == r.URL.Path {
				fmt.Fprint(w, "part")
				return
			}
			in := httptest.NewRecorder()
			site.ServeHTTP(in, httptest.NewRequest("GET", "/part"+part, nil).WithContext(r.Context()))
			io.Copy(w, in.Body)
		})
		site = isr.Wrap(h, isr.Options{MaxGenerations: 2})
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if got := body(site, fmt.Sprint("/page", i)); got != "part" {
					t.Errorf("got %q", got)
				}
			})
		}
		all.Wait()
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// Background regenerations are queued; visitors who wait are not queued behind them,
// even for a page that is in that queue itself.
func TestMaxRegenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			now := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			time.Sleep(time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 3, MaxGenerations: 100, Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Minute}})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() { get(site, fmt.Sprint("/", i)) })
		}
		all.Wait()
		time.Sleep(119 * time.Second) // all are stale
		most.Store(0)
		for range 5 {
			for i := range 50 {
				body(site, fmt.Sprint("/", i))
			}
		}
		synctest.Wait()
		if got := most.Load(); got != 3 {
			t.Errorf("%d regenerations at once, want 3", got)
		}
		// A new page does not wait for the queue.
		start := time.Now()
		get(site, "/new")
		if got := time.Since(start); got != time.Second {
			t.Errorf("a visitor waited %v for a new page", got)
		}
		// By now the pages in the queue have expired.
		start = time.Now()
		time.Sleep(5 * time.Second)
		if res := get(site, "/49"); res.Header.Get("Cache-Status") != "isr; fwd=stale; stored; collapsed" || time.Since(start) != 6*time.Second {
			t.Errorf("%q after %v", res.Header.Get("Cache-Status"), time.Since(start))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.calls.Load(); got != 101 {
			t.Errorf("%d runs, want 101: each page once, and once more", got)
		}
		if got := site.Stats().Generating; got != 0 {
			t.Errorf("%d generations under way", got)
		}
	})
}

// MaxRegenerations bounds the Site, not each call.
func TestMaxRegenerationsOfAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &slowHandler{takes: time.Second}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", MaxRegenerations: 3})
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() {
				if err := site.Revalidate(t.Context(), fmt.Sprintf("/%d/a", i), fmt.Sprintf("/%d/b", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if c.most.Load() != 3 || c.calls.Load() != 20 {
			t.Errorf("%d at a time, %d in all", c.most.Load(), c.calls.Load())
		}
	})
}

// Renewals that wait for another instance take no slot from others, and where there are
// too many of them the rest ask the Store only now and then.
func TestWaitingForALeaderTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxRegenerations: 8, Default: isr.Route{TTL: time.Minute, Timeout: time.Minute}})
		slow := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 4 {
				time.Sleep(50 * time.Second)
			}
			io.WriteString(w, "slow")
		}}
		var c countingHandler
		one := in.start(&slow)
		in.opts.MaxRegenerations = 2
		two := in.start(&c)
		paths := []string{"/0", "/1", "/2", "/free"}
		for _, path := range paths {
			body(one, path)
			body(two, path)
		}
		time.Sleep(61 * time.Second)
		for _, path := range paths[:3] {
			body(one, path)
		}
		synctest.Wait()
		for _, path := range paths {
			body(two, path)
			synctest.Wait()
		}
		if got := body(two, "/free"); got != "page 1" {
			t.Errorf("a page that no other instance is at: %q", got)
		}
		before := st.count("look")
		for range 100 {
			body(two, "/2")
			time.Sleep(time.Millisecond)
		}
		if n := st.count("look") - before; n > 20 { // those that wait ask, too
			t.Errorf("asked for permission %d times", n)
		}
		if n := two.Stats().Failed; n != 0 {
			t.Errorf("%d failures: waiting is none", n)
		}
		time.Sleep(time.Minute)
	})
}
