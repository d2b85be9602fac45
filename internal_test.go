package isr

// What no visitor can bring about at will, because there is no code of his between
// the one look into the cache and the other.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
	"github.com/isr-go/isr/store/memory"
)

// Who has found nothing in the cache, and finds no run either, looks again before
// he starts one: the run may have ended in between.
func TestJoinLooksAgain(t *testing.T) {
	site := Wrap(http.NotFoundHandler(), Options{})
	site.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	req := pageRequest{key: pagekey.Key{Scheme: "http", Host: "example.com", Path: "/"}, route: site.other}
	if f, how := site.join(req, nil, &waiter{}); f != nil || how != changed {
		t.Error("a second run was started")
	}
	p, _ := site.cache.Get(&req.key, nil)
	if p == nil {
		t.Fatal("no page")
	}
	if f, _ := site.join(req, p, &waiter{}); f == nil {
		t.Error("no run was started for whoever wants another page")
	} else {
		<-f.done
	}
}

// The context package holds a mutex while it asks to be told of the end of a context,
// and takes it when it is told. The context may have ended since it has looked: the
// last visitor leaves just before the handler is called.
func TestContextEndsWhileDeriving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := newDeadlineContext(time.Now().Add(time.Hour))
		ctx.cancel(context.Canceled)
		told, held := false, make(chan struct{}, 1)
		held <- struct{}{}
		ctx.AfterFunc(func() {
			held <- struct{}{}
			told = true
		})
		<-held
		synctest.Wait()
		if !told {
			t.Error("nobody was told")
		}
	})
}

// A page that a machine whose clock is ahead has made is fresh for its TTL, and not
// for as long as that clock is ahead.
func TestClockThatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ctx := memory.New(), t.Context()
		visit := func(site *Site) string {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, httptest.NewRequest("GET", "/a?b=c", nil))
			synctest.Wait()
			return w.Header().Get("Cache-Status")
		}
		open := func() *Site {
			site := Wrap(http.NotFoundHandler(), Options{Store: st, Default: Route{TTL: time.Hour, NotFoundTTL: time.Minute}})
			t.Cleanup(func() { site.Shutdown(context.Background()) })
			return site
		}
		one := open()
		visit(one)
		p := one.cache.All()[0]
		p.Generated = p.Generated.Add(24 * time.Hour)
		key := one.backing.Key(&p.Key)
		ticket, err := st.Begin(ctx, key, time.Second)
		if err == nil {
			err = st.Put(ctx, key, ticket, p.Record(key))
		}
		if err != nil {
			t.Fatal(err)
		}
		two := open()
		for _, want := range []string{"isr; hit; ttl=60", "isr; fwd=stale; stored"} {
			if got := visit(two); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			time.Sleep(61 * time.Second)
		}
	})
}

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
		overflown, version := false, store.Version(0)
		var c *cache.Cache
		table := invalidation.New(50_000, func(by *invalidation.Judgements) { c.JudgeAll(by) }, func() { overflown = true })
		c = cache.New(1<<30, table)
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
				p := &page.Page{Key: pagekey.Key{Path: fmt.Sprint("/", rng.Uint64())}, Route: rt, Subject: invalidation.Subject{Since: began}, Size: 1, Generated: time.Now()}
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
				} else if strongest(r.p) != store.Gone && !overflown {
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
				table.Apply(time.Now(), store.Changes{List: invalidation.ChangesOf(e.effect, version, []string{e.tag}), Upto: version})
				theirs = append(theirs, e)
			case n == 17 && rng.IntN(30) == 0:
				table.Compact()
			default:
				for p := range pages {
					got, want := p.Effect(table), strongest(p)
					if got < want || got > want && !overflown {
						t.Fatalf("%v, want %v", got, want)
					}
					if rng.IntN(3) == 0 {
						if found, effect := c.Get(&p.Key, nil); (found == nil) != (want == store.Gone) && !overflown || effect < want && found != nil {
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
		if n := table.Bytes(); n > 50_000+1000 {
			t.Errorf("the tables take %d bytes of 50,000", n)
		}
	}
}
