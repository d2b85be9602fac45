package isr_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
)

func TestWrapPanics(t *testing.T) {
	h := new(countingHandler)
	routes := func(pattern string, r isr.Route) isr.Options {
		return isr.Options{Routes: map[string]isr.Route{pattern: r}}
	}
	for _, test := range []struct {
		handler http.Handler
		opts    isr.Options
		want    []string // parts of the message
	}{
		{nil, isr.Options{}, []string{"nil handler"}},
		{h, isr.Options{MaxBytes: -1}, []string{"MaxBytes", "-1"}},
		{h, isr.Options{MaxPageBytes: -2}, []string{"MaxPageBytes", "-2"}},
		{h, isr.Options{MaxRegenerations: -3}, []string{"MaxRegenerations", "-3"}},
		{h, isr.Options{Origin: "example.com"}, []string{"Origin", `"example.com"`, "https://example.com"}},
		{h, isr.Options{Origin: "ftp://example.com"}, []string{"Origin", `"ftp://example.com"`}},
		{h, isr.Options{Origin: "https://"}, []string{"Origin", `"https://"`}},
		{h, isr.Options{Origin: "https://example.com/shop"}, []string{"Origin", `"https://example.com/shop"`}},
		{h, isr.Options{Origin: "https://user@example.com"}, []string{"Origin", `"https://user@example.com"`}},
		{h, isr.Options{Origin: "https://%zz"}, []string{"Origin", `"https://%zz"`}},
		{h, isr.Options{Default: isr.Route{Timeout: -1}}, []string{"Options.Default.Timeout", "-1ns"}},
		{h, routes("/x", isr.Route{Timeout: -5}), []string{`Options.Routes["/x"].Timeout`, "-5ns"}},
		{h, routes("blog", isr.Route{}), []string{`Options.Routes["blog"]`}},
		{h, routes("/{id", isr.Route{}), []string{`Options.Routes["/{id"]`}},
		{h, routes("", isr.Route{}), []string{`Options.Routes[""]`}},
		{h, routes("POST /x", isr.Route{}), []string{`Options.Routes["POST /x"]`, "POST", "GET"}},
		{h, isr.Options{Routes: map[string]isr.Route{"/{a}/x": {}, "/x/{b}": {}}}, []string{`Options.Routes["/{a}/x"]`, `"/x/{b}"`}},
		{h, routes("/x", isr.Route{Vary: []string{"*"}}), []string{"Vary", `"*"`}},
		{h, routes("/x", isr.Route{Vary: []string{"Accept Language"}}), []string{"Vary", `"Accept Language"`}},
		{h, routes("/x", isr.Route{Vary: []string{"range"}}), []string{"Vary", "Range"}},
		{h, routes("/x", isr.Route{Vary: []string{"If-None-Match"}}), []string{"Vary", "If-None-Match"}},
		{h, routes("/x", isr.Route{Vary: []string{"Connection"}}), []string{"Vary", "Connection"}},
		{h, routes("/x", isr.Route{VaryCookies: []string{"a=b"}}), []string{"VaryCookies", `"a=b"`}},
		{h, routes("/x", isr.Route{Tags: []string{""}}), []string{"Tags", `""`, "not empty"}},
		{h, routes("/x", isr.Route{Tags: []string{"a,b"}}), []string{"Tags", `"a,b"`, "comma"}},
		{h, routes("/x", isr.Route{Tags: []string{" a"}}), []string{"Tags", `" a"`, "space"}},
		{h, routes("/x", isr.Route{Tags: []string{strings.Repeat("x", 257)}}), []string{"Tags", "256"}},
		{h, routes("/x", isr.Route{Tags: []string{"/a"}}), []string{"Tags", `"/a"`, "Revalidate"}},
		{h, routes("/x", isr.Route{CacheControl: "public\nX-Evil: 1"}), []string{"CacheControl", `"public\nX-Evil: 1"`}},
	} {
		got := fmt.Sprint(recovered(func() { isr.Wrap(test.handler, test.opts) }))
		for _, part := range append(test.want, "isr: ") {
			if !strings.Contains(got, part) {
				t.Errorf("%+v: panic %q does not say %s", test.opts, got, part)
			}
		}
	}
}

// Wrap accepts the request headers that a developer would usually declare in Vary.
func TestWrapAcceptsUsualVary(t *testing.T) {
	isr.Wrap(new(countingHandler), isr.Options{
		Origin:  "http://localhost:8080",
		Default: isr.Route{Vary: []string{"Host", "X-Forwarded-Proto", "accept-encoding", "Cookie", "Cookie"}, VaryCookies: []string{"a", "a"}},
	})
}

// The best match alone decides, and nothing is inherited.
func TestBestMatchDecides(t *testing.T) {
	site := isr.Wrap(new(countingHandler), isr.Options{
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
		for range 2 { // the second visit finds the route at the stored path
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

// A stored path remembers its own route, not that of another path spelt much like it:
// /blog/%2e%2e/x may be a post named "..".
func TestRouteOfSpelling(t *testing.T) {
	site := isr.Wrap(new(countingHandler), isr.Options{Routes: map[string]isr.Route{"/blog/": {}, "/account/": {Bypass: isr.Always}}})
	for range 2 {
		for target, want := range map[string]bool{"/blog/%2e%2e/account/me": false, "/blog/../account/me": true} {
			if got := get(site, target).Header.Get("Cache-Status"); (got == "isr; fwd=bypass") != want {
				t.Errorf("%s: %q", target, got)
			}
		}
	}
}
