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

// A crowd is a handler that takes its time and knows how often it is called at once.
type crowd struct {
	takes     time.Duration
	obeys     bool // its context
	calls     atomic.Int64
	now, most atomic.Int64
	paths     sync.Map // in which order they were begun
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.paths.Store(r.URL.Path, c.calls.Add(1))
	n := c.now.Add(1)
	defer c.now.Add(-1)
	for m := c.most.Load(); n > m && !c.most.CompareAndSwap(m, n); m = c.most.Load() {
	}
	var done <-chan struct{}
	if c.obeys {
		done = r.Context().Done()
	}
	select {
	case <-time.After(c.takes):
		fmt.Fprint(w, "page")
	case <-done:
		http.Error(w, "cancelled", http.StatusServiceUnavailable)
	}
}

// visit asks for a page on behalf of somebody who leaves after a while.
func visit(site http.Handler, target string, stays time.Duration) *httptest.ResponseRecorder {
	ctx, cancel := context.WithTimeout(context.Background(), stays)
	defer cancel()
	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest("GET", target, nil).WithContext(ctx))
	return w
}

// Visitors of unknown pages have MaxGenerations runs at a time; sixteen times as many
// wait for one, and the rest are told to come again.
func TestMaxGenerations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: time.Second}
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

// Those who wait for a page that is stored come before those of pages that nobody
// knows; and where they find no place, or no slot in time, they get the old one.
func TestStoredPagesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{}
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
			t.Errorf("%d after %v: behind the run under way, and before all others", res.StatusCode, time.Since(begin))
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
			t.Errorf("without a place: %d %q after %v", res.StatusCode, got, time.Since(begin))
		}
		all.Wait()
		time.Sleep(time.Minute)
	})
}

// Time in the queue counts: nobody waits longer than Route.Timeout.
func TestTimeoutInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{}
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
			t.Errorf("%d runs: those who have left the queue have none", n)
		}
	})
}

// Where the run that a visitor has waited for turns out to be older than a purge that
// they have come after, they wait for the next one, but not for longer than Timeout in
// all. So it is with Patience.
func TestTimeoutOfTwoRuns(t *testing.T) {
	for _, patience := range []time.Duration{0, 3 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				w.Header().Set("Cache-Tag", fmt.Sprint("made-", n)) // nobody knows before it is made
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

// Of the runs whose visitors have left, MaxRegenerations go on. The others end, do
// not count as failures, and leave nothing that anyone could join.
func TestVisitorsWhoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: 10 * time.Second, obeys: true}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 20, MaxRegenerations: 3})
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { visit(site, fmt.Sprint("/", i), time.Second) })
		}
		all.Wait()
		synctest.Wait()
		if n := c.now.Load(); n != 3 {
			t.Errorf("%d runs for nobody, want 3", n)
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

// A handler that does not obey its context keeps its slot until it returns: a client
// that sends requests and takes them back has no more handlers than that.
func TestVisitorsWhoLeaveAndHandlersThatStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: 10 * time.Second}
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

// A renewal goes on when its visitor leaves, and so does what somebody has asked for
// by its name.
func TestRenewalsAreNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{obeys: true}
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

// A visitor who takes a stream has not left: its run is not cancelled.
func TestStreamsAreNotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.URL.Path == "/left" {
				time.Sleep(20 * time.Second)
				return
			}
			for range 10 {
				io.WriteString(w, strings.Repeat("x", 1000))
				if err := r.Context().Err(); err != nil {
					t.Error(err)
				}
			}
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 1, MaxPageBytes: 4000})
		visit(site, "/left", time.Second)
		for i := range 100 {
			if got := len(body(site, fmt.Sprint("/", i))); got != 10_000 {
				t.Errorf("%d bytes", got)
			}
		}
		time.Sleep(20 * time.Second)
	})
}

// A page that is made of another one, which it asks the Site for with its own
// context, needs no slot for that.
func TestPagesInsidePages(t *testing.T) {
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

// Nor does a page inside of another get around the bound of what visitors who have left
// leave behind.
func TestPagesInsidePagesOfVisitorsWhoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var site *isr.Site
		parts := &crowd{takes: 10 * time.Second, obeys: true}
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
			t.Errorf("%d parts are made for nobody", got)
		}
		time.Sleep(time.Minute)
		if got := parts.now.Load(); got != 0 || site.Stats().Generating != 0 {
			t.Errorf("%d parts, %+v", got, site.Stats())
		}
	})
}

// However often a page is asked for anew, there is one run of it, and one behind it.
func TestOneRunAndOneBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: time.Second}
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

// MaxRegenerations is the Site's, and not each call's.
func TestMaxRegenerationsOfAllCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: time.Second}
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

// A flood of pages behind a placeholder delays no renewal, however long they take.
func TestPlaceholdersDelayNoRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 1, Routes: map[string]isr.Route{
			"/home":    {TTL: time.Minute},
			"/search/": {Placeholder: http.NotFoundHandler()},
		}})
		get(site, "/home")
		time.Sleep(time.Minute)
		c.takes = 20 * time.Second
		for i := range 1000 {
			get(site, fmt.Sprint("/search/", i))
		}
		synctest.Wait()
		get(site, "/home")
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := get(site, "/home").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" {
			t.Errorf("home: %s", got)
		}
		if n := c.most.Load(); n != 2 {
			t.Errorf("%d at a time", n)
		}
		site.Shutdown(t.Context())
	})
}

// What an editor asks for keeps its place in the queue, no matter who else asks for it or
// does not wait any longer.
func TestRenewalsKeepTheirPlace(t *testing.T) {
	for name, ask := range map[string]func(site *isr.Site){
		"another editor who leaves": func(site *isr.Site) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			site.Revalidate(ctx, "/1")
		},
		"a visitor for whom there is no room": func(site *isr.Site) {
			for i := range 17 {
				go body(site, fmt.Sprint("/unknown/", i))
				synctest.Wait()
			}
			if res := get(site, "/1"); res.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("a visitor got %d", res.StatusCode)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &crowd{takes: time.Second}
			site := isr.Wrap(c, isr.Options{Origin: "https://example.com", MaxGenerations: 1, MaxRegenerations: 1})
			for i := range 4 {
				go site.Revalidate(context.Background(), fmt.Sprint("/", i))
				synctest.Wait()
			}
			ask(site)
			time.Sleep(time.Minute)
			var before int
			first, _ := c.paths.Load("/1")
			for _, path := range []string{"/2", "/3"} {
				if n, _ := c.paths.Load(path); n.(int64) < first.(int64) {
					before++
				}
			}
			if before > 0 {
				t.Errorf("%s: %d pages that were asked for later came first", name, before)
			}
		})
	}
}

// An editor does not wait where strangers do, although they have asked for that page,
// too.
func TestEditorsDoNotQueueWithStrangers(t *testing.T) {
	for name, route := range map[string]isr.Route{
		"visitors":     {},
		"placeholders": {Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := &crowd{takes: time.Second}
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

// What the Store has does not wait behind what it has not: at 3 a.m. after a restart,
// the handler hangs, and the pages are up.
func TestStoredPagesDoNotQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{MaxGenerations: 2, MaxRegenerations: 1})
		c := &crowd{}
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

// Who waits in the queue when the Site is shut down has their own request served.
func TestShutdownWithAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{takes: time.Second}
		site := isr.Wrap(c, isr.Options{MaxGenerations: 1})
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				if got := body(site, fmt.Sprint("/", i)); got != "page" {
					t.Errorf("got %q", got)
				}
			})
		}
		synctest.Wait()
		begin := time.Now()
		if err := site.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		all.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A URL, or declared headers, of more than 32 KiB are of no page: the request is the
// handler's own, the answer is the visitor's, and nothing is held when they have left.
func TestLongKeys(t *testing.T) {
	c := new(cms)
	site := isr.Wrap(c, isr.Options{
		Default: isr.Route{Vary: []string{"X-Long"}},
		Routes:  map[string]isr.Route{"/listed/": {PrerenderedOnly: true}},
	})
	long := strings.Repeat("a", 33<<10)
	for _, res := range []*http.Response{get(site, "/"+long), get(site, "/?q="+long), get(site, "/", "X-Long", long)} {
		if got := res.Header.Get("Cache-Status"); got != "isr; fwd=bypass; detail=too-long" || res.StatusCode != 200 {
			t.Errorf("%d %q", res.StatusCode, got)
		}
		if got := res.Header.Get("Cache-Control"); got != "private, max-age=0" {
			t.Errorf("Cache-Control %q", got)
		}
	}
	if res := get(site, "/listed/"+long); res.StatusCode != 404 || c.calls.Load() != 3 {
		t.Errorf("%d: a path that nobody has named", res.StatusCode)
	}
	if s := site.Stats(); s.Pages != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	if got := get(site, "/"+long[:30<<10]).Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
		t.Errorf("30 KiB: %q", got)
	}
}

// A stuckWriter is the ResponseWriter of a visitor who reads nothing.
type stuckWriter struct {
	header http.Header
	gate   chan struct{}
}

func (w *stuckWriter) Header() http.Header { return w.header }
func (w *stuckWriter) WriteHeader(int)     {}
func (w *stuckWriter) Write(b []byte) (int, error) {
	<-w.gate
	return len(b), nil
}

// What is too large to be stored, and read slowly, is held for a quarter of MaxBytes
// and no more; others have their own requests served.
func TestSlowReadersHoldABoundedPartOfMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := strings.Repeat("x", 3000)
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			io.WriteString(w, large)
			io.WriteString(w, large)
		}}
		site := isr.Wrap(c, isr.Options{MaxBytes: 64 << 10, MaxPageBytes: 4 << 10})
		gate := make(chan struct{})
		streams, own := 0, 0
		var all sync.WaitGroup
		var writers []*stuckWriter
		for i := range 40 {
			w := &stuckWriter{make(http.Header), gate}
			writers = append(writers, w)
			all.Go(func() { site.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprint("/", i), nil)) })
			synctest.Wait()
		}
		for _, w := range writers {
			switch w.header.Get("Cache-Status") {
			case "isr; fwd=uri-miss; detail=too-large":
				streams++
			case "isr; fwd=bypass; detail=uncacheable":
				own++
			}
		}
		if streams < 2 || streams > 5 || streams+own != 40 {
			t.Errorf("%d streams, %d served directly", streams, own)
		}
		close(gate)
		all.Wait()
		if res := get(site, "/again"); res.Header.Get("Cache-Status") != "isr; fwd=uri-miss; detail=too-large" || len(read(res)) != 6000 {
			t.Errorf("when all have read what they wanted: %v", res.Header)
		}
	})
}
