package isr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// Prerender generates paths a few at a time, and yields each with its error.
func TestPrerender(t *testing.T) {
	paths := func(n int) []string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprint("/", i))
		}
		return s
	}
	collect := func(site *isr.Site, paths ...string) map[string]string {
		got := make(map[string]string)
		for path, err := range site.Prerender(context.Background(), slices.Values(paths)) {
			got[path] = fmt.Sprint(err)
		}
		return got
	}
	t.Run("generates", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var running atomic.Int64
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				if now := running.Add(1); now > 4 {
					t.Errorf("%d at once, want a few", now)
				}
				time.Sleep(time.Second)
				running.Add(-1)
				switch r.URL.Path {
				case "/fails":
					w.WriteHeader(500)
				case "/private":
					w.Header().Set("Cache-Control", "private")
				}
				if got := "https://example.com"; r.Host != "example.com" || r.TLS == nil {
					t.Errorf("host %q, TLS %v, want %s", r.Host, r.TLS, got)
				}
			}}
			site := isr.Wrap(c, isr.Options{
				Origin: "https://example.com", MaxRegenerations: 4,
				Routes: map[string]isr.Route{"/account/": {Bypass: isr.Always}},
			})
			got := collect(site, append(paths(10), "/fails", "/private", "/account/", "nonsense", "https://example.com/x?b=2&a=1", "http://example.com/")...)
			want := map[string]string{
				"/fails":                        "isr: prerender /fails: the handler answered 500 Internal Server Error",
				"/private":                      "isr: prerender /private: not stored: it is private by its Cache-Control",
				"/account/":                     "isr: prerender /account/: its route's Bypass keeps it out of the cache",
				"nonsense":                      `isr: path "nonsense": want a path that begins with "/", or a whole URL`,
				"https://example.com/x?b=2&a=1": "<nil>",
				"http://example.com/":           `isr: path "http://example.com/": is not at Options.Origin, https://example.com`,
			}
			for _, path := range paths(10) {
				want[path] = "<nil>"
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			calls := c.calls.Load()
			if got := get(site, "/x?a=1&b=2").Header.Get("Cache-Status"); got != "isr; hit" {
				t.Errorf("Cache-Status %q", got)
			}
			if collect(site, paths(10)...); c.calls.Load() != calls {
				t.Errorf("%d runs for pages that are fresh", c.calls.Load()-calls)
			}
		})
	})
	t.Run("without an origin", func(t *testing.T) {
		site := isr.Wrap(new(countingHandler), isr.Options{})
		want := map[string]string{
			"/":                    "isr: prerender /: no host: set Options.Origin, or name the page with scheme and host",
			"http://example.com/a": "<nil>",
		}
		if diff := cmp.Diff(want, collect(site, "/", "http://example.com/a")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := get(site, "/a").Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("Cache-Status %q", got)
		}
	})
	t.Run("a Bypass that panics", func(t *testing.T) {
		site := isr.Wrap(new(countingHandler), isr.Options{Origin: "http://example.com", Default: isr.Route{
			Bypass: func(r *http.Request) bool { return r.Context().Value(contextKey{}).(bool) },
		}})
		if recovered(func() { collect(site, "/") }) == nil {
			t.Error("the panic did not reach the caller")
		}
	})
	t.Run("left early", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
				time.Sleep(time.Duration(n) * time.Second)
			}}
			site := isr.Wrap(c, isr.Options{Origin: "http://localhost", MaxRegenerations: 3})
			for range site.Prerender(t.Context(), slices.Values(paths(100))) {
				break
			}
			if got := c.calls.Load(); got != 3 {
				t.Errorf("%d runs, want the 3 of the beginning", got)
			}
			time.Sleep(time.Minute)
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { time.Sleep(10 * time.Second) }}
			site := isr.Wrap(c, isr.Options{Origin: "http://localhost", MaxRegenerations: 3})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n := 0
			for path, err := range site.Prerender(ctx, slices.Values(paths(100))) {
				if n++; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", path, err)
				}
			}
			if n != 3 {
				t.Errorf("%d results, want those under way, 3", n)
			}
			time.Sleep(time.Minute)
		})
	})
}

// Prerender renews a page that is stale in the Store, once, and ends.
func TestPrerenderRenewsStalePages(t *testing.T) {
	for how, age := range map[string]func(*isr.Site){
		"by its TTL": func(*isr.Site) { time.Sleep(time.Minute) },
		"by a tag":   func(s *isr.Site) { s.RevalidateTag(context.Background(), "t") },
		"expired":    func(s *isr.Site) { do(s, "POST", "/"); time.Sleep(time.Second) },
	} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{TTL: time.Minute, Tags: []string{"t"}}})
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {}}
				one := in.start(&c)
				get(one, "/")
				synctest.Wait()
				age(one)
				before := c.calls.Load()
				for _, site := range []*isr.Site{one, in.start(&c)} {
					for path, err := range site.Prerender(t.Context(), slices.Values([]string{"/"})) {
						if err != nil {
							t.Error(path, err)
						}
					}
					synctest.Wait()
				}
				if got := c.calls.Load() - before; got != 1 {
					t.Errorf("%d runs, want 1", got)
				}
			})
		})
	}
}

// Visitors under a pattern that says no more than the path does get the prerendered
// pages. So do visitors under one that the handler cannot see.
func TestPrerenderUnderOuterServeMux(t *testing.T) {
	c := new(countingHandler)
	inner := http.NewServeMux()
	inner.Handle("/", c)
	for pattern, h := range map[string]http.Handler{
		"/": c, "GET /": c, "example.com/": c, "/a/{$}": c, "/{rest...}": inner, "example.com/{dir}/": inner,
	} {
		site := isr.Wrap(h, isr.Options{Default: isr.Route{PrerenderedOnly: true}})
		mux := http.NewServeMux()
		mux.Handle(pattern, site)
		for path, err := range site.Prerender(t.Context(), slices.Values([]string{"http://example.com/a/"})) {
			if err != nil {
				t.Fatal(path, err)
			}
		}
		if got := get(mux, "http://example.com/a/").Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("%s: %q, want a hit", pattern, got)
		}
	}
}

// An unknown path of a PrerenderedOnly route does not reach the handler.
func TestPrerenderedOnly(t *testing.T) {
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{
		Origin: "http://example.com",
		Routes: map[string]isr.Route{"/blog/": {PrerenderedOnly: true}},
	})
	for _, err := range site.Prerender(t.Context(), slices.Values([]string{"/blog/1"})) {
		if err != nil {
			t.Fatal(err)
		}
	}
	visit := func(target string, status int) {
		t.Helper()
		if res := get(site, target); res.StatusCode != status || status == 404 && res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v, want %d", target, res.StatusCode, res.Header, status)
		}
	}
	visit("/blog/1", 200)
	visit("/blog/2", 404)
	visit("/other", 200)
	if got := c.calls.Load(); got != 2 {
		t.Errorf("%d runs, want 2", got)
	}
	site.Purge(t.Context(), "/blog/1") // the page is dropped; its path is as well known as before
	visit("/blog/1", 200)
	site.Revalidate(t.Context(), "/blog/2") // a CMS that names a new post makes it known
	visit("/blog/2", 200)
}

// A GET or HEAD of an unknown path does not get to the handler, whatever a visitor sends
// with it. What is not for the cache passes for a known one; other methods, and what
// Bypass lets pass, do so for each.
func TestPrerenderedOnlyWhateverIsSent(t *testing.T) {
	requests := map[string]func(r *http.Request){
		"Authorization": func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") },
		"Upgrade":       func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"a body":        func(r *http.Request) { r.ContentLength, r.Body = 1, io.NopCloser(strings.NewReader("x")) },
		"chunks":        func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(strings.NewReader("x")) },
	}
	for name, edit := range requests {
		synctest.Test(t, func(t *testing.T) {
			in := fleet(t, memory.New(), isr.Options{
				Origin:  "http://example.com",
				Default: isr.Route{PrerenderedOnly: true},
				Routes:  map[string]isr.Route{"/preview/": {PrerenderedOnly: true, Bypass: isr.Always}},
			})
			var c countingHandler
			alone := isr.Wrap(&c, isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
			first := in.start(&c)
			for _, site := range []*isr.Site{alone, first} {
				for path, err := range site.Prerender(t.Context(), slices.Values([]string{"/known"})) {
					if err != nil {
						t.Fatalf("%s: %v", path, err)
					}
				}
			}
			synctest.Wait()
			closed := in.start(&c)
			closed.Shutdown(t.Context())
			for how, site := range map[string]*isr.Site{"memory": alone, "Store": first, "restarted": in.start(&c), "closed": closed} {
				for path, want := range map[string]int{"/known": 200, "/unknown": 404, "//known": 404, "/%2Fknown": 404, "/x/../known": 404, "/known/" + strings.Repeat("x", 33<<10): 404, "/preview/1": 200} {
					switch {
					case how == "memory" && path == "/preview/1":
						want = 404
					case how == "closed" && path == "/known":
						want = 404 // it asks the Store no more
					}
					for _, method := range []string{"GET", "HEAD"} {
						before := c.calls.Load()
						r := httptest.NewRequest(method, "http://example.com"+path, nil)
						edit(r)
						w := httptest.NewRecorder()
						site.ServeHTTP(w, r)
						if called := c.calls.Load() > before; w.Code != want || called != (want == 200) {
							t.Errorf("%s, %s: %s %.20s: %d, want %d; the handler is called: %v", name, how, method, path, w.Code, want, called)
						}
					}
				}
				for _, method := range []string{"POST", "OPTIONS"} {
					before := c.calls.Load()
					if do(site, method, "http://example.com/unknown"); c.calls.Load() == before {
						t.Errorf("%s, %s: %s does not pass", name, how, method)
					}
				}
			}
		})
	}
}

// What was prerendered before a restart is known after it, from the Store.
func TestPrerenderedOnlyOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memory.New()}
		in := fleet(t, st, isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		var c countingHandler
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
		for _, fault := range []fault{nil, down} {
			st.set(fault)
			if got := get(site, "/unknown").StatusCode; got != http.StatusNotFound {
				t.Errorf("what was not: %d", got)
			}
		}
		st.set(nil)
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

// After a purge a prerendered path stays known where it was prerendered, and elsewhere
// only as long as the Store has the page.
func TestPrerenderedPathAfterAPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Default: isr.Route{PrerenderedOnly: true}})
		var c countingHandler
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
				t.Errorf("on the other instance, %d: %d, want %d", i, got, want)
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

// Prerender makes the variants that are asked for: each visitor then finds the page of the
// headers and cookies that they send.
func TestPrerenderVariants(t *testing.T) {
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		fmt.Fprint(w, r.Header.Get("Accept-Language"), " ", r.Header.Get("Cookie"))
	}}
	site := isr.Wrap(c, isr.Options{Origin: "https://example.com", Routes: map[string]isr.Route{
		"/": {Vary: []string{"Accept-Language"}, VaryCookies: []string{"theme"}, Normalize: func(h http.Header) {
			if lang := h.Get("Accept-Language"); lang != "" {
				h.Set("Accept-Language", lang[:2])
			}
		}},
		"/about":   {},
		"/members": {Bypass: func(r *http.Request) bool { return r.Header.Get("Cookie") != "" }, VaryCookies: []string{"user"}},
	}})
	prerender := func(ctx context.Context, path string) error {
		for _, err := range site.Prerender(ctx, slices.Values([]string{path})) {
			return err
		}
		return nil
	}
	german := isr.WithHeader(t.Context(), "accept-language", "de-AT,de;q=0.9")
	dark := isr.WithHeader(isr.WithHeader(german, "Cookie", "theme=dark; id=7"), "Authorization", "Bearer x")
	for _, ctx := range []context.Context{t.Context(), german, dark} {
		for _, path := range []string{"/", "/about"} {
			if err := prerender(ctx, path); err != nil {
				t.Error(err)
			}
		}
	}
	if got := c.calls.Load(); got != 4 {
		t.Errorf("%d runs, want 3 variants of a page and 1 of what declares nothing", got)
	}
	for want, sent := range map[string][]string{
		" ":             nil,
		"de ":           {"Accept-Language", "de", "Cookie", "id=1"},
		"de theme=dark": {"Accept-Language", "de-DE", "Cookie", "theme=dark"},
	} {
		res := get(site, "/", sent...)
		if got := read(res); got != want || res.Header.Get("Cache-Status") != "isr; hit" {
			t.Errorf("%q, want %q: %s", got, want, res.Header.Get("Cache-Status"))
		}
	}
	if err := prerender(isr.WithHeader(t.Context(), "Cookie", "user=1"), "/members"); err == nil {
		t.Error("a page was made that its visitor never gets")
	}
}
