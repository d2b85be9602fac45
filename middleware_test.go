package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// A cms is a handler that a test holds in its hand. It numbers its answers.
type cms struct {
	calls atomic.Int64
	serve func(w http.ResponseWriter, r *http.Request, n int64)
}

func (c *cms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := c.calls.Add(1)
	if c.serve != nil {
		c.serve(w, r, n)
		return
	}
	fmt.Fprintf(w, "page %d", n)
}

// A step is one visit and what is to come of it.
type step struct {
	after  time.Duration // what is slept before
	status int           // zero: 200
	body   string
	cache  string // Cache-Status
	age    string
	calls  int64 // of the handler in all, when everything has settled
}

func (s step) String() string { return fmt.Sprintf("after %v", s.after) }

// walk takes the steps one by one, inside a bubble.
func walk(t *testing.T, h http.Handler, c *cms, target string, steps ...step) {
	t.Helper()
	for i, want := range steps {
		time.Sleep(want.after)
		res := get(h, target)
		synctest.Wait()
		if want.status == 0 {
			want.status = http.StatusOK
		}
		got := step{want.after, res.StatusCode, read(res), res.Header.Get("Cache-Status"), res.Header.Get("Age"), c.calls.Load()}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
			t.Errorf("step %d, %v (-want +got):\n%s", i, want, diff)
		}
	}
}

// do sends a request with headers given as name, value, name, value.
func do(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func get(h http.Handler, target string, header ...string) *http.Response {
	return do(h, http.MethodGet, target, header...)
}

func read(res *http.Response) string {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func body(h http.Handler, target string, header ...string) string {
	return read(get(h, target, header...))
}

// pages returns what is stored, by path and query.
func pages(site *isr.Site) map[string]isr.Page {
	m := make(map[string]isr.Page)
	for p := range site.Pages() {
		name := p.Path
		if p.Query != "" {
			name += "?" + p.Query
		}
		m[name] = p
	}
	return m
}

// recovered calls f and returns what it panicked with.
func recovered(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

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
				c := new(cms)
				walk(t, isr.Wrap(c, isr.Options{Default: test.route}), c, "/", test.steps...)
			})
		})
	}
}

func TestOneRunForManyVisitors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan bool)
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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
		if got := c.calls.Load(); got != 2 {
			t.Errorf("%d runs after the stale visits, want 2", got)
		}
		close(release)
		synctest.Wait()
	})
}

// A waiting visitor may leave; the run goes on for the others.
func TestVisitorLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			select {
			case <-time.After(time.Second):
				fmt.Fprint(w, "page")
			case <-r.Context().Done():
				t.Error("the leader's leaving ended the run")
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
			t.Errorf("the leader got %v, want to be let go with a 503 and no-store", left)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := read(stayed); got != "page" || c.calls.Load() != 1 {
			t.Errorf("who stayed got %q after %d runs, want the page of the first", got, c.calls.Load())
		}
	})
}

// failures are the ways in which a generation fails, and what a visitor gets who
// has waited for one, with nothing else to show.
var failures = map[string]struct {
	serve  func(http.ResponseWriter, *http.Request)
	status int // zero: it is no response
	body   string
	panics any
	err    string
}{
	"500": {
		serve:  func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no database", 500) },
		status: 500, body: "no database\n", err: "the handler answered 500 Internal Server Error",
	},
	"429": {
		serve:  func(w http.ResponseWriter, r *http.Request) { http.Error(w, "slow down", http.StatusTooManyRequests) },
		status: 429, body: "slow down\n", err: "the handler answered 429 Too Many Requests",
	},
	"503 marked cacheable": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=600")
			w.Header().Set("Set-Cookie", "session=of-nobody")
			w.WriteHeader(503)
		},
		status: 503, err: "the handler answered 503 Service Unavailable",
	},
	"panic": {
		serve:  func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "half a pa"); panic("no database") },
		panics: "no database", err: "the handler panicked: no database",
	},
	"abort": {
		serve:  func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		panics: http.ErrAbortHandler, err: http.ErrAbortHandler.Error(),
	},
	"Goexit": {
		serve: func(w http.ResponseWriter, r *http.Request) { runtime.Goexit() },
		err:   "the handler called runtime.Goexit",
	},
	"deadline": {
		serve:  func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done(); io.WriteString(w, "too late") },
		status: 504, body: "Gateway Timeout\n", err: "the handler did not finish within Route.Timeout",
	},
	"deadline ignored": {
		serve:  func(w http.ResponseWriter, r *http.Request) { time.Sleep(time.Hour); io.WriteString(w, "too late") },
		status: 504, body: "Gateway Timeout\n", err: "the handler did not finish within Route.Timeout",
	},
	"short body": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "half a pa")
		},
		status: 502, body: "Bad Gateway\n", err: "the handler wrote fewer bytes than its Content-Length",
	},
	"long body": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4")
			io.WriteString(w, "page")
			if _, err := io.WriteString(w, " and more"); !errors.Is(err, http.ErrContentLength) {
				panic(fmt.Sprint("wrote too much without an error: ", err))
			}
		},
		status: 502, body: "Bad Gateway\n", err: "the handler wrote more bytes than its Content-Length",
	},
	"an error too large to keep": {
		serve: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, strings.Repeat("x", 5000))
		},
		status: 500, body: "Internal Server Error\n", err: "the handler answered 500 Internal Server Error",
	},
}

// A failed regeneration never replaces a page: the old one stays up, its age
// goes on, nobody waits, and after a pause the next visit tries again.
func TestFailedRegeneration(t *testing.T) {
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healthy := true
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if healthy {
						fmt.Fprint(w, "page ", n)
						return
					}
					failure.serve(w, r)
				}}
				site := isr.Wrap(c, isr.Options{
					MaxPageBytes: 4000,
					Default:      isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: 20 * time.Second, StaleIfError: time.Hour, Timeout: time.Second},
				})
				settle := func() { time.Sleep(time.Second); synctest.Wait() } // what hangs comes to its deadline
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1})
				healthy = false
				walk(t, site, c, "/", step{10 * time.Second, 0, "page 1", "isr; hit; ttl=0; detail=stale", "10", 2})
				settle()
				p := pages(site)["/"]
				if p.Failures != 1 || p.Err == nil || p.Err.Error() != failure.err || p.State != isr.Stale {
					t.Errorf("state %v, %d failures, err %v; want stale, 1, %v", p.State, p.Failures, p.Err, failure.err)
				}
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; hit; ttl=-1; detail=stale", "11", 3})
				// Expired: the last attempt has failed, so nobody waits for the next one.
				walk(t, site, c, "/", step{20 * time.Second, 0, "page 1", "isr; hit; ttl=-21; detail=stale", "31", 4})
				settle()
				walk(t, site, c, "/", step{0, 0, "page 1", "isr; hit; ttl=-22; detail=stale", "32", 4}) // a pause of two seconds
				healthy = true
				walk(t, site, c, "/",
					step{2 * time.Second, 0, "page 1", "isr; hit; ttl=-24; detail=stale", "34", 5},
					step{0, 0, "page 5", "isr; hit; ttl=10", "0", 5})
				if p := pages(site)["/"]; p.Failures != 0 || p.Err != nil {
					t.Errorf("%d failures, err %v after a success", p.Failures, p.Err)
				}
				time.Sleep(time.Hour) // for the handlers that ignore their context
			})
		})
	}
}

// Whoever waits for an expired page gets the old one if the new one fails, for
// as long as StaleIfError allows.
func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.WriteHeader(500)
			}
			fmt.Fprint(w, "page ", n)
		}}
		walkThrough := func(route isr.Route, steps ...step) {
			t.Helper()
			c.calls.Store(0)
			healthy = true
			site := isr.Wrap(c, isr.Options{Default: route})
			walk(t, site, c, "/", steps[0])
			healthy = false
			walk(t, site, c, "/", steps[1:]...)
		}
		first := step{0, 0, "page 1", "isr; fwd=uri-miss; stored", "0", 1}
		walkThrough(isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: -1, StaleIfError: 20 * time.Second},
			first,
			step{10 * time.Second, 0, "page 1", "isr; fwd=stale; fwd-status=500; detail=stale-if-error", "10", 2},
			step{19 * time.Second, 0, "page 1", "isr; hit; ttl=-19; detail=stale", "29", 3},
			// Failures extend no bound.
			step{time.Second, 500, "page 4", "isr; fwd=stale; fwd-status=500", "", 4})
		walkThrough(isr.Route{TTL: 10 * time.Second, StaleWhileRevalidate: -1, StaleIfError: -1},
			first,
			step{10 * time.Second, 500, "page 2", "isr; fwd=stale; fwd-status=500", "", 2})
	})
}

// Where there is nothing to show, those who waited get the handler's own error,
// nothing is stored, and the next visit tries again.
func TestFirstGenerationFails(t *testing.T) {
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					time.Sleep(time.Millisecond) // so that they all wait for it
					failure.serve(w, r)
				}}
				site := isr.Wrap(c, isr.Options{MaxPageBytes: 4000, Default: isr.Route{Timeout: time.Second}})
				for visit := range int64(2) {
					var all sync.WaitGroup
					for range 3 {
						all.Add(1)
						go func() {
							defer all.Done() // a Goexit ends the goroutine
							var res *http.Response
							exited := true
							defer func() {
								if failure.err == "the handler called runtime.Goexit" && !exited {
									t.Error("Goexit did not reach a visitor who waited")
								}
							}()
							v := recovered(func() { res = get(site, "/") })
							exited = false
							if v != failure.panics {
								t.Errorf("panic %v, want %v", v, failure.panics)
							}
							if failure.status == 0 {
								return
							}
							if res.StatusCode != failure.status || res.Header.Get("Cache-Control") != "no-store" || res.Header["Set-Cookie"] != nil {
								t.Errorf("got %d %v, want %d with no-store and no cookie", res.StatusCode, res.Header, failure.status)
							}
							if got := read(res); got != failure.body {
								t.Errorf("body %q, want %q", got, failure.body)
							}
						}()
					}
					all.Wait()
					if got := c.calls.Load(); got != visit+1 {
						t.Errorf("%d runs after %d rounds of visits", got, visit+1)
					}
				}
				if n := len(pages(site)); n != 0 {
					t.Errorf("%d pages stored", n)
				}
				time.Sleep(time.Hour) // for the handlers that ignore their context
			})
		})
	}
}

// An error that is too large for the cache is an error all the same: it does not
// cost the last good page.
func TestLargeError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.Header().Set("Content-Length", "6000")
				w.WriteHeader(500)
				for range 6 {
					io.WriteString(w, strings.Repeat("x", 1000))
				}
				return
			}
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxPageBytes: 5000, Default: isr.Route{TTL: time.Second}})
		get(site, "/")
		healthy = false
		for range 3 {
			time.Sleep(time.Second)
			if got := body(site, "/"); got != "page 1" {
				t.Errorf("got %.20q", got)
			}
			synctest.Wait()
		}
	})
}

// What outer middleware varies on stands beside a failure, too.
func TestFailureKeepsVary(t *testing.T) {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Accept")
		w.WriteHeader(500)
	}), isr.Options{Default: isr.Route{Vary: []string{"Accept"}}})
	w := httptest.NewRecorder()
	w.Header().Set("Vary", "Origin")
	site.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if got := w.Result().Header["Vary"]; !cmp.Equal(got, []string{"Origin", "Accept"}) {
		t.Errorf("Vary %q", got)
	}
}

// 404 and 410 are pages: they replace a good one and live NotFoundTTL.
func TestNotFound(t *testing.T) {
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
					c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

func TestRoutes(t *testing.T) {
	site := isr.Wrap(new(cms), isr.Options{
		Default: isr.Route{TTL: time.Second},
		Routes: map[string]isr.Route{
			"/blog/{id}":         {TTL: 2 * time.Second, Tags: []string{"blog"}},
			"/blog/":             {TTL: 3 * time.Second, Tags: []string{"all"}},
			"GET /blog/new":      {TTL: 4 * time.Second},
			"example.org/":       {TTL: 5 * time.Second},
			"example.org/blog/1": {TTL: 6 * time.Second},
			"/account/":          {Bypass: isr.Always},
		},
	})
	for _, test := range []struct {
		target, host string
		want         time.Duration
		tags         []string
	}{
		{"/", "", time.Second, nil},
		{"/blog/1", "", 2 * time.Second, []string{"blog"}},
		{"/blog/2?x=y", "", 2 * time.Second, []string{"blog"}},
		{"/blog/1/comments", "", 3 * time.Second, []string{"all"}},
		{"/blog/new", "", 4 * time.Second, nil}, // nothing is inherited
		{"/", "example.org", 5 * time.Second, nil},
		{"/blog/1", "example.org", 6 * time.Second, nil},
		{"/%62log/%33", "", 2 * time.Second, []string{"blog"}}, // which is /blog/3
	} {
		r := httptest.NewRequest("GET", test.target, nil)
		if test.host != "" {
			r.Host = test.host
		}
		for range 2 { // a path that is stored remembers its route
			site.ServeHTTP(httptest.NewRecorder(), r)
		}
		found := false
		for p := range site.Pages() {
			if p.Host == strings.ToLower(r.Host) && p.Path == r.URL.Path {
				found = true
				if p.TTL != test.want || !cmp.Equal(p.Tags, test.tags) {
					t.Errorf("%s%s: TTL %v, tags %v; want %v, %v", test.host, test.target, p.TTL, p.Tags, test.want, test.tags)
				}
			}
		}
		if !found {
			t.Errorf("%s%s: not stored", test.host, test.target)
		}
	}
	// A key has one route, however its host is spelt, and however its path is.
	r := httptest.NewRequest("GET", "/blog/2", nil)
	r.Host = "Example.ORG"
	site.ServeHTTP(httptest.NewRecorder(), r)
	for p := range site.Pages() {
		if p.Host == "example.org" && p.Path == "/blog/2" && p.TTL != 5*time.Second {
			t.Errorf("%s has the TTL %v", r.Host, p.TTL)
		}
	}
	for _, target := range []string{"/blog/../account/me", "/account/", "/account/me", "/account", "//account/me", "/x/../account/me"} {
		if got := get(site, target).Header.Get("Cache-Status"); got != "isr; fwd=bypass" {
			t.Errorf("%s: %q, want a bypass", target, got)
		}
	}
}

// A stored path remembers its route, and not that of another that is spelt much
// like it: /blog/%2e%2e/x is a post by the name of two dots, for all one knows.
func TestRouteOfSpelling(t *testing.T) {
	site := isr.Wrap(new(cms), isr.Options{Routes: map[string]isr.Route{"/blog/": {}, "/account/": {Bypass: isr.Always}}})
	for range 2 {
		for target, want := range map[string]bool{"/blog/%2e%2e/account/me": false, "/blog/../account/me": true} {
			if got := get(site, target).Header.Get("Cache-Status"); (got == "isr; fwd=bypass") != want {
				t.Errorf("%s: %q", target, got)
			}
		}
	}
}

// However visitors crowd, a page is generated once: who finds the run gone looks
// for the page again.
func TestOnceInACrowd(t *testing.T) {
	c := new(cms)
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
