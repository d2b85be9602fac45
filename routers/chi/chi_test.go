package isrchi_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/isr-go/isr"
	isrchi "github.com/isr-go/isr/routers/chi"
)

// A wrapper is a middleware as chi has them.
type wrapper = func(http.Handler) http.Handler

// show answers with all that a handler can ask chi about its request.
func show(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rctx := chi.RouteContext(r.Context())
		fmt.Fprintf(w, "%s %s at %q, pattern %q = %q, %q;", name, r.URL, cmp.Or(rctx.RoutePath, r.URL.EscapedPath()), rctx.RoutePattern(), r.Pattern, rctx.RoutePatterns)
		for i, k := range rctx.URLParams.Keys {
			fmt.Fprintf(w, " %s=%q(%q)", k, rctx.URLParams.Values[i], chi.URLParam(r, k))
		}
		for _, k := range []string{"id", "org", "slug", "*"} {
			fmt.Fprintf(w, " %s:%q", k, r.PathValue(k))
		}
		fmt.Fprintf(w, " to %q", r.Header.Get("User-Agent"))
	}
}

// status answers with a status, and what show does.
func status(code int, name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(code)
		show(name)(w, r)
	}
}

// header sets a header, as a middleware outside of the pages, or inside.
func header(name string) wrapper {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Passed-"+name, "yes")
			next.ServeHTTP(w, r)
		})
	}
}

// routers are chi's examples, and what else its users do. Each is made with the
// middleware and without, and has to behave the same.
var routers = []struct {
	name  string
	build func(r chi.Router, cached wrapper)
	paths string
}{
	{"Use on the outermost router", func(r chi.Router, cached wrapper) {
		r.Use(header("outside"), cached, header("inside"))
		r.Get("/", show("index"))
		r.Get("/posts/{id}", show("post"))
		r.Post("/posts/{id}", show("edit"))
		r.Get("/date/{yyyy:\\d\\d\\d\\d}/{mm:\\d\\d}", show("date"))
		r.Get("/page/{other}/latest", show("latest"))
		r.Get("/page/{slug}.{ext}", show("file"))
		r.Get("/users/admin", show("admin"))
		r.Get("/users/{id}", show("user"))
		r.Get("/files/*", show("files"))
		r.Put("/only-put", show("put"))
		r.Handle("/any", show("any"))
		r.Handle("GET /methods/{id}", show("method in the pattern"))
		r.NotFound(status(404, "not found"))
		r.MethodNotAllowed(status(405, "method not allowed"))
	}, "/ /posts/1 /posts/caf%C3%A9 /posts/a%2Fb /posts/a(b) /posts/ /posts /date/2024/05 /date/24/05 /page/x/latest /page/x.html /users/admin /users/7 /files/ /files/a/b.txt /only-put /any /methods/3 /nothing /posts/1?x=2"},

	{"With", func(r chi.Router, cached wrapper) {
		r.Use(header("outside"))
		r.With(cached).Get("/", show("index"))
		r.With(header("before"), cached, header("after")).Get("/posts/{id}", show("post"))
		r.With(cached).Get("/posts/{id}/{slug}", show("slug"))
		r.With(cached).Get("/files/*", show("files"))
		r.With(cached).Handle("/any/{id}", show("any"))
		r.With(cached).Get("/both", show("GET"))
		r.With(cached).Post("/both", show("POST"))
		r.Get("/uncached/{id}", show("uncached"))
	}, "/ /posts/1 /posts/caf%C3%A9 /posts/1/first /files/ /files/a/b.txt /any/4 /both /uncached/1 /nothing"},

	{"groups", func(r chi.Router, cached wrapper) {
		r.Group(func(r chi.Router) {
			r.Use(cached)
			r.Use(header("group"))
			r.Get("/a/{id}", show("a"))
			r.Get("/b/{id}", show("b"))
			r.Group(func(r chi.Router) {
				r.Use(header("inner"))
				r.Get("/c/{id}", show("c"))
			})
		})
		r.Group(func(r chi.Router) {
			r.Use(header("other"))
			r.Get("/d/{id}", show("d"))
		})
	}, "/a/1 /b/2 /c/3 /d/4 /e"},

	{"Use in sub-routers", func(r chi.Router, cached wrapper) {
		r.Use(header("outside"))
		r.NotFound(status(404, "no page"))
		r.Route("/articles", func(r chi.Router) {
			r.Use(header("before"), cached, header("after"))
			r.Get("/", show("articles"))
			r.Get("/search", show("search"))
			r.Get("/{slug:[a-z-]+}", show("by slug"))
			r.Route("/{id}", func(r chi.Router) {
				r.Use(header("deeper"))
				r.Get("/", show("article"))
				r.Get("/comments/*", show("comments"))
			})
		})
		r.Get("/plain/{id}", show("plain"))
	}, "/articles /articles/ /articles/search /articles/a-slug /articles/123 /articles/123/ /articles/123/comments/ /articles/123/comments/4 /articles/123/nothing /plain/1"},

	{"With in sub-routers", func(r chi.Router, cached wrapper) {
		r.Route("/{org}/posts", func(r chi.Router) {
			r.With(cached).Get("/", show("posts"))
			r.Route("/{id}", func(r chi.Router) {
				r.With(cached).Get("/", show("post"))
				r.With(cached).Get("/files/*", show("files"))
				r.Get("/edit", show("edit"))
			})
		})
	}, "/acme/posts /acme/posts/ /acme/posts/1 /acme/posts/1/ /acme/posts/1/files/a/b /acme/posts/1/edit /acme/posts/1/x"},

	{"mounts", func(r chi.Router, cached wrapper) {
		sub := chi.NewRouter()
		sub.Use(cached)
		sub.Get("/", show("home"))
		sub.Get("/{id}", show("item"))
		sub.NotFound(status(404, "not here"))
		r.Mount("/one", sub)
		r.Mount("/two/{org}", sub)

		other := chi.NewRouter()
		other.Get("/", show("other"))
		other.Get("/{id}/*", show("rest"))
		r.With(cached, header("mount")).Mount("/with", other)

		inner := chi.NewRouter()
		inner.Use(cached)
		inner.Get("/", show("inner"))
		inner.Get("/{id}", show("inner item"))
		outer := chi.NewRouter()
		outer.Mount("/", inner)
		r.Mount("/nested", outer)

		r.With(cached).Mount("/handler", http.StripPrefix("/handler", show("handler")))
	}, "/one /one/ /one/5 /one/5/6 /two/acme /two/acme/ /two/acme/7 /with /with/ /with/8/a/b /with/8 /nested /nested/ /nested/9 /handler /handler/x/y"},

	{"several places on one way", func(r chi.Router, cached wrapper) {
		r.Use(cached)
		r.With(cached).Get("/posts/{id}", show("post"))
		r.Route("/sub", func(r chi.Router) {
			r.Use(cached)
			r.With(cached).Get("/{id}", show("sub"))
		})
	}, "/posts/1 /sub/2 /sub /nothing"},

	{"the file server of chi's examples", func(r chi.Router, cached wrapper) {
		r.Use(cached)
		r.Get("/files", http.RedirectHandler("/files/", http.StatusMovedPermanently).ServeHTTP)
		r.Get("/files/*", func(w http.ResponseWriter, r *http.Request) {
			prefix := strings.TrimSuffix(chi.RouteContext(r.Context()).RoutePattern(), "/*")
			http.StripPrefix(prefix, http.FileServer(http.Dir("."))).ServeHTTP(w, r)
		})
	}, "/files /files/ /files/go.mod /files/nothing"},

	{"not found, from With", func(r chi.Router, cached wrapper) {
		r.With(cached).NotFound(status(404, "not found"))
		r.With(cached).MethodNotAllowed(status(405, "not allowed"))
		r.With(cached).Get("/posts/{id}", show("post"))
		r.Post("/posts", show("edit"))
		r.Route("/sub", func(r chi.Router) {
			r.With(cached).NotFound(status(404, "not found below"))
			r.With(cached).Get("/{id}", show("sub"))
		})
	}, "/nothing /posts /posts/1 /sub/x/y /sub/1 /sub/x/z /nothing"},

	{"paths that a middleware outside changes", func(r chi.Router, cached wrapper) {
		r.Use(middleware.StripSlashes, middleware.URLFormat, cached)
		r.Get("/posts/{id}", show("post"))
	}, "/posts/1 /posts/1/ /posts/1.json /posts/1"},

	{"clean paths", func(r chi.Router, cached wrapper) {
		r.Use(middleware.CleanPath, middleware.GetHead)
		r.With(cached).Get("/posts/{id}", show("post"))
	}, "/posts/1 //posts//1 /posts/x/../1 /posts/1/"},

	{"a handler around a sub-router", func(r chi.Router, cached wrapper) {
		sub := chi.NewRouter()
		sub.Use(cached)
		sub.Get("/{id}", show("hidden"))
		r.Mount("/sub", header("around")(sub))
		r.With(cached).Get("/{id}", show("other"))
	}, "/sub/1 /1 /sub/2"},
}

// ask sends a request as a server would get it.
func ask(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("User-Agent", "curl/8")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// A chi router behaves the same with the middleware and without, to the visitor and
// to its handlers, whether a page is made or shown again.
func TestSameAsWithout(t *testing.T) {
	for _, tt := range routers {
		t.Run(tt.name, func(t *testing.T) {
			plain := chi.NewRouter()
			tt.build(plain, func(next http.Handler) http.Handler { return next })
			with := chi.NewRouter()
			site, cached := isrchi.New(with, isr.Options{Default: isr.Route{Vary: []string{"User-Agent"}}})
			tt.build(with, cached)
			compare := func(method, path string) {
				t.Helper()
				want, got := ask(plain, method, path), ask(with, method, path)
				if got.Code != want.Code || got.Body.String() != want.Body.String() {
					t.Errorf("%s %s:\n  is %d %s\n want %d %s\n  (%s)", method, path, got.Code, got.Body, want.Code, want.Body, got.Header()["Cache-Status"])
				}
				for name := range want.Header() {
					// chi names the methods in no order.
					if g, w := slices.Sorted(slices.Values(got.Header()[name])), slices.Sorted(slices.Values(want.Header()[name])); !slices.Equal(g, w) {
						t.Errorf("%s %s: %s is %q, want %q", method, path, name, g, w)
					}
				}
			}
			for range 3 {
				for _, path := range strings.Fields(tt.paths) {
					compare("GET", path)
				}
			}
			for _, path := range strings.Fields(tt.paths) {
				compare("POST", path)
				compare("PUT", path)
				compare("OPTIONS", path)
			}
			if site.Stats().Pages == 0 {
				t.Error("nothing was stored")
			}
		})
	}
}

// What is shown again comes from memory, whatever router it is in.
func TestHits(t *testing.T) {
	for _, tt := range routers {
		r := chi.NewRouter()
		_, cached := isrchi.New(r, isr.Options{})
		tt.build(r, cached)
		for range 2 {
			for _, path := range strings.Fields(tt.paths) {
				ask(r, "GET", path)
			}
		}
		var passed []string
		for _, path := range strings.Fields(tt.paths) {
			w := ask(r, "GET", path)
			if status := w.Header().Get("Cache-Status"); w.Code == 200 && !strings.HasPrefix(status, "isr; hit") {
				passed = append(passed, path)
			}
		}
		want := map[string][]string{
			"With":                {"/uncached/1"},
			"groups":              {"/d/4"},
			"Use in sub-routers":  {"/plain/1"},
			"With in sub-routers": {"/acme/posts/1/edit"},
			"paths that a middleware outside changes": {"/posts/1/", "/posts/1.json"},
			"clean paths":                   {"//posts//1", "/posts/x/../1", "/posts/1/"},
			"a handler around a sub-router": {"/sub/1", "/sub/2"},
		}[tt.name]
		if !slices.Equal(passed, want) {
			t.Errorf("%s: %q pass, want %q", tt.name, passed, want)
		}
	}
}
