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
		"no path, which is / (RFC 9110, section 4.2.3)": {location: "http://example.com", want: []string{"/a", "/ by Location"}},
		"no scheme and no path":                         {content: "//example.com", want: []string{"/a", "/"}},
		"a query and no path":                           {location: "http://example.com?b=c", want: []string{"/a", "/ by Location"}},
		"a fragment and no path":                        {location: "http://example.com#b", want: []string{"/a", "/ by Location"}},
		"another host and no path":                      {location: "http://example.org", want: []string{"/a"}},
		"no host and no path":                           {location: "http:", want: []string{"/a"}},
		"spaces, which are no part of it":               {location: " /b\t", content: " ", want: []string{"/a", "/b by Location"}},
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
		target   string
		status   int
		location string
		want     bool
	}{
		{"/a", 301, "/a/", true},
		{"/a", 308, "http://www.example.com/a", true},
		{"/a", 308, "https://example.com/a", true},
		{"/a", 307, "/a/?b=c", true},
		{"/a", 307, " /a/", true},
		{"/a", 303, "/a/", false},
		{"/a", 302, "/a/", false},
		{"/a", 301, "/b", false},
		{"/a", 301, "/a", false},
		{"/a", 301, "", false},
		{"/a", 301, "http://www.example.com", false},
		{"/a", 200, "/a/", false},
		{"/", 308, "https://example.com", true},
		{"/", 308, "https://example.com?b=c", true},
		{"/", 301, "//www.example.com", true},
		{"/", 301, "http://example.com", false},
	} {
		h := make(http.Header)
		h.Set("Location", test.location)
		if got := changed.OnlyCleansPath(httptest.NewRequest("POST", test.target, nil), test.status, h); got != test.want {
			t.Errorf("%s: %d %q: %v", test.target, test.status, test.location, got)
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

// A name keeps its count however many others are named meanwhile: what is forgotten is
// what was named least often, and long ago rather than lately.
func TestLimiterKeepsWhatIsNamedOften(t *testing.T) {
	l, now := changed.NewLimiter(), time.Now()
	allowed := 0
	for round := range 6 {
		for range 4 {
			if l.Allow("/", now) {
				allowed++
			}
		}
		for i := range 10_000 {
			name := fmt.Sprint("/", round, "/", i)
			if !l.Allow(name, now) {
				t.Fatalf("%s is not allowed once", name)
			}
		}
	}
	if allowed != 10 {
		t.Errorf("allowed %d times within a minute, want 10", allowed)
	}
	now = now.Add(time.Minute)
	for i := range 4096 {
		l.Allow(fmt.Sprint("/later/", i), now)
	}
	for i := range 10 {
		if !l.Allow("/later/0", now) && i < 9 {
			t.Errorf("%d: what was named a minute ago keeps its place", i)
		}
	}
}
