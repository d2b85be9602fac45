package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// A path that ends in "/*" reaches what is below it, on its host, and nothing else.
func TestBelowAPath(t *testing.T) {
	deep := "/1/2/3/4/5/6/7/8/9"
	long := "/" + strings.Repeat("long", 100)
	all := []string{
		"http://a.example/", "http://a.example/blog", "http://a.example/blog/", "http://a.example/blog/1", "http://a.example/blog/1?q=1",
		"http://a.example/blog/2/comments", "http://a.example/blogs/1", "http://a.example/a%2Fb/c", "http://a.example/a/b/c",
		"http://b.example/blog/1", "http://a.example" + deep, "http://a.example/1/2/3/4/5/6/7/other", "http://a.example/1/2/3/4/5/6/other",
		"http://a.example" + long + "/x/y", "http://a.example" + long + "/z", "http://a.example/blog/*", "http://a.example/caf%C3%A9/1",
	}
	for name, want := range map[string][]string{
		"/*":                        all,
		"http://a.example/*":        slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.HasPrefix(s, "http://b") }),
		"HTTP://B.example:80/*":     {"http://b.example/blog/1"},
		"/blog/*":                   {"http://a.example/blog/", "http://a.example/blog/1", "http://a.example/blog/1?q=1", "http://a.example/blog/2/comments", "http://b.example/blog/1", "http://a.example/blog/*"},
		"http://a.example/blog/1/*": nil,
		"/blog/2/*":                 {"http://a.example/blog/2/comments"},
		"/a%2fb/*":                  {"http://a.example/a%2Fb/c", "http://a.example/a/b/c"}, // which are one path to many handlers
		"/a/*":                      {"http://a.example/a%2Fb/c", "http://a.example/a/b/c"},
		"/café/*":                   {"http://a.example/caf%C3%A9/1"},
		"/blog/%2A":                 {"http://a.example/blog/*"},
		"/1/2/3/4/5/6/7/*":          {"http://a.example" + deep, "http://a.example/1/2/3/4/5/6/7/other"},
		deep + "/10/*":              {"http://a.example" + deep, "http://a.example/1/2/3/4/5/6/7/other"},
		long + "/*":                 {"http://a.example" + long + "/x/y", "http://a.example" + long + "/z"},
		long + "/x/*":               {"http://a.example" + long + "/x/y"},
		"https://a.example/*":       nil,
	} {
		for how, call := range map[string]func(*isr.Site, context.Context, ...string) error{
			"Expire": (*isr.Site).Expire, "Purge": (*isr.Site).Purge, "Revalidate": (*isr.Site).Revalidate,
		} {
			if how == "Revalidate" && !strings.HasSuffix(name, "*") {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				c := new(countingHandler)
				site := isr.Wrap(c, isr.Options{})
				for _, url := range all {
					get(site, url)
				}
				if err := call(site, t.Context(), name); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				synctest.Wait()
				if got := c.calls.Load(); got != int64(len(all)) {
					t.Errorf("%s of %s: %d pages are generated at once", how, name, got-int64(len(all)))
				}
				var reached []string
				for _, url := range all {
					got := get(site, url).Header.Get("Cache-Status")
					if got != "isr; hit" {
						reached = append(reached, url)
						if prefix := map[string]string{"Expire": "isr; fwd=stale", "Purge": "isr; fwd=uri-miss", "Revalidate": "isr; hit; ttl="}[how]; !strings.HasPrefix(got, prefix) {
							t.Errorf("%s of %s: %s: %s", how, name, url, got)
						}
					}
				}
				synctest.Wait()
				if diff := cmp.Diff(want, reached); diff != "" {
					t.Errorf("%s of %s reached (-want +got):\n%s", how, name, diff)
				}
			})
		}
	}
}

// A star that is not the last segment, and a query after one, are errors; then nothing
// changes. What is generated has no star for a segment at its end.
func TestStarsThatNameNothing(t *testing.T) {
	site := isr.Wrap(new(countingHandler), isr.Options{Origin: "http://example.com"})
	get(site, "/a/b/b")
	for _, name := range []string{"/a/*/b", "/a*", "/*a", "/*/*", "/a/**", "/a/*?q=1", "/a/*/", "*", "a/*", "http://example.org/*"} {
		for how, call := range map[string]func(context.Context, ...string) error{"Revalidate": site.Revalidate, "Expire": site.Expire, "Purge": site.Purge} {
			if err := call(t.Context(), "/*", name); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("isr: path %q: ", name)) {
				t.Errorf("%s of %s: %v", how, name, err)
			}
		}
	}
	if got := get(site, "/a/b/b").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("after errors: %q", got)
	}
	for name, want := range map[string]string{
		"/a/*":          `isr: path "/a/*": names all pages below a path, and not one that could be generated; a star in a path is written "%2A"`,
		"/*":            `isr: path "/*": names all pages below a path, and not one that could be generated; a star in a path is written "%2A"`,
		"/wiki/M*A*S*H": "<nil>",
		"/a/%2A":        "<nil>",
	} {
		for _, err := range site.Prerender(t.Context(), slices.Values([]string{name})) {
			if fmt.Sprint(err) != want {
				t.Errorf("Prerender of %s: %v", name, err)
			}
		}
	}
	for _, path := range []string{"/wiki/M*A*S*H", "/a/%2A"} {
		if got := get(site, path).Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("%s was prerendered: %q", path, got)
		}
	}
}

// What is below a path is reached on every instance, in the Store, and while it is being
// generated. Values that pages share are not below any path.
func TestBelowAPathInTheFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		menu := isr.Data[int]{Name: "menu"}
		fetched, entered, release := 0, make(chan bool), make(chan bool)
		c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			if _, err := menu.Load(r.Context(), "/blog/1", func(context.Context) (int, error) { fetched++; return fetched, nil }); err != nil {
				t.Error(err)
			}
			if r.URL.Path == "/blog/slow" && n < 5 {
				entered <- true
				<-release
			}
			fmt.Fprint(w, "page ", n)
		}}
		in := fleet(t, memory.New(), isr.Options{Origin: "http://example.com", Version: "1"})
		a, b := in.start(c), in.start(c)
		get(a, "/blog/1")
		synctest.Wait()
		get(b, "/blog/1")
		get(a, "/blog/2")
		synctest.Wait()
		slow := make(chan *http.Response)
		go func() { slow <- get(a, "/blog/slow") }()
		<-entered
		if err := b.Purge(t.Context(), "/*"); err != nil {
			t.Fatal(err)
		}
		release <- true
		<-slow
		synctest.Wait()
		for what, site := range map[string]*isr.Site{"who purged": b, "another": a, "one that starts later": in.start(c)} {
			for p := range site.Pages() {
				if p.Scheme != "data" {
					t.Errorf("%s has %s", what, p.Path)
				}
			}
		}
		later := in.start(c)
		for _, path := range []string{"/blog/1", "/blog/2", "/blog/slow"} {
			if got := get(later, path).Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
				t.Errorf("%s from the Store: %q", path, got)
			}
			synctest.Wait()
		}
		if fetched != 1 {
			t.Errorf("the value was fetched %d times, want once", fetched)
		}
	})
}

// A webhook may name what is below a path, and is not told how many pages that are. A
// prefix is stale by POST, expired by expire=1, gone by DELETE.
func TestRevalidateHandlerBelowAPath(t *testing.T) {
	for call, want := range map[string]string{
		"POST /hook?path=/blog/*":                "isr; hit; ttl=0; detail=stale",
		"POST /hook?path=/blog/*&expire=1":       "isr; fwd=stale; stored",
		"DELETE /hook?path=http://example.com/*": "isr; fwd=uri-miss; stored",
		"POST /hook?path=/blog/*/1":              "isr; hit",
	} {
		synctest.Test(t, func(t *testing.T) {
			var j journal
			site := isr.Wrap(new(countingHandler), isr.Options{Origin: "http://example.com", Observe: j.observe})
			get(site, "/blog/1")
			j.taken()
			method, url, _ := strings.Cut(call, " ")
			res := do(isr.RevalidateHandler(site, "secret"), method, url, "Authorization", "Bearer secret")
			events, _ := j.taken()
			if answer := read(res); want == "isr; hit" {
				if res.StatusCode != 400 || len(events) > 0 {
					t.Errorf("%s: %d %q", call, res.StatusCode, events)
				}
			} else if answer != `{"revalidated":true}`+"\n" || len(events) != 1 || !strings.Contains(events[0], "/*") {
				t.Errorf("%s: answer %s, events %q", call, answer, events)
			}
			if got := get(site, "/blog/1").Header.Get("Cache-Status"); got != want {
				t.Errorf("%s: %q, want %q", call, got, want)
			}
			synctest.Wait()
		})
	}
}
