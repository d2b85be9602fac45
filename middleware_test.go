package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
)

// A page is fresh for its TTL, stale for StaleWhileRevalidate, and then expired.
func TestLifeOfAPage(t *testing.T) {
	for name, test := range map[string]struct {
		route isr.Route
		steps []step
	}{
		"fresh, stale, renewed": {
			isr.Route{TTL: 10 * time.Second},
			[]step{
				{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1},
				{0, 0, "page 1", "isr; hit; ttl=10", "0", 1},
				{9 * time.Second, 0, "page 1", "isr; hit; ttl=1", "9", 1},
				{time.Second, 0, "page 1", "isr; hit; ttl=0; detail=stale", "10", 2},
				{0, 0, "page 2", "isr; hit; ttl=10", "0", 2},
				{1000 * time.Hour, 0, "page 2", "isr; hit; ttl=-3599990; detail=stale", "3600000", 3},
			},
		},
		"kept until revalidated": {
			isr.Route{},
			[]step{
				{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1},
				{10000 * time.Hour, 0, "page 1", "isr; hit", "0", 1},
			},
		},
		"stale for a while, then expired": {
			isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: 5 * time.Second},
			[]step{
				{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1},
				{14 * time.Second, 0, "page 1", "isr; hit; ttl=-4; detail=stale", "14", 2},
				{15 * time.Second, 0, "page 3", "isr; fwd=stale; stored", "0", 3},
			},
		},
		"never stale": {
			isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: -1},
			[]step{
				{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1},
				{10 * time.Second, 0, "page 2", "isr; fwd=stale; stored", "0", 2},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(countingHandler)
				walk(t, isr.Wrap(c, isr.Options{Default: test.route}), c, "/", test.steps...)
			})
		})
	}
}

// All visitors of a page share one run: they wait for the first one, and get the stale
// page at once during the next.
func TestOneRunForManyVisitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			<-release
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Minute}})
		var all sync.WaitGroup
		collapsed := new(atomic.Int64)
		for range 1000 {
			all.Go(func() {
				res := get(site, "/")
				if got := read(res); got != "page 1" {
					t.Errorf("got %q", got)
				}
				if res.Header.Get("Cache-Status") == "isr; fwd=uri-miss; stored; collapsed" {
					collapsed.Add(1)
				}
			})
		}
		synctest.Wait()
		if got := c.calls.Load(); got != 1 {
			t.Errorf("%d runs on the first visit, want 1", got)
		}
		close(release)
		all.Wait()
		if got := collapsed.Load(); got != 999 {
			t.Errorf("%d visits were collapsed, want 999", got)
		}

		time.Sleep(time.Minute) // stale: all are served at once, and one run starts
		release = make(chan bool)
		for range 1000 {
			all.Go(func() { body(site, "/") })
		}
		all.Wait()
		synctest.Wait() // until the run behind them has begun
		if got := c.calls.Load(); got != 2 {
			t.Errorf("%d runs after the stale visits, want 2", got)
		}
		close(release)
		synctest.Wait()
	})
}

// However many requests for a page overlap, it is generated once: a visitor who finds
// the run finished looks for the page again.
func TestCollapsedForwarding(t *testing.T) {
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{})
	const pages = 3000
	for i := range pages {
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() { get(site, fmt.Sprint("/", i)) })
		}
		all.Wait()
	}
	if got := c.calls.Load(); got != pages {
		t.Errorf("%d runs for %d pages", got, pages)
	}
}

// A visitor who waits may leave; the run goes on for the others.
func TestRunOutlivesItsFirstVisitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			select {
			case <-time.After(time.Second):
				fmt.Fprint(w, "page")
			case <-r.Context().Done():
				t.Error("the run ended when its first visitor left")
			}
		}}
		site := isr.Wrap(c, isr.Options{})
		ctx, leave := context.WithCancel(t.Context())
		var left, stayed *http.Response
		go func() {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx))
			left = w.Result()
		}()
		synctest.Wait()
		go func() { stayed = get(site, "/") }()
		synctest.Wait()
		leave()
		synctest.Wait()
		if left == nil || left.StatusCode != http.StatusServiceUnavailable || left.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("the first visitor got %v, want a 503 with no-store", left)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := read(stayed); got != "page" || c.calls.Load() != 1 {
			t.Errorf("the visitor who stayed got %q after %d runs, want the page of the first", got, c.calls.Load())
		}
	})
}

// 404 and 410 are pages: they replace a good page, and live NotFoundTTL.
func TestNotFoundIsAPage(t *testing.T) {
	for name, test := range map[string]struct {
		route isr.Route
		ttl   time.Duration // zero: not stored
	}{
		"the TTL":        {isr.Route{TTL: 5 * time.Second}, 5 * time.Second},
		"at most 10s":    {isr.Route{TTL: time.Hour}, 10 * time.Second},
		"10s of forever": {isr.Route{}, 10 * time.Second},
		"its own":        {isr.Route{TTL: 5 * time.Second, NotFoundTTL: time.Minute}, time.Minute},
		"not stored":     {isr.Route{TTL: 5 * time.Second, NotFoundTTL: -1}, 0},
		"NoStore":        {isr.Route{TTL: isr.NoStore}, 0},
	} {
		for _, status := range []int{404, 410} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					deleted := false
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if deleted {
							w.WriteHeader(status)
						} else if test.route.TTL < 0 {
							w.Header().Set("Cache-Control", "max-age=3600")
						}
						fmt.Fprint(w, "page ", n)
					}}
					site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: test.route})
					get(site, "/")
					deleted = true
					if err := site.Revalidate(t.Context(), "/"); err != nil {
						t.Fatal(err)
					}
					res := get(site, "/")
					if res.StatusCode != status {
						t.Errorf("got %d after the page was deleted, want %d", res.StatusCode, status)
					}
					p := pages(site)["/"]
					if test.ttl == 0 {
						if p.State != isr.Uncacheable {
							t.Errorf("stored: %+v", p)
						}
						return
					}
					if p.Status != status || p.TTL != test.ttl {
						t.Errorf("stored with status %d and TTL %v, want %d and %v", p.Status, p.TTL, status, test.ttl)
					}
					want := fmt.Sprintf("public, max-age=0, s-maxage=%d", test.ttl/time.Second)
					if got := res.Header.Get("Cache-Control"); got != want {
						t.Errorf("Cache-Control %q, want %q", got, want)
					}
				})
			})
		}
	}
}

// After NotFoundTTL nobody gets the 404 of a page that was published meanwhile, unless
// the handler sends stale-while-revalidate; where no new page can be had, the 404 is
// shown like any other page. The route's Cache-Control does not apply to it.
func TestNotFoundIsNotStale(t *testing.T) {
	route := isr.Route{TTL: time.Hour, CacheControl: "public, max-age=31536000, immutable"}
	for name, test := range map[string]struct {
		control string // the handler's
		invalidate,
		fails bool
		want step
	}{
		"by age": {want: step{11 * time.Second, 200, "page", "isr; fwd=stale; stored", "0", 2}},
		"by tag": {invalidate: true, want: step{time.Second, 200, "page", "isr; fwd=stale; stored", "0", 2}},
		"by the handler's stale-while-revalidate": {control: "max-age=10, stale-while-revalidate=60", want: step{11 * time.Second, 404, "none", "isr; hit; ttl=-1; detail=stale", "11", 2}},
		"on error": {fails: true, want: step{11 * time.Second, 404, "none", "isr; fwd=stale; fwd-status=500; detail=stale-if-error", "11", 2}},
	} {
		for _, status := range []int{404, 410} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						switch {
						case n == 1:
							if test.control != "" {
								w.Header().Set("Cache-Control", test.control)
							}
							w.WriteHeader(status)
							io.WriteString(w, "none")
						case test.fails:
							w.WriteHeader(500)
						default:
							io.WriteString(w, "page")
						}
					}}
					route := route
					route.Tags = []string{"t"}
					site := isr.Wrap(c, isr.Options{Default: route})
					want := test.control
					if want == "" {
						want = "public, max-age=0, s-maxage=10"
					}
					if got := get(site, "/").Header.Get("Cache-Control"); got != want {
						t.Errorf("Cache-Control %q, want %q", got, want)
					}
					if test.invalidate {
						if err := site.RevalidateTag(t.Context(), "t"); err != nil {
							t.Fatal(err)
						}
					}
					if test.want.status == 404 {
						test.want.status = status
					}
					walk(t, site, c, "/", test.want)
					if got := get(site, "/").Header.Get("Cache-Control"); !test.fails && got != route.CacheControl {
						t.Errorf("Cache-Control %q of the page", got)
					}
				})
			})
		}
	}
}

// Requests without a context value, a header or a host are served like others.
func TestRequestsWithoutContextHeaderOrHost(t *testing.T) {
	site := isr.Wrap(new(countingHandler), isr.Options{})
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = ""
	r.Header = nil
	w := httptest.NewRecorder()
	site.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
}
