package changed_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/changed"
	"github.com/isr-go/isr/internal/pagekey"
)

// RFC 9111, section 4.4: beside its own target, an answer names what it has changed by
// Location and Content-Location, but only at its own origin.
func TestNamed(t *testing.T) {
	for name, test := range map[string]struct {
		origin   pagekey.Origin
		location string
		content  string
		want     []string
	}{
		"none":                      {want: []string{"/a"}},
		"a path":                    {location: "/b", want: []string{"/a", "/b by Location"}},
		"relative":                  {location: "c?d=e", want: []string{"/a", "/c by Location"}},
		"its own path":              {location: "/a?page=2", want: []string{"/a"}},
		"another spelling":          {location: "/%61", want: []string{"/a"}},
		"both":                      {location: "/b", content: "/c", want: []string{"/a", "/b by Location", "/c"}},
		"the same by both":          {location: "/b", content: "/b", want: []string{"/a", "/b"}},
		"this host":                 {location: "http://Example.com:80/b", want: []string{"/a", "/b by Location"}},
		"another host":              {location: "http://example.org/b", want: []string{"/a"}},
		"the origin's host":         {origin: pagekey.Origin{Scheme: "https", Host: "example.org"}, location: "https://example.org/b", want: []string{"/a", "/b by Location"}},
		"another scheme":            {location: "mailto:b@example.com", want: []string{"/a"}},
		"no URL":                    {location: "http://[", want: []string{"/a"}},
		"a path that has no pages":  {location: "/b/%2e%2e/c", want: []string{"/a"}},
		"the host of another's URL": {location: "//example.org/b", want: []string{"/a"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/a", nil)
			own, ok := changed.Own(r)
			if !ok {
				t.Fatal("no path of its own")
			}
			h := make(http.Header)
			for name, value := range map[string]string{"Location": test.location, "Content-Location": test.content} {
				if value != "" {
					h.Set(name, value)
				}
			}
			var got []string
			for _, p := range changed.Named([]changed.Path{own}, r, h, test.origin) {
				s := p.Canonical
				if p.ByLocation {
					s += " by Location"
				}
				got = append(got, s)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A target that is no path, or that the cache does not know, changes nothing.
func TestOwn(t *testing.T) {
	for target, want := range map[string]bool{"/a": true, "/a%2fb": true, "/a/../b": false, "/a/%2e%2e/b": false} {
		if _, ok := changed.Own(httptest.NewRequest("POST", target, nil)); ok != want {
			t.Errorf("%s: %v", target, ok)
		}
	}
	r := httptest.NewRequest("OPTIONS", "/", nil)
	r.URL.Path, r.URL.Opaque = "", "*"
	if _, ok := changed.Own(r); ok {
		t.Error("* is a path")
	}
}

// What sends the visitor to another spelling of the same path has done nothing else.
func TestOnlyCleansPath(t *testing.T) {
	for _, test := range []struct {
		status   int
		location string
		want     bool
	}{
		{301, "/a/", true},
		{308, "http://www.example.com/a", true},
		{308, "https://example.com/a", true},
		{307, "/a/?b=c", true},
		{303, "/a/", false},
		{302, "/a/", false},
		{301, "/b", false},
		{301, "/a", false},
		{301, "", false},
		{200, "/a/", false},
	} {
		h := make(http.Header)
		h.Set("Location", test.location)
		if got := changed.OnlyCleansPath(httptest.NewRequest("POST", "/a", nil), test.status, h); got != test.want {
			t.Errorf("%d %q: %v", test.status, test.location, got)
		}
	}
}

// A path is allowed ten times a minute, whatever is asked for others, and however many
// they are it takes no more memory.
func TestLimiter(t *testing.T) {
	l, now := changed.NewLimiter(), time.Now()
	for i := range 12 {
		if got, want := l.Allow("/", now.Add(time.Duration(i)*time.Second)), i < 10; got != want {
			t.Errorf("%d: %v", i, got)
		}
		if !l.Allow(fmt.Sprint("/", i), now) {
			t.Errorf("%d: another path is not allowed", i)
		}
	}
	if !l.Allow("/", now.Add(time.Minute)) || l.Allow("/", now.Add(time.Minute)) {
		t.Error("a minute after the first it is not allowed once more")
	}
}
