package isr_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/isr-go/isr"
)

// routeOf returns the pattern, the first tag and the TTL of the page at a URL.
func routeOf(t *testing.T, site *isr.Site, target string) string {
	t.Helper()
	for range 3 { // the later visits find the route at the stored path
		get(site, target)
	}
	r := httptest.NewRequest("GET", target, nil)
	for p := range site.Pages() {
		if p.Host == r.Host && p.Path == r.URL.EscapedPath() {
			return fmt.Sprintf("%s %s %v", p.Route, strings.Join(p.Tags, ","), p.TTL)
		}
	}
	return "not stored"
}

// A Route beside a handler is that of the handler's pages, wherever ServeMuxes have it;
// together with Options.Routes the patterns decide as in one ServeMux, and at a tie
// Routes does.
func TestWith(t *testing.T) {
	page := new(countingHandler)
	with := func(tag string) http.Handler {
		return isr.With(page, isr.Route{TTL: time.Hour, Tags: []string{tag}})
	}
	deep := http.NewServeMux()
	deep.Handle("GET /shop/k/{kind}/{id}", with("deep"))
	shop := http.NewServeMux()
	shop.Handle("/shop/k/{kind}/", deep)
	shop.Handle("/", with("shop"))
	shop.Handle("/shop/plain", page)
	news := http.NewServeMux()
	news.Handle("/news/{id}", with("inner"))
	news.Handle("/news/list/", page)
	mux := http.NewServeMux()
	mux.Handle("/", page)
	mux.Handle("GET /blog/{id}", with("post"))
	mux.Handle("GET /blog/new", with("new"))
	mux.Handle("/docs/", with("docs"))
	mux.Handle("/docs/own", page)
	mux.Handle("/wide/", with("wide"))
	mux.Handle("/tie/{id}", with("tie"))
	mux.Handle("/cross/{id}/x", with("cross"))
	mux.Handle("/shop/", shop)
	mux.Handle("/news/", isr.With(news, isr.Route{TTL: time.Hour, Tags: []string{"outer"}}))
	mux.Handle("POST /form", with("form"))
	mux.Handle("/mw/", http.HandlerFunc(with("hidden").ServeHTTP))
	mux.Handle("host.example/", with("host"))
	mux.Handle("/loop/", mux)
	site := isr.Wrap(mux, isr.Options{
		Default: isr.Route{TTL: time.Minute},
		Routes: map[string]isr.Route{
			"/blog/":        {TTL: time.Second},
			"/wide/narrow":  {TTL: time.Second},
			"/tie/{name}":   {TTL: time.Second},
			"/cross/a/{x}":  {TTL: time.Second},
			"/shop/special": {TTL: time.Second},
		},
	})
	for target, want := range map[string]string{
		"/":                    "  1m0s",
		"/blog/1":              "GET /blog/{id} post 1h0m0s",
		"/blog/new":            "GET /blog/new new 1h0m0s",
		"/blog/1/comments":     "/blog/  1s",
		"/docs/":               "/docs/ docs 1h0m0s",
		"/docs/a/b":            "/docs/ docs 1h0m0s",
		"/docs/own":            "  1m0s",
		"/wide/1":              "/wide/ wide 1h0m0s",
		"/wide/narrow":         "/wide/narrow  1s",
		"/tie/1":               "/tie/{name}  1s",
		"/cross/a/x":           "/cross/a/{x}  1s",
		"/cross/b/x":           "/cross/{id}/x cross 1h0m0s",
		"/shop/a":              "/shop/ shop 1h0m0s", // of / in a ServeMux at /shop/
		"/shop/special":        "/shop/special  1s",
		"/shop/plain":          "  1m0s",
		"/shop/k/books/1":      "GET /shop/k/{kind}/{id} deep 1h0m0s",
		"/news/1":              "/news/{id} inner 1h0m0s",
		"/news/list/":          "/news/ outer 1h0m0s",
		"/form":                "  1m0s",
		"/mw/1":                "  1m0s",
		"http://host.example/": "host.example/ host 1h0m0s",
		// More specific than the host's pattern for its path, but a ServeMux prefers the host.
		"http://host.example/blog/1":       "host.example/ host 1h0m0s",
		"http://other.example/blog/1":      "GET /blog/{id} post 1h0m0s",
		"http://third.example/blog/1":      "GET /blog/{id} post 1h0m0s",
		"http://fourth.example/blog/1":     "GET /blog/{id} post 1h0m0s",
		"http://fifth.example:8080/blog/1": "GET /blog/{id} post 1h0m0s",
		"http://sixth.example/blog/1":      "GET /blog/{id} post 1h0m0s",
	} {
		if got := routeOf(t, site, target); got != want {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

// A handler that stands in itself is looked into no deeper than it makes sense.
func TestWithInCircle(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/loop/", mux)
	site := isr.Wrap(mux, isr.Options{Default: isr.Route{Bypass: isr.Always}})
	if err := site.Purge(t.Context(), "/loop/a"); err != nil { // looks its route up
		t.Error(err)
	}
}

// A redirect to the clean path, or to the one with a slash at the end, has the route of
// where it leads, with Routes as with With: what bypasses the cache there does here.
func TestRouteOfRedirect(t *testing.T) {
	page := new(countingHandler)
	account := isr.Route{Bypass: isr.Always}
	mux := http.NewServeMux()
	mux.Handle("/with/{lang}/account/", isr.With(page, account))
	mux.Handle("/routes/{lang}/account/", page)
	mux.Handle("/", page)
	site := isr.Wrap(mux, isr.Options{Routes: map[string]isr.Route{"/routes/{lang}/account/": account}})
	for _, under := range []string{"/with/", "/routes/"} {
		for target, want := range map[string]string{
			"de/account":       "isr; fwd=bypass",
			"de/account/":      "isr; fwd=bypass",
			"x/../de/account/": "isr; fwd=bypass",
			"de//account":      "isr; fwd=bypass",
			"de":               "isr; fwd=uri-miss; stored",
		} {
			if got := get(site, under+target).Header.Get("Cache-Status"); got != want {
				t.Errorf("%s%s: %q, want %q", under, target, got, want)
			}
		}
	}
}

// What is asked for by name has the route beside the handler, too.
func TestWithByName(t *testing.T) {
	c := new(countingHandler)
	mux := http.NewServeMux()
	site := isr.Wrap(mux, isr.Options{Origin: "https://example.com"})
	mux.Handle("/search", isr.With(c, isr.Route{Query: []string{"q"}})) // after Wrap
	get(site, "/search?q=a&from=mail")
	get(site, "/search?q=b")
	if err := site.Revalidate(t.Context(), "/search?q=a&ref=x"); err != nil {
		t.Fatal(err)
	}
	if n := c.calls.Load(); n != 3 {
		t.Errorf("the handler was called %d times, want 3", n)
	}
	for path, err := range site.Prerender(t.Context(), func(yield func(string) bool) { yield("/search?q=b&ref=y") }) {
		if err != nil || c.calls.Load() != 3 {
			t.Errorf("%s: %v, %d calls", path, err, c.calls.Load())
		}
	}
}

// A hit costs no more because of routes beside handlers, also at several hosts.
func TestWithHitAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /blog/{id}", isr.With(new(countingHandler), isr.Route{TTL: time.Hour}))
	site := isr.Wrap(mux, isr.Options{})
	for _, host := range []string{"a.example", "b.example", "c.example:8080"} {
		r := httptest.NewRequest("GET", "/blog/1", nil)
		r.Host = host
		w := newSink()
		warm(t, site, r)
		if n := testing.AllocsPerRun(100, func() { w.serve(site, r) }); n > 1 {
			t.Errorf("%s: %v allocations, want 1", host, n)
		}
	}
}

// Outside of a Site, a handler with a Route simply serves.
func TestWithoutSite(t *testing.T) {
	h := isr.With(new(countingHandler), isr.Route{TTL: time.Hour})
	for _, want := range []string{"page 1", "page 2"} {
		if got := body(h, "/"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// The wrapped handler itself may have one.
	site := isr.Wrap(h, isr.Options{Default: isr.Route{Bypass: isr.Always}})
	if got := routeOf(t, site, "/x"); got != "/  1h0m0s" {
		t.Errorf("got %q", got)
	}
}

// With says at once what is wrong.
func TestWithPanics(t *testing.T) {
	for _, test := range []struct {
		handler http.Handler
		route   isr.Route
		want    string
	}{
		{nil, isr.Route{}, "isr: With: nil handler"},
		{new(countingHandler), isr.Route{Timeout: -1}, "isr: With: Route.Timeout: -1ns: "},
		{new(countingHandler), isr.Route{Tags: []string{"/a"}}, `isr: With: Route.Tags: "/a": `},
		{new(countingHandler), isr.Route{Vary: []string{"*"}}, "isr: With: Route.Vary"},
	} {
		if got := fmt.Sprint(recovered(func() { isr.With(test.handler, test.route) })); !strings.HasPrefix(got, test.want) {
			t.Errorf("%+v: %q, want %q", test.route, got, test.want)
		}
	}
}

// A pattern that is written as for another router is refused, with the right spelling.
func TestWrapRespellsPatterns(t *testing.T) {
	for pattern, want := range map[string]string{
		"/posts/:id":            "/posts/{id}",
		"GET /posts/:id":        "GET /posts/{id}",
		"example.com/:a/b/:b-c": "example.com/{a}/b/{b}",
		"/blog/*":               "/blog/{rest...}",
		"/*":                    "/{rest...}",
		"/files/*path":          "/files/{path...}",
		"/a/*/b":                "/a/{any}/b",
		"/posts/{id:[0-9]+}":    "/posts/{id}",
		"/files/{path:.*}":      "/files/{path...}",
	} {
		wrap := func(pattern string) string {
			return fmt.Sprint(recovered(func() {
				isr.Wrap(new(countingHandler), isr.Options{Routes: map[string]isr.Route{pattern: {}}})
			}))
		}
		if got := wrap(pattern); !strings.Contains(got, fmt.Sprintf("Options.Routes[%q]", pattern)) || !strings.HasSuffix(got, fmt.Sprintf("write %q", want)) {
			t.Errorf("%s: %s", pattern, got)
		}
		if got := wrap(want); got != "<nil>" {
			t.Errorf("%s: %s", want, got)
		}
	}
	for _, pattern := range []string{"/wiki/Special:Search", "/a*b", "/:", "/%3Aid", "/%2A", "/{rest...}", "/{$}"} {
		if got := recovered(func() {
			isr.Wrap(new(countingHandler), isr.Options{Routes: map[string]isr.Route{pattern: {}}})
		}); got != nil {
			t.Errorf("%s: %v", pattern, got)
		}
	}
}
