package cache_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

var route = &policy.Route{Pattern: "/"}

// newCache returns an empty Cache, and the Table by which its pages are judged.
func newCache(maxBytes int64) (*cache.Cache, *invalidation.Table) {
	var c *cache.Cache
	table := invalidation.New(invalidation.MinBytes, func(by *invalidation.Judgements) { c.JudgeAll(by) }, func() {})
	c = cache.New(maxBytes, table, budget.New(1<<20))
	return c, table
}

// at returns the key of the page at an escaped path.
func at(path string) pagekey.Key {
	return pagekey.Key{Scheme: "http", Host: "example.com", Path: path}
}

// made returns a page that takes a number of bytes, and whose generation begins now.
func made(table *invalidation.Table, k pagekey.Key, size int64, tags ...string) *page.Page {
	p := &page.Page{Key: k, Route: route, Subject: invalidation.Subject{Since: table.Now(), Tags: tags}}
	p.Size.Store(size)
	return p
}

// visit asks for a page as a visitor does, and reports whether it is stored.
func visit(c *cache.Cache, k pagekey.Key, now time.Time) bool {
	p, _ := c.Get(&k, c.Path(k.Path))
	if p == nil {
		return false
	}
	p.Hits.Add(1)
	c.Touch(p, now)
	return true
}

// paths returns the paths of pages, in their order.
func paths(pages []*page.Page) (list []string) {
	for _, p := range pages {
		list = append(list, p.Key.Path)
	}
	return list
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// A scan of pages that are asked for once does not displace those that were asked for
// twice, however long it is.
func TestScanDisplacesNothing(t *testing.T) {
	c, table := newCache(1000)
	for i := range 8 {
		k := at(fmt.Sprint("/often/", i))
		c.Put(made(table, k, 100), false)
		visit(c, k, noon)
	}
	for i := range 10_000 {
		if _, ok := c.Put(made(table, at(fmt.Sprint("/scan/", i)), 100), false); !ok {
			t.Fatal("not stored")
		}
	}
	for i := range 8 {
		if k := at(fmt.Sprint("/often/", i)); !visit(c, k, noon) {
			t.Errorf("%s is displaced", k.Path)
		}
	}
	if n, bytes := c.Size(); n != 10 || bytes != 1000 {
		t.Errorf("%d pages of %d bytes, want 10 of 1000", n, bytes)
	}
}

// What was asked for twice, and then never again, makes room for what is: the protected
// pages have four fifths of the memory, and those that drop out of them begin anew.
func TestProtectedPagesAge(t *testing.T) {
	c, table := newCache(1000)
	for i := range 10 {
		k := at(fmt.Sprint("/", i))
		c.Put(made(table, k, 100), false)
		visit(c, k, noon.Add(time.Duration(i)*time.Second))
	}
	// /0 and /1 are on probation again, after those that were asked for since.
	same(t, "those asked for last first", paths(c.All()), []string{"/9", "/8", "/7", "/6", "/5", "/4", "/3", "/2", "/1", "/0"})
	visit(c, at("/0"), noon.Add(time.Minute))
	same(t, "protected again, in the place of another", paths(c.All()), []string{"/0", "/9", "/8", "/7", "/6", "/5", "/4", "/3", "/2", "/1"})
	evicted, _ := c.Put(made(table, at("/new"), 300), false)
	same(t, "evicted", paths(evicted), []string{"/1", "/2", "/3"})
	same(t, "left", paths(c.All()), []string{"/0", "/9", "/8", "/7", "/6", "/5", "/4", "/new"})
}

// Pages that are asked for twice each, however many, do not displace those that are asked
// for more often; those that are asked for as often do, and old hits count no longer.
func TestPromotionComparesHits(t *testing.T) {
	for name, test := range map[string]struct {
		visits int           // of each of the others
		later  time.Duration // how much later they come
		purged bool          // whether those that were asked for often are
		left   int
	}{
		"fewer":         {1, time.Minute, false, 4},
		"as many":       {6, time.Minute, false, 0},
		"hours later":   {1, 3 * time.Hour, false, 0},
		"after a purge": {1, time.Minute, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c, table := newCache(1000)
			for i := range 4 {
				k := at(fmt.Sprint("/often/", i))
				c.Put(made(table, k, 100), false)
				for n := range 5 {
					visit(c, k, noon.Add(time.Duration(n)*time.Second))
				}
			}
			if test.purged {
				table.Invalidate(store.Gone, invalidation.Delivered, pagekey.Everything)
			}
			for i := range 1000 {
				k := at(fmt.Sprint("/other/", i))
				c.Put(made(table, k, 100), false)
				for n := range test.visits {
					visit(c, k, noon.Add(test.later+time.Duration(i*test.visits+n)*time.Second))
				}
			}
			left := 0
			for i := range 4 {
				if k := at(fmt.Sprint("/often/", i)); c.Peek(&k) != nil {
					left++
				}
			}
			if left != test.left {
				t.Errorf("%d are left, want %d", left, test.left)
			}
		})
	}
}

// Memory is taken from what was stored longest ago and not asked for since, and what is
// put is never its own victim.
func TestEvictionOrder(t *testing.T) {
	c, table := newCache(100)
	for _, path := range []string{"/a", "/b", "/c"} {
		c.Put(made(table, at(path), 30), false)
	}
	evicted, _ := c.Put(made(table, at("/d"), 30), false)
	same(t, "the oldest", paths(evicted), []string{"/a"})
	visit(c, at("/b"), noon)
	evicted, _ = c.Put(made(table, at("/e"), 30), false)
	same(t, "the oldest that was not asked for again", paths(evicted), []string{"/c"})
	evicted, ok := c.Put(made(table, at("/all"), 100), false)
	same(t, "all, those asked for again last", paths(evicted), []string{"/d", "/e", "/b"})
	if n, bytes := c.Size(); !ok || n != 1 || bytes != 100 {
		t.Errorf("stored %v, %d pages of %d bytes, want one of 100", ok, n, bytes)
	}
	evicted, ok = c.Put(made(table, at("/named"), 100), true)
	same(t, "for a protected one", paths(evicted), []string{"/all"})
	if n, bytes := c.Size(); !ok || n != 1 || bytes != 100 {
		t.Errorf("stored %v, %d pages of %d bytes, want one of 100", ok, n, bytes)
	}
}

// What may not be stored is not, and displaces nothing but an older page with its key.
func TestPutRefuses(t *testing.T) {
	c, table := newCache(100)
	c.Put(made(table, at("/other"), 40), false)
	newer := made(table, at("/a"), 40, "tag")
	newer.Seq = 5
	c.Put(newer, false)

	older := made(table, at("/a"), 40, "tag")
	older.Seq = 4
	if evicted, ok := c.Put(older, false); ok || evicted != nil || c.Peek(&newer.Key) != newer {
		t.Error("a page that was superseded while it was generated is stored")
	}
	purged := made(table, at("/a"), 40, "purged")
	purged.Seq = 6
	table.Invalidate(store.Gone, invalidation.Delivered, "purged")
	if evicted, ok := c.Put(purged, false); ok || evicted != nil || c.Peek(&newer.Key) != newer {
		t.Error("a page that was purged while it was generated is stored")
	}
	stale := made(table, at("/a"), 40, "stale")
	stale.Seq = 7
	table.Invalidate(store.Expired, invalidation.Delivered, "stale")
	if _, ok := c.Put(stale, false); !ok || c.Peek(&newer.Key) != stale {
		t.Error("a page that was only expired while it was generated is not stored")
	}
	large := made(table, at("/a"), 101)
	large.Seq = 8
	if evicted, ok := c.Put(large, false); ok || evicted != nil || c.Peek(&newer.Key) != nil {
		t.Error("a page is too large, and stored, or an older one is left")
	}
	same(t, "left", paths(c.All()), []string{"/other"})
	if n, bytes := c.Size(); n != 1 || bytes != 40 {
		t.Errorf("%d pages of %d bytes, want one of 40", n, bytes)
	}
}

// A page that takes the place of another takes over how often that was asked for, and
// its place among the protected; a hit-for-pass is never one of these, whatever is asked.
func TestPutReplaces(t *testing.T) {
	c, table := newCache(100)
	k := at("/a")
	c.Put(made(table, k, 30), false)
	for i := range 3 {
		visit(c, k, noon.Add(time.Duration(i)*time.Second))
	}
	c.Put(made(table, at("/b"), 30), false)
	evicted, ok := c.Put(made(table, k, 50), false)
	if p := c.Peek(&k); !ok || len(evicted) > 0 || p.Hits.Load() != 3 || p.Size.Load() != 50 {
		t.Fatalf("stored %v, %d evicted, %d hits, %d bytes", ok, len(evicted), p.Hits.Load(), p.Size.Load())
	}
	evicted, _ = c.Put(made(table, at("/c"), 50), false)
	same(t, "evicted, but not the one asked for again", paths(evicted), []string{"/b"})

	pass := page.HitForPass(page.Meta{Key: k, Route: route, Since: table.Now()}, policy.Refusal{Why: "sets a cookie"})
	pass.Size.Store(20)
	c.Put(pass, true)
	visit(c, k, noon.Add(time.Hour))
	c.Put(made(table, at("/d"), 30), false)
	evicted, _ = c.Put(made(table, at("/e"), 50), false)
	same(t, "evicted, and a hit-for-pass as any", paths(evicted), []string{"/c"})
	evicted, _ = c.Put(made(table, at("/f"), 20), false)
	same(t, "evicted, and a hit-for-pass as any", paths(evicted), []string{"/a"})
}

// A page is found by its key alone, be the Path that it is asked with its own, another's
// or none; what is gone is not found any more, and takes no memory.
func TestGet(t *testing.T) {
	c, table := newCache(1000)
	plain, query := made(table, at("/a"), 10, "tag"), made(table, at("/a"), 10)
	query.Key.Query = "q=1"
	other := made(table, at("/b"), 10)
	for _, p := range []*page.Page{plain, query, other} {
		c.Put(p, false)
	}
	for _, p := range []*page.Page{plain, query, other} {
		k := p.Key.Clone()
		for _, where := range []*page.Page{c.Path("/a"), c.Path("/b"), c.Path("/c"), nil} {
			if got, effect := c.Get(&k, where); got != p || effect != store.None {
				t.Errorf("%+v: %v, %v", k, got, effect)
			}
		}
	}
	if missing := at("/c"); c.Peek(&missing) != nil || c.Path("/c") != nil {
		t.Error("/c is stored, and never was")
	}
	table.Invalidate(store.Stale, invalidation.Delivered, "tag")
	if got, effect := c.Get(&plain.Key, nil); got != plain || effect != store.Stale {
		t.Errorf("revalidated: %v, %v", got, effect)
	}
	table.Invalidate(store.Gone, invalidation.Delivered, "tag")
	if c.Peek(&plain.Key) != plain {
		t.Error("a purge looks for pages")
	}
	if got, effect := c.Get(&plain.Key, c.Path("/a")); got != nil || effect != store.None {
		t.Errorf("purged: %v, %v", got, effect)
	}
	if n, bytes := c.Size(); n != 2 || bytes != 20 {
		t.Errorf("%d pages of %d bytes, want 2 of 20", n, bytes)
	}
}

// All spellings of a path are found at its canonical one, for invalidations; a visitor's
// path has a Path only where it is spelled like that, and the route of its own pages.
func TestAt(t *testing.T) {
	c, table := newCache(1000)
	all := func(*page.Page) bool { return true }
	first := made(table, at("/a%3Ab"), 10)
	c.Put(first, false)
	if c.Path("/a%3Ab") != nil || c.Path("/a:b") != nil || c.PathAt("example.com", "/a%3Ab") != nil || c.PathAt("example.com", "/a:b") != nil {
		t.Error("a page of another spelling says which route the canonical one has")
	}
	second := made(table, at("/a:b"), 10)
	c.Put(second, false)
	c.Put(made(table, at("/a"), 10), false)
	same(t, "all spellings, the last first", paths(c.At("/a:b", all)), []string{"/a:b", "/a%3Ab"})
	third := made(table, at("/a%3ab"), 10)
	c.Put(third, false)
	if c.Path("/a:b") != second || c.PathAt("example.com", "/a:b") != second {
		t.Error("a page of another spelling hides the one that tells the route")
	}
	same(t, "those that match", paths(c.At("/a:b", func(p *page.Page) bool { return p == first })), []string{"/a%3Ab"})
	same(t, "not canonical", paths(c.At("/a%3Ab", all)), nil)
	table.Invalidate(store.Gone, invalidation.Delivered, pagekey.PathTag("", "", "/a:b"))
	c.Get(&first.Key, nil)
	c.Get(&second.Key, nil)
	c.Get(&third.Key, nil)
	same(t, "purged", paths(c.At("/a:b", all)), nil)
	if c.Path("/a:b") != nil {
		t.Error("the index has a path without pages")
	}
	c.Put(made(table, at("/a:b"), 10), false)
	if where := c.Path("/a:b"); where == nil || where.Route != route {
		t.Errorf("the path's route is not remembered: %+v", where)
	}
}

// Where hosts have routes of their own, a page tells that of its host, and none tells that
// of another, however many pages there are.
func TestPathAt(t *testing.T) {
	c, table := newCache(1 << 20)
	for i := range 1000 {
		k := at("/a")
		k.Host = fmt.Sprint("host-", i%100)
		k.Query = fmt.Sprint(i / 100)
		c.Put(made(table, k, 10), false)
		if p := c.PathAt(k.Host, "/a"); p == nil || p.Key != k {
			t.Fatalf("%+v: %+v", k, p)
		}
	}
	for i := range 101 {
		if host := fmt.Sprint("host-", i); c.PathAt(host, "/a") != nil && c.PathAt(host, "/a").Key.Host != host {
			t.Errorf("%s has the page of %s", host, c.PathAt(host, "/a").Key.Host)
		}
	}
	if c.PathAt("host-1", "/b") != nil {
		t.Error("a path has a page of another")
	}
}

// A path holds a page where one is stored at it; a hit-for-pass does not count.
func TestHolds(t *testing.T) {
	c, table := newCache(1000)
	pass := page.HitForPass(page.Meta{Key: at("/a"), Route: route, Since: table.Now()}, policy.Refusal{Why: "is private"})
	pass.Size.Store(10)
	c.Put(pass, false)
	if c.Holds("/a") || c.Holds("/b") {
		t.Error("what was never generated is held")
	}
	other := made(table, at("/a"), 10)
	other.Key.Query = "q"
	c.Put(other, false)
	if !c.Holds("/a") {
		t.Error("the page with a query is not held")
	}
	large := made(table, at("/b"), 1000)
	c.Put(large, false) // evicts all else
	if c.Holds("/a") || !c.Holds("/b") {
		t.Error("what was evicted is held, or what is stored is not")
	}
}

// A path that was admitted stays so, in all its spellings, whatever is evicted.
func TestAdmit(t *testing.T) {
	c, table := newCache(100)
	c.Admit("/a%3ab")
	for i := range 100 {
		c.Put(made(table, at(fmt.Sprint("/", i)), 100), false)
	}
	for path, want := range map[string]bool{"/a:b": true, "/a%3Ab": true, "/%61:b": true, "/a": false, "/a%2Fb": false, "/99": false} {
		if got := c.Admits(path); got != want {
			t.Errorf("%s: admitted %v, want %v", path, got, want)
		}
	}
}

// How often a page was asked for lately is what was counted in about the last hour,
// whatever was counted before; it outlives the renewal of the page.
func TestRecentHits(t *testing.T) {
	c, table := newCache(1000)
	k, never := at("/a"), made(table, at("/never"), 10)
	c.Put(made(table, k, 10), false)
	c.Put(never, false)
	recent := func(now time.Time) uint64 {
		p := c.Peek(&k)
		counts := c.RecentHits([]*page.Page{p, never}, now)
		if counts[never] != 0 {
			t.Errorf("%d of a page that nobody has asked for", counts[never])
		}
		return counts[p]
	}
	ask := func(n int, now time.Time) {
		for range n {
			visit(c, k, now)
		}
	}
	ask(90, noon)
	if got := recent(noon); got != 90 {
		t.Errorf("%d at once, want 90", got)
	}
	ask(10, noon.Add(30*time.Minute))
	c.Put(made(table, k, 10), false)
	if got := recent(noon.Add(59 * time.Minute)); got != 100 {
		t.Errorf("%d within the hour, and renewed, want 100", got)
	}
	ask(1, noon.Add(time.Hour))
	if got := recent(noon.Add(90 * time.Minute)); got != 51 {
		t.Errorf("%d of 100 in the hour before and one in this, half of which is over, want 51", got)
	}
	ask(1, noon.Add(10*time.Hour))
	if got := recent(noon.Add(10 * time.Hour)); got != 1 {
		t.Errorf("%d after a long time, want 1", got)
	}
	if got := recent(noon.Add(20 * time.Hour)); got != 0 {
		t.Errorf("%d after another, want 0", got)
	}
}

// To be asked for many times within a second is to be asked for once, for the order of
// eviction: that is what keeps hits from contending for one lock.
func TestTouchOnceASecond(t *testing.T) {
	c, table := newCache(1000)
	for _, path := range []string{"/a", "/b"} {
		c.Put(made(table, at(path), 10), false)
		visit(c, at(path), noon)
	}
	visit(c, at("/a"), noon.Add(time.Second/2))
	same(t, "in the same second", paths(c.All()), []string{"/b", "/a"})
	visit(c, at("/a"), noon.Add(time.Second))
	same(t, "in the next", paths(c.All()), []string{"/a", "/b"})
}

// Whatever is put, asked for and purged, in whatever order: the index, the lists and the
// sum of bytes agree, and the sum is within MaxBytes.
func TestAccounting(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const maxBytes = 5000
	c, table := newCache(maxBytes)
	now, seq := noon, uint64(0)
	stored := make(map[pagekey.Key]*page.Page)
	for range 20_000 {
		k := at([]string{"/a", "/a%3Ab", "/a:b", fmt.Sprint("/", rng.IntN(60))}[rng.IntN(4)])
		k.Query = []string{"", "q=1"}[rng.IntN(2)]
		switch rng.IntN(10) {
		case 0, 1, 2, 3:
			p := made(table, k, int64(1+rng.IntN(400)), fmt.Sprint("tag ", rng.IntN(10)))
			if rng.IntN(500) == 0 {
				p.Size.Store(maxBytes + 1)
			}
			if rng.IntN(5) == 0 {
				p.IsHitForPass = true
			}
			seq++
			p.Seq = seq
			evicted, ok := c.Put(p, rng.IntN(8) == 0)
			delete(stored, k)
			if ok {
				stored[k] = p
			}
			if ok != (p.Size.Load() <= maxBytes) {
				t.Fatalf("stored %v, of %d bytes", ok, p.Size.Load())
			}
			for _, e := range evicted {
				if stored[e.Key] != e || e == p {
					t.Fatalf("%v was evicted, and was not stored", e.Key)
				}
				delete(stored, e.Key)
			}
		case 4:
			table.Invalidate(store.Gone, invalidation.Delivered, fmt.Sprint("tag ", rng.IntN(10)))
		default:
			p, _ := c.Get(&k, c.Path(k.Path))
			if want := stored[k]; p != want && (p != nil || want.Effect(table) != store.Gone) {
				t.Fatalf("%+v: found %v, want %v", k, p, want)
			} else if p == nil {
				delete(stored, k)
			} else {
				p.Hits.Add(1)
				now = now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
				c.Touch(p, now)
			}
		}
		n, bytes := c.Size()
		all := c.All()
		var sum int64
		for _, p := range all {
			sum += p.Size.Load()
			if stored[p.Key] != p {
				t.Fatalf("%+v is stored, and should not be", p.Key)
			}
		}
		if n != len(stored) || n != len(all) || bytes != sum || bytes > maxBytes || c.MaxBytes() != maxBytes {
			t.Fatalf("%d pages of %d bytes; %d of %d are in the lists, want %d", n, bytes, len(all), sum, len(stored))
		}
		where := pagekey.CanonicalPath(k.Path)
		held := 0
		for _, p := range c.At(where, func(*page.Page) bool { return true }) {
			if stored[p.Key] != p || pagekey.CanonicalPath(p.Key.Path) != where {
				t.Fatalf("%+v is at %s", p.Key, where)
			}
			if !p.IsUnknown() {
				held++
			}
		}
		if c.Holds(where) != (held > 0) {
			t.Fatalf("%s holds a page: %v, want %d", where, c.Holds(where), held)
		}
	}
}

// All methods may be called at the same time, and in the end the numbers agree.
func TestConcurrent(t *testing.T) {
	const maxBytes = 20_000
	c, table := newCache(maxBytes)
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			now := noon
			for i := range 3000 {
				k := at(fmt.Sprint("/", rng.IntN(400)))
				now = now.Add(300 * time.Millisecond)
				if !visit(c, k, now) {
					began, hold := table.BeginRun()
					p := made(table, k, int64(50+rng.IntN(100)), fmt.Sprint("tag ", rng.IntN(50)))
					p.Subject.Since = began
					c.Put(p, rng.IntN(10) == 0)
					table.EndRun(hold)
				}
				switch i % 50 {
				case 0:
					table.Invalidate(store.Effect(1+rng.IntN(3)), invalidation.Delivered, fmt.Sprint("tag ", rng.IntN(50)))
				case 10:
					c.RecentHits(c.All(), now)
				case 20:
					c.Admit(k.Path)
				case 30:
					c.At(k.Path, func(p *page.Page) bool { return p.Key == k })
				case 40:
					if _, bytes := c.Size(); bytes > maxBytes || !c.Holds(k.Path) && c.Admits("/never") {
						t.Errorf("%d bytes", bytes)
					}
				}
			}
		})
	}
	all.Wait()
	pages := c.All()
	var sum int64
	for _, p := range pages {
		sum += p.Size.Load()
	}
	if n, bytes := c.Size(); n != len(pages) || bytes != sum || bytes > maxBytes || n == 0 {
		t.Errorf("%d pages of %d bytes; in the lists %d of %d", n, bytes, len(pages), sum)
	}
	keys := make(map[pagekey.Key]bool)
	for _, p := range pages {
		keys[p.Key] = true
	}
	if len(keys) != len(pages) || slices.Contains(pages, nil) {
		t.Errorf("%d keys of %d pages", len(keys), len(pages))
	}
}

// The hottest pages are those that were asked for most of late, however many there are.
func TestHottest(t *testing.T) {
	c, table := newCache(1 << 30)
	for i := range 5000 {
		k := at(fmt.Sprintf("/%d", i))
		c.Put(made(table, k, 100), false)
		for range i % 100 {
			visit(c, k, noon)
		}
	}
	isOdd := func(p *page.Page) bool { return (p.Key.Path[len(p.Key.Path)-1]-'0')%2 == 1 }
	hottest := c.Hottest(60, noon, isOdd)
	if len(hottest) != 60 {
		t.Fatalf("%d pages", len(hottest))
	}
	for i, p := range hottest {
		want := uint64(99)
		if i >= 50 {
			want = 97
		}
		if p.Hits != want || !isOdd(p.Page) {
			t.Errorf("%d: %s was asked for %d times, want %d", i, p.Key.Path, p.Hits, want)
		}
	}
	if n := len(c.Hottest(10_000, noon, func(*page.Page) bool { return true })); n != 4950 {
		t.Errorf("%d pages of 4950 that were asked for", n)
	}
	if n := len(c.Hottest(60, noon.Add(3*time.Hour), isOdd)); n != 0 {
		t.Errorf("%d pages that nobody asks for any more", n)
	}
}

// A path that was admitted keeps nothing else of the page's key, which a stranger may have
// made long.
func TestAdmittedPathsAreSmall(t *testing.T) {
	c, _ := newCache(1 << 20)
	before := heapInUse()
	for i := range 200 {
		k := at(fmt.Sprint("/known/", i))
		k.Query = strings.Repeat("q", 20<<10)
		k = k.Clone()
		c.Admit(k.Path)
	}
	if grown := heapInUse() - before; grown > 1<<20 {
		t.Errorf("200 short paths keep %d bytes", grown)
	}
	runtime.KeepAlive(c)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
