package isr_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// show prints what a visitor gets.
func show(h http.Handler, target string, header ...string) {
	res := get(h, target, header...)
	b, _ := io.ReadAll(res.Body)
	fmt.Printf("%d %s (%s)\n", res.StatusCode, b, res.Header.Get("Cache-Status"))
}

func Example() {
	posts := map[string]string{"1": "Hello"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /blog/{id}", func(w http.ResponseWriter, r *http.Request) {
		post, ok := posts[r.PathValue("id")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, post)
	})

	site := isr.Wrap(mux, isr.Options{
		Default: isr.Route{TTL: time.Minute},
		Routes: map[string]isr.Route{
			"/blog/{id}": {Tags: []string{"blog"}}, // kept until revalidated
		},
	})

	show(site, "/blog/1")
	posts["1"] = "Hello again"
	show(site, "/blog/1")
	site.Revalidate(context.Background(), "/blog/1")
	show(site, "/blog/1")
	// Output:
	// 200 Hello (isr; fwd=uri-miss; stored)
	// 200 Hello (isr; hit)
	// 200 Hello again (isr; hit)
}

// The route of a page can stand beside its handler.
func ExampleWith() {
	post := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "post ", r.PathValue("id"))
	})
	search := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "results for ", r.FormValue("q"))
	})

	mux := http.NewServeMux()
	mux.Handle("GET /blog/{id}", isr.With(post, isr.Route{TTL: 10 * time.Second, Tags: []string{"blog"}}))
	mux.Handle("GET /search", isr.With(search, isr.Route{TTL: time.Minute, Query: []string{"q"}}))
	site := isr.Wrap(mux, isr.Options{})

	show(site, "/blog/1")
	show(site, "/search?q=go&from=menu")
	show(site, "/search?q=go")
	for page := range site.Pages() {
		if page.Path == "/blog/1" {
			fmt.Println(page.Route, page.TTL, page.Tags)
		}
	}
	// Output:
	// 200 post 1 (isr; fwd=uri-miss; stored)
	// 200 results for go (isr; fwd=uri-miss; stored)
	// 200 results for go (isr; hit; ttl=60)
	// GET /blog/{id} 10s [blog]
}

// The usual mistake: a page for one visitor, without a Bypass. It works all the
// same, only slower, and no visitor sees the name of another: the handler is first
// asked for the page that everybody would get, without any visitor's cookie; it
// marks its answer private; and so each visitor's own request is served.
//
// The remedy is Bypass for the pages that are for one visitor, or a page that is
// the same for everyone and fetches the name from an address that is bypassed.
func Example_mistake() {
	account := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		name := "stranger"
		if c, err := r.Cookie("name"); err == nil {
			name = c.Value
		}
		fmt.Fprintf(w, "Hello, %s!", name)
	})

	site := isr.Wrap(account, isr.Options{Default: isr.Route{TTL: time.Minute}})
	show(site, "/account", "Cookie", "name=Ann")
	show(site, "/account", "Cookie", "name=Bob")

	// Nothing leaks even where the handler forgets to say so: it never sees a
	// cookie, and greets everybody as a stranger.
	forgetful := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		account(rec, r)
		io.Copy(w, rec.Body)
	}), isr.Options{Default: isr.Route{TTL: time.Minute}})
	show(forgetful, "/account", "Cookie", "name=Ann")
	show(forgetful, "/account", "Cookie", "name=Bob")

	right := isr.Wrap(account, isr.Options{
		Default: isr.Route{TTL: time.Minute},
		Routes:  map[string]isr.Route{"/account": {Bypass: isr.Always}},
	})
	show(right, "/account", "Cookie", "name=Ann")
	// Output:
	// 200 Hello, Ann! (isr; fwd=bypass; detail=uncacheable)
	// 200 Hello, Bob! (isr; fwd=bypass; detail=uncacheable)
	// 200 Hello, stranger! (isr; fwd=uri-miss; stored)
	// 200 Hello, stranger! (isr; hit; ttl=60)
	// 200 Hello, Ann! (isr; fwd=bypass)
}

func ExampleRevalidateHandler() {
	price := 10
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Tag", "prices")
		fmt.Fprintf(w, "%d €", price)
	}), isr.Options{})
	revalidate := isr.RevalidateHandler(site, "a long random string")

	show(site, "/shoes")
	price = 8

	r := httptest.NewRequest("POST", "/api/revalidate", strings.NewReader(`{"paths": ["/shoes"]}`))
	r.Header.Set("Authorization", "Bearer a long random string")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	revalidate.ServeHTTP(w, r)
	fmt.Print(w.Code, " ", w.Body)

	show(site, "/shoes")
	// Output:
	// 200 10 € (isr; fwd=uri-miss; stored)
	// 200 {"revalidated":true,"pages":{"/shoes":1}}
	// 200 8 € (isr; hit)
}

// A Store makes pages outlive a restart, and the instances of a fleet share them.
// This one is for tests; store/file and store/redis are for production.
func Example_store() {
	pages := memory.New()
	renders := 0
	start := func() *isr.Site {
		return isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			renders++
			fmt.Fprintf(w, "render %d", renders)
		}), isr.Options{Store: pages})
	}

	site := start()
	show(site, "/")
	site.Shutdown(context.Background()) // which waits until the Store has the page

	site = start()
	show(site, "/")
	site.Purge(context.Background(), "/")
	site.Shutdown(context.Background())

	site = start()
	show(site, "/")
	site.Shutdown(context.Background())
	// Output:
	// 200 render 1 (isr; fwd=uri-miss; stored)
	// 200 render 1 (isr; hit)
	// 200 render 2 (isr; fwd=uri-miss; stored)
}

// A page may depend on a header, if the route says so. Normalize keeps the number of
// its variants small.
func ExampleRoute_normalize() {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Language") == "de" {
			io.WriteString(w, "Guten Tag")
			return
		}
		io.WriteString(w, "Hello")
	}), isr.Options{
		Default: isr.Route{
			Vary: []string{"Accept-Language"},
			Normalize: func(h http.Header) {
				if strings.HasPrefix(h.Get("Accept-Language"), "de") {
					h.Set("Accept-Language", "de")
				} else {
					h.Set("Accept-Language", "en")
				}
			},
		},
	})
	show(site, "/", "Accept-Language", "de-AT,de;q=0.9,en;q=0.8")
	show(site, "/", "Accept-Language", "de")
	show(site, "/", "Accept-Language", "fr")
	show(site, "/")
	// Output:
	// 200 Guten Tag (isr; fwd=uri-miss; stored)
	// 200 Guten Tag (isr; hit)
	// 200 Hello (isr; fwd=uri-miss; stored)
	// 200 Hello (isr; hit)
}

func ExampleSite_Prerender() {
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/blog/2" {
			http.Error(w, "no database", http.StatusInternalServerError)
		}
	}), isr.Options{Origin: "https://example.com", MaxRegenerations: 1})

	paths := []string{"/", "/blog/1", "/blog/2"}
	done := 0
	for path, err := range site.Prerender(context.Background(), slices.Values(paths)) {
		done++
		fmt.Printf("%d/%d %s %v\n", done, len(paths), path, err)
	}
	// Output:
	// 1/3 / <nil>
	// 2/3 /blog/1 <nil>
	// 3/3 /blog/2 isr: prerender /blog/2: the handler answered 500 Internal Server Error
}

// A new build generates what the last one was asked for, most asked for first, before its
// first visitor.
func ExampleSite_Warm() {
	pages := memory.New() // a Store that outlives the build: a Redis, a directory
	start := func(version string) *isr.Site {
		return isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.URL.Path, " of build ", version)
		}), isr.Options{Origin: "https://example.com", Store: pages, Version: version, MaxRegenerations: 1})
	}
	old := start("1")
	for _, path := range []string{"/", "/", "/", "/about", "/about"} {
		get(old, path)
	}
	old.Shutdown(context.Background())

	site := start("2")
	for path, err := range site.Warm(context.Background()) {
		fmt.Println(path, err)
	}
	show(site, "/about")
	site.Shutdown(context.Background())
	// Output:
	// / <nil>
	// /about <nil>
	// 200 /about of build 2 (isr; hit)
}

// A posts is a repository: it knows which rows a page is made of, and has but a context.
type posts map[string]string

// Title tags whatever page it is called for, also where there is no post yet.
func (p posts) Title(ctx context.Context, id string) string {
	isr.Tag(ctx, "post-"+id)
	return p[id]
}

// The edit of a row names one tag, and every page that shows the row changes.
func ExampleTag() {
	repository := posts{"1": "Hello"}
	site := isr.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s: %s", r.URL.Path, repository.Title(r.Context(), "1"))
	}), isr.Options{})
	show(site, "/")
	show(site, "/archive")

	repository["1"] = "Hello, world"
	if err := site.PurgeTag(context.Background(), "post-1"); err != nil {
		fmt.Println(err)
	}
	show(site, "/")
	show(site, "/archive")
	// Output:
	// 200 /: Hello (isr; fwd=uri-miss; stored)
	// 200 /archive: Hello (isr; fwd=uri-miss; stored)
	// 200 /: Hello, world (isr; fwd=uri-miss; stored)
	// 200 /archive: Hello, world (isr; fwd=uri-miss; stored)
}

// expvar publishes the counts with one line.
func ExampleSite_Stats() {
	site := isr.Wrap(http.NotFoundHandler(), isr.Options{})
	get(site, "/")
	get(site, "/")
	st := site.Stats() // expvar.Publish("isr", expvar.Func(func() any { return site.Stats() }))
	fmt.Println(st.Hits, st.Misses, st.Pages)
	// Output: 1 1 1
}
