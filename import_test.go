package isr_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr"
	"github.com/isr-go/isr/store/memory"
)

// An import that purges 150,000 tags makes at most 5 % of the other pages anew: on the
// instance that did it, on another, and on one that starts afterwards. What was purged is
// not shown by any.
func TestImportSparesOtherPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const pages, purges = 200, 150_000
		in := fleet(t, memory.New(), isr.Options{})
		c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
			for i := range 6 {
				isr.Tag(r.Context(), fmt.Sprint(r.URL.Path, i)[1:])
			}
			fmt.Fprintf(w, "page %d", n)
		}}
		one, other := in.start(&c), in.start(&c)
		visit := func(site *isr.Site) (made int64) {
			before := c.calls.Load()
			for n := range pages {
				body(site, fmt.Sprintf("/post-%d", n))
				synctest.Wait()
			}
			return c.calls.Load() - before
		}
		visit(one)
		visit(other)
		if got := c.calls.Load(); got != pages {
			t.Fatalf("%d pages were made, want %d", got, pages)
		}
		shown := body(one, "/imported")
		synctest.Wait()
		var tags []string
		for n := range purges {
			tags = append(tags, fmt.Sprint("article-", n))
		}
		tags[1000] = "imported0"
		for some := range slices.Chunk(tags, 10_000) {
			if err := one.PurgeTag(t.Context(), some...); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) // in which the other one hears of it
		}
		after := in.start(&c)
		time.Sleep(10 * time.Second)
		for name, site := range map[string]*isr.Site{"the one that imports": one, "another": other, "one that starts afterwards": after} {
			if made := visit(site); made > pages/20 {
				t.Errorf("%s: %d of %d pages were made anew", name, made, pages)
			}
		}
		for _, site := range []*isr.Site{after, one, other} {
			if got := body(site, "/imported"); got == shown {
				t.Errorf("a page that was purged is shown")
			}
		}
	})
}
