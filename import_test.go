package isr_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
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

// Pages that an import does not concern stay, however it is made: with one call, with
// several at the same time, while the Store tells late or not at all of what it has taken,
// and while nothing could be made anew.
func TestLargeImportsSpareOtherPages(t *testing.T) {
	t.Parallel()
	const pages = 500
	late, silent := only(slow(100*time.Millisecond), "changes"), only(down, "changes")
	oneCall := func(t *testing.T, call func(...string) error) {
		var tags []string
		for i := range 20_000 {
			tags = append(tags, fmt.Sprint("article-", i))
		}
		if err := call(tags...); err != nil {
			t.Error(err)
		}
	}
	atOnce := func(t *testing.T, call func(...string) error) {
		var all sync.WaitGroup
		for n := range 4 {
			var tags []string
			for i := range 8000 {
				tags = append(tags, fmt.Sprintf("article-%d-%d", n, i))
			}
			all.Go(func() {
				if err := call(tags...); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	singles := func(t *testing.T, call func(...string) error) {
		for i := range 20_000 {
			if err := call(fmt.Sprint("article-", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		store fault // nil: there is no Store
		calls func(t *testing.T, call func(...string) error)
	}{
		"one call":                          {nil, oneCall},
		"calls at the same time":            {nil, atOnce},
		"one call, told late":               {late, oneCall},
		"calls at the same time, told late": {late, atOnce},
		"one call, not told":                {silent, oneCall},
		"single calls, not told":            {silent, singles},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failing := false
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if failing {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}}
				opts := isr.Options{MaxBytes: 16 << 20, Default: isr.Route{TTL: time.Hour}}
				st := &faultyStore{Store: memory.New()}
				if test.store != nil {
					opts.Store = st
				}
				site := isr.Wrap(&c, opts)
				defer site.Shutdown(t.Context())
				for i := range pages {
					get(site, fmt.Sprint("/", i))
				}
				synctest.Wait()
				st.set(test.store)
				for _, invalidate := range []func(context.Context, ...string) error{site.PurgeTag, site.RevalidateTag} {
					test.calls(t, func(tags ...string) error { return invalidate(t.Context(), tags...) })
					time.Sleep(5 * time.Second)
				}
				failing = true
				st.set(down) // so that nothing comes from there either
				made, gone := c.calls.Load(), 0
				for i := range pages {
					if get(site, fmt.Sprint("/", i)).StatusCode != 200 {
						gone++
					}
				}
				synctest.Wait()
				if n := c.calls.Load() - made; n > pages/20 || gone > pages/20 {
					t.Errorf("of %d pages %d were made anew, and %d are gone", pages, n, gone)
				}
			})
		})
	}
}

// A Store that fails over, or is wiped, after an import is told of it anew, and no page goes
// that it does not concern.
func TestFailoverAfterAnImport(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(p *pair){
		"wiped":       (*pair).wipe,
		"failed over": func(p *pair) { p.separate(); p.failOver() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const pages, purges = 50, 30_000
				failing, st := false, newPair()
				c := countingHandler{serve: func(w http.ResponseWriter, r *http.Request, n int64) {
					if failing {
						w.WriteHeader(http.StatusInternalServerError)
					}
				}}
				in := fleet(t, st, isr.Options{Default: isr.Route{TTL: time.Hour}})
				one, other := in.start(&c), in.start(&c)
				for i := range pages {
					get(one, fmt.Sprint("/", i))
					get(other, fmt.Sprint("/", i))
				}
				synctest.Wait()
				for i := range purges {
					if err := one.Purge(t.Context(), fmt.Sprint("/imported/", i)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				failing = true
				lose(st)
				time.Sleep(10 * time.Second)
				for i := range pages {
					for _, site := range []*isr.Site{one, other} {
						if got := get(site, fmt.Sprint("/", i)); got.StatusCode != 200 {
							t.Fatalf("/%d is gone: %d", i, got.StatusCode)
						}
					}
				}
			})
		})
	}
}
