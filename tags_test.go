package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// A page with more tags than are kept one by one is found by each of them, whether the
// route or the handler names it, also in a Store. A purge renews other pages only where
// they, too, have too many tags.
func TestTagsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	names := func(from, to int) (tags []string) {
		for i := from; i < to; i++ {
			tags = append(tags, fmt.Sprintf("tag-%d", i))
		}
		return tags
	}
	c := &countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
		switch r.URL.Path {
		case "/handler":
			w.Header().Set("Cache-Tag", strings.Join(names(0, 300), ", "))
		case "/both":
			w.Header().Set("Cache-Tag", strings.Join(names(90, 300), ", "))
		case "/few":
			w.Header().Set("Cache-Tag", strings.Join(names(0, 128), ", "))
		}
		fmt.Fprintf(w, "page %d", n)
	}}
	st := memory.New()
	open := func() *isr.Site {
		site := isr.Wrap(c, isr.Options{Origin: "http://example.com", Store: st, Version: "1", Routes: map[string]isr.Route{
			"/route": {Tags: names(0, 300)}, "/both": {Tags: names(0, 100)},
		}})
		t.Cleanup(func() { site.Shutdown(context.Background()) })
		return site
	}
	site := open()
	was := make(map[string]string)
	paths := []string{"/route", "/both", "/handler", "/few"}
	for i, tag := range append(names(0, 300), "none") {
		for _, path := range paths {
			was[path] = body(site, path)
			if i == 0 {
				for p := range site.Pages() {
					if p.Path == path && (len(p.Tags) != 64 && path != "/few" || !slices.Equal(p.Tags, names(0, len(p.Tags)))) {
						t.Errorf("%s has the tags %q", path, p.Tags)
					}
				}
			}
		}
		if err := site.PurgeTag(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			got, want := body(site, path) != was[path], i < 300 && (path != "/few" || i < 128)
			if got != want && (want || path == "/few") {
				t.Errorf("%s after a purge of %s: new %v, want %v", path, tag, got, want)
			}
		}
	}
	site.Shutdown(t.Context()) // what it has is in the Store
	other := open()
	for _, path := range paths[:3] {
		if got := get(other, path).Header.Get("Cache-Status"); got != "isr; hit" {
			t.Errorf("%s: %q, want a hit from the Store", path, got)
		}
	}
	other.PurgeTag(t.Context(), "tag-299")
	for _, path := range paths[:3] {
		if got := get(other, path).Header.Get("Cache-Status"); got == "isr; hit" {
			t.Errorf("%s is there after a purge", path)
		}
	}
	for _, err := range []error{
		site.RevalidateTag(t.Context(), "\x00~07"), site.PurgeTag(t.Context(), "a", "/a"),
	} {
		if err == nil {
			t.Error("a bucket or a path counts as a tag")
		}
	}
}

// What is purged stays purged, and what is not stays stored, however many other tags
// are invalidated.
func TestManyInvalidatedTags(t *testing.T) {
	t.Parallel()
	c := new(countingHandler)
	site := isr.Wrap(c, isr.Options{Routes: map[string]isr.Route{"/gone": {Tags: []string{"gone"}}}})
	get(site, "/old")
	get(site, "/gone")
	if err := site.PurgeTag(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for i := range 100_000 {
		if err := site.RevalidateTag(t.Context(), strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := get(site, "/gone").Header.Get("Cache-Status"); got != "isr; fwd=uri-miss; stored" {
		t.Errorf("a purged page: %q", got)
	}
	get(site, "/new")
	var very []string
	for i := range 70_000 {
		very = append(very, fmt.Sprint("/path/", i))
	}
	if err := site.Purge(t.Context(), very...); err != nil { // more than the table holds, in one call
		t.Fatal(err)
	}
	if got := get(site, "/new").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("a page from after all of that: %q", got)
	}
}

// Invalidations cost only the pages that they concern, however many there are, during a
// slow generation, and from another instance.
func TestInvalidationsCostOnlyTheirPages(t *testing.T) {
	t.Parallel()
	for name, fleets := range map[string]bool{"alone": false, "in a fleet": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var second store.Store
				if fleets {
					second = memory.New()
				}
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if r.URL.Path == "/slow" {
						time.Sleep(20 * time.Second)
					}
				}}
				in := fleet(t, second, isr.Options{MaxBytes: 16 << 20, Default: isr.Route{TTL: time.Hour}})
				site := in.start(&c)
				purger := site
				if second != nil {
					purger = in.start(&c)
				}
				const pages = 1000
				for i := range pages {
					get(site, fmt.Sprintf("/%d", i))
				}
				site.Purge(t.Context(), "/0") // an old purge removes no other page
				purge := func(n, from int) {
					for i := range n {
						if err := purger.Purge(t.Context(), fmt.Sprintf("/other/%d", from+i)); err != nil {
							t.Fatal(err)
						}
						if i%1000 == 0 {
							synctest.Wait()
						}
					}
				}
				purge(30_000, 0)
				go get(site, "/slow")
				time.Sleep(time.Second)
				purge(4000, 30_000)
				if err := purger.Purge(t.Context(), "/1"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				purge(30_000, 34_000)
				synctest.Wait()
				hits := site.Stats().Hits
				for i := 2; i < pages; i++ {
					get(site, fmt.Sprintf("/%d", i))
				}
				get(site, "/slow")
				if n := site.Stats().Hits - hits; n != pages-1 {
					t.Errorf("%d hits for %d pages that were not purged", n, pages-1)
				}
				for i := range 2 {
					if got := get(site, fmt.Sprintf("/%d", i)).Header.Get("Cache-Status"); strings.HasPrefix(got, "isr; hit") {
						t.Errorf("/%d was purged: %q", i, got)
					}
				}
			})
		})
	}
}

// An empty list names nothing, which is no error: it may come from a query for what has
// changed. Renew says so, since there its result is ranged over.
func TestNothingIsNamed(t *testing.T) {
	site := isr.Wrap(new(countingHandler), isr.Options{Store: memory.New()})
	defer site.Shutdown(t.Context())
	get(site, "/")
	for name, call := range map[string]func(context.Context, ...string) error{
		"Revalidate": site.Revalidate, "Expire": site.Expire, "Purge": site.Purge,
		"RevalidateTag": site.RevalidateTag, "ExpireTag": site.ExpireTag, "PurgeTag": site.PurgeTag,
	} {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	if got := get(site, "/").Header.Get("Cache-Status"); got != "isr; hit" {
		t.Errorf("afterwards: %q", got)
	}
}
