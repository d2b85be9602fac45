// Package cache keeps pages in memory, within a number of bytes: a segmented LRU, an index
// by key and one by path.
//
// Lists and indexes name pages by number, so that a page costs one pointer here, whatever
// the garbage collector has to look at grows by no more, and keys are nowhere but in the
// pages. The lists are therefore not those of golang-lru, which keeps a copy of the key in
// each entry and one in its map: of a page of 2 KB that was an eighth.
package cache

import (
	"cmp"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/store"
)

// A Cache keeps pages in memory.
//
// Pages that are asked for once do not evict those that are asked for repeatedly (a
// segmented LRU): a page begins in probation, whose oldest page is evicted first, and is
// promoted to the protected list when it is asked for a second time. That holds at most
// four fifths of the memory; its oldest page goes back to probation, unless it was asked for
// more often than the one that is to take its place.
type Cache struct {
	table    *invalidation.Table
	maxBytes int64
	slow     *budget.Budget // of what has left the cache, while somebody reads it

	mu             sync.RWMutex // guards what follows; under Group.mu or Table.compacting, before Table.mu and Versions.mu
	places         places
	admitted       map[string]struct{} // canonical paths that PrerenderedOnly routes admit
	bytes          int64
	protectedBytes int64
	sending        map[*page.Page]*page.Sending // large pages, while somebody reads them
	left           []*page.Sending              // of these, what has left the cache, the first one first
}

// New returns an empty Cache, whose pages are judged by table. Slow is what those pages may
// take that have left it, while they are read.
func New(maxBytes int64, table *invalidation.Table, slow *budget.Budget) *Cache {
	c := &Cache{
		table: table, maxBytes: maxBytes, slow: slow,
		admitted: make(map[string]struct{}), sending: make(map[*page.Page]*page.Sending),
	}
	c.places.init()
	return c
}

// Path returns a page at a path, where its route is that of every page there: whatever
// its host, query and headers. It may be nil where there are some, and is where the
// spelling is not the canonical one: a path that has a page here is as pagekey.CleanPath
// would make it.
func (c *Cache) Path(path string) *page.Page {
	hash := c.places.hashOfPath(path)
	c.mu.RLock()
	p := c.places.at(c.places.byPath[hash]).page
	c.mu.RUnlock()
	if p == nil || p.Key.Path != path {
		return nil
	}
	return p
}

// PathOf is Path, or PathAt where hosts have routes of their own, for what r asks for.
func (c *Cache) PathOf(r *http.Request, path string, byHost bool) *page.Page {
	if byHost {
		return c.PathAt(pagekey.CleanHost(pagekey.SchemeOf(r), r.Host), path)
	}
	return c.Path(path)
}

// maxHosts is at how many pages PathAt looks.
const maxHosts = 8

// PathAt is Path where hosts have routes of their own: it returns a page at a host.
func (c *Cache) PathAt(host, path string) *page.Page {
	hash := c.places.hashOfPath(path)
	c.mu.RLock()
	defer c.mu.RUnlock()
	i := c.places.byPath[hash]
	for range maxHosts {
		p := c.places.at(i).page
		if p == nil || p.Key.Host == host && p.Key.Path == path {
			return p
		}
		i = c.places.at(i).nextAt
	}
	return nil
}

// Get returns the page with a key, and what the invalidations since its generation did to
// it. It is found at once where it is the one that Path has returned, if that is not nil.
// What is gone is nil.
func (c *Cache) Get(k *pagekey.Key, at *page.Page) (*page.Page, store.Effect) {
	p := at
	if p == nil || p.Key != *k {
		if p = c.Peek(k); p == nil {
			return nil, store.None
		}
	}
	effect := p.Effect(c.table)
	if effect == store.Gone {
		c.Drop(p)
		return nil, store.None
	}
	return p, effect
}

// Peek returns the page with a key, however old.
func (c *Cache) Peek(k *pagekey.Key) *page.Page {
	hash := c.places.hashOfKey(k)
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.places.find(k, hash)
}

// Touch notes that the page was asked for, at most once a second.
func (c *Cache) Touch(p *page.Page, now time.Time) {
	second := now.Unix()
	if p.Touched.Load() == second || p.Touched.Swap(second) == second {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Recent.Note(p.Hits.Load()-1, second)
	switch l := &c.places; {
	case !l.holds(p):
	case l.at(p.Place).protected:
		l.moveToFront(p.Place, protected)
	case p.IsHitForPass:
	case c.earnsPromotion(p, second):
		c.promote(p)
	default:
		l.moveToFront(p.Place, probation)
	}
}

// earnsPromotion reports whether a page was asked for as often, within about the last hour,
// as each of those that would go back to probation for it. One that was asked for more
// often, and not purged since, stays, and is not asked again before the others of the list. It is called under
// c.mu.
func (c *Cache) earnsPromotion(p *page.Page, now int64) bool {
	l, hits := &c.places, p.Recent.Count(p.Hits.Load(), now)
	tooMany := c.protectedBytes + p.Size.Load() - c.maxBytes/5*4
	for i := l.at(protected).prev; tooMany > 0 && i != protected; i = l.at(i).prev {
		oldest := l.at(i).page
		if oldest.Recent.Count(oldest.Hits.Load(), now) > hits && oldest.Effect(c.table) != store.Gone {
			l.moveToFront(i, protected)
			return false
		}
		tooMany -= oldest.Size.Load()
	}
	return true
}

// RecentHits returns how often pages were asked for within about the last hour.
func (c *Cache) RecentHits(pages []*page.Page, now time.Time) map[*page.Page]uint64 {
	counts := make(map[*page.Page]uint64, len(pages))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, p := range pages {
		counts[p] = p.Recent.Count(p.Hits.Load(), now.Unix())
	}
	return counts
}

// Demand returns how often the page with a key was asked for within about the last hour, or
// false where there is none, or only a hit-for-pass.
func (c *Cache) Demand(k *pagekey.Key, now time.Time) (hits uint64, ok bool) {
	hash := c.places.hashOfKey(k)
	c.mu.RLock()
	defer c.mu.RUnlock()
	p := c.places.find(k, hash)
	if p.IsUnknown() {
		return 0, false
	}
	return p.Recent.Count(p.Hits.Load(), now.Unix()), true
}

// SortByRecentHits sorts pages: those first that were asked for most within about the last
// hour.
func (c *Cache) SortByRecentHits(pages []*page.Page, now time.Time) {
	counts := c.RecentHits(pages, now)
	slices.SortStableFunc(pages, func(a, b *page.Page) int { return cmp.Compare(counts[b], counts[a]) })
}

// A Counted is a page, and how often it was asked for within about the last hour.
type Counted struct {
	*page.Page
	Hits uint64
}

// Hottest returns the n pages that were asked for most within about the last hour, of those
// that keep approves of. It holds the lock for a few pages at a time: visitors wait for it.
func (c *Cache) Hottest(n int, now time.Time, keep func(*page.Page) bool) []Counted {
	byHits := func(a, b Counted) int { return cmp.Compare(b.Hits, a.Hits) }
	var hottest []Counted
	var few [chunkSize]*page.Page
	for chunk, more := 0, true; more; chunk++ {
		var asked []Counted
		c.mu.RLock()
		if more = c.places.some(chunk, &few); more {
			for _, p := range few {
				if p == nil {
					continue
				}
				if hits := p.Recent.Count(p.Hits.Load(), now.Unix()); hits > 0 {
					asked = append(asked, Counted{p, hits})
				}
			}
		}
		c.mu.RUnlock()
		hottest = append(hottest, slices.DeleteFunc(asked, func(p Counted) bool { return !keep(p.Page) })...)
		if len(hottest) > 2*n {
			slices.SortFunc(hottest, byHits)
			hottest = slices.Clip(hottest[:n])
		}
	}
	slices.SortStableFunc(hottest, byHits)
	return hottest[:min(n, len(hottest))]
}

// promote moves a page to the protected list. It is called under c.mu.
func (c *Cache) promote(p *page.Page) {
	l := &c.places
	l.at(p.Place).protected = true
	l.moveToFront(p.Place, protected)
	c.protectedBytes += p.Size.Load()
	c.demote(p)
}

// demote moves pages from the protected list to probation where it is too large, but keeps
// p. It is called under c.mu.
func (c *Cache) demote(p *page.Page) {
	l := &c.places
	for c.protectedBytes > c.maxBytes/5*4 {
		i := l.at(protected).prev
		if i == p.Place {
			break
		}
		c.protectedBytes -= l.at(i).page.Size.Load()
		l.at(i).protected = false
		l.moveToFront(i, probation)
	}
}

// Put stores a page, in place of an older one with its key, and returns what was evicted
// to make room. It reports false where the page is superseded, purged while it was
// generated, or too large. A page that was asked for by name is protected at once.
func (c *Cache) Put(p *page.Page, byName bool) (evicted []*page.Page, ok bool) {
	l, byKey, byPath := &c.places, c.places.hashOfKey(&p.Key), c.places.hashOfPath(pagekey.CanonicalPath(p.Key.Path))
	c.mu.Lock()
	defer c.mu.Unlock()
	old := l.find(&p.Key, byKey)
	if old != nil && old.Seq > p.Seq || p.Effect(c.table) == store.Gone {
		return nil, false
	}
	if old != nil {
		byName = byName || l.at(old.Place).protected
		p.Hits.Store(old.Hits.Load())
		p.Touched.Store(old.Touched.Load())
		p.Recent = old.Recent
		c.drop(old)
	}
	if p.Size.Load() > c.maxBytes {
		return nil, false
	}
	l.add(p, byKey, byPath)
	c.bytes += p.Size.Load()
	if byName && !p.IsHitForPass {
		c.promote(p)
	}
	return c.evict(p), true
}

// evict makes room where there are too many bytes, but keeps p. It is called under c.mu.
func (c *Cache) evict(p *page.Page) (evicted []*page.Page) {
	l := &c.places
	for c.bytes > c.maxBytes {
		i := l.at(probation).prev
		if i == probation || i == p.Place {
			if i = l.at(protected).prev; i == protected || i == p.Place {
				break
			}
		}
		victim := l.at(i).page
		c.drop(victim)
		evicted = append(evicted, victim)
	}
	return evicted
}

// AddEncoding adds an encoding to a stored page, and returns what was evicted to make
// room. It reports false where the page is not stored any more, or becomes too large.
func (c *Cache) AddEncoding(p *page.Page, e page.Encoding, codings []string) (evicted []*page.Page, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.places.holds(p) || p.Size.Load()+e.Size() > c.maxBytes {
		return nil, false
	}
	p.Add(e, codings)
	c.bytes += e.Size()
	if c.places.at(p.Place).protected {
		c.protectedBytes += e.Size()
		c.demote(p)
	}
	return c.evict(p), true
}

// Drop drops a page, unless another has taken its place.
func (c *Cache) Drop(p *page.Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places.holds(p) {
		c.drop(p)
	}
}

// drop is Drop under c.mu.
func (c *Cache) drop(p *page.Page) {
	if c.places.at(p.Place).protected {
		c.protectedBytes -= p.Size.Load()
	}
	c.bytes -= p.Size.Load()
	c.places.remove(p)
	if s := c.sending[p]; s != nil {
		c.leave(s)
	}
}

// JudgeAll judges every page and drops what is gone. It holds no lock for more than
// some pages at a time. What is stored meanwhile need not be judged.
func (c *Cache) JudgeAll(by *invalidation.Judgements) {
	var some [chunkSize]*page.Page
	for n := 0; ; n++ {
		c.mu.RLock()
		more := c.places.some(n, &some)
		c.mu.RUnlock()
		if !more {
			return
		}
		for _, p := range some {
			if p != nil && p.Judge(c.table, by) == store.Gone {
				c.Drop(p)
			}
		}
		runtime.Gosched()
	}
}

// Holds reports whether a page is stored at a canonical path. Hits-for-pass
// do not count.
func (c *Cache) Holds(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for p := range c.places.allAt(path) {
		if !p.IsHitForPass {
			return true
		}
	}
	return false
}

// At returns the pages that are stored at a canonical path and match.
func (c *Cache) At(path string, match func(*page.Page) bool) (pages []*page.Page) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for p := range c.places.allAt(path) {
		if match(p) {
			pages = append(pages, p)
		}
	}
	return pages
}

// All returns every page, those that were asked for last first.
func (c *Cache) All() []*page.Page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pages := make([]*page.Page, 0, c.places.n)
	for _, list := range [...]uint32{protected, probation} {
		for i := c.places.at(list).next; i != list; i = c.places.at(i).next {
			pages = append(pages, c.places.at(i).page)
		}
	}
	return pages
}

// MaxBytes returns how much memory the pages may take.
func (c *Cache) MaxBytes() int64 { return c.maxBytes }

// Size returns how many pages there are, and how much memory they take.
func (c *Cache) Size() (pages int, bytes int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.places.n, c.bytes
}

// Admit notes that a path is one that PrerenderedOnly routes have.
func (c *Cache) Admit(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admitted[strings.Clone(pagekey.CanonicalPath(path))] = struct{}{}
}

// Admits reports whether a path is one that PrerenderedOnly routes have.
func (c *Cache) Admits(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.admitted[pagekey.CanonicalPath(path)]
	return ok
}
