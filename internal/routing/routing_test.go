package routing_test

import (
	"net/http/httptest"
	"testing"

	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/routing"
)

func table(t *testing.T, o pagekey.Origin, patterns ...string) *routing.Table {
	t.Helper()
	route := func(pattern string) *policy.Route {
		rt, err := policy.New(pattern, policy.Spec{Query: []string{"page"}}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return rt
	}
	table := routing.New(o, route(""))
	for _, pattern := range patterns {
		if err := table.Add(route(pattern)); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

// The most specific pattern alone decides, as in a ServeMux; a path that is not clean
// has the route of the clean one.
func TestOf(t *testing.T) {
	routes := table(t, pagekey.Origin{}, "/blog/{id}", "GET /blog/new", "/docs/", "example.org/blog/{id}")
	for target, want := range map[string]string{
		"/":                           "",
		"/blog/1":                     "/blog/{id}",
		"/blog/new":                   "GET /blog/new",
		"/blog/1/2":                   "",
		"/docs/a/b":                   "/docs/",
		"http://example.org/blog/1":   "example.org/blog/{id}",
		"http://Example.org:80/blog/": "",
	} {
		r := httptest.NewRequest("GET", target, nil)
		if got := routes.Of(r, r.URL.EscapedPath()).Pattern; got != want {
			t.Errorf("%s: got %q, want %q", target, got, want)
		}
	}
	if got := routes.Of(httptest.NewRequest("GET", "/x/../docs/", nil), "/docs/").Pattern; got != "/docs/" {
		t.Errorf("the clean path has another route: %q", got)
	}
	if !routes.HasHosts() || table(t, pagekey.Origin{}, "GET /a").HasHosts() {
		t.Error("HasHosts")
	}
}

// What cannot be added says why, and changes nothing.
func TestAdd(t *testing.T) {
	routes := table(t, pagekey.Origin{}, "/blog/{id}")
	for _, pattern := range []string{"POST /", "/blog/{name}", "blog", "/{", ""} {
		if err := routes.Add(&policy.Route{Pattern: pattern}); err == nil {
			t.Errorf("%q was added", pattern)
		}
	}
	if got := routes.Of(httptest.NewRequest("GET", "/blog/1", nil), "/blog/1").Pattern; got != "/blog/{id}" {
		t.Errorf("got %q", got)
	}
}

// A path names all queries unless it has one, of which its route's parameters count; at
// the Site's one origin its host says nothing.
func TestTarget(t *testing.T) {
	o := pagekey.Origin{Scheme: "https", Host: "example.com"}
	routes := table(t, o, "/blog/{id}")
	for name, want := range map[string]pagekey.Scope{
		"/blog/1":                       {Path: "/blog/1", AllQueries: true},
		"/blog/1?page=2&utm_source=x":   {Path: "/blog/1", Query: "page=2"},
		"https://example.com/blog/%61":  {Path: "/blog/a", AllQueries: true},
		"https://EXAMPLE.com:443?b=c":   {Path: "/"},
		"https://example.com":           {Path: "/", AllQueries: true},
		"/blog/1?utm_source=newsletter": {Path: "/blog/1"},
	} {
		got, err := routes.Target(name)
		if err != nil || got.Scope != want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got.Scope, err, want)
		}
		if k, ok := got.Key(o, nil); !ok || !got.IsPlain(&k) || k.Path != want.Path {
			t.Errorf("%s: its page is %+v, %v", name, k, ok)
		}
	}
	if _, err := routes.Targets([]string{"/", "blog", "http://example.com/", "/a#b", "/a/../b"}); err == nil {
		t.Error("what is no path was taken for one")
	}
	// Without a host nobody knows which route's parameters count.
	hosts := table(t, pagekey.Origin{}, "example.org/blog/{id}")
	if got, err := hosts.Target("/blog/1?page=2"); err != nil || !got.AllQueries {
		t.Errorf("got %+v, %v", got.Scope, err)
	} else if _, ok := got.Key(pagekey.Origin{}, nil); ok {
		t.Error("the page's host is known")
	}
}
