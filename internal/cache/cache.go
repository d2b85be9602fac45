// Package cache keeps pages in memory, within a number of bytes: a segmented LRU, and an
// index by path.
package cache

import (
	"cmp"
	"hash/maphash"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// A Path holds the pages that are stored at one path, whatever their host,
// query and headers, and remembers the path's route.
type Path struct {
	Route  *policy.Route               // of the canonical spelling; others may have another
	host   string                      // where Route holds, if routes differ by host; empty with one origin
	others atomic.Pointer[[]hostRoute] // at other hosts, at most maxHosts; read-only
	front  atomic.Pointer[page.Page]   // written under Cache.mu; most paths have only this one
}

// A hostRoute is the route that a path has at another host, by a hash of its name:
// visitors choose the names.
type hostRoute struct {
	host  uint64
	route *policy.Route
}

// maxHosts is of how many other hosts a Path remembers the route. At more than that it is
// looked up at each visit.
const maxHosts = 4

var hostSeed = maphash.MakeSeed()

// RouteOf returns the route of the path's pages, or of those at the host that r asks for,
// or nil where that is not known. A nil Path knows nothing.
func (at *Path) RouteOf(r *http.Request, byHost bool) *policy.Route {
	switch {
	case at == nil:
		return nil
	case byHost:
		return at.routeFor(r)
	}
	return at.Route
}

// routeFor returns the route of the path's pages at the host that r asks for, or nil where
// it is not known.
func (at *Path) routeFor(r *http.Request) *policy.Route {
	host := r.Host
	if host == at.host && at.Route != nil {
		return at.Route
	}
	if host = pagekey.CleanHost(pagekey.SchemeOf(r), host); host == at.host && at.Route != nil {
		return at.Route
	}
	others := at.others.Load()
	if others == nil {
		return nil
	}
	sum := maphash.String(hostSeed, host)
	for _, other := range *others {
		if other.host == sum {
			return other.route
		}
	}
	return nil
}

// Learn notes what RouteOf did not know.
func (at *Path) Learn(r *http.Request, rt *policy.Route) {
	old := at.others.Load()
	var list []hostRoute
	if old != nil {
		list = *old
	}
	if len(list) < maxHosts {
		host := pagekey.CleanHost(pagekey.SchemeOf(r), r.Host)
		list = append(slices.Clip(list), hostRoute{maphash.String(hostSeed, host), rt})
		at.others.CompareAndSwap(old, &list) // else the next visit notes it
	}
}

// A Cache keeps pages in memory.
//
// Pages that are asked for once do not evict those that are asked for repeatedly (a
// segmented LRU): a page begins in probation, whose oldest page is evicted first, and is
// promoted to the protected list when it is asked for a second time. That holds at most
// four fifths of the memory; its oldest page goes back to probation.
type Cache struct {
	table    *invalidation.Table
	maxBytes int64

	mu                   sync.RWMutex // guards what follows; under Group.mu or Table.compacting, before Table.mu and Versions.mu
	probation, protected *simplelru.LRU[pagekey.Key, *page.Page]
	paths                map[string]*Path    // by canonical path
	admitted             map[string]struct{} // canonical paths that PrerenderedOnly routes admit
	pages                []*page.Page        // in no order; see JudgeAll
	bytes                int64
	protectedBytes       int64
}

// New returns an empty Cache, whose pages are judged by table.
func New(maxBytes int64, table *invalidation.Table) *Cache {
	c := &Cache{table: table, maxBytes: maxBytes, paths: make(map[string]*Path), admitted: make(map[string]struct{})}
	// The lists never evict by themselves: memory is counted in bytes.
	c.probation, _ = simplelru.NewLRU[pagekey.Key, *page.Page](1<<31-1, nil)
	c.protected, _ = simplelru.NewLRU[pagekey.Key, *page.Page](1<<31-1, nil)
	return c
}

// Path returns what is stored at a path, or nil if its spelling is not the
// canonical one. A path that has a Path is as pagekey.CleanPath would make it.
func (c *Cache) Path(path string) *Path {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.paths[path]
}

// Get returns the page with a key, which is at a Path if that is not nil, and
// what the invalidations since its generation did to it. What is gone is nil.
func (c *Cache) Get(k *pagekey.Key, at *Path) (*page.Page, store.Effect) {
	var p *page.Page
	if at != nil {
		p = at.front.Load()
	}
	if p == nil || p.Key != *k {
		if p = c.Peek(k); p == nil {
			return nil, store.None
		}
	}
	effect := p.Effect(c.table)
	if effect == store.Gone {
		c.remove(p)
		return nil, store.None
	}
	return p, effect
}

// Peek returns the page with a key, however old.
func (c *Cache) Peek(k *pagekey.Key) *page.Page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.find(k)
}

// find is Peek under c.mu.
func (c *Cache) find(k *pagekey.Key) *page.Page {
	if p, ok := c.protected.Peek(*k); ok {
		return p
	}
	p, _ := c.probation.Peek(*k)
	return p
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
	if _, ok := c.protected.Get(p.Key); ok {
		return
	}
	if p, ok := c.probation.Peek(p.Key); ok && p.NotStored == (policy.Refusal{}) {
		c.probation.Remove(p.Key)
		c.promote(p)
	}
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
	const few = 1024
	byHits := func(a, b Counted) int { return cmp.Compare(b.Hits, a.Hits) }
	var hottest []Counted
	for begin, more := 0, true; more; begin += few {
		var asked []Counted
		c.mu.RLock()
		end := min(begin+few, len(c.pages))
		more = end < len(c.pages)
		for _, p := range c.pages[min(begin, end):end] {
			if hits := p.Recent.Count(p.Hits.Load(), now.Unix()); hits > 0 {
				asked = append(asked, Counted{p, hits})
			}
		}
		c.mu.RUnlock()
		hottest = append(hottest, slices.DeleteFunc(asked, func(p Counted) bool { return !keep(p.Page) })...)
		if len(hottest) > n {
			slices.SortFunc(hottest, byHits)
			hottest = slices.Clip(hottest[:n])
		}
	}
	slices.SortStableFunc(hottest, byHits)
	return hottest
}

// promote adds a page to the protected list. It is called under c.mu.
func (c *Cache) promote(p *page.Page) {
	p.Protected = true
	c.protected.Add(p.Key, p)
	c.protectedBytes += p.Size.Load()
	c.demote()
}

// demote moves pages from the protected list to probation where it is too large. It is
// called under c.mu.
func (c *Cache) demote() {
	for c.protectedBytes > c.maxBytes/5*4 && c.protected.Len() > 1 {
		_, old, _ := c.protected.RemoveOldest()
		c.protectedBytes -= old.Size.Load()
		old.Protected = false
		c.probation.Add(old.Key, old)
	}
}

// Put stores a page, in place of an older one with its key, and returns what was evicted
// to make room. It reports false where the page is superseded, purged while it was
// generated, or too large. A page that was asked for by name is protected at once.
func (c *Cache) Put(p *page.Page, byName bool) (evicted []*page.Page, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.find(&p.Key)
	if old != nil && old.Seq > p.Seq || p.Effect(c.table) == store.Gone {
		return nil, false
	}
	if old != nil {
		byName = byName || old.Protected
		p.Hits.Store(old.Hits.Load())
		p.Touched.Store(old.Touched.Load())
		p.Recent = old.Recent
		c.drop(old)
	}
	if p.Size.Load() > c.maxBytes {
		return nil, false
	}
	path := pagekey.CanonicalPath(p.Key.Path)
	at := c.paths[path]
	if at == nil {
		at = &Path{Route: p.Route, host: p.Key.Host}
		if p.Key.Path != path {
			at.Route = nil
		}
		c.paths[path] = at
	}
	if front := at.front.Load(); front != nil {
		p.Next, front.Prev = front, p
	}
	at.front.Store(p)
	p.Index = len(c.pages)
	c.pages = append(c.pages, p)
	c.bytes += p.Size.Load()
	if byName && p.NotStored == (policy.Refusal{}) {
		c.promote(p)
	} else {
		c.probation.Add(p.Key, p)
	}
	return c.evict(p), true
}

// evict makes room where there are too many bytes, but keeps p. It is called under c.mu.
func (c *Cache) evict(p *page.Page) (evicted []*page.Page) {
	for c.bytes > c.maxBytes {
		_, victim, ok := c.probation.GetOldest()
		if !ok || victim == p {
			if _, victim, ok = c.protected.GetOldest(); !ok || victim == p {
				break
			}
		}
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
	if c.find(&p.Key) != p || p.Size.Load()+e.Size() > c.maxBytes {
		return nil, false
	}
	p.Add(e, codings)
	c.bytes += e.Size()
	if p.Protected {
		c.protectedBytes += e.Size()
		c.demote()
	}
	return c.evict(p), true
}

// remove drops a page, unless another has taken its place.
func (c *Cache) remove(p *page.Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(&p.Key) == p {
		c.drop(p)
	}
}

// drop is remove under c.mu.
func (c *Cache) drop(p *page.Page) {
	if p.Protected {
		c.protected.Remove(p.Key)
		c.protectedBytes -= p.Size.Load()
	} else {
		c.probation.Remove(p.Key)
	}
	c.bytes -= p.Size.Load()
	end := len(c.pages) - 1
	last := c.pages[end]
	c.pages[p.Index], last.Index = last, p.Index
	c.pages[end] = nil
	c.pages = c.pages[:end]
	path := pagekey.CanonicalPath(p.Key.Path)
	if p.Next != nil {
		p.Next.Prev = p.Prev
	}
	if p.Prev != nil {
		p.Prev.Next = p.Next
	} else if p.Next != nil {
		c.paths[path].front.Store(p.Next)
	} else {
		c.paths[path].front.Store(nil)
		delete(c.paths, path)
	}
	p.Next, p.Prev = nil, nil
}

// JudgeAll judges every page and drops what is gone. It holds no lock for more than
// some pages at a time. It goes downwards: where a page is dropped, one from the end
// takes its place, which was judged before, or has come since.
func (c *Cache) JudgeAll(by *invalidation.Judgements) {
	var some [256]*page.Page
	for end := -1; ; {
		c.mu.RLock()
		if end < 0 || end > len(c.pages) {
			end = len(c.pages)
		}
		n := copy(some[:], c.pages[max(0, end-len(some)):end])
		c.mu.RUnlock()
		if n == 0 {
			return
		}
		for _, p := range some[:n] {
			if p.Judge(c.table, by) == store.Gone {
				c.remove(p)
			}
		}
		if end -= n; end == 0 {
			return
		}
		runtime.Gosched()
	}
}

// Holds reports whether a page is stored at a canonical path. Hits-for-pass
// do not count.
func (c *Cache) Holds(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if at := c.paths[path]; at != nil {
		for p := at.front.Load(); p != nil; p = p.Next {
			if p.NotStored == (policy.Refusal{}) {
				return true
			}
		}
	}
	return false
}

// At returns the pages that are stored at a canonical path and match.
func (c *Cache) At(path string, match func(*page.Page) bool) (pages []*page.Page) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if at := c.paths[path]; at != nil {
		for p := at.front.Load(); p != nil; p = p.Next {
			if match(p) {
				pages = append(pages, p)
			}
		}
	}
	return pages
}

// All returns every page, those that were asked for last first.
func (c *Cache) All() []*page.Page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pages := append(c.probation.Values(), c.protected.Values()...)
	slices.Reverse(pages)
	return pages
}

// MaxBytes returns how much memory the pages may take.
func (c *Cache) MaxBytes() int64 { return c.maxBytes }

// Size returns how many pages there are, and how much memory they take.
func (c *Cache) Size() (pages int, bytes int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.probation.Len() + c.protected.Len(), c.bytes
}

// Admit notes that a path is one that PrerenderedOnly routes have.
func (c *Cache) Admit(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admitted[pagekey.CanonicalPath(path)] = struct{}{}
}

// Admits reports whether a path is one that PrerenderedOnly routes have.
func (c *Cache) Admits(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.admitted[pagekey.CanonicalPath(path)]
	return ok
}
