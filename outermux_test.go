package isr_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

// An outer ServeMux's pattern and path values reach the handler, on its first run and
// on background ones, as far as they follow from the key: values that other middleware
// has set could be any visitor's.
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
		"/exact/ pattern=/exact/{$} id= rest= tenant=",
		"/home pattern= id= rest= tenant=",
		"/set/1 pattern=/set/{id} id=1 rest= tenant=",
		"/blog/a%20b/x/y pattern=GET /blog/{id}/{rest...} id=a b rest=x/y tenant=",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The visitor's Host may decide which pattern of an outer ServeMux leads to the Site,
// even where the Host is no part of the key. The pattern is: a page made for an
// outsider's Host is not what the site's own visitors get.
func TestOuterServeMuxWithHosts(t *testing.T) {
	for _, opts := range []isr.Options{{}, {Origin: "http://example.com"}} {
		var v atomic.Int64
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			fmt.Fprintf(w, "%s id=%s v%d", r.Pattern, r.PathValue("id"), v.Load())
		}}
		site := isr.Wrap(c, opts)
		mux := http.NewServeMux()
		mux.Handle("example.com/blog/{id}", site)
		mux.Handle("example.com/about", site)
		mux.Handle("/", site)
		check := func(v int) {
			t.Helper()
			for _, page := range [][2]string{
				{"http://evil.example/blog/1", "/ id="},
				{"http://example.com/blog/1", "example.com/blog/{id} id=1"},
				{"http://evil.example/about", "/ id="},
				{"http://example.com/about", "example.com/about id="},
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
		if err := site.Revalidate(t.Context(), "/blog/1", "/about"); err != nil {
			t.Fatal(err)
		}
		check(1)
		if got := c.calls.Load(); got != 8 {
			t.Errorf("%d runs, want 4 and as many to renew each under its own pattern", got)
		}
	}
}
