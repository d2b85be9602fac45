package isr_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// An outer ServeMux's pattern and path values reach the handler, on its first run and
// on background ones, as far as they follow from the key: values that other middleware
// has set could be any visitor's, and a pattern without path values has none to give.
func TestOuterServeMux(t *testing.T) {
	var got []string
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		got = append(got, fmt.Sprintf("%s pattern=%s id=%s rest=%s tenant=%s", r.URL, r.Pattern, r.PathValue("id"), r.PathValue("rest"), r.PathValue("tenant")))
	}}
	site := isr.Wrap(c, isr.Options{})
	mux := http.NewServeMux()
	mux.Handle("GET /blog/{id}/{rest...}", site)
	mux.Handle("/exact/{$}", site)
	mux.HandleFunc("/tenants/{tenant}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		http.StripPrefix("/tenants/"+r.PathValue("tenant"), site).ServeHTTP(w, r)
	})
	mux.HandleFunc("/set/{id}", func(w http.ResponseWriter, r *http.Request) {
		r.SetPathValue("tenant", "alice")
		site.ServeHTTP(w, r)
	})
	mux.Handle("HEAD /both/{id}", site)
	mux.Handle("GET /both/{id}", site)
	mux.Handle("example.org/hosts/{id}", site)
	mux.HandleFunc("/chi/", func(w http.ResponseWriter, r *http.Request) {
		r.Pattern = "/{lang:en|de}/*" // set by another router
		site.ServeHTTP(w, r)
	})
	do(mux, "HEAD", "/both/1")
	do(mux, "GET", "http://example.org/hosts/1")
	get(mux, "/chi/en")
	get(mux, "/blog/a%20b/x/y")
	get(mux, "/exact/")
	get(mux, "/tenants/alice/home")
	get(mux, "/tenants/bob/home")
	get(mux, "/set/1")
	if err := site.Revalidate(t.Context(), "/blog/a b/x/y"); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"/both/1 pattern=GET /both/{id} id=1 rest= tenant=",
		"/hosts/1 pattern=example.org/hosts/{id} id=1 rest= tenant=",
		"/chi/en pattern= id= rest= tenant=",
		"/blog/a%20b/x/y pattern=GET /blog/{id}/{rest...} id=a b rest=x/y tenant=",
		"/exact/ pattern= id= rest= tenant=",
		"/home pattern= id= rest= tenant=",
		"/set/1 pattern=/set/{id} id=1 rest= tenant=",
		"/blog/a%20b/x/y pattern=GET /blog/{id}/{rest...} id=a b rest=x/y tenant=",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The visitor's Host may decide which pattern of an outer ServeMux leads to the Site,
// even where the Host is no part of the key. A pattern with path values is: a page made
// for an outsider's Host is not what the site's own visitors get.
func TestOuterServeMuxWithHosts(t *testing.T) {
	for _, opts := range []isr.Options{{}, {Origin: "http://example.com"}} {
		var v atomic.Int64
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			fmt.Fprintf(w, "%s id=%s v%d", r.Pattern, r.PathValue("id"), v.Load())
		}}
		site := isr.Wrap(c, opts)
		mux := http.NewServeMux()
		mux.Handle("example.com/blog/{id}", site)
		mux.Handle("/", site)
		check := func(v int) {
			t.Helper()
			for _, page := range [][2]string{
				{"http://evil.example/blog/1", " id="},
				{"http://EXAMPLE.com/blog/1", " id="}, // to a ServeMux another host
				{"http://example.com./blog/1", " id="},
				{"http://example.com/blog/1", "example.com/blog/{id} id=1"},
			} {
				for _, method := range []string{"HEAD", "GET"} {
					res := do(mux, method, page[0])
					if want := fmt.Sprintf("%s v%d", page[1], v); method == "GET" && read(res) != want {
						t.Errorf("%+v: %s is not %q", opts, page[0], want)
					}
				}
			}
		}
		check(0)
		v.Store(1)
		if err := site.Revalidate(t.Context(), "/blog/1"); err != nil {
			t.Fatal(err)
		}
		check(1)
		pages := int64(2)
		if opts.Origin == "" {
			pages++ // of the other host
		}
		if got := c.calls.Load(); got != 2*pages {
			t.Errorf("%+v: %d runs, want %d and as many to renew each under its own pattern", opts, got, pages)
		}
	}
}

// A pattern without path values is not seen, whatever may lead from it to a page: that
// page is one for all of them, and the one that Prerender makes.
func TestOuterPatternsWithoutValues(t *testing.T) {
	for name, test := range map[string]struct {
		mount func(mux *http.ServeMux, site http.Handler)
		asks  []string // methods and URLs of one page
	}{
		"spellings of a host": {
			func(mux *http.ServeMux, site http.Handler) {
				mux.Handle("example.com/about", site)
				mux.Handle("/", site)
			},
			[]string{"GET http://EXAMPLE.com/about", "GET http://example.com./about", "GET http://example.com/about"},
		},
		"methods": {
			func(mux *http.ServeMux, site http.Handler) {
				mux.Handle("HEAD /about", site)
				mux.Handle("/", site)
			},
			[]string{"HEAD http://example.com/about", "GET http://example.com/about"},
		},
		"one path alone": {
			func(mux *http.ServeMux, site http.Handler) {
				mux.Handle("HEAD /about/{$}", site)
				mux.Handle("/about/", site)
			},
			[]string{"HEAD http://example.com/about/", "GET http://example.com/about/"},
		},
		"prefixes": {
			func(mux *http.ServeMux, site http.Handler) {
				mux.Handle("/about/", http.StripPrefix("/about", site))
				mux.Handle("/b/", http.StripPrefix("/b", site))
			},
			[]string{"GET http://example.com/about/about/us", "GET http://example.com/b/about/us"},
		},
		"another router": {
			func(mux *http.ServeMux, site http.Handler) {
				for prefix, pattern := range map[string]string{"/a/": "/about/*", "/b/": "/about/us", "/c/": "/:page/*rest", "/d/": "GET /about/"} {
					mux.Handle(prefix, http.StripPrefix(prefix[:2], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						r.Pattern = pattern
						site.ServeHTTP(w, r)
					})))
				}
			},
			[]string{"GET http://example.com/a/about/us", "GET http://example.com/b/about/us", "GET http://example.com/c/about/us", "GET http://example.com/d/about/us"},
		},
	} {
		for _, origin := range []string{"", "http://example.com"} {
			for first := range test.asks {
				c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) { fmt.Fprintf(w, "pattern %q", r.Pattern) }}
				site := isr.Wrap(c, isr.Options{Origin: origin})
				mux := http.NewServeMux()
				test.mount(mux, site)
				for i := range test.asks {
					method, url, _ := strings.Cut(test.asks[(first+i)%len(test.asks)], " ")
					if res := do(mux, method, url); method == "GET" && read(res) != `pattern ""` {
						t.Errorf("%s, Origin %q: the page at %s is made by a pattern", name, origin, url)
					}
				}
				for p := range site.Pages() {
					for _, err := range site.Prerender(t.Context(), slices.Values([]string{"http://example.com" + p.Path})) {
						if err != nil {
							t.Error(err)
						}
					}
				}
				if got := c.calls.Load(); got != 1 {
					t.Errorf("%s, Origin %q, %s first: %d runs, want one page", name, origin, test.asks[first], got)
				}
			}
		}
	}
}
