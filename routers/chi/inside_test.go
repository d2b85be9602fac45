package isrchi_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/isr-go/isr"
	isrchi "github.com/isr-go/isr/routers/chi"
)

// warned returns options whose warnings are in buf.
func warned(buf *bytes.Buffer) isr.Options {
	return isr.Options{Logger: slog.New(slog.NewTextHandler(buf, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

// counting counts the requests that come by.
func counting(n *atomic.Int32) wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			next.ServeHTTP(w, r)
		})
	}
}

func param(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s of %s", chi.URLParam(r, "id"), chi.URLParam(r, "org"))
}

// Pages can be made before any visitor has come, with their parameters, and visitors
// get them. The middlewares outside see one request for each route, not for each page.
func TestPrerender(t *testing.T) {
	var outside, group atomic.Int32
	r := chi.NewRouter()
	site, cached := isrchi.New(r, isr.Options{Origin: "http://example.com"})
	r.Use(counting(&outside))
	r.With(cached).Get("/posts/{id}", param)
	r.Route("/{org}", func(r chi.Router) {
		r.Use(counting(&group), cached)
		r.Get("/", param)
		r.Get("/{id}", param)
	})
	paths := []string{"/posts/1", "/posts/2", "/acme", "/acme/", "/acme/3", "/bcme/4"}
	for path, err := range site.Prerender(context.Background(), slices.Values(paths)) {
		if err != nil {
			t.Error(path, err)
		}
	}
	before := outside.Load()
	if n := group.Load(); before == 0 || before > 6 || n > 6 {
		t.Errorf("%d requests came by the middlewares outside, and %d by those of the group", before, n)
	}
	for path, err := range site.Prerender(context.Background(), slices.Values([]string{"/posts/7", "/ccme/8"})) {
		if err != nil {
			t.Error(path, err)
		}
	}
	if outside.Load() != before {
		t.Error("a page of a known route came by the middlewares outside")
	}
	for path, want := range map[string]string{"/posts/1": "1 of ", "/posts/2": "2 of ", "/acme": " of acme", "/acme/": " of acme", "/acme/3": "3 of acme", "/bcme/4": "4 of bcme", "/ccme/8": "8 of ccme"} {
		if w := ask(r, "GET", path); w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Cache-Status"), "isr; hit") {
			t.Errorf("%s: got %q (%s), want %q from memory", path, w.Body, w.Header().Get("Cache-Status"), want)
		}
	}
}

// What has no middleware on its way cannot be prerendered, and says so.
func TestPrerenderElsewhere(t *testing.T) {
	r := chi.NewRouter()
	site, cached := isrchi.New(r, isr.Options{Origin: "http://example.com"})
	r.With(cached).Get("/posts/{id}", param)
	r.Get("/plain", param)
	r.With(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("nobody is signed in") })
	}, cached).Get("/panics", param)
	for path, err := range site.Prerender(context.Background(), slices.Values([]string{"/plain", "/nothing", "/panics"})) {
		if err == nil {
			t.Error(path, "was prerendered")
		}
	}
	if n := site.Stats().Pages; n != 0 {
		t.Error(n, "pages")
	}
}

// An edit reaches the page, by Revalidate and by a visitor's POST.
func TestRevalidate(t *testing.T) {
	text := "old"
	r := chi.NewRouter()
	site, cached := isrchi.New(r, isr.Options{Origin: "http://example.com"})
	r.Route("/{org}", func(r chi.Router) {
		r.Use(cached)
		r.Get("/{id}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text, " ", chi.URLParam(r, "id")) })
		r.Post("/{id}", func(w http.ResponseWriter, r *http.Request) { text = r.FormValue("text") })
	})
	expect := func(want string) {
		t.Helper()
		if got := ask(r, "GET", "/acme/1").Body.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	expect("old 1")
	text = "new"
	expect("old 1")
	if err := site.Revalidate(context.Background(), "/acme/1"); err != nil {
		t.Fatal(err)
	}
	expect("new 1")
	ask(r, "POST", "/acme/1?text=posted")
	expect("posted 1")
}

// Nothing of what middlewares outside put into a visitor's context is in a page, and
// all of it is in a request that passes.
func TestContext(t *testing.T) {
	type user struct{}
	greet := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Context().Value(user{}), " ", chi.URLParam(r, "id"))
	}
	r := chi.NewRouter()
	_, cached := isrchi.New(r, isr.Options{Routes: map[string]isr.Route{"/account/{id}": {Bypass: isr.Always}}})
	r.Use(middleware.WithValue(user{}, "alice"))
	r.With(cached).Get("/posts/{id}", greet)
	r.With(cached).Get("/account/{id}", greet)
	r.With(cached).Post("/posts/{id}", greet)
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/posts/1", "<nil> 1"},
		{"GET", "/account/2", "alice 2"},
		{"POST", "/posts/3", "alice 3"},
	} {
		if got := ask(r, tt.method, tt.path).Body.String(); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}

// Visitors who may not see a page do not see it by another spelling of its path, which
// the router takes for another route.
func TestSpelling(t *testing.T) {
	var buf bytes.Buffer
	r := chi.NewRouter()
	_, cached := isrchi.New(r, warned(&buf))
	r.With(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("User-Agent") != "admin" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	}, cached).Get("/admin", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secret") })
	r.With(cached).Get("/{id}", param)
	if got := ask(r, "GET", "/admin", "User-Agent", "admin").Body.String(); got != "secret" {
		t.Fatal(got)
	}
	for _, path := range []string{"/admin", "/%61dmin", "/adm%69n", "/x", "/%61dmin", "/a%2fb", "/a%2Fb"} {
		if got := ask(r, "GET", path).Body.String(); strings.Contains(got, "secret") {
			t.Errorf("%s: got %q", path, got)
		}
	}
	if buf.Len() > 0 {
		t.Errorf("the log is %q", &buf)
	}
}

// HEAD is answered from the page, by which no page is lost or made by a handler for
// HEAD.
func TestHead(t *testing.T) {
	r := chi.NewRouter()
	_, cached := isrchi.New(r, isr.Options{})
	r.With(cached).Head("/posts/{id}", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Made-By", "HEAD") })
	r.With(cached).Get("/posts/{id}", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Made-By", "GET") })
	r.Route("/sub", func(r chi.Router) {
		r.Use(middleware.GetHead, cached)
		r.Get("/{id}", param)
	})
	for range 2 {
		for _, method := range []string{"HEAD", "GET", "HEAD"} {
			if got := ask(r, method, "/posts/1").Header().Get("X-Made-By"); got != method {
				t.Errorf("%s was answered by the handler for %q", method, got)
			}
		}
	}
	for _, method := range []string{"HEAD", "GET", "HEAD"} {
		if w := ask(r, method, "/sub/1"); w.Code != 200 || w.Header().Get("Cache-Status") == "" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
}

// A middleware outside that logs or measures knows the route pattern, also where the
// page comes from memory.
func TestRoutePatternOutside(t *testing.T) {
	var patterns []string
	r := chi.NewRouter()
	_, cached := isrchi.New(r, isr.Options{})
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			patterns = append(patterns, chi.RouteContext(r.Context()).RoutePattern(), r.Pattern)
		})
	}, cached)
	r.Route("/{org}", func(r chi.Router) { r.Get("/posts/{id}", param) })
	for range 3 {
		ask(r, "GET", "/acme/posts/1")
	}
	ask(r, "DELETE", "/acme/posts/1")
	for _, p := range patterns[:6] {
		if p != "/{org}/posts/{id}" {
			t.Fatalf("the patterns are %q", patterns)
		}
	}
}

// What the middleware cannot serve passes as the visitor's own request, private, and
// the developer hears of it once.
func TestWarnings(t *testing.T) {
	public := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		fmt.Fprint(w, r.UserAgent(), r.ContentLength)
	}
	for _, tt := range []struct {
		name, path, warning string
		build               func(r chi.Router, opts isr.Options) http.Handler
	}{
		{"a changed path", "/posts/1/", "does not follow from their path", func(r chi.Router, opts isr.Options) http.Handler {
			_, cached := isrchi.New(r, opts)
			r.Use(middleware.StripSlashes, cached)
			r.Get("/posts/{id}", public)
			return r
		}},
		{"another router", "/posts/1", "another router", func(r chi.Router, opts isr.Options) http.Handler {
			r.Route("/posts", func(r chi.Router) {
				_, cached := isrchi.New(r, opts)
				r.Use(cached)
				r.Get("/{id}", public)
			})
			return r
		}},
		{"no chi", "/posts/1", "not come through a chi router", func(r chi.Router, opts isr.Options) http.Handler {
			_, cached := isrchi.New(r, opts)
			return cached(http.HandlerFunc(public))
		}},
		{"a router chosen by a header", "/posts/1", "several places", func(r chi.Router, opts isr.Options) http.Handler {
			_, cached := isrchi.New(r, opts)
			other := chi.NewRouter()
			other.With(cached).Get("/posts/{id}", public)
			r.Use(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.UserAgent() == "curl/8" {
						next = other
					}
					next.ServeHTTP(w, r)
				})
			})
			r.With(cached).Get("/posts/{id}", public)
			ask(r, "GET", "/posts/1", "User-Agent", "another")
			return r
		}},
	} {
		var buf bytes.Buffer
		h := tt.build(chi.NewRouter(), warned(&buf))
		for range 3 {
			w := ask(h, "GET", tt.path)
			if got := w.Body.String(); got != "curl/80" || !strings.HasPrefix(w.Header().Get("Cache-Control"), "private") {
				t.Errorf("%s: got %q, %v", tt.name, got, w.Header())
			}
		}
		if got := buf.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, tt.warning) {
			t.Errorf("%s: the log is %q", tt.name, got)
		}
	}
}

// A page can be made of others of the same Site, whose requests have the context of
// its own.
func TestPagesOfPages(t *testing.T) {
	r := chi.NewRouter()
	var site *isr.Site
	site, cached := isrchi.New(r, isr.Options{Routes: map[string]isr.Route{"/own/": {Bypass: isr.Always}, "/part/own/": {Bypass: isr.Always}}})
	whole := func(prefix string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			part := httptest.NewRequestWithContext(r.Context(), "GET", prefix+chi.URLParam(r, "id"), nil)
			fmt.Fprint(w, "[")
			site.ServeHTTP(w, part)
			fmt.Fprint(w, "]")
		}
	}
	r.With(cached).Get("/whole/{id}", whole("/part/"))
	r.With(cached).Get("/own/{id}", whole("/part/"))
	r.With(cached).Get("/own/own/{id}", whole("/part/own/"))
	r.With(cached).Get("/part/{id}", param)
	r.With(cached).Get("/part/own/{id}", param)
	for _, path := range []string{"/whole/1", "/own/2", "/own/own/3", "/whole/1", "/own/own/3"} {
		if got, want := ask(r, "GET", path).Body.String(), "["+path[len(path)-1:]+" of ]"; got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

// Visitors who come at once get the pages that they asked for.
func TestConcurrently(t *testing.T) {
	r := chi.NewRouter()
	_, cached := isrchi.New(r, isr.Options{Default: isr.Route{TTL: time.Nanosecond}})
	r.With(cached).Get("/posts/{id}", param)
	r.Route("/{org}", func(r chi.Router) {
		r.Use(cached)
		r.Get("/{id}", param)
	})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				n := (i + j) % 5
				if got, want := ask(r, "GET", fmt.Sprintf("/posts/%d", n)).Body.String(), fmt.Sprintf("%d of ", n); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if got, want := ask(r, "GET", fmt.Sprintf("/o%d/%d", i, n)).Body.String(), fmt.Sprintf("%d of o%d", n, i); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	wg.Wait()
}

func TestNewPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New took no router for one")
		}
	}()
	isrchi.New(nil, isr.Options{})
}

func BenchmarkHit(b *testing.B) {
	for _, tt := range routers[:4] {
		b.Run(tt.name, func(b *testing.B) {
			r := chi.NewRouter()
			_, cached := isrchi.New(r, isr.Options{})
			tt.build(r, cached)
			path := strings.Fields(tt.paths)[1]
			ask(r, "GET", path)
			w, req := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
			b.ReportAllocs()
			for b.Loop() {
				w.Body.Reset()
				clear(w.Header())
				r.ServeHTTP(w, req)
			}
		})
	}
}
