package cache_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// Against a list of all that was invalidated: however runs, invalidations, compactions
// and looks follow each other, the effect on a page is what it would be if nothing were
// ever forgotten.
func TestCompactionOracle(t *testing.T) {
	type entry struct {
		tag    string
		at     uint64
		effect store.Effect
	}
	type run struct {
		p *page.Page
		h invalidation.Hold
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		var overflown, compacted atomic.Bool
		version := store.Version(0)
		var c *cache.Cache
		table := invalidation.New(50_000, func(by *invalidation.Judgements) {
			compacted.Store(true)
			c.JudgeAll(by)
		}, func() { overflown.Store(true) })
		c = cache.New(1<<30, table, budget.New(1<<20))
		var ours, theirs []entry
		var runs []run
		pages, rt := make(map[*page.Page]bool), new(policy.Route)
		tag := func() string { return fmt.Sprint("tag ", rng.IntN(400)) }
		effect := func() store.Effect { return store.Effect(1 + rng.IntN(3)) }
		strongest := func(p *page.Page) (want store.Effect) {
			look := func(list []entry, since uint64) {
				for _, e := range list {
					if e.at > since && e.effect > want && slices.Contains(p.Subject.Tags, e.tag) {
						want = e.effect
					}
				}
			}
			look(ours, p.Subject.Since.Clock)
			look(theirs, uint64(p.Subject.Since.Version))
			return want
		}
		for range 3000 {
			switch n := rng.IntN(20); {
			case n < 4 && len(runs) < 20:
				began, h := table.BeginRun()
				p := &page.Page{Key: pagekey.Key{Path: fmt.Sprint("/", rng.Uint64())}, Route: rt, Subject: invalidation.Subject{Since: began}, Generated: time.Now()}
				p.Size.Store(1)
				for range rng.IntN(3) {
					p.Subject.Tags = append(p.Subject.Tags, tag())
				}
				runs = append(runs, run{p, h})
			case n < 7 && len(runs) > 0:
				i := rng.IntN(min(len(runs), 3))
				r := runs[i]
				runs = slices.Delete(runs, i, i+1)
				if _, ok := c.Put(r.p, false); ok {
					pages[r.p] = true
				} else if strongest(r.p) != store.Gone && !overflown.Load() {
					t.Fatal("not stored, and not gone")
				}
				table.EndRun(r.h)
			case n < 12:
				e := entry{tag(), 0, effect()}
				table.Invalidate(e.effect, invalidation.Delivered, e.tag)
				e.at = table.Clock()
				ours = append(ours, e)
			case n < 17:
				version += store.Version(1 + rng.IntN(3))
				e := entry{tag(), uint64(version), effect()}
				table.Apply(time.Now(), store.Changes{List: []store.Change{{Tag: e.tag, Version: version, Effect: e.effect}}, Upto: version})
				theirs = append(theirs, e)
			default:
				for p := range pages {
					got, want := p.Effect(table), strongest(p)
					if got < want || got > want && !overflown.Load() {
						t.Fatalf("%v, want %v", got, want)
					}
					if rng.IntN(3) == 0 {
						if found, effect := c.Get(&p.Key, nil); (found == nil) != (want == store.Gone) && !overflown.Load() || effect < want && found != nil {
							t.Fatalf("found %v, %v; want %v", found != nil, effect, want)
						}
					}
					if want == store.Gone {
						delete(pages, p)
					}
					break
				}
			}
		}
		if !compacted.Load() {
			t.Error("nothing was ever forgotten")
		}
	}
}
