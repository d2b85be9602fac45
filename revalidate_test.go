package isr_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// What each kind of invalidation does to a page, before the next visit and at it.
func TestInvalidation(t *testing.T) {
	type visit struct{ cache, body string }
	for name, test := range map[string]struct {
		route      isr.Route
		invalidate func(*isr.Site) error
		healthy    []visit // the visits after it
		failing    []visit // the same, where the handler fails from then on
	}{
		"Revalidate": {
			isr.Route{},
			func(s *isr.Site) error { return s.Revalidate(context.Background(), "/a") },
			[]visit{{"isr; hit", "page 2"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"Revalidate, no stale on errors": {
			isr.Route{StaleIfError: -1},
			func(s *isr.Site) error { return s.Revalidate(context.Background(), "/a") },
			[]visit{{"isr; hit", "page 2"}},
			[]visit{{"isr; fwd=stale; fwd-status=500", "error 3"}, {"isr; fwd=stale; fwd-status=500", "error 4"}},
		},
		"RevalidateTag": {
			isr.Route{},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "mine") },
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"RevalidateTag, of the handler": {
			isr.Route{},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "nothing", "its") },
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}, {"isr; hit", "page 2"}},
			[]visit{{"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"RevalidateTag, never stale": {
			isr.Route{StaleWhileRevalidate: -1},
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "mine") },
			[]visit{{"isr; fwd=stale; stored", "page 2"}},
			[]visit{{"isr; fwd=stale; fwd-status=500; detail=stale-if-error", "page 1"}, {"isr; hit; ttl=0; detail=stale", "page 1"}},
		},
		"Purge": {
			isr.Route{},
			func(s *isr.Site) error { return s.Purge(context.Background(), "/a") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"PurgeTag": {
			isr.Route{},
			func(s *isr.Site) error { return s.PurgeTag(context.Background(), "mine") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"the strongest counts": {
			isr.Route{},
			func(s *isr.Site) error {
				s.PurgeTag(context.Background(), "mine")
				return s.RevalidateTag(context.Background(), "mine")
			},
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
		"other tags and paths": {
			isr.Route{},
			func(s *isr.Site) error {
				ctx := context.Background()
				return errors.Join(s.PurgeTag(ctx, "min", "mine2", "a"), s.Purge(ctx, "/a/", "/", "/A", "/a?x=y", "http://example.org/a"))
			},
			[]visit{{"isr; hit", "page 1"}},
			[]visit{{"isr; hit", "page 1"}},
		},
		"another spelling of the path": {
			isr.Route{},
			func(s *isr.Site) error { return s.Purge(context.Background(), "/%61") },
			[]visit{{"isr; fwd=uri-miss; stored", "page 2"}},
			[]visit{{"isr; fwd=uri-miss; fwd-status=500", "error 2"}},
		},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, failing %v", name, fails), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					down := false
					c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
						if down {
							w.WriteHeader(500)
							fmt.Fprint(w, "error ", n)
							return
						}
						w.Header().Set("Cache-Tag", "its, more")
						fmt.Fprint(w, "page ", n)
					}}
					test.route.Tags = []string{"mine"}
					site := isr.Wrap(c, isr.Options{Default: test.route})
					get(site, "/a")
					down = fails
					if err := test.invalidate(site); (err != nil) != (fails && strings.HasPrefix(name, "Revalidate,") || fails && name == "Revalidate") {
						t.Errorf("error %v", err)
					}
					want := test.healthy
					if fails {
						want = test.failing
					}
					for i, want := range want {
						res := get(site, "/a")
						synctest.Wait()
						if got := (visit{res.Header.Get("Cache-Status"), read(res)}); got != want {
							t.Errorf("visit %d: got %q, want %q", i, got, want)
						}
					}
				})
			})
		}
	}
}

// A path stands for all its variants, a path with a query for that one, a whole
// URL for its host.
func TestRevalidateVariants(t *testing.T) {
	visitors := map[string]*http.Request{
		"plain":  httptest.NewRequest("GET", "/p", nil),
		"q=1":    httptest.NewRequest("GET", "/p?q=1", nil),
		"q=2":    httptest.NewRequest("GET", "/p?utm=x&q=2", nil),
		"german": httptest.NewRequest("GET", "/p", nil),
		"other":  httptest.NewRequest("GET", "/p", nil),
		"secure": httptest.NewRequest("GET", "/p", nil),
	}
	visitors["german"].Header.Set("Accept-Language", "de")
	visitors["other"].Host = "EXAMPLE.org"
	visitors["secure"].Header.Set("X-Forwarded-Proto", "https")
	for _, test := range []struct {
		origin, name string
		want         []string
	}{
		{"", "/p", []string{"german", "other", "plain", "q=1", "q=2", "secure"}},
		{"", "/p?", []string{"german", "other", "plain", "q=1", "q=2", "secure"}},
		{"", "/p?q=1&utm=y", []string{"q=1"}},
		{"", "/p?utm=y", []string{"german", "other", "plain", "secure"}}, // as the key is: without a query
		{"", "http://example.com/p", []string{"german", "plain", "q=1", "q=2"}},
		{"", "http://EXAMPLE.ORG/p", []string{"other"}},
		{"", "https://example.com/p", []string{"secure"}},
		{"", "http://example.com/p?q=2", []string{"q=2"}},
		{"http://example.com", "/p", []string{"german", "plain", "q=1", "q=2"}},
		{"http://example.com", "http://example.com/p", []string{"german", "plain", "q=1", "q=2"}},
		{"http://example.com", "/p?q=1", []string{"q=1"}},
		{"", "/none", nil},
	} {
		for _, purge := range []bool{false, true} {
			c := new(cms)
			site := isr.Wrap(c, isr.Options{Origin: test.origin, Default: isr.Route{Query: []string{"q"}, Vary: []string{"Accept-Language"}}})
			visit := func() map[string]string {
				m := make(map[string]string)
				for name, r := range visitors {
					w := httptest.NewRecorder()
					site.ServeHTTP(w, r)
					m[name] = w.Body.String()
				}
				return m
			}
			before := visit()
			runs := c.calls.Load()
			call := site.Revalidate
			if purge {
				call = site.Purge
			}
			if err := call(t.Context(), test.name); err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			if got := c.calls.Load() - runs; !purge && test.want != nil && got != int64(len(test.want)) {
				t.Errorf("Revalidate %s, origin %q: %d runs, want %d", test.name, test.origin, got, len(test.want))
			}
			var changed []string
			for name, after := range visit() {
				if after != before[name] && !(test.origin != "" && (name == "other" || name == "secure")) {
					changed = append(changed, name)
				}
			}
			slices.Sort(changed)
			if diff := cmp.Diff(test.want, changed); diff != "" {
				t.Errorf("%s, origin %q, purge %v: changed (-want +got):\n%s", test.name, test.origin, purge, diff)
			}
		}
	}
}

// Where routes go by host, a bare path with a query stands for all of the path: one
// cannot know what of the query counts.
func TestRevalidateHosts(t *testing.T) {
	for _, purge := range []bool{false, true} {
		site := isr.Wrap(new(cms), isr.Options{Routes: map[string]isr.Route{"example.com/search": {Query: []string{"q"}}}})
		get(site, "/search?q=1&utm=2")
		call := site.Revalidate
		if purge {
			call = site.Purge
		}
		if err := call(t.Context(), "/search?q=1&utm=2"); err != nil {
			t.Fatal(err)
		}
		if got := body(site, "/search?q=1&utm=3"); got != "page 2" {
			t.Errorf("purge %v: got %q", purge, got)
		}
	}
}

// A handler that changes its data after the header, and panics then, has changed it.
func TestPanicAfterChange(t *testing.T) {
	data := 1
	var site *isr.Site
	site = isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(200)
			get(site, "/") // someone asks in between
			data = 2
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "data ", data)
	}), isr.Options{})
	get(site, "/")
	if v := recovered(func() { do(site, "POST", "/") }); v != http.ErrAbortHandler {
		t.Fatalf("panic %v", v)
	}
	if got := body(site, "/"); got != "data 2" {
		t.Errorf("got %q", got)
	}
}

// A path that is not stored is generated where its host is known.
func TestRevalidateUnknown(t *testing.T) {
	for _, test := range []struct {
		origin, name string
		want         int64
	}{
		{"https://example.com", "/new", 1},
		{"", "https://example.com/new", 1},
		{"", "/new", 0},
		{"https://example.com", "/account/", 0},
	} {
		c := new(cms)
		site := isr.Wrap(c, isr.Options{Origin: test.origin, Routes: map[string]isr.Route{"/account/": {Bypass: isr.Always}}})
		if err := site.Revalidate(t.Context(), test.name); err != nil {
			t.Error(err)
		}
		if got := c.calls.Load(); got != test.want {
			t.Errorf("%s, origin %q: %d runs, want %d", test.name, test.origin, got, test.want)
		}
	}
}

// Bad paths and tags are errors that name them, and change nothing.
func TestBadNames(t *testing.T) {
	c := new(cms)
	site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Default: isr.Route{Tags: []string{"t"}}})
	get(site, "/")
	ctx := t.Context()
	for _, test := range []struct {
		name string
		want string // part of the error
	}{
		{"", `"": want a path`},
		{"blog", `"blog": want a path that begins with "/"`},
		{"./blog", `"./blog": want a path`},
		{"/a#b", `"/a#b": has a fragment`},
		{"/%zz", `"/%zz": invalid URL escape "%zz"`},
		{"/a\nb", `"/a\nb": net/url: invalid control character`},
		{"ftp://example.com/", `"ftp://example.com/": want a path`},
		{"https:///a", `"https:///a": want a path`},
		{"https://example.org/", `"https://example.org/": is not at Options.Origin, https://example.com`},
		{"mailto:me", `"mailto:me": want a path`},
	} {
		for verb, call := range map[string]func(context.Context, ...string) error{"Revalidate": site.Revalidate, "Purge": site.Purge} {
			if err := call(ctx, "/", test.name); err == nil || !strings.Contains(err.Error(), "isr: path "+test.want) {
				t.Errorf("%s %q: error %v, want %s", verb, test.name, err, test.want)
			}
		}
		for path, err := range site.Prerender(ctx, slices.Values([]string{test.name})) {
			if err == nil || path != test.name {
				t.Errorf("Prerender %q: error %v", path, err)
			}
		}
	}
	for _, tag := range []string{"", "a,b", "a\x00", " a", strings.Repeat("x", 257)} {
		for verb, call := range map[string]func(context.Context, ...string) error{"RevalidateTag": site.RevalidateTag, "PurgeTag": site.PurgeTag} {
			if err := call(ctx, "t", tag); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("isr: tag %q: ", tag)) {
				t.Errorf("%s %q: error %v", verb, tag, err)
			}
		}
	}
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" || c.calls.Load() != 1 {
		t.Errorf("the page was changed: %q", got)
	}
}

// A gated cms reads its data, waits until it is let through, and answers with
// what it has read.
type gated struct {
	data  atomic.Int64
	gates chan chan bool // each run's, in order
}

func newGated() *gated { return &gated{gates: make(chan chan bool, 100)} }

func (g *gated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		g.data.Add(1)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	read := g.data.Load()
	gate := make(chan bool)
	g.gates <- gate
	<-gate
	w.Header().Set("Cache-Tag", "found-on-the-way")
	fmt.Fprint(w, "data ", read)
}

// The fence: whoever asks after an invalidation gets a run that started after
// it, never one already on its way, and what was on its way does not stay.
func TestFence(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		regenerate bool // whether it waits for a run of its own
	}{
		"Revalidate":             {func(s *isr.Site) error { return s.Revalidate(ctx, "/") }, true},
		"RevalidateTag":          {func(s *isr.Site) error { return s.RevalidateTag(ctx, "t") }, false},
		"Purge":                  {func(s *isr.Site) error { return s.Purge(ctx, "/") }, false},
		"PurgeTag":               {func(s *isr.Site) error { return s.PurgeTag(ctx, "t") }, false},
		"a tag of the handler's": {func(s *isr.Site) error { return s.PurgeTag(ctx, "found-on-the-way") }, false},
		"POST": {func(s *isr.Site) error {
			if got := do(s, "POST", "/").StatusCode; got != 204 {
				return fmt.Errorf("status %d", got)
			}
			return nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGated()
				site := isr.Wrap(g, isr.Options{Origin: "http://example.com", Default: isr.Route{Tags: []string{"t"}}})
				var before, after string
				var all sync.WaitGroup
				all.Go(func() { before = body(site, "/") })
				synctest.Wait()
				first := <-g.gates

				g.data.Store(100)
				if name == "POST" {
					g.data.Store(99)
				}
				if test.regenerate {
					all.Go(func() {
						if err := test.invalidate(site); err != nil {
							t.Error(err)
						}
					})
				} else if err := test.invalidate(site); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				all.Go(func() { after = body(site, "/") })
				synctest.Wait()
				if n := len(g.gates); n != 0 {
					t.Errorf("%d runs at once", n+1)
				}
				close(first)
				synctest.Wait()
				if before != "data 0" || after != "" {
					t.Errorf("who asked before got %q, who asked after %q already", before, after)
				}
				close(<-g.gates)
				all.Wait()
				if before != "data 0" || after != "data 100" {
					t.Errorf("who asked before got %q, who asked after %q", before, after)
				}
				synctest.Wait()
				if got := body(site, "/"); got != "data 100" {
					t.Errorf("what was on its way stayed: %q", got)
				}
				if n := len(g.gates); n != 0 {
					t.Errorf("%d runs too many", n)
				}
			})
		})
	}
}

// What was invalidated while it was generated is not stored as fresh.
func TestStaleOnArrival(t *testing.T) {
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		state      isr.State
		stored     int
	}{
		"tag":   {func(s *isr.Site) error { return s.RevalidateTag(t.Context(), "found-on-the-way") }, isr.Stale, 1},
		"POST":  {func(s *isr.Site) error { do(s, "POST", "/"); return nil }, isr.Expired, 1},
		"purge": {func(s *isr.Site) error { return s.Purge(t.Context(), "/") }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGated()
				site := isr.Wrap(g, isr.Options{})
				var res *http.Response
				go func() { res = get(site, "/") }()
				synctest.Wait()
				if err := test.invalidate(site); err != nil {
					t.Fatal(err)
				}
				close(<-g.gates)
				synctest.Wait()
				if got := res.Header.Get("Cache-Control"); got != "public, max-age=0, must-revalidate" {
					t.Errorf("who asked before got Cache-Control %q", got)
				}
				stored := pages(site)
				if site.Stats().Pages != test.stored || len(stored) != test.stored || test.stored > 0 && stored["/"].State != test.state {
					t.Errorf("%d pages stored, %v", len(stored), stored["/"].State)
				}
			})
		})
	}
}

// Failures extend no bound, and neither does invalidating once more.
func TestBoundsOfInvalidated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !healthy {
				w.WriteHeader(500)
			}
		}}
		site := isr.Wrap(c, isr.Options{Default: isr.Route{
			Tags: []string{"t"}, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Minute,
		}})
		get(site, "/")
		healthy = false
		for i := range 7 {
			if err := site.RevalidateTag(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			want := 200
			if i == 6 {
				want = 500
			}
			if got := get(site, "/").StatusCode; got != want {
				t.Errorf("after %d s: %d, want %d", i*10, got, want)
			}
			synctest.Wait()
			time.Sleep(10 * time.Second)
		}
	})
}

// A successful POST, PUT, PATCH or DELETE expires the page at its path, before
// its author can know of it.
func TestUnsafeMethods(t *testing.T) {
	serve := func(status int) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status) }
	}
	for _, test := range []struct {
		name, method, target string
		serve                func(http.ResponseWriter)
		expires              bool
	}{
		{"200", "POST", "/a", serve(200), true},
		{"201", "PUT", "/a", serve(201), true},
		{"204", "DELETE", "/a", serve(204), true},
		{"303", "PATCH", "/a?x=y", serve(303), true},
		{"other spelling", "POST", "/%61", serve(200), true},
		{"write", "POST", "/a", func(w http.ResponseWriter) { io.WriteString(w, "done") }, true},
		{"flush", "POST", "/a", func(w http.ResponseWriter) { http.NewResponseController(w).Flush() }, true},
		{"copy", "POST", "/a", func(w http.ResponseWriter) { io.Copy(w, strings.NewReader("done")) }, true},
		{"silence", "POST", "/a", func(w http.ResponseWriter) {}, true},
		{"103 first", "POST", "/a", func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(200) }, true},
		{"400", "POST", "/a", serve(400), false},
		{"500", "DELETE", "/a", serve(500), false},
		{"another page", "POST", "/b", serve(200), false},
		{"a safe method", "OPTIONS", "/a", serve(200), false},
		{"no path", "POST", "*", serve(200), false},
	} {
		t.Run(test.method+" "+test.name, func(t *testing.T) {
			c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if r.Method != http.MethodGet {
					test.serve(w)
					return
				}
				fmt.Fprint(w, "page ", n)
			}}
			site := isr.Wrap(c, isr.Options{})
			get(site, "/a")
			r := httptest.NewRequest(test.method, "/", nil)
			if test.target == "*" {
				r.URL.Path = "*"
			} else {
				r = httptest.NewRequest(test.method, test.target, nil)
			}
			direct := httptest.NewRecorder()
			test.serve(direct)
			w := httptest.NewRecorder()
			site.ServeHTTP(w, r)
			if w.Code != direct.Code || w.Body.String() != direct.Body.String() || w.Flushed != direct.Flushed {
				t.Errorf("the visitor got %d %q, want %d %q", w.Code, w.Body, direct.Code, direct.Body)
			}
			want := "page 1"
			if test.expires {
				want = "page 3"
			}
			if got := body(site, "/a"); got != want {
				t.Errorf("then %q, want %q", got, want)
			}
		})
	}
}

// What goes over a connection that was taken over is not for isr to know.
func TestHijackedPost(t *testing.T) {
	c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		if r.Method == http.MethodPost {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
	}}
	site := isr.Wrap(c, isr.Options{})
	get(site, "/")
	site.ServeHTTP(hijackable{httptest.NewRecorder()}, httptest.NewRequest("POST", "/", nil))
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("Cache-Status %q", got)
	}
}

type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, other := net.Pipe()
	return conn, nil, other.Close()
}

func TestRevalidateContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(10 * time.Second)
			fmt.Fprint(w, "page ", n)
		}}
		site := isr.Wrap(c, isr.Options{})
		get(site, "/")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Revalidate(ctx, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if got := get(site, "/"); got.Header.Get("Cache-Status") != "isr; hit" || read(got) != "page 2" {
			t.Errorf("the run did not go on: %v", got.Header)
		}
	})
}

// A failure from before a page was changed says nothing of what comes after: its
// author does not get the old page.
func TestFailureBeforeChange(t *testing.T) {
	for name, early := range map[string]bool{"failed before": true, "began before": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fails := false
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if fails && r.Method == http.MethodGet {
						time.Sleep(time.Second)
						w.WriteHeader(500)
					}
					fmt.Fprint(w, "page ", n)
				}}
				site := isr.Wrap(c, isr.Options{Default: isr.Route{TTL: time.Second}})
				get(site, "/")
				fails = true
				time.Sleep(time.Second)
				get(site, "/")
				synctest.Wait()
				if early {
					time.Sleep(time.Second)
				}
				fails = false
				do(site, "POST", "/")
				if !early {
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if got := body(site, "/"); got != "page 4" {
					t.Errorf("the author got %q", got)
				}
			})
		})
	}
}

// A caller who has gone does not start what he cannot wait for.
func TestRevalidateGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(10 * time.Second) }}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 2})
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() { get(site, fmt.Sprint("/?", i)) })
		}
		all.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := site.Revalidate(ctx, "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		if got := c.calls.Load(); got != 52 {
			t.Errorf("%d runs, want 50 and 2", got)
		}
		time.Sleep(10 * time.Second)
	})
}

// However many variants of a page strangers have thought of, Revalidate generates
// the plain page, the one that is named, and those that visitors ask for, a few at a
// time; none of the others is shown any more.
func TestRevalidateManyVariants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		var mu sync.Mutex
		var made []string
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			mu.Lock()
			made = append(made, r.URL.RawQuery)
			mu.Unlock()
			most.Store(max(most.Load(), running.Add(1)))
			time.Sleep(time.Second)
			running.Add(-1)
			fmt.Fprintf(w, "page %d", n)
		}}
		site := isr.Wrap(c, isr.Options{MaxRegenerations: 3, Origin: "http://example.com"})
		visit := func(times, from, to int) {
			for i := from; i < to; i++ {
				for range times {
					get(site, fmt.Sprintf("/?n=%d", i))
					time.Sleep(time.Second)
				}
			}
		}
		visit(100, 0, 10) // of yesterday
		time.Sleep(24 * time.Hour)
		get(site, "/")
		visit(2, 10, 50)
		visit(7, 50, 66) // the most wanted
		visit(1, 66, 90)
		made = nil
		if err := site.Revalidate(t.Context(), "/", "/?n=5", "/"); err != nil {
			t.Error(err)
		}
		want := []string{"", "n=5"}
		for i := 50; i < 66; i++ {
			want = append(want, fmt.Sprintf("n=%d", i))
		}
		if first := slices.Sorted(slices.Values(made[:3])); first[0] != "" || first[1] != "n=5" && first[2] != "n=5" {
			t.Errorf("first %q is made, want what is named", made[:3])
		}
		slices.Sort(made)
		slices.Sort(want)
		if diff := cmp.Diff(want, made); diff != "" || most.Load() > 3 {
			t.Errorf("%d at a time; want 3 (-want +got):\n%s", most.Load(), diff)
		}
		made = nil
		visit(1, 0, 90)
		if len(made) != 90-17 {
			t.Errorf("%d others are made when they are asked for, want %d", len(made), 90-17)
		}
	})
}

// A CMS that names a path without its last slash, or with one too many, renews the
// page that is meant, where the site says by a redirect which that is.
func TestRevalidateFollowsTheSlash(t *testing.T) {
	for status, header := range map[int]string{301: "", 308: "", 302: "", 307: "max-age=60", 303: "private"} {
		var log bytes.Buffer
		var v atomic.Int64
		c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			to := ""
			switch r.URL.Path {
			case "/a", "/elsewhere":
				to = "/a/"
			case "/b/":
				to = "http://example.com/b?x=y"
			case "/foreign":
				to = "http://example.org/foreign/"
			case "/login":
				to = "/login"
			case "/circle":
				to = "circle/"
			case "/circle/":
				to = "../circle"
			default:
				fmt.Fprintf(w, "v%d", v.Load())
				return
			}
			w.Header().Set("Location", to)
			if header != "" {
				w.Header().Set("Cache-Control", header)
			}
			w.WriteHeader(status)
		}}
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		for i, test := range []struct {
			named, page string
			renewed     bool
		}{
			{"/a", "/a/", true}, {"/b/", "/b", true}, {"http://example.com/a", "/a/", true},
			{"/elsewhere", "/a/", false}, {"/foreign", "/foreign/", false},
			{"/login", "/a/", false}, {"/circle", "/a/", false},
		} {
			was := body(site, test.page)
			v.Store(int64(i + 1))
			if err := site.Revalidate(t.Context(), test.named); err != nil {
				t.Errorf("%d: %s: %v", status, test.named, err)
			}
			if got := body(site, test.page); (got != was) != test.renewed {
				t.Errorf("%d: after %s, %s is %s and was %s", status, test.named, test.page, got, was)
			}
		}
		if !strings.Contains(log.String(), fmt.Sprintf(`level=WARN msg="isr: a path was revalidated that was not stored and has no page" path=/elsewhere route="" status=%d`, status)) {
			t.Errorf("%d: the log does not say that there is no page:\n%s", status, &log)
		}
	}
}

// A page with more tags than are kept one by one is found by each of them, whether the
// route or the handler names it, also in a Store. Others pay with a renewal for what
// is not theirs only where they, too, have too many.
func TestPageOfManyTags(t *testing.T) {
	names := func(from, to int) (tags []string) {
		for i := from; i < to; i++ {
			tags = append(tags, fmt.Sprintf("tag-%d", i))
		}
		return tags
	}
	c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		switch r.URL.Path {
		case "/handler":
			w.Header().Set("Cache-Tag", strings.Join(names(0, 300), ", "))
		case "/both":
			w.Header().Set("Cache-Tag", strings.Join(names(90, 300), ", "))
		case "/few":
			w.Header().Set("Cache-Tag", strings.Join(names(0, 128), ", "))
		}
		fmt.Fprintf(w, "page %d", n)
	}}
	st := memory.New()
	open := func() *isr.Site {
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Store: st, Version: "1", Routes: map[string]isr.Route{
			"/route": {Tags: names(0, 300)}, "/both": {Tags: names(0, 100)},
		}})
		t.Cleanup(func() { site.Shutdown(context.Background()) })
		return site
	}
	site := open()
	was := make(map[string]string)
	paths := []string{"/route", "/both", "/handler", "/few"}
	for i, tag := range append(names(0, 300), "none") {
		for _, path := range paths {
			was[path] = body(site, path)
			if i == 0 {
				for p := range site.Pages() {
					if p.Path == path && (len(p.Tags) != 64 && path != "/few" || !slices.Equal(p.Tags, names(0, len(p.Tags)))) {
						t.Errorf("%s has the tags %q", path, p.Tags)
					}
				}
			}
		}
		if err := site.PurgeTag(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			got, want := body(site, path) != was[path], i < 300 && (path != "/few" || i < 128)
			if got != want && (want || path == "/few") {
				t.Errorf("%s after a purge of %s: new %v, want %v", path, tag, got, want)
			}
		}
	}
	site.Shutdown(t.Context()) // what it has is in the Store
	other := open()
	for _, path := range paths[:3] {
		if got := get(other, path).Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("%s: %q, want a hit from the Store", path, got)
		}
	}
	other.PurgeTag(t.Context(), "tag-299")
	for _, path := range paths[:3] {
		if got := get(other, path).Header.Get("Cache-Status"); got == "isr; hit" {
			t.Errorf("%s is there after a purge", path)
		}
	}
	for _, err := range []error{
		site.RevalidateTag(t.Context(), "\x00~07"), site.PurgeTag(t.Context(), "a", "/a"),
	} {
		if err == nil {
			t.Error("a bucket or a path passes for a tag")
		}
	}
}

// What is purged stays so, and what is not is not, however many other tags there are.
func TestManyTags(t *testing.T) {
	c := new(cms)
	site := isr.Wrap(c, isr.Options{Routes: map[string]isr.Route{"/gone": {Tags: []string{"gone"}}}})
	get(site, "/old")
	get(site, "/gone")
	if err := site.PurgeTag(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		if err := site.RevalidateTag(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(site, "/gone").Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
		t.Errorf("what was purged: %q", got)
	}
	get(site, "/new")
	var very []string
	for i := range 70_000 {
		very = append(very, fmt.Sprint("/path/", i))
	}
	if err := site.Purge(t.Context(), very...); err != nil { // more than it remembers, in one go
		t.Fatal(err)
	}
	if got := get(site, "/new").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("what is newer than all that was forgotten: %q", got)
	}
}

// Invalidations cost only the pages that they concern, however many there are, while a
// slow page is being made, and where another instance makes them.
func TestInvalidationsOfOthers(t *testing.T) {
	for name, fleets := range map[string]bool{"alone": false, "in a fleet": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var second store.Store
				if fleets {
					second = memory.New()
				}
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.URL.Path == "/slow" {
						time.Sleep(20 * time.Second)
					}
				}}
				in := fleet(t, second, isr.Options{MaxBytes: 16 << 20, Default: isr.Route{TTL: time.Hour}})
				site := in.start(&c)
				purger := site
				if second != nil {
					purger = in.start(&c)
				}
				const pages = 1000
				for i := range pages {
					get(site, fmt.Sprintf("/%d", i))
				}
				site.Purge(t.Context(), "/0") // an old purge makes nobody else's page go
				purge := func(n, from int) {
					for i := range n {
						if err := purger.Purge(t.Context(), fmt.Sprintf("/other/%d", from+i)); err != nil {
							t.Fatal(err)
						}
						if i%1000 == 0 {
							synctest.Wait()
						}
					}
				}
				purge(30_000, 0)
				go get(site, "/slow")
				time.Sleep(time.Second)
				purge(4000, 30_000)
				if err := purger.Purge(t.Context(), "/1"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				purge(30_000, 34_000)
				synctest.Wait()
				hits := site.Stats().Hits
				for i := 2; i < pages; i++ {
					get(site, fmt.Sprintf("/%d", i))
				}
				get(site, "/slow")
				if n := site.Stats().Hits - hits; n != pages-1 {
					t.Errorf("%d hits for %d pages that nobody has purged", n, pages-1)
				}
				for i := range 2 {
					if got := get(site, fmt.Sprintf("/%d", i)).Header.Get("Cache-Status"); strings.HasPrefix(got, "isr; hit") {
						t.Errorf("/%d was purged: %q", i, got)
					}
				}
			})
		})
	}
}

func TestRevalidateHandler(t *testing.T) {
	const secret = "correct horse battery staple"
	for _, f := range []func(){
		func() { isr.RevalidateHandler(isr.Wrap(new(cms), isr.Options{}), "") },
		func() { isr.RevalidateHandler(nil, secret) },
	} {
		if recovered(f) == nil {
			t.Error("no panic")
		}
	}
	type request struct {
		method, target, contentType, body string
		bearer                            string
	}
	const (
		ok      = `{"revalidated":true}`
		a       = `{"revalidated":true,"pages":{"/a":1}}`
		b       = `{"revalidated":true,"pages":{"/b":1}}`
		ab      = `{"revalidated":true,"pages":{"/a":1,"/b":1}}`
		invalid = `{"message":"Invalid token"}`
		query   = "?secret=correct+horse+battery+staple"
	)
	for name, test := range map[string]struct {
		request request
		status  int
		answer  string
		renewed string // the paths that are shown anew
	}{
		"POST path":             {request{"POST", "?path=/a", "", "", secret}, 200, a, "/a"},
		"GET path":              {request{"GET", "?path=/a&path=/b", "", "", secret}, 200, ab, "/a /b"},
		"secret in the query":   {request{"GET", query + "&path=/a", "", "", ""}, 200, a, "/a"},
		"tag":                   {request{"POST", "?tag=ta", "", "", secret}, 200, ok, "/a"},
		"tags and path":         {request{"POST", "?tag=ta&tag=none&path=/b", "", "", secret}, 200, b, "/a /b"},
		"form":                  {request{"POST", "?path=/a", "application/x-www-form-urlencoded; charset=utf-8", "path=/b&tag=none", secret}, 200, ab, "/a /b"},
		"JSON":                  {request{"POST", "", "application/json", `{"paths": ["/a", "/b"], "tags": ["none"], "event": {"id": 1}}`, secret}, 200, ab, "/a /b"},
		"DELETE path":           {request{"DELETE", "?path=/a", "", "", secret}, 200, a, "/a"},
		"DELETE JSON":           {request{"DELETE", "", "application/json", `{"tags": ["tb"]}`, secret}, 200, ok, "/b"},
		"query of the path":     {request{"POST", "?path=/a?x=private-part&path=/a", "", "", secret}, 200, `{"revalidated":true,"pages":{"/a":1,"/a?x=private-part":0}}`, "/a"},
		"whole URL":             {request{"POST", "?path=https://example.com/a", "", "", secret}, 200, `{"revalidated":true,"pages":{"https://example.com/a":1}}`, "/a"},
		"payload of its own":    {request{"POST", "?path=/a", "text/plain", "whatever", secret}, 200, a, "/a"},
		"a CMS's own JSON":      {request{"POST", "?path=/a", "application/json", `{"id": 1, "tags": ["tb", ""]}`, secret}, 200, a, "/a"},
		"not stored":            {request{"POST", "?path=/c&tag=ta", "", "", secret}, 200, `{"revalidated":true,"pages":{"/c":0}}`, "/a"},
		"DELETE what is gone":   {request{"DELETE", "?path=/c&path=/a&tag=ta", "", "", secret}, 200, `{"revalidated":true,"pages":{"/a":1,"/c":0}}`, "/a"},
		"no secret":             {request{"POST", "?path=/a", "", "", ""}, 401, invalid, ""},
		"wrong bearer":          {request{"POST", "?path=/a", "", "", "wrong"}, 401, invalid, ""},
		"secret in the form":    {request{"POST", "?path=/a", "application/x-www-form-urlencoded", "secret=" + secret, ""}, 401, invalid, ""},
		"nothing named":         {request{"POST", "", "", "", secret}, 400, `{"message":"name a path or a tag"}`, ""},
		"a bad path":            {request{"POST", "?path=/a&path=b", "", "", secret}, 400, `{"message":"isr: path \"b\": want a path that begins with \"/\", or a whole URL"}`, ""},
		"a bad tag":             {request{"POST", "?path=/a&tag=", "", "", secret}, 400, `{"message":"isr: tag \"\": a tag is not empty"}`, ""},
		"a bad tag, purging":    {request{"DELETE", "?path=/a&tag=", "", "", secret}, 400, `{"message":"isr: tag \"\": a tag is not empty"}`, ""},
		"no JSON":               {request{"POST", "", "application/json", "{", secret}, 400, `{"message":"want JSON such as {\"paths\": [\"/blog/1\"], \"tags\": [\"blog\"]}: unexpected end of JSON input"}`, ""},
		"too large":             {request{"POST", "?path=/a", "application/json", strings.Repeat(" ", 1<<20+1), secret}, 413, `{"message":"Body is larger than 1048576 bytes"}`, ""},
		"PUT":                   {request{"PUT", "?path=/a", "", "", secret}, 405, `{"message":"Method not allowed"}`, ""},
		"HEAD":                  {request{"HEAD", "?path=/a", "", "", secret}, 405, `{"message":"Method not allowed"}`, ""},
		"failing":               {request{"POST", "?path=/fails&path=/a", "", "", secret}, 500, `{"message":"Error revalidating"}`, "/a"},
		"failing, with reasons": {request{"GET", query + "&path=/fails", "", "", ""}, 500, `{"message":"Error revalidating"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				down := false
				c := &cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					w.Header().Set("Cache-Tag", "t"+r.URL.Path[1:])
					if down && r.URL.Path == "/fails" {
						http.Error(w, "no database", 500)
						return
					}
					fmt.Fprint(w, "page ", n)
				}}
				site := isr.Wrap(c, isr.Options{
					Origin: "https://example.com",
					Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
				})
				h := isr.RevalidateHandler(site, secret)
				paths := []string{"/a", "/b", "/fails"}
				before := make(map[string]string)
				for _, path := range paths {
					before[path] = body(site, path)
				}
				down = true
				r := httptest.NewRequest(test.request.method, "/api/revalidate"+test.request.target, strings.NewReader(test.request.body))
				if test.request.contentType != "" {
					r.Header.Set("Content-Type", test.request.contentType)
				}
				if test.request.bearer != "" {
					r.Header.Set("Authorization", "bearer "+test.request.bearer)
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				res := w.Result()
				if got := strings.TrimSpace(read(res)); res.StatusCode != test.status || got != test.answer {
					t.Errorf("got %d %s\nwant %d %s", res.StatusCode, got, test.status, test.answer)
				}
				if res.Header.Get("Content-Type") != "application/json" || res.Header.Get("Cache-Control") != "no-store" ||
					(res.StatusCode == 405) != (res.Header.Get("Allow") == "DELETE, GET, POST") {
					t.Errorf("header %v", res.Header)
				}
				synctest.Wait()
				logged := log.String()
				var renewed []string
				for _, path := range paths {
					body(site, path) // a stale one is shown once more
					synctest.Wait()
					if body(site, path) != before[path] {
						renewed = append(renewed, path)
					}
				}
				if got := strings.Join(renewed, " "); got != test.renewed {
					t.Errorf("renewed %q, want %q", got, test.renewed)
				}
				if res.StatusCode == 500 && !strings.Contains(logged, "isr: revalidate /fails: the handler answered 500 Internal Server Error") {
					t.Errorf("the log does not say why:\n%s", logged)
				}
				for _, s := range []string{secret, secret[:10], "correct+horse", "private-part"} {
					if strings.Contains(logged+fmt.Sprint(res.Header), s) {
						t.Errorf("the secret is in the log or in the header")
					}
				}
			})
		})
	}
}

// No data read before an acknowledged invalidation is served to whoever asks
// after it: visitors, editors and the clock all at once, against an oracle.
func TestOracle(t *testing.T) {
	const (
		docs    = 8
		minutes = 20
	)
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			random := func(i uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, i)) }
			var data, acknowledged [docs]atomic.Int64 // versions
			var stop atomic.Bool
			var served atomic.Int64
			handlerRandom, mu := random(1000), sync.Mutex{}
			think := func() {
				mu.Lock()
				d := time.Duration(handlerRandom.IntN(3000)) * time.Millisecond
				mu.Unlock()
				time.Sleep(d)
			}
			site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				doc, _ := strconv.Atoi(r.URL.Path[1:])
				if r.Method == http.MethodPost {
					data[doc].Add(1)
					return
				}
				think()
				version := data[doc].Load()
				think()
				mu.Lock()
				fate := handlerRandom.IntN(10)
				mu.Unlock()
				switch {
				case fate == 0:
					w.WriteHeader(500)
				case fate == 1:
					panic("no database")
				case fate == 2 && doc == 0:
					w.Header().Set("Cache-Control", "private")
				}
				w.Header().Set("Cache-Tag", fmt.Sprint("doc-", doc))
				fmt.Fprint(w, version)
			}), isr.Options{
				Origin: "http://example.com", MaxRegenerations: 2,
				MaxBytes: 10_000, // some are evicted
				Default:  isr.Route{TTL: 5 * time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: -1, Timeout: 5 * time.Second},
			})
			var all sync.WaitGroup
			for i := range uint64(6) { // visitors
				rnd := random(i)
				all.Go(func() {
					for !stop.Load() {
						doc := rnd.IntN(docs)
						floor := acknowledged[doc].Load()
						var res *http.Response
						if recovered(func() { res = get(site, fmt.Sprint("/", doc)) }) == nil && res.StatusCode == 200 {
							b := read(res)
							if got, err := strconv.ParseInt(b, 10, 64); err != nil || got < floor {
								t.Errorf("seed %d: /%d shows %q, version %d was acknowledged before; %q", seed, doc, b, floor, res.Header.Get("Cache-Status"))
								return
							}
							served.Add(1)
						}
						time.Sleep(time.Duration(rnd.IntN(500)) * time.Millisecond)
					}
				})
			}
			for i := range uint64(3) { // editors
				rnd := random(100 + i)
				all.Go(func() {
					for !stop.Load() {
						doc := rnd.IntN(docs)
						path := fmt.Sprint("/", doc)
						var version int64
						switch rnd.IntN(4) {
						case 0:
							version = data[doc].Add(1)
							if site.Revalidate(context.Background(), path) != nil {
								version = 0 // not acknowledged
							}
						case 1:
							version = data[doc].Add(1)
							site.Purge(context.Background(), path)
						case 2:
							version = data[doc].Add(1)
							site.PurgeTag(context.Background(), fmt.Sprint("doc-", doc))
						case 3:
							version = data[doc].Load() + 1 // at least
							do(site, "POST", path)
						}
						for a := acknowledged[doc].Load(); version > a && !acknowledged[doc].CompareAndSwap(a, version); a = acknowledged[doc].Load() {
						}
						time.Sleep(time.Duration(rnd.IntN(4000)) * time.Millisecond)
					}
				})
			}
			time.Sleep(minutes * time.Minute)
			stop.Store(true)
			all.Wait()
			if err := site.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
			if served.Load() < 1000 || site.Stats().Hits < 100 || site.Stats().Failed < 100 {
				t.Errorf("seed %d: %d pages served, %+v: this has tried too little", seed, served.Load(), site.Stats())
			}
		})
	}
}

// The same with real threads, for the race detector.
func TestRaces(t *testing.T) {
	var n atomic.Int64
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Tag", "all")
		switch n.Add(1) % 7 {
		case 0:
			w.WriteHeader(500)
		case 1:
			w.Header().Set("Cache-Control", "private")
		}
		io.WriteString(w, strings.Repeat("all work and no play ", 30))
	}), isr.Options{
		Origin: "http://example.com", MaxBytes: 20_000, MaxRegenerations: 2, Observe: func(isr.Event) {},
		Default: isr.Route{TTL: time.Microsecond, Vary: []string{"Accept"}},
	})
	var all sync.WaitGroup
	for i := range uint64(4 * runtime.GOMAXPROCS(0)) {
		rnd := rand.New(rand.NewPCG(i, i))
		all.Go(func() {
			for range 300 {
				path := fmt.Sprint("/", rnd.IntN(10))
				switch rnd.IntN(12) {
				case 0:
					site.Revalidate(t.Context(), path)
				case 1:
					site.RevalidateTag(t.Context(), "all")
				case 2:
					site.Purge(t.Context(), path)
				case 3:
					do(site, "POST", path)
				case 4:
					for range site.Pages() {
					}
					site.Stats()
				case 5:
					for range site.Prerender(t.Context(), slices.Values([]string{path, "/x"})) {
					}
				default:
					get(site, path, "Accept", fmt.Sprint(rnd.IntN(2)), "Accept-Encoding", "gzip")
				}
			}
		})
	}
	all.Wait()
	if err := site.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := site.Stats().Bytes; got > 20_000 {
		t.Errorf("%d bytes", got)
	}
}
