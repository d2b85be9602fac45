package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/file"
	"github.com/isr-go/isr/store/memory"
)

// A page is served from the Store after a restart, without a generation.
func TestPagesOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		var c countingHandler
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

// Every kind of page comes back from the Store as it was.
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
			synctest.Test(t, func(t *testing.T) {
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

// The variants of a page are separate pages in the Store, too.
func TestVariantsOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"}}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// What was invalidated before a restart is invalidated after it.
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
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, Tags: []string{"all"}}})
				var c countingHandler
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

// The bounds of an invalidated page hold after a restart: no instance knows when it was
// invalidated, but it was not before its own generation began.
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
			synctest.Test(t, func(t *testing.T) {
				test.route.Tags = []string{"all"}
				in := fleet(t, memory.New(), isr.Options{Default: test.route})
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// Invalidations of other pages say nothing of a page, in whatever form the Store
// returns them after a restart.
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
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, open(t), isr.Options{Default: isr.Route{TTL: time.Hour, StaleWhileRevalidate: time.Minute}})
				var c countingHandler
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

// A 404 is not shown for longer than NotFoundTTL after a restart either, so that what was
// published meanwhile is seen, and caches in front are not told to keep it.
func TestNotFoundAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		published := false
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if !published {
				w.WriteHeader(http.StatusNotFound)
			}
		}}
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{
			NotFoundTTL: 10 * time.Second, CacheControl: "public, immutable, max-age=31536000",
		}})
		get(in.start(&c), "/")
		published = true
		time.Sleep(9 * time.Second)
		want := "404 isr; hit; ttl=1 public, max-age=0, s-maxage=10"
		for _, site := range []*isr.Site{in.start(&c), in.start(&c)} {
			res := get(site, "/")
			if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Cache-Status"), " ", res.Header.Get("Cache-Control")); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(2 * time.Second)
			want = "200 isr; fwd=uri-miss; stored public, immutable, max-age=31536000"
		}
	})
}

// A renewal that fails counts as a failure of the page that its run has found in the
// Store, and nobody waits for the next attempt.
func TestFailureToRenewWhatWasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute, StaleWhileRevalidate: time.Second}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// A page from before the restart is renewed like one made after it: with its own
// validators, and with the pattern of an outer ServeMux.
func TestRenewedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// A page's own lifetime is renewed with it, even by a 304 that does not repeat it.
func TestOwnLifetimeOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Default: isr.Route{TTL: time.Minute}})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
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

// Each build has its own pages, but a purge reaches all of them.
func TestVersionsShareOnlyPurges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Version: "1"})
		var c countingHandler
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
