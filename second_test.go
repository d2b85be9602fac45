package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/memory"
)

// instances are Sites with one Store, as the processes of a fleet, or a process and
// the one after its restart.
type instances struct {
	t     *testing.T
	store store.Store
	opts  isr.Options
}

func fleet(t *testing.T, s store.Store, opts isr.Options) *instances {
	return &instances{t, s, opts}
}

// start starts an instance, which ends with the test.
func (in *instances) start(h http.Handler) *isr.Site {
	opts := in.opts
	opts.Store = in.store
	site := isr.Wrap(h, opts)
	in.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		if err := site.Shutdown(ctx); err != nil {
			in.t.Errorf("Shutdown: %v", err)
		}
	})
	synctest.Wait() // until it follows the Store
	return site
}

// bubble runs a test in a bubble, with its cleanups.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestPagesOutliveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		var c cms
		walk(t, in.start(&c), &c, "/", step{body: "page 1", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 1})
		walk(t, in.start(&c), &c, "/",
			step{after: 20 * time.Second, body: "page 1", cache: "isr; hit; ttl=40", age: "20", calls: 1},
			step{after: 41 * time.Second, body: "page 1", cache: "isr; hit; ttl=-1; detail=stale", age: "61", calls: 2},
			step{body: "page 2", cache: "isr; hit; ttl=60", age: "0", calls: 2})
		time.Sleep(61 * time.Second)
		walk(t, in.start(&c), &c, "/",
			step{body: "page 2", cache: "isr; hit; ttl=-1; detail=stale", age: "61", calls: 3},
			step{body: "page 3", cache: "isr; hit; ttl=60", age: "0", calls: 3})
	})
}

// Whatever a page looks like, it comes back from the Store as it was.
func TestPagesComeBackAsTheyWere(t *testing.T) {
	text := strings.Repeat("some words, and some more. ", 100)
	for name, h := range map[string]http.HandlerFunc{
		"html": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			io.WriteString(w, text)
		},
		"empty": func(w http.ResponseWriter, r *http.Request) {},
		"sniffed": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<!doctype html><p>hello")
		},
		"untyped": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, text)
		},
		"validators": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `W/"own"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, text)
		},
		"headers": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Link"] = []string{"</a>; rel=preload", "</b>; rel=preload"}
			w.Header().Set("Cache-Control", "max-age=100, stale-while-revalidate=5, stale-if-error=6")
			w.Header().Set("Cache-Status", "upstream; hit")
			w.Header().Set("Cache-Tag", "a, b")
			w.Header().Set("Vary", "X-Declared")
			io.WriteString(w, "hello")
		},
		"not found": func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"moved": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/there", http.StatusMovedPermanently)
		},
		"its own status": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(http.StatusTeapot)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
					TTL: time.Minute, Vary: []string{"X-Declared"}, VaryCookies: []string{"theme"}, Tags: []string{"all"},
				}})
				before := in.start(h)
				visit := func(site *isr.Site, header ...string) *http.Response {
					return get(site, "/a%2fb/é?q=1&p=%20", append(header, "X-Declared", "x", "Cookie", "theme=dark; session=1")...)
				}
				visit(before)
				time.Sleep(3 * time.Second)
				after := in.start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
					t.Error("the handler was called")
				}))
				for _, header := range [][]string{
					nil, {"Accept-Encoding", "gzip"}, {"Range", "bytes=1-3"}, {"If-None-Match", `W/"own"`},
					{"If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT"},
				} {
					want, got := visit(before, header...), visit(after, header...)
					if diff := cmp.Diff(want.Header, got.Header); diff != "" || got.StatusCode != want.StatusCode {
						t.Errorf("%v: status %d, want %d (-want +got):\n%s", header, got.StatusCode, want.StatusCode, diff)
					}
					if diff := cmp.Diff(read(want), read(got)); diff != "" {
						t.Errorf("%v (-want +got):\n%s", header, diff)
					}
				}
				want, got := slices.Collect(before.Pages()), slices.Collect(after.Pages())
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("Pages (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// What was invalidated before the restart is so afterwards.
func TestInvalidationsOutliveARestart(t *testing.T) {
	for name, test := range map[string]struct {
		invalidate func(*isr.Site) error
		steps      []step
	}{
		"RevalidateTag": {
			func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "all") },
			[]step{
				{status: 200, body: "page 1", cache: "isr; hit; ttl=-1000000; detail=stale", age: "1", calls: 2},
				{status: 200, body: "page 2", cache: "isr; hit; ttl=60", age: "0", calls: 2},
			},
		},
		"Purge": {
			func(s *isr.Site) error { return s.Purge(context.Background(), "/") },
			[]step{{body: "page 2", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 2}},
		},
		"PurgeTag": {
			func(s *isr.Site) error { return s.PurgeTag(context.Background(), "all") },
			[]step{{body: "page 2", cache: "isr; fwd=uri-miss; stored", age: "0", calls: 2}},
		},
		"POST": {
			func(s *isr.Site) error { do(s, "POST", "/"); return nil },
			[]step{{body: "page 3", cache: "isr; fwd=stale; stored", age: "0", calls: 3}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, Tags: []string{"all"}}})
				var c cms
				first := in.start(&c)
				body(first, "/")
				time.Sleep(time.Second)
				if err := test.invalidate(first); err != nil {
					t.Fatal(err)
				}
				second := in.start(&c)
				for i, want := range test.steps {
					res := get(second, "/")
					synctest.Wait()
					cache := res.Header.Get("Cache-Status")
					if strings.HasPrefix(cache, "isr; hit; ttl=-") { // for how long, the second cannot know
						want.cache = cache
					}
					if want.status == 0 {
						want.status = 200
					}
					got := step{0, res.StatusCode, read(res), cache, res.Header.Get("Age"), c.calls.Load()}
					if diff := cmp.Diff(want, got, cmp.AllowUnexported(step{})); diff != "" {
						t.Errorf("step %d (-want +got):\n%s", i, diff)
					}
				}
			})
		})
	}
}

// The bounds of what was invalidated hold after a restart: no instance knows when that
// was, but it was not before the page's own generation began.
func TestBoundsAfterARestart(t *testing.T) {
	for name, test := range map[string]struct {
		route isr.Route
		age   string        // from upstream
		after time.Duration // from the generation to the restart
		want  string
	}{
		"within StaleWhileRevalidate": {isr.Route{StaleWhileRevalidate: time.Minute}, "", 58 * time.Second, "200 isr; hit; ttl=-59; detail=stale"},
		"past StaleWhileRevalidate":   {isr.Route{StaleWhileRevalidate: time.Minute, StaleIfError: -1}, "", 61 * time.Second, "500 isr; fwd=stale; fwd-status=500"},
		"within StaleIfError":         {isr.Route{StaleWhileRevalidate: -1, StaleIfError: time.Hour}, "", 50 * time.Minute, "200 isr; fwd=stale; fwd-status=500; detail=stale-if-error"},
		"past StaleIfError":           {isr.Route{StaleWhileRevalidate: -1, StaleIfError: time.Hour}, "", 61 * time.Minute, "500 isr; fwd=stale; fwd-status=500"},
		"older upstream":              {isr.Route{StaleWhileRevalidate: time.Minute}, "3000", 58 * time.Second, "200 isr; hit; ttl=-59; detail=stale"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				test.route.Tags = []string{"all"}
				in := fleet(t, memory.New(), isr.Options{Default: test.route})
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if n > 1 {
						w.WriteHeader(http.StatusInternalServerError)
						return
					}
					if test.age != "" {
						w.Header().Set("Cache-Control", "s-maxage=3600, stale-while-revalidate=60")
						w.Header().Set("Age", test.age)
					}
					time.Sleep(time.Second)
				}}
				first := in.start(&c)
				get(first, "/")
				time.Sleep(test.after)
				if err := first.RevalidateTag(t.Context(), "all"); err != nil {
					t.Fatal(err)
				}
				res := get(in.start(&c), "/")
				if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Cache-Status")); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		})
	}
}

// What is heard only when the Store is back may have been invalidated right after it
// went away, and counts as stale since then.
func TestInvalidatedWhileTheStoreWasAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Default: isr.Route{StaleWhileRevalidate: time.Minute, StaleIfError: time.Hour}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}}
		one := in.start(&c)
		get(one, "/")
		time.Sleep(3 * time.Hour)
		st.feels(down)
		time.Sleep(50 * time.Minute)
		if _, err := st.Store.Invalidate(t.Context(), store.Stale, "\x00/"); err != nil {
			t.Fatal(err)
		}
		st.feels(nil)
		time.Sleep(5 * time.Second)
		res := get(one, "/")
		if got, want := res.Header.Get("Cache-Status"), "isr; fwd=stale; fwd-status=500; detail=stale-if-error"; got != want {
			t.Errorf("50 minutes later: %q, want %q", got, want)
		}
		time.Sleep(10 * time.Minute)
		if res := get(one, "/"); res.StatusCode != http.StatusInternalServerError {
			t.Errorf("an hour later: %d, %q", res.StatusCode, res.Header.Get("Cache-Status"))
		}
	})
}

// The whole fleet generates a page once, and everybody who waits gets it.
func TestFleetGeneratesOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(300 * time.Millisecond)
			fmt.Fprintf(w, "page %d", n)
		}}
		var sites []*isr.Site
		for range 5 {
			sites = append(sites, in.start(&c))
		}
		for round, want := range []string{"page 1", "page 1", "page 2"} {
			if round > 0 {
				time.Sleep(61 * time.Second)
			}
			for _, site := range sites {
				for range 20 {
					go func() {
						if got := body(site, "/"); got != want {
							t.Errorf("round %d: got %q, want %q", round, got, want)
						}
					}()
				}
			}
			time.Sleep(10 * time.Second) // the first is waited for; then stale ones are served at once
			if got, want := c.calls.Load(), int64(round+1); got != want {
				t.Errorf("round %d: %d calls of the handler, want %d", round, got, want)
			}
		}
	})
}

// A purge on one instance reaches the memory of the others, whatever its kind.
func TestFleetAgrees(t *testing.T) {
	long := "/" + strings.Repeat("long/", 100)
	for name, test := range map[string]struct {
		path string
		do   func(*isr.Site) error
		want string // on the other instance, at once
		then string // and the time after
	}{
		"Revalidate":    {"/", func(s *isr.Site) error { return s.Revalidate(context.Background(), "/") }, "page 2", "page 2"},
		"RevalidateTag": {"/", func(s *isr.Site) error { return s.RevalidateTag(context.Background(), "all") }, "page 1", "page 2"},
		"Purge":         {"/", func(s *isr.Site) error { return s.Purge(context.Background(), "/") }, "page 2", "page 2"},
		"PurgeTag":      {"/", func(s *isr.Site) error { return s.PurgeTag(context.Background(), "all") }, "page 2", "page 2"},
		"of a query":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=1") }, "page 2", "page 2"},
		"of another":    {"/?q=1", func(s *isr.Site) error { return s.Purge(context.Background(), "/?q=2", "/other") }, "page 1", "page 1"},
		"of a long one": {long, func(s *isr.Site) error { return s.Purge(context.Background(), long) }, "page 2", "page 2"},
		"of a whole URL": {"/", func(s *isr.Site) error {
			return s.Purge(context.Background(), "http://example.com/")
		}, "page 2", "page 2"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
					TTL: time.Minute, StaleWhileRevalidate: time.Minute, Tags: []string{"all"},
				}})
				var c cms
				one, other := in.start(&c), in.start(&c)
				time.Sleep(10 * time.Second) // what it hears from now on is not from before its start
				if a, b := body(one, test.path), body(other, test.path); a != "page 1" || b != "page 1" {
					t.Fatalf("before: %q and %q", a, b)
				}
				if err := test.do(one); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for i, want := range []string{test.want, test.then} {
					if got := body(other, test.path); got != want {
						t.Errorf("visit %d: got %q, want %q", i, got, want)
					}
					time.Sleep(time.Second)
				}
				body(one, test.path) // which may be stale for the last time
				synctest.Wait()
				if a, b := body(one, test.path), body(other, test.path); a != b {
					t.Errorf("%q here, %q there", a, b)
				}
			})
		})
	}
}

// The author of a change sees it, whichever instance he comes to.
func TestFleetSeesAPost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{
			Default: isr.Route{TTL: time.Minute},
			Routes:  map[string]isr.Route{"/api/": {Bypass: isr.Always}},
		})
		st := &moody{Store: in.store}
		in.store = st
		var c cms
		one, other := in.start(&c), in.start(&c)
		body(other, "/post")
		do(one, "POST", "/post") // which one knows nothing of
		synctest.Wait()
		if got := body(other, "/post"); got != "page 3" {
			t.Errorf("after the POST: %q", got)
		}
		before := st.count("invalidate")
		do(one, "POST", "/api/track")
		synctest.Wait()
		if n := st.count("invalidate") - before; n != 0 {
			t.Errorf("a POST to what is never stored invalidated %d times", n)
		}
		st.feels(hung(t))
		begin := time.Now()
		do(one, "POST", "/post")
		if took := time.Since(begin); took > 100*time.Millisecond {
			t.Errorf("with a hung store the POST took %v", took)
		}
		if got := body(one, "/post"); got == "page 3" {
			t.Error("the author does not see what he has changed")
		}
	})
}

// What was generated across a purge is stale on arrival, in every instance.
func TestFleetStaleOnArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Tags: []string{"all"}}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		first := make(chan string)
		go func() { first <- body(one, "/") }()
		time.Sleep(time.Second)
		if err := other.PurgeTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		if got := body(other, "/"); got != "page 2" {
			t.Errorf("after the purge, elsewhere: %q", got)
		}
		synctest.Wait()
		if got := body(one, "/"); got != "page 2" {
			t.Errorf("after the purge, where it was being generated: %q", got)
		}
		<-first
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when all is over: %q", got)
			}
		}
	})
}

// Who comes after a purge gets a page that was made after it, from the run behind the
// one that began before it, though that has the lease.
func TestPurgeWhileLeading(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n == 1 {
				time.Sleep(10 * time.Second)
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		go body(site, "/")
		synctest.Wait()
		site.Purge(t.Context(), "/")
		begin := time.Now()
		if got := body(site, "/"); got != "page 2" || time.Since(begin) < 10*time.Second {
			t.Errorf("got %q after %v", got, time.Since(begin))
		}
		synctest.Wait()
		for _, site := range []*isr.Site{site, in.start(&c)} {
			if got := body(site, "/"); got != "page 2" {
				t.Errorf("when the first has come to its end: %q", got)
			}
		}
	})
}

// Whoever waits for another instance does so for two seconds at most; whoever does
// not wait is not made to.
func TestLeaderThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: 20 * time.Second, Timeout: time.Minute}})
		release := make(chan struct{})
		stuck := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { <-release }}
		var c cms
		one, other := in.start(&stuck), in.start(&c)
		go body(one, "/")
		synctest.Wait()
		begin := time.Now()
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		if waited := time.Since(begin); waited < time.Second || waited > 2200*time.Millisecond {
			t.Errorf("the visitor waited for %v", waited)
		}
		time.Sleep(21 * time.Second) // by now one's lease is over
		for _, want := range []string{"page 1", "page 2"} {
			begin = time.Now()
			if got := body(other, "/"); got != want || time.Since(begin) > 0 {
				t.Errorf("a stale page: %q after %v, want %q at once", got, time.Since(begin), want)
			}
			synctest.Wait()
		}
		close(release)
	})
}

// Whoever fails makes room for the next.
func TestFailureGivesTheLeaseBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		failing := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.Header().Set("Set-Cookie", "a=b") // a hit-for-pass
			default:
				w.Write(make([]byte, 5<<20)) // a stream
			}
		}}
		var c cms
		one := in.start(&failing)
		for i := range 4 {
			target := fmt.Sprintf("/%d", i)
			recovered(func() { get(one, target) })
			synctest.Wait()
			begin := time.Now()
			if got, want := body(in.start(&c), target), fmt.Sprintf("page %d", i+1); got != want || time.Since(begin) > 0 {
				t.Errorf("%d: got %.20q after %v, want %q at once", i, got, time.Since(begin), want)
			}
		}
	})
}

// The visitors have their page before the store does.
func TestPutsAreWrittenBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		var c cms
		site := in.start(&c)
		slow := make(chan struct{})
		st.feels(func(ctx context.Context, op string) error {
			if op == "put" {
				<-slow
			}
			return nil
		})
		if got := body(site, "/"); got != "page 1" {
			t.Errorf("got %q", got)
		}
		time.AfterFunc(300*time.Millisecond, func() { close(slow) })
		begin := time.Now()
		if err := site.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 300*time.Millisecond {
			t.Errorf("Shutdown waited for %v: the page may be lost", took)
		}
		if got := body(in.start(&c), "/"); got != "page 1" {
			t.Errorf("after the restart: %q", got)
		}
	})
}

// Each build has pages of its own, but a purge reaches all of them.
func TestVersions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Version: "1"})
		var c cms
		one := in.start(&c)
		in.opts.Version = "2"
		two, again := in.start(&c), in.start(&c)
		if a, b, c := body(one, "/"), body(two, "/"), body(again, "/"); a != "page 1" || b != "page 2" || c != "page 2" {
			t.Errorf("got %q, %q, %q", a, b, c)
		}
		if err := one.Purge(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := body(again, "/"); got != "page 3" {
			t.Errorf("after the purge: %q", got)
		}
	})
}

// Two sites that share a store, and say nothing of hosts in their keys, are two.
func TestOriginsShareAStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "https://one.example"})
		var c cms
		body(in.start(&c), "/")
		for i, origin := range []string{"https://two.example", "http://one.example"} {
			in.opts.Origin = origin
			if got, want := body(in.start(&c), "/"), fmt.Sprintf("page %d", i+2); got != want {
				t.Errorf("%s: got %q, want %q", origin, got, want)
			}
		}
	})
}

// A Host that a visitor sends to a site without an Origin names no page of the site
// whose Origin that is.
func TestHostOfAVisitorIsNoOrigin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Version: "1"})
		named := func(name string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, name) })
		}
		open := in.start(named("open"))
		in.opts.Origin = "http://example.com"
		fixed := in.start(named("fixed"))
		for _, site := range []*isr.Site{open, fixed, open} { // in both directions
			want := map[*isr.Site]string{open: "open", fixed: "fixed"}[site]
			if got := body(site, "/"); got != want {
				t.Errorf("got the page of %q, want that of %q", got, want)
			}
			synctest.Wait()
		}
	})
}

// When a page becomes private, it goes at once, in every instance.
func TestFleetForgetsWhatBecomesPrivate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				w.Header().Set("Cache-Control", "private")
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		body(one, "/")
		time.Sleep(30 * time.Second)
		if got := body(other, "/"); got != "page 1" {
			t.Fatalf("got %q", got)
		}
		one.Revalidate(t.Context(), "/")
		synctest.Wait()
		for _, site := range []*isr.Site{one, other, in.start(&c)} {
			if got := body(site, "/"); got == "page 1" {
				t.Error("a page that has become private is still shown")
			}
		}
	})
}

func TestPrerenderedOnlyOutlivesARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		var c cms
		for path, err := range in.start(&c).Prerender(t.Context(), slices.Values([]string{"/known"})) {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		synctest.Wait()
		site := in.start(&c)
		if got := body(site, "/known"); got != "page 1" {
			t.Errorf("what was prerendered before: %q", got)
		}
		for _, mood := range []mood{nil, down} {
			st.feels(mood)
			if got := get(site, "/unknown").StatusCode; got != http.StatusNotFound {
				t.Errorf("what was not: %d", got)
			}
		}
		st.feels(nil)
		if err := site.Revalidate(t.Context(), "/new"); err != nil {
			t.Errorf("Revalidate: %v", err)
		}
		if got := body(site, "/new"); got != "page 2" {
			t.Errorf("what was made known: %q", got)
		}
		site.Shutdown(t.Context())
		if got := get(site, "/other").StatusCode; got != http.StatusNotFound {
			t.Errorf("after Shutdown: %d", got)
		}
		if n := c.calls.Load(); n != 2 {
			t.Errorf("%d calls of the handler", n)
		}
	})
}

func TestPlaceholderAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			Tags:        []string{"all"},
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprintf(w, "page %d", n)
		}}
		site := in.start(&c)
		if got := body(site, "/"); got != "one moment" {
			t.Errorf("a page that nobody has: %q", got)
		}
		time.Sleep(2 * time.Second)
		other := in.start(&c)
		if got := body(other, "/"); got != "page 1" {
			t.Errorf("a page that the store has: %q", got)
		}
		if err := site.RevalidateTag(t.Context(), "all"); err != nil {
			t.Fatal(err)
		}
		third := in.start(&c)
		for _, want := range []string{"page 1", "page 2"} {
			if got := body(third, "/"); got != want {
				t.Errorf("one that is stale there: got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// What was invalidated of something else says nothing of a page, in whatever way the
// Store tells of it after a restart.
func TestPurgeOfSomethingElseBeforeTheRestart(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) store.Store{
		"memory": func(*testing.T) store.Store { return memory.New() },
		"file": func(t *testing.T) store.Store {
			st, err := file.Open(filepath.Join(t.TempDir(), "pages"), file.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, open(t), isr.Options{Default: isr.Route{TTL: time.Hour, StaleWhileRevalidate: time.Minute}})
				var c cms
				one := in.start(&c)
				body(one, "/")
				time.Sleep(time.Second)
				if err := one.PurgeTag(t.Context(), "something else"); err != nil {
					t.Fatal(err)
				}
				two := in.start(&c)
				for range 3 {
					if got := get(two, "/").Header.Get("Cache-Status"); !strings.HasPrefix(got, "isr; hit; ttl=35") {
						t.Errorf("after the restart: %q", got)
					}
					time.Sleep(2 * time.Second)
				}
				if n := c.calls.Load(); n != 1 {
					t.Errorf("%d calls of the handler", n)
				}
			})
		})
	}
}

// A renewal that failed is one of the page that its run has found in the Store, and
// nobody waits for the next.
func TestFailureToRenewWhatWasFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Second}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				time.Sleep(time.Second)
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		body(in.start(&c), "/")
		time.Sleep(2 * time.Minute)
		site := in.start(&c)
		for _, want := range []time.Duration{time.Second, 0} {
			begin := time.Now()
			if got := body(site, "/"); got != "page 1" || time.Since(begin) != want {
				t.Errorf("got %q after %v, want it after %v", got, time.Since(begin), want)
			}
		}
		if got := pages(site)["/"].Failures; got != 1 {
			t.Errorf("%d failures are noted", got)
		}
	})
}

// A POST costs one generation in the whole fleet, however long the Store takes to
// answer, and is told once before the visitor may know of it and once when the
// handler is through.
func TestPostCostsOneGeneration(t *testing.T) {
	for _, way := range []time.Duration{0, 2 * time.Millisecond, 30 * time.Millisecond} {
		bubble(t, func(t *testing.T) {
			st := &moody{Store: memory.New(), echo: only(slow(way), "invalidate")}
			st.feels(only(slow(way), "invalidate"))
			in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
			var generated atomic.Int64
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					w.WriteHeader(http.StatusSeeOther)
					return
				}
				generated.Add(1)
			})
			one, two := in.start(h), in.start(h)
			get(one, "/")
			get(two, "/")
			time.Sleep(time.Second)
			do(one, "POST", "/")
			for range 100 {
				get(two, "/")
				get(one, "/")
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			if n := generated.Load() - 1; n != 1 {
				t.Errorf("a store %v away: generated %d times", way, n)
			}
			if n := st.count("invalidate"); n > 2 {
				t.Errorf("a store %v away: told %d times", way, n)
			}
		})
	}
}

// A Bypass is asked with what a page request has, of a POST, too: the page that it
// changes may be stored elsewhere though the one without cookies never is.
func TestPostToWhatBypassLetsThrough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			VaryCookies: []string{"lang"},
			Bypass:      func(r *http.Request) bool { _, err := r.Cookie("lang"); return err != nil },
		}})
		var c cms
		one, two := in.start(&c), in.start(&c)
		body(two, "/", "Cookie", "lang=de")
		do(one, "POST", "/", "Cookie", "lang=de")
		synctest.Wait()
		for _, site := range []*isr.Site{two, in.start(&c)} {
			if got := body(site, "/", "Cookie", "lang=de"); got != "page 3" {
				t.Errorf("after the POST: %q", got)
			}
		}
	})
}

// Renewals that wait for another instance keep no others from theirs, and when there
// are too many of them the rest look only now and then.
func TestWaitingTakesNoSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxRegenerations: 8, Default: isr.Route{TTL: time.Minute, Timeout: time.Minute}})
		slow := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 4 {
				time.Sleep(50 * time.Second)
			}
			io.WriteString(w, "slow")
		}}
		var c cms
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
		before := st.count("begin")
		for range 100 {
			body(two, "/2")
			time.Sleep(time.Millisecond)
		}
		if n := st.count("begin") - before; n > 20 { // those that wait ask, too
			t.Errorf("asked for permission %d times", n)
		}
		if n := two.Stats().Failed; n != 0 {
			t.Errorf("%d failures, which those who wait are none of", n)
		}
		time.Sleep(time.Minute)
	})
}

// However many pages wait for those whom a placeholder has sent away, what is found
// in the Store meanwhile makes room for others.
func TestPlaceholdersLeaveTheLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{MaxRegenerations: 1, Default: isr.Route{
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.URL.Path == "/slow" {
				time.Sleep(time.Second)
			}
			io.WriteString(w, "page")
		}}
		crawler := []string{"User-Agent", "googlebot"}
		one := in.start(&c)
		for i := range 16 {
			body(one, fmt.Sprintf("/%d", i), crawler...)
		}
		two := in.start(&c)
		body(two, "/slow") // takes the slot
		for i := range 16 {
			body(two, fmt.Sprintf("/%d", i))
			body(two, fmt.Sprintf("/%d", i), crawler...)
		}
		time.Sleep(2 * time.Second)
		body(two, "/new")
		synctest.Wait()
		if got := body(two, "/new"); got != "page" {
			t.Errorf("when it was asked for before: %q", got)
		}
	})
}

// People are shown a placeholder at once, while another instance generates the page,
// too.
func TestPlaceholderWhileOthersLead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			Placeholder: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
		}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			time.Sleep(time.Second)
			fmt.Fprintf(w, "page %d", n)
		}}
		one, two := in.start(&c), in.start(&c)
		for _, site := range []*isr.Site{one, two} {
			begin := time.Now()
			if got := body(site, "/"); got != "one moment" || time.Since(begin) > 0 {
				t.Errorf("got %q after %v", got, time.Since(begin))
			}
			synctest.Wait()
		}
		time.Sleep(2 * time.Second)
		if got := body(two, "/"); got != "page 1" {
			t.Errorf("when it is there: %q", got)
		}
	})
}

// A path that nobody has prerendered is not there, and no placeholder says that it
// will be.
func TestNoPlaceholderForWhatIsNotPrerendered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, st := range []store.Store{nil, memory.New()} {
			in := fleet(t, st, isr.Options{Default: isr.Route{
				PrerenderedOnly: true,
				Placeholder:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one moment") }),
			}})
			c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(time.Second) }}
			site := in.start(&c)
			if got := get(site, "/unknown").StatusCode; got != http.StatusNotFound {
				t.Errorf("%T: %d", st, got)
			}
			if err := site.Revalidate(t.Context(), "http://example.com/known"); err != nil {
				t.Fatal(err)
			}
			if err := site.Purge(t.Context(), "/known"); err != nil {
				t.Fatal(err)
			}
			if got := body(site, "/known"); got != "one moment" {
				t.Errorf("%T: what is known: %q", st, got)
			}
		}
	})
}

// After a purge a prerendered path is known where this was asked for, and where it
// was not only as long as the Store has the page.
func TestPrerenderedPathAfterAPurge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		var c cms
		one, two := in.start(&c), in.start(&c)
		for path, err := range one.Prerender(t.Context(), slices.Values([]string{"/known", "/visited"})) {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		synctest.Wait()
		body(two, "/visited")
		if err := one.Purge(t.Context(), "/known", "/visited"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for i, want := range []int{http.StatusNotFound, http.StatusOK} {
			if got := get(two, "/known").StatusCode; got != want {
				t.Errorf("elsewhere, %d: %d, want %d", i, got, want)
			}
			if got := get(one, "/known").StatusCode; got != http.StatusOK {
				t.Errorf("where it was prerendered, %d: %d", i, got)
			}
			synctest.Wait()
		}
		if got := get(two, "/visited").StatusCode; got != http.StatusOK {
			t.Errorf("what was found in the Store before: %d", got)
		}
	})
}

// A witness is told what is put into a store.
type witness struct {
	store.Store
	put func(key string, rec *store.Record)
}

func (w *witness) Put(ctx context.Context, key string, t store.Ticket, rec *store.Record) error {
	w.put(key, rec)
	return w.Store.Put(ctx, key, t, rec)
}

// Nobody can fill the Store with pages that are none, nor read a visitor's secrets
// in its keys; and pages are kept as long as they may be shown.
func TestWhatTheStoreIsAskedToKeep(t *testing.T) {
	for name, test := range map[string]struct {
		route  isr.Route
		status int
		age    string // that it has from upstream, with bounds that the handler sets
		want   time.Duration
	}{
		"a page":         {isr.Route{TTL: time.Minute}, 200, "", 30*24*time.Hour + time.Minute},
		"for ever":       {isr.Route{}, 200, "", 0},
		"bounds":         {isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Hour, StaleIfError: 2 * time.Hour}, 200, "", 2*time.Hour + time.Minute},
		"other bounds":   {isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Hour, StaleIfError: -1}, 200, "", time.Hour + time.Minute},
		"never stale":    {isr.Route{TTL: time.Minute, StaleWhileRevalidate: -1, StaleIfError: -1}, 200, "", time.Minute + time.Second},
		"not found":      {isr.Route{TTL: time.Minute}, 404, "", 11 * time.Second},
		"gone":           {isr.Route{TTL: time.Minute}, 410, "", 11 * time.Second},
		"old on arrival": {isr.Route{}, 200, "40", time.Hour + 20*time.Second},
		"stale already":  {isr.Route{}, 200, "600", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				test.route.Vary = []string{"Authorization"}
				puts := 0
				in := fleet(t, &witness{memory.New(), func(key string, rec *store.Record) {
					puts++
					if rec.TTL != test.want {
						t.Errorf("it is to be kept for %v, want %v", rec.TTL, test.want)
					}
					if len(key) > 100 || strings.Contains(key, "s3cret") {
						t.Errorf("a key of %d bytes, %.100q", len(key), key)
					}
				}}, isr.Options{Default: test.route})
				get(in.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if test.age != "" {
						w.Header().Set("Age", test.age)
						w.Header().Set("Cache-Control", "max-age=60, stale-while-revalidate=3600, stale-if-error=0")
					}
					w.WriteHeader(test.status)
				})), "/?"+strings.Repeat("x", 20_000), "Authorization", "Bearer s3cret")
				synctest.Wait()
				if puts != 1 {
					t.Errorf("put %d times", puts)
				}
			})
		})
	}
}

// A visitor looks into the Store about once for his page, even where that is pushed
// out of memory before he can see it.
func TestMoreVisitorsThanMemory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) { w.Write(make([]byte, 10_000)) }}
		one := in.start(&c)
		const all = 200
		for i := range all {
			get(one, fmt.Sprintf("/%d", i))
		}
		synctest.Wait()
		in.opts.MaxBytes = 40_000
		two := in.start(&c)
		st.feels(only(slow(time.Millisecond), "get"))
		before := st.count("get")
		var visitors sync.WaitGroup
		for i := range all {
			visitors.Go(func() { get(two, fmt.Sprintf("/%d", i)) })
		}
		visitors.Wait()
		if n := st.count("get") - before; n > 2*all {
			t.Errorf("%d visitors looked %d times", all, n)
		}
		synctest.Wait()
		if n := two.Stats().Evicted; n < all-4 {
			t.Errorf("%d pages had to go, says Stats", n)
		}
		if n := st.count("put"); n != all {
			t.Errorf("put %d times", n)
		}
		if n := c.calls.Load(); n != all {
			t.Errorf("%d calls of the handler, want %d", n, all)
		}
	})
}

// Shutdown ends what listens to the Store, even where it runs out of time.
func TestStoreIsFollowedUntilShutdown(t *testing.T) {
	for name, hangs := range map[string]bool{"in time": false, "out of time": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := &moody{Store: memory.New()}
				release := make(chan struct{})
				site := fleet(t, st, isr.Options{}).start(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
				time.Sleep(10 * time.Second)
				if n := st.count("changes"); n < 8 || n > 15 {
					t.Errorf("asked for changes %d times in 10 seconds", n)
				}
				if hangs {
					go get(site, "/")
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := site.Shutdown(ctx); (err != nil) != hangs {
					t.Fatal(err)
				}
				synctest.Wait() // for a call that had begun
				before := st.count("changes")
				time.Sleep(10 * time.Second)
				if n := st.count("changes") - before; n != 0 {
					t.Errorf("asked for changes %d times after Shutdown", n)
				}
				close(release)
			})
		})
	}
}

// The variants of a page are pages of their own in the Store, too.
func TestVariantsOutliveARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"}}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			fmt.Fprint(w, r.Header["Accept-Language"], r.Header["Cookie"], r.URL.RawQuery)
		}}
		for range 2 {
			site := in.start(&c)
			for _, test := range []struct{ lang, cookie, target, want string }{
				{"de", "theme=dark", "/", "[de] [theme=dark]"},
				{"en", "theme=dark", "/", "[en] [theme=dark]"},
				{"de", "theme=pale", "/", "[de] [theme=pale]"},
				{"de", "theme=pale", "/?q=1", "[de] [theme=pale]q=1"},
			} {
				if got := body(site, test.target, "Accept-Language", test.lang, "Cookie", test.cookie); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
		}
		if n := c.calls.Load(); n != 4 {
			t.Errorf("%d calls of the handler", n)
		}
	})
}

// A page that was made before the restart is renewed as if it had been made since:
// with its own validators, and with what a ServeMux around the Site says of it.
func TestRenewedAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", `"own"`)
			if r.Header.Get("If-None-Match") == `"own"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fmt.Fprintf(w, "page %d of %s", n, r.PathValue("id"))
		}}
		start := func() (*isr.Site, http.Handler) {
			site, mux := in.start(&c), http.NewServeMux()
			mux.Handle("/{id}", site)
			return site, mux
		}
		_, mux := start()
		body(mux, "/a")
		time.Sleep(61 * time.Second)
		_, mux = start()
		walk(t, mux, &c, "/a",
			step{body: "page 1 of a", cache: "isr; hit; ttl=-1; detail=stale", age: "61", calls: 2},
			step{body: "page 1 of a", cache: "isr; hit; ttl=60", age: "0", calls: 2})
		site, mux := start()
		body(mux, "/a")
		if err := site.Revalidate(t.Context(), "/a"); err != nil {
			t.Fatal(err)
		}
		if got := body(mux, "/a"); got != "page 3 of a" {
			t.Errorf("after Revalidate: %q", got)
		}
	})
}

// A page's own lifetime is renewed with it, by a 304 that does not repeat it, too.
func TestOwnLifetimeOutlivesARestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			w.Header().Set("ETag", `"own"`)
			if r.Header.Get("If-None-Match") == `"own"` {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			w.Header().Set("Cache-Control", "max-age=30")
			fmt.Fprintf(w, "page %d", n)
		}}
		body(in.start(&c), "/")
		time.Sleep(31 * time.Second)
		walk(t, in.start(&c), &c, "/",
			step{body: "page 1", cache: "isr; hit; ttl=-1; detail=stale", age: "31", calls: 2},
			step{body: "page 1", cache: "isr; hit; ttl=30", age: "0", calls: 2})
	})
}

// What an instance hears late is no reason to renew what was made since.
func TestHeardLate(t *testing.T) {
	for name, visit := range map[string]func(one, two *isr.Site){
		"made elsewhere": func(one, two *isr.Site) { body(one, "/"); synctest.Wait(); body(two, "/") },
		"made here":      func(one, two *isr.Site) { body(two, "/") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st := memory.New()
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
				var c cms
				one := in.start(&c)
				late := &moody{Store: st, echo: only(slow(time.Second), "changes")}
				in.store = late
				two := in.start(&c)
				time.Sleep(10 * time.Second)
				if err := one.Purge(t.Context(), "/"); err != nil {
					t.Fatal(err)
				}
				visit(one, two)
				before := late.count("get")
				time.Sleep(10 * time.Second)
				if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=3590" {
					t.Errorf("when all is heard: %q", got)
				}
				if n := late.count("get") - before; n != 0 {
					t.Errorf("the Store was asked for it %d times more", n)
				}
			})
		})
	}
}

// A page that comes from a Store which has forgotten a part of its history is as
// good as that says, and not stale for what the instance hears of it later.
func TestHistoryIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := memory.New()
		in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
		var c cms
		one := in.start(&c)
		body(one, "/")
		if err := one.PurgeTag(t.Context(), "something else"); err != nil {
			t.Fatal(err)
		}
		first := true
		in.store = &moody{
			Store: &liar{Store: st, changes: func(c store.Changes) store.Changes {
				c.Reset, first = first, false
				return c
			}},
			echo: only(slow(50*time.Millisecond), "changes"),
		}
		two := in.start(&c)
		for _, want := range []string{"isr; hit; ttl=3600", "isr; hit; ttl=3590"} {
			if got := get(two, "/").Header.Get("Cache-Status"); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(10 * time.Second)
		}
	})
}

// Whoever waits for the renewal of another instance has it when that is through,
// time and again; and the others look only now and then whether it is.
func TestRenewedElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := &moody{Store: memory.New()}
		in := fleet(t, st, isr.Options{MaxRegenerations: 1, Default: isr.Route{TTL: time.Minute}})
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if n > 1 {
				time.Sleep(time.Second)
			}
			io.WriteString(w, "page")
		}}
		one, two := in.start(&c), in.start(&c)
		get(one, "/")
		get(two, "/")
		for round := range 3 {
			time.Sleep(time.Minute)
			get(one, "/")
			synctest.Wait()
			get(two, "/")
			time.Sleep(1500 * time.Millisecond)
			if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; hit; ttl=60" && got != "isr; hit; ttl=59" {
				t.Errorf("round %d: %q", round, got)
			}
		}
	})
}

// The author of a change sees it as soon as he can know of his success, whichever
// instance he comes to, though the handler is not through.
func TestPostThatTakesItsTime(t *testing.T) {
	for name, succeed := range map[string]func(w http.ResponseWriter){
		"flushed":        func(w http.ResponseWriter) { io.WriteString(w, "ok"); w.(http.Flusher).Flush() },
		"flushed header": func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated); w.(http.Flusher).Flush() },
		"long":           func(w http.ResponseWriter) { w.Write(make([]byte, 3<<10)) },
		"in parts":       func(w http.ResponseWriter) { w.Write(make([]byte, 2<<10)); w.Write(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{})
				c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.Method == http.MethodPost {
						succeed(w)
						time.Sleep(time.Minute)
						return
					}
					fmt.Fprintf(w, "page %d", n)
				}}
				one, two := in.start(&c), in.start(&c)
				body(one, "/")
				body(two, "/")
				go do(one, "POST", "/")
				synctest.Wait()
				for _, site := range []*isr.Site{two, one} {
					if got := body(site, "/"); got != "page 3" {
						t.Errorf("got %q", got)
					}
				}
				time.Sleep(2 * time.Minute)
			})
		})
	}
	bubble(t, func(t *testing.T) { // not sent yet, but here it costs nothing to know it
		c := cms{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusCreated)
				time.Sleep(time.Minute)
				return
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		site := fleet(t, memory.New(), isr.Options{}).start(&c)
		body(site, "/")
		go do(site, "POST", "/")
		synctest.Wait()
		if got := body(site, "/"); got != "page 3" {
			t.Errorf("where the change was made: %q", got)
		}
		time.Sleep(2 * time.Minute)
	})
}

// A page that was not for everybody is tried anew when somebody has changed it,
// whichever instance he came to.
func TestPublicAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{})
		var public atomic.Bool
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !public.Load() {
				w.Header().Set("Cache-Control", "private")
			}
		})
		one, two := in.start(h), in.start(h)
		get(two, "/")
		public.Store(true)
		if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; fwd=bypass; detail=uncacheable" {
			t.Errorf("before: %q", got)
		}
		do(one, "POST", "/")
		synctest.Wait()
		if got := get(two, "/").Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
			t.Errorf("after: %q", got)
		}
	})
}
