package isr

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"iter"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/isr-go/isr/internal/guard"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// key returns the key of the page that r asks for, whose path is path, by cleanPath.
func (s *Site) key(r *http.Request, path string, rt *policy.Route) pagekey.Key {
	k := rt.Rules.Key(r, path, s.origin)
	if r.Pattern != "" {
		k.Pattern = s.patterns.Of(r.Pattern, path)
	}
	return k
}

// TrackingParameters are the query parameters by which campaigns, newsletters and
// networks tell who has sent a visitor, in the spelling of [Route].IgnoreQuery: what
// a page is ignored by where its route has neither Query nor IgnoreQuery. To ignore
// more, use append(slices.Clone(isr.TrackingParameters), "ref"). It is read by Wrap;
// do not change it.
var TrackingParameters = []string{
	"utm_*", "mtm_*", // Google Analytics and many others, Matomo
	"gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid", "srsltid", "_ga", "_gl", // Google
	"fbclid", "igsh", "igshid", // Meta
	"msclkid", "ttclid", "twclid", "li_fat_id", "epik", "rdt_cid", "ScCid", // Microsoft, TikTok, X, LinkedIn, Pinterest, Reddit, Snap
	"yclid", "ysclid", // Yandex
	"mc_cid", "mc_eid", "_hsenc", "_hsmi", "_kx", "mkt_tok", // Mailchimp, HubSpot, Klaviyo, Marketo
}

// State says where in its life a page is.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed behind it
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // not stored: requests go straight to the handler for a while

)

// A State is a page's, by the same numbers.
var _ = [1]struct{}{}[State(page.Uncacheable)-Uncacheable+State(page.Expired)-Expired+State(page.Stale)-Stale+State(page.Fresh)-Fresh]

// String returns the state in lower case.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	case Uncacheable:
		return "uncacheable"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Page is a snapshot of a stored page, for people and tools. Headers and tags
// are shared with the cache: read them only.
type Page struct {
	Scheme, Host, Path, Query, Route string        // Path escaped; Route the pattern, empty for the default
	Varied, Header                   http.Header   // what the key covers beside the URL; the headers as stored
	Status                           int           // zero for a pass mark
	State                            State         // at the time of the snapshot
	NotStored                        string        // for a pass mark: why, in words a developer can act on
	Generated                        time.Time     // when its generation ended, less the Age that it had from upstream
	TTL, Duration                    time.Duration // TTL: zero means until revalidated on demand, less than zero that it is never fresh; Duration: of the last generation
	Size                             int64         // memory in bytes, overhead included
	Tags                             []string      // of the route and of the handler; where they are more than 128, the first 64
	ETag                             string        // of the body without encoding
	Hits                             uint64        // since the page was first stored
	Failures                         int           // in a row, since the last success
	Err                              error         // of the last failure; nil where Failures is zero
}

func snapshot(p *page.Page, effect store.Effect, now time.Time) Page {
	view := p.View(effect, now)
	out := Page{
		Scheme: p.Key.Scheme, Host: p.Key.Host, Path: p.Key.Path, Query: p.Key.Query, Route: p.Route.Pattern,
		Varied: pagekey.ParseHeader(p.Key.Variant), Status: p.Status, State: State(view.State), NotStored: p.WhyUncacheable(view).String(),
		Generated: p.Generated, Duration: p.Took, Size: p.Size, Tags: pagekey.PlainTags(p.Subject.Tags), Hits: p.Hits.Load(),
	}
	out.Header, out.ETag = p.Header()
	out.Failures, out.Err = p.Failures()
	if p.NotStored != (policy.Refusal{}) {
		out.TTL = page.HitForPassTTL
	} else if p.Lifetime.TTL != policy.Forever {
		out.TTL = cmp.Or(p.Lifetime.TTL, -1)
	}
	return out
}

// A shelf holds the pages that are stored at one path, whatever their host,
// query and headers, and remembers the path's route.
type shelf struct {
	route *policy.Route             // of the canonical spelling; others may have another
	front atomic.Pointer[page.Page] // written under cache.mu; most paths have but this one
}

// A cache keeps pages in memory.
//
// What is asked for once and never again cannot push out what is asked for
// again and again: a page begins in the list once, from whose end memory is
// taken first, and moves on to the list often when it is asked for a second
// time. The latter holds at most four fifths of the memory; what drops off its
// end gets another life in the former (a segmented LRU).
type cache struct {
	table    *invalidation.Table
	maxBytes int64

	mu          sync.RWMutex
	once, often *simplelru.LRU[pagekey.Key, *page.Page] // guarded by mu, as all below
	shelves     map[string]*shelf                       // by canonical path
	known       map[string]struct{}                     // canonical paths that PrerenderedOnly routes admit
	pages       []*page.Page                            // in no order; see compact
	bytes       int64
	oftenBytes  int64
}

func newCache(maxBytes int64, table *invalidation.Table) *cache {
	c := &cache{table: table, maxBytes: maxBytes, shelves: make(map[string]*shelf), known: make(map[string]struct{})}
	// The lists never evict by themselves: memory is counted in bytes.
	c.once, _ = simplelru.NewLRU[pagekey.Key, *page.Page](1<<31-1, nil)
	c.often, _ = simplelru.NewLRU[pagekey.Key, *page.Page](1<<31-1, nil)
	return c
}

// shelf returns what is stored at a path, or nil if its spelling is not the
// canonical one. A path that has a shelf is as cleanPath would make it.
func (c *cache) shelf(path string) *shelf {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shelves[path]
}

// get returns the page with a key, which is on shelf sh if that is not nil, and
// what the invalidations since its generation did to it. What is gone is nil.
func (c *cache) get(k *pagekey.Key, sh *shelf) (*page.Page, store.Effect) {
	var p *page.Page
	if sh != nil {
		p = sh.front.Load()
	}
	if p == nil || p.Key != *k {
		if p = c.peek(k); p == nil {
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

// peek returns the page with a key, however old.
func (c *cache) peek(k *pagekey.Key) *page.Page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.find(k)
}

// find is peek under c.mu.
func (c *cache) find(k *pagekey.Key) *page.Page {
	if p, ok := c.often.Peek(*k); ok {
		return p
	}
	p, _ := c.once.Peek(*k)
	return p
}

// touch notes that the page was asked for, at most once a second.
func (c *cache) touch(p *page.Page, now time.Time) {
	second := now.Unix()
	if p.Touched.Load() == second || p.Touched.Swap(second) == second {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.Recent.Note(p.Hits.Load()-1, second)
	if _, ok := c.often.Get(p.Key); ok {
		return
	}
	if p, ok := c.once.Peek(p.Key); ok && p.NotStored == (policy.Refusal{}) {
		c.once.Remove(p.Key)
		c.promote(p)
	}
}

// recentHits returns how often pages were asked for within about the last hour.
func (c *cache) recentHits(pages []*page.Page, now time.Time) map[*page.Page]uint64 {
	counts := make(map[*page.Page]uint64, len(pages))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, p := range pages {
		counts[p] = p.Recent.Count(p.Hits.Load(), now.Unix())
	}
	return counts
}

// promote adds a page to the list often. It is called under c.mu.
func (c *cache) promote(p *page.Page) {
	p.Protected = true
	c.often.Add(p.Key, p)
	c.oftenBytes += p.Size
	for c.oftenBytes > c.maxBytes/5*4 && c.often.Len() > 1 {
		_, old, _ := c.often.RemoveOldest()
		c.oftenBytes -= old.Size
		old.Protected = false
		c.once.Add(old.Key, old)
	}
}

// put stores a page, in place of an older one with its key, and returns what had
// to go for it. It reports false where the page is superseded, purged while it
// was generated, or too large. A page that was asked for by name counts as one
// that is asked for again and again.
func (c *cache) put(p *page.Page, byName bool) (evicted []*page.Page, ok bool) {
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
	if p.Size > c.maxBytes {
		return nil, false
	}
	path := pagekey.CanonicalPath(p.Key.Path)
	sh := c.shelves[path]
	if sh == nil {
		sh = &shelf{route: p.Route}
		if p.Key.Path != path {
			sh.route = nil
		}
		c.shelves[path] = sh
	}
	if front := sh.front.Load(); front != nil {
		p.Next, front.Prev = front, p
	}
	sh.front.Store(p)
	p.Index = len(c.pages)
	c.pages = append(c.pages, p)
	c.bytes += p.Size
	if byName && p.NotStored == (policy.Refusal{}) {
		c.promote(p)
	} else {
		c.once.Add(p.Key, p)
	}
	for c.bytes > c.maxBytes {
		_, victim, ok := c.once.GetOldest()
		if !ok || victim == p {
			if _, victim, ok = c.often.GetOldest(); !ok || victim == p {
				break
			}
		}
		c.drop(victim)
		evicted = append(evicted, victim)
	}
	return evicted, true
}

// remove forgets a page, unless another has taken its place.
func (c *cache) remove(p *page.Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(&p.Key) == p {
		c.drop(p)
	}
}

// drop is remove under c.mu.
func (c *cache) drop(p *page.Page) {
	if p.Protected {
		c.often.Remove(p.Key)
		c.oftenBytes -= p.Size
	} else {
		c.once.Remove(p.Key)
	}
	c.bytes -= p.Size
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
		c.shelves[path].front.Store(p.Next)
	} else {
		c.shelves[path].front.Store(nil)
		delete(c.shelves, path)
	}
	p.Next, p.Prev = nil, nil
}

// judgeAll judges every page and drops what is gone. It holds no lock for more than
// some pages at a time. It goes downwards: where a page is dropped, one from the end
// takes its place, which was judged before, or has come since.
func (c *cache) judgeAll(by *invalidation.Judgements) {
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

// holds reports whether a page is stored at a canonical path. Pass marks do not
// count.
func (c *cache) holds(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if sh := c.shelves[path]; sh != nil {
		for p := sh.front.Load(); p != nil; p = p.Next {
			if p.NotStored == (policy.Refusal{}) {
				return true
			}
		}
	}
	return false
}

// at returns the pages that are stored at a canonical path and match.
func (c *cache) at(path string, match func(*page.Page) bool) (pages []*page.Page) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if sh := c.shelves[path]; sh != nil {
		for p := sh.front.Load(); p != nil; p = p.Next {
			if match(p) {
				pages = append(pages, p)
			}
		}
	}
	return pages
}

// all returns every page, those that were asked for last first.
func (c *cache) all() []*page.Page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	pages := append(c.once.Values(), c.often.Values()...)
	slices.Reverse(pages)
	return pages
}

func (c *cache) size() (pages int, bytes int64) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.once.Len() + c.often.Len(), c.bytes
}

// admit makes a path known to its PrerenderedOnly route.
func (s *Site) admit(t *target) {
	if t.route.PrerenderedOnly || s.hosts && t.Host == "" {
		s.cache.admit(t.Path)
	}
}

func (c *cache) admit(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[pagekey.CanonicalPath(path)] = struct{}{}
}

func (c *cache) admits(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.known[pagekey.CanonicalPath(path)]
	return ok
}

// Pages returns a snapshot of the stored pages and pass marks, for people and
// tools, beginning with those that are asked for again and again.
func (s *Site) Pages() iter.Seq[Page] {
	return func(yield func(Page) bool) {
		now := time.Now()
		for _, p := range s.cache.all() {
			effect := p.Effect(s.table)
			if effect == store.Gone || p.View(effect, now).State == page.Absent {
				continue
			}
			if !yield(snapshot(p, effect, now)) {
				return
			}
		}
	}
}

// warnOverflow says that a table was full of what could not be forgotten.
func (s *Site) warnOverflow() {
	if s.log != nil {
		s.log.Warn("isr: more was invalidated during one generation than can be remembered: pages that take so long count as invalidated",
			"remedy", "make the slowest pages faster, set a shorter Route.Timeout, or a larger MaxBytes")
	}
}

// A second is the second level of the cache: the Store behind its guard.
type second struct {
	*guard.Guard
	prefix string // of keys: the names of program and build
	end    context.CancelFunc
	ended  chan struct{} // closed when nothing is followed any more
	met    chan struct{} // closed when the first contact was made, or has failed
	meets  sync.Once

	strangers bucket
	tellers   chan struct{} // slots of tellStore
}

// stop ends the following.
func (s *second) stop() {
	s.end()
	<-s.ended
}

// meet waits for the first contact, but not for long: what is known of the Store's
// history then need not count as stale when that is heard.
func (s *second) meet() {
	select {
	case <-s.met:
		return
	default:
	}
	t := time.NewTimer(maxMeetTime)
	defer t.Stop()
	select {
	case <-s.met:
	case <-t.C:
	}
}

const maxMeetTime = 100 * time.Millisecond

// open makes a Store the second level.
func (s *Site) open(st store.Store, version string) {
	var program string
	if info, ok := debug.ReadBuildInfo(); ok {
		program = info.Path
		if version == "" {
			version = revision(info.Settings)
		}
	}
	if version == "" && s.log != nil {
		s.log.Warn("isr: nothing tells the pages of this build from those of others in the Store",
			"remedy", "set Options.Version, or build where the Go command finds the VCS")
	}
	ctx, end := context.WithCancel(context.Background())
	second := &second{prefix: prefix(program, version), end: end, ended: make(chan struct{}), met: make(chan struct{}), tellers: make(chan struct{}, maxTellers)}
	second.Guard = guard.New(st, func(err error) {
		second.meets.Do(func() { close(second.met) })
		s.report(Event{Kind: StoreFailed, Err: fmt.Errorf("store: %w", err)})
	})
	s.second = second
	go s.follow(ctx)
}

// prefix returns what the keys of a program's build in the Store begin with. All
// programs of a repository have one revision.
func prefix(program, version string) string {
	return string(pagekey.AppendString(pagekey.AppendString(nil, program), version))
}

// revision returns the VCS revision of a build, or nothing where that does not tell
// it from others.
func revision(settings []debug.BuildSetting) string {
	m := make(map[string]string)
	for _, s := range settings {
		m[s.Key] = s.Value
	}
	if m["vcs.modified"] == "true" {
		return m["vcs.revision"] + "+" + m["vcs.time"]
	}
	return m["vcs.revision"]
}

// maxReplayTime is how long what is followed may be history from before the start.
const maxReplayTime = 2 * time.Second

// follow takes over what is invalidated in the Store, until ctx is done.
func (s *Site) follow(ctx context.Context) {
	defer close(s.second.ended)
	begin, replayed, pause := time.Now(), false, time.Second
	contact := begin // the last
	var next time.Time
	s.second.Follow(ctx,
		func(c store.Changes) {
			now := time.Now()
			at := now
			switch {
			case !replayed || c.Reset:
				at = time.Time{} // what is from before the Site was there, or its order: unknown
			case now.Sub(contact) > maxReplayTime:
				at = contact // the Store was away, and it can have been right after that
			}
			contact = now
			s.table.Apply(at, c)
			s.second.meets.Do(func() { close(s.second.met) })
			replayed = replayed || len(c.List) == 0 || time.Since(begin) > maxReplayTime
		},
		func() {
			if s.log != nil {
				s.log.Info("isr: the Store answers again")
			}
		},
		func() {
			if !s.second.Down() { // else it answers, but is not trusted yet
				s.table.Reconnected()
			}
			if now := time.Now(); now.After(next) {
				if s.flush(ctx) {
					pause = time.Second
				} else {
					next, pause = now.Add(pause), min(2*pause, time.Minute)
				}
			}
		})
}

// flush tells the Store what it has not yet heard of, and reports whether it
// has now.
func (s *Site) flush(ctx context.Context) bool {
	for {
		undelivered, asked := s.table.Undelivered()
		if len(undelivered) == 0 {
			return true
		}
		for effect, tags := range undelivered {
			v, err := s.second.Invalidate(ctx, effect, tags...)
			if err != nil {
				return false
			}
			s.table.Ack(effect, v, asked, tags...)
		}
	}
}

// storeKey returns the key of a page in the Store. Host and scheme are always part of
// it, and so is where they are from: others may use the same Store, and a Host that a
// visitor has sent is no Options.Origin.
func (s *Site) storeKey(k *pagekey.Key) string {
	b := []byte(s.second.prefix)
	if s.origin.Host != "" {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = pagekey.AppendString(b, cmp.Or(k.Scheme, s.origin.Scheme))
	b = pagekey.AppendString(b, cmp.Or(k.Host, s.origin.Host))
	b = pagekey.AppendString(b, k.Path)
	b = pagekey.AppendString(b, k.Pattern)
	b = pagekey.AppendString(b, k.Query)
	sum := sha256.Sum256(append(b, k.Variant...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
