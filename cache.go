package isr

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/isr-go/isr/internal/guard"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/store"
)

// passTTL is how long requests for a page that may not be stored go straight to
// the handler before the page is tried again.
const passTTL = 10 * time.Second

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

// The states of a page.
type pageState int

const (
	pgFresh       pageState = iota // served from memory
	pgStale                        // served at once, and renewed behind it
	pgExpired                      // visitors wait for a new one; shown only where that fails
	pgUncacheable                  // requests go straight to the handler for a while
	pgAbsent      pageState = -1   // there is no page
)

// A State is a page's, by the same numbers.
var _ = [1]struct{}{}[State(pgUncacheable)-Uncacheable+State(pgExpired)-Expired+State(pgStale)-Stale+State(pgFresh)-Fresh]

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

// A page is a stored response, or a pass mark: the note that there is none.
type page struct {
	// What was generated. Plain data that never changes; see encode.
	key         pagekey.Key
	pattern     string               // of a ServeMux around the Site
	matched     string               // the pattern that the handler has matched, as http.Request has it
	subject     invalidation.Subject // what the invalidations are held against
	seq         uint64               // which of the Site's generations it is: a later one has more
	order       store.Ticket         // the Store's; zero where it was not to be had
	status      int
	pass        policy.Refusal // for a pass mark: why the response may not be stored
	private     bool           // for a pass mark: whether that is because it is not for everybody
	generated   time.Time
	took        time.Duration
	upstream    time.Duration // the Age that it came with, by which generated is earlier
	lifetime    policy.Lifetime
	validators  validators
	modified    time.Time       // by validators.lastModified
	ownControl  bool            // whether the Cache-Control is the handler's
	plain, gzip *representation // gzip is nil where it would not be smaller
	size        int64

	route *policy.Route

	// Guarded by cache.mu.
	next, prev *page // on the same shelf
	index      int   // in cache.pages
	often      bool  // in which of the two lists it is
	recent     hourly

	hits    atomic.Uint64
	touched atomic.Int64            // the second of the last move to the front of the list
	away    atomic.Int64            // Unix time in ns until which it is left to another instance
	trouble atomic.Pointer[trouble] // the failures since
	aside   atomic.Pointer[page]    // a pass mark that holds while this page only stands by for errors

	room representation // for plain: what lies together is found together
}

// newerThan reports whether a page from the Store is newer than one that is
// stored here. What was generated without the Store has no place in its order.
func (p *page) newerThan(old *page) bool {
	if old.subject.Since.Offline != 0 {
		return p.generated.After(old.generated)
	}
	return p.order.Compare(old.order) > 0
}

// began returns when the generation began. What was invalidated before that does
// not concern the page, so that it is also when a page counts as stale from whose
// invalidation has no known time.
func (p *page) began() time.Time { return p.generated.Add(p.upstream - p.took) }

// trouble is what came of the attempts to renew a page.
type trouble struct {
	failures int
	err      error
	began    invalidation.Snapshot // when the last of them did
	seq      uint64                // which it was
	until    time.Time             // when it is time for another attempt in the background
}

// pause returns how long a page is left alone after some failures in a row: the
// first may have been a hiccup.
func pause(failures int, retryAfter time.Duration) time.Duration {
	if failures < 2 {
		return 0
	}
	d := maxPause
	if n := failures - 2; n < 5 {
		d = min(d, minPause<<n)
	}
	return max(d, min(retryAfter, maxRetryAfter))
}

// Bounds of the pause between two attempts to renew a page.
const (
	minPause      = time.Second
	maxPause      = 30 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// A view is what a page is worth at one moment.
type view struct {
	state   pageState
	age     time.Duration
	left    time.Duration // until it turns stale; below zero since it has
	onError bool          // whether it may be shown where a new one could not be had
	revoked bool          // whether it was invalidated, so that nobody downstream may hold it
}

// view judges the page at a moment, given what the invalidations did to it.
func (p *page) view(effect store.Effect, now time.Time) view {
	if p == nil {
		return view{state: pgAbsent}
	}
	v := view{age: max(0, now.Sub(p.generated)), revoked: effect != store.None}
	if p.pass != (policy.Refusal{}) {
		v.state = pgUncacheable
		if v.revoked || v.age >= passTTL || p.trouble.Load() != nil {
			v.state = pgAbsent
		}
		return v
	}
	v.left = policy.Forever
	if p.lifetime.TTL != policy.Forever {
		v.left = p.lifetime.TTL - v.age
	}
	if v.revoked {
		v.left = min(v.left, -max(0, now.Sub(p.subject.InvalidatedAt())))
	}
	v.onError = effect != store.Gone && v.left > -p.lifetime.StaleIfError
	aside := p.aside.Load()
	switch {
	case aside != nil && now.Sub(aside.generated) < passTTL:
		v.state = pgUncacheable
	case aside != nil:
		v.state = pgExpired
	case v.left > 0 && !v.revoked:
		v.state = pgFresh
	case effect <= store.Stale && v.left > -p.lifetime.StaleWhileRevalidate:
		v.state = pgStale
	default:
		v.state = pgExpired
	}
	return v
}

// shows reports whether the page may be shown where a new one could not be had.
func (v view) shows() bool {
	return v.state == pgFresh || v.state == pgStale || v.onError
}

// setAside lets old stand by for errors, while requests go straight to the handler,
// because what came of a run that was to renew it may not be stored. It reports false
// where there is nothing that could stand by.
func (c *cache) setAside(old, mark *page) bool {
	if old.unknown() || old.seq > mark.seq || old.effect(c.table) == store.Gone {
		return false
	}
	old.aside.Store(mark)
	return true
}

// fail notes a failed attempt to renew the page, and how long the handler asks to
// be left alone.
func (p *page) fail(err error, began invalidation.Snapshot, seq uint64, retryAfter time.Duration) {
	for {
		old := p.trouble.Load()
		t := &trouble{failures: 1, err: err, began: began, seq: seq}
		if old != nil {
			t.failures += old.failures
			if old.seq > seq {
				t.began, t.seq = old.began, old.seq
			}
		}
		t.until = time.Now().Add(pause(t.failures, retryAfter))
		if p.trouble.CompareAndSwap(old, t) {
			return
		}
	}
}

func snapshot(p *page, effect store.Effect, now time.Time) Page {
	view := p.view(effect, now)
	out := Page{
		Scheme: p.key.Scheme, Host: p.key.Host, Path: p.key.Path, Query: p.key.Query, Route: p.route.Pattern,
		Varied: pagekey.ParseHeader(p.key.Variant), Status: p.status, State: State(view.state), NotStored: p.pass.String(),
		Generated: p.generated, Duration: p.took, Size: p.size, Tags: pagekey.PlainTags(p.subject.Tags), Hits: p.hits.Load(),
	}
	if p.plain != nil {
		out.Header, out.ETag = p.plain.snapshot()
	}
	if mark := p.aside.Load(); mark != nil && view.state == pgUncacheable {
		out.NotStored = mark.pass.String()
	}
	if p.pass != (policy.Refusal{}) {
		out.TTL = passTTL
	} else if p.lifetime.TTL != policy.Forever {
		out.TTL = cmp.Or(p.lifetime.TTL, -1)
	}
	if t := p.trouble.Load(); t != nil {
		out.Failures, out.Err = t.failures, t.err
	}
	return out
}

// A shelf holds the pages that are stored at one path, whatever their host,
// query and headers, and remembers the path's route.
type shelf struct {
	route *policy.Route        // of the canonical spelling; others may have another
	front atomic.Pointer[page] // written under cache.mu; most paths have but this one
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
	once, often *simplelru.LRU[pagekey.Key, *page] // guarded by mu, as all below
	shelves     map[string]*shelf                  // by canonical path
	known       map[string]struct{}                // canonical paths that PrerenderedOnly routes admit
	pages       []*page                            // in no order; see compact
	bytes       int64
	oftenBytes  int64
}

func newCache(maxBytes int64, table *invalidation.Table) *cache {
	c := &cache{table: table, maxBytes: maxBytes, shelves: make(map[string]*shelf), known: make(map[string]struct{})}
	// The lists never evict by themselves: memory is counted in bytes.
	c.once, _ = simplelru.NewLRU[pagekey.Key, *page](1<<31-1, nil)
	c.often, _ = simplelru.NewLRU[pagekey.Key, *page](1<<31-1, nil)
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
func (c *cache) get(k *pagekey.Key, sh *shelf) (*page, store.Effect) {
	var p *page
	if sh != nil {
		p = sh.front.Load()
	}
	if p == nil || p.key != *k {
		if p = c.peek(k); p == nil {
			return nil, store.None
		}
	}
	effect := p.effect(c.table)
	if effect == store.Gone {
		c.remove(p)
		return nil, store.None
	}
	return p, effect
}

// peek returns the page with a key, however old.
func (c *cache) peek(k *pagekey.Key) *page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.find(k)
}

// find is peek under c.mu.
func (c *cache) find(k *pagekey.Key) *page {
	if p, ok := c.often.Peek(*k); ok {
		return p
	}
	p, _ := c.once.Peek(*k)
	return p
}

// touch notes that the page was asked for, at most once a second.
func (c *cache) touch(p *page, now time.Time) {
	second := now.Unix()
	if p.touched.Load() == second || p.touched.Swap(second) == second {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.recent.note(p.hits.Load()-1, second)
	if _, ok := c.often.Get(p.key); ok {
		return
	}
	if p, ok := c.once.Peek(p.key); ok && p.pass == (policy.Refusal{}) {
		c.once.Remove(p.key)
		c.promote(p)
	}
}

// hourly counts how often a page was asked for within about the last hour: what
// touch, once a second, finds of its hits.
type hourly struct {
	begin  int64  // of an hour, as a Unix time
	hits   uint64 // before that hour
	before uint64 // in the hour before that hour
}

const hour = int64(time.Hour / time.Second)

// note takes account of the hits at some moment.
func (h *hourly) note(hits uint64, now int64) {
	switch passed := now - h.begin; {
	case passed < hour:
		return
	case passed < 2*hour:
		h.before = hits - h.hits
	default:
		h.before = 0
	}
	h.begin, h.hits = now, hits
}

// count returns about how many of the hits are of the hour before a moment.
func (h *hourly) count(hits uint64, now int64) uint64 {
	switch passed := max(0, now-h.begin); {
	case passed < hour:
		return hits - h.hits + h.before*uint64(hour-passed)/uint64(hour)
	case passed < 2*hour:
		return (hits - h.hits) * uint64(2*hour-passed) / uint64(hour)
	}
	return 0
}

// recentHits returns how often pages were asked for within about the last hour.
func (c *cache) recentHits(pages []*page, now time.Time) map[*page]uint64 {
	counts := make(map[*page]uint64, len(pages))
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, p := range pages {
		counts[p] = p.recent.count(p.hits.Load(), now.Unix())
	}
	return counts
}

// promote adds a page to the list often. It is called under c.mu.
func (c *cache) promote(p *page) {
	p.often = true
	c.often.Add(p.key, p)
	c.oftenBytes += p.size
	for c.oftenBytes > c.maxBytes/5*4 && c.often.Len() > 1 {
		_, old, _ := c.often.RemoveOldest()
		c.oftenBytes -= old.size
		old.often = false
		c.once.Add(old.key, old)
	}
}

// put stores a page, in place of an older one with its key, and returns what had
// to go for it. It reports false where the page is superseded, purged while it
// was generated, or too large. A page that was asked for by name counts as one
// that is asked for again and again.
func (c *cache) put(p *page, byName bool) (evicted []*page, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.find(&p.key)
	if old != nil && old.seq > p.seq || p.effect(c.table) == store.Gone {
		return nil, false
	}
	if old != nil {
		byName = byName || old.often
		p.hits.Store(old.hits.Load())
		p.touched.Store(old.touched.Load())
		p.recent = old.recent
		c.drop(old)
	}
	if p.size > c.maxBytes {
		return nil, false
	}
	path := pagekey.CanonicalPath(p.key.Path)
	sh := c.shelves[path]
	if sh == nil {
		sh = &shelf{route: p.route}
		if p.key.Path != path {
			sh.route = nil
		}
		c.shelves[path] = sh
	}
	if front := sh.front.Load(); front != nil {
		p.next, front.prev = front, p
	}
	sh.front.Store(p)
	p.index = len(c.pages)
	c.pages = append(c.pages, p)
	c.bytes += p.size
	if byName && p.pass == (policy.Refusal{}) {
		c.promote(p)
	} else {
		c.once.Add(p.key, p)
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
func (c *cache) remove(p *page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(&p.key) == p {
		c.drop(p)
	}
}

// drop is remove under c.mu.
func (c *cache) drop(p *page) {
	if p.often {
		c.often.Remove(p.key)
		c.oftenBytes -= p.size
	} else {
		c.once.Remove(p.key)
	}
	c.bytes -= p.size
	end := len(c.pages) - 1
	last := c.pages[end]
	c.pages[p.index], last.index = last, p.index
	c.pages[end] = nil
	c.pages = c.pages[:end]
	path := pagekey.CanonicalPath(p.key.Path)
	if p.next != nil {
		p.next.prev = p.prev
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else if p.next != nil {
		c.shelves[path].front.Store(p.next)
	} else {
		c.shelves[path].front.Store(nil)
		delete(c.shelves, path)
	}
	p.next, p.prev = nil, nil
}

// judgeAll judges every page and drops what is gone. It holds no lock for more than
// some pages at a time. It goes downwards: where a page is dropped, one from the end
// takes its place, which was judged before, or has come since.
func (c *cache) judgeAll(by *invalidation.Judgements) {
	var some [256]*page
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
			if p.judge(c.table, by) == store.Gone {
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
		for p := sh.front.Load(); p != nil; p = p.next {
			if p.pass == (policy.Refusal{}) {
				return true
			}
		}
	}
	return false
}

// at returns the pages that are stored at a canonical path and match.
func (c *cache) at(path string, match func(*page) bool) (pages []*page) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if sh := c.shelves[path]; sh != nil {
		for p := sh.front.Load(); p != nil; p = p.next {
			if match(p) {
				pages = append(pages, p)
			}
		}
	}
	return pages
}

// all returns every page, those that were asked for last first.
func (c *cache) all() []*page {
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
			effect := p.effect(s.table)
			if effect == store.Gone || p.view(effect, now).state == pgAbsent {
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

// judge stamps what the invalidations did to a page into it.
func (p *page) judge(f *invalidation.Table, by *invalidation.Judgements) store.Effect {
	effect := p.effect(f)
	if mark := p.aside.Load(); mark != nil && !f.SubjectSince(&mark.subject, &p.key, p.subject.Tags) { // else it will count as such
		mark.subject.Judge(by, store.None)
	}
	if t := p.trouble.Load(); t != nil && !f.Since(&t.began, &p.key, p.subject.Tags) { // likewise
		judged := *t
		judged.began = by.Advance(t.began)
		p.trouble.CompareAndSwap(t, &judged) // who has come first has a newer one
	}
	p.subject.Judge(by, effect)
	return effect
}

// effect returns the strongest effect on a page since its generation began.
func (p *page) effect(f *invalidation.Table) store.Effect {
	if mark := p.aside.Load(); mark != nil && f.SubjectSince(&mark.subject, &p.key, p.subject.Tags) {
		p.aside.CompareAndSwap(mark, nil) // what was said of the page was said before
	}
	return f.Effect(&p.subject, &p.key)
}

// failing reports whether the last attempt to renew the page has failed. An
// invalidation since then gives hope.
func (p *page) failing(f *invalidation.Table) bool {
	for {
		t := p.trouble.Load()
		if t == nil {
			return false
		}
		if was := f.Since(&t.began, &p.key, p.subject.Tags); p.trouble.Load() == t {
			return !was
		}
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

// keepStale is how long a Store keeps what is past its TTL where there is no
// bound. What nobody has asked for in that time is not worth keeping.
const keepStale = 30 * 24 * time.Hour

// record returns the page as the Store keeps it.
func (p *page) record(key string) *store.Record {
	rec := &store.Record{Version: p.order.Version, Fence: p.order.Fence, Tags: slices.Clone(p.subject.Tags), Data: p.encode(key)}
	for tag := range p.key.Tags {
		rec.Tags = append(rec.Tags, tag)
	}
	rec.Tags = append(rec.Tags, pagekey.Everything)
	if l := p.lifetime; l.TTL != policy.Forever {
		shown := min(max(l.StaleWhileRevalidate, l.StaleIfError, time.Second), keepStale)
		if p.status == http.StatusNotFound || p.status == http.StatusGone {
			shown = time.Second // strangers can think of any number of them
		}
		rec.TTL = max(0, l.TTL-time.Since(p.generated)) + shown
	}
	return rec
}

// pageFormat is the number of the encoding that encode makes. The checksum comes
// after it: not every Store notices when it damages what it keeps.
const pageFormat = 3

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns a page as bytes, that know under which key they belong.
func (p *page) encode(key string) []byte {
	h, etag := p.plain.snapshot()
	n := 256 + len(key) + len(p.plain.body)
	if p.gzip != nil {
		n += len(p.gzip.body)
	}
	for name, values := range h {
		for _, v := range values {
			n += len(name) + len(v) + 2*binary.MaxVarintLen32
		}
	}
	b := append(make([]byte, 0, n), pageFormat, 0, 0, 0, 0)
	b = pagekey.AppendString(b, key)
	b = pagekey.AppendString(b, p.pattern)
	b = pagekey.AppendString(b, p.matched)
	for _, n := range [...]int64{
		int64(p.status), p.generated.UnixNano(), int64(p.took), int64(p.upstream),
		int64(p.lifetime.TTL), int64(p.lifetime.StaleWhileRevalidate), int64(p.lifetime.StaleIfError),
	} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(p.subject.Tags)))
	for _, tag := range p.subject.Tags {
		b = pagekey.AppendString(b, tag)
	}
	var flags byte
	if p.ownControl {
		flags |= hasOwnControl
	}
	if p.validators.etag != "" {
		flags |= hasOwnETag
	}
	if p.gzip != nil {
		flags |= hasGzip
	}
	b = append(b, flags)
	b = pagekey.AppendString(b, etag)
	lines := 0
	for _, values := range h {
		lines += len(values)
	}
	b = binary.AppendUvarint(b, uint64(lines))
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			b = pagekey.AppendString(pagekey.AppendString(b, name), v)
		}
	}
	b = append(binary.AppendUvarint(b, uint64(len(p.plain.body))), p.plain.body...)
	if p.gzip != nil {
		b = append(binary.AppendUvarint(b, uint64(len(p.gzip.body))), p.gzip.body...)
	}
	putChecksum(b)
	return b
}

// putChecksum completes the header.
func putChecksum(b []byte) {
	binary.LittleEndian.PutUint32(b[1:], crc32.Checksum(b[5:], castagnoli))
}

const (
	hasOwnControl byte = 1 << iota
	hasOwnETag
	hasGzip
)

// errForeign says that a Store returned what encode did not make for this page.
var errForeign = errors.New("the Store returned what is not this page")

// decode makes a page of what encode has made for it, and takes over the bytes.
func decode(data []byte, key string, m meta) (*page, error) {
	if len(data) < 5 || data[0] != pageFormat || binary.LittleEndian.Uint32(data[1:]) != crc32.Checksum(data[5:], castagnoli) {
		return nil, errForeign
	}
	d := decoder{b: data[5:]}
	if string(d.bytes()) != key {
		return nil, errForeign
	}
	p := &page{
		key: m.key.Clone(), route: m.route, pattern: string(d.bytes()), matched: unique.Make(string(d.bytes())).Value(),
		status: int(d.number()), generated: time.Unix(0, d.number()), took: time.Duration(d.number()), upstream: time.Duration(d.number()),
		lifetime: policy.Lifetime{
			TTL: time.Duration(d.number()), StaleWhileRevalidate: time.Duration(d.number()), StaleIfError: time.Duration(d.number()),
		},
	}
	for n := d.count(); n > 0; n-- {
		p.subject.Tags = append(p.subject.Tags, string(d.bytes()))
	}
	flags := d.byte()
	etag, h := string(d.bytes()), make(http.Header)
	for n := d.count(); n > 0; n-- {
		name := string(d.bytes())
		h[name] = append(h[name], string(d.bytes()))
	}
	plain, compressed := d.bytes(), []byte(nil)
	if flags&hasGzip != 0 {
		compressed = d.bytes()
	}
	if d.bad || len(d.b) > 0 || p.status < 200 || p.status > 999 {
		return nil, errForeign
	}
	p.ownControl = flags&hasOwnControl != 0
	if flags&hasOwnETag != 0 {
		p.validators.etag = etag
	}
	if slices.Equal(p.subject.Tags, m.route.Tags) {
		p.subject.Tags = m.route.Tags
	}
	if !p.ownControl { // what goes out is what this instance is told to say
		h["Cache-Control"] = []string{m.route.CacheControlFor(p.status, p.lifetime)}
	}
	p.represent(h, etag, slices.Clone(plain), slices.Clone(compressed))
	return p, nil
}

// A decoder reads what the append functions have written. What is not there reads
// as nothing, and is noted.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) skip(n int) {
	if n <= 0 {
		d.b, d.bad = nil, true
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) number() int64 {
	n, size := binary.Varint(d.b)
	d.skip(size)
	return n
}

// count reads how many things follow, of a byte at least each.
func (d *decoder) count() int {
	n, size := binary.Uvarint(d.b)
	d.skip(size)
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() (b byte) {
	if len(d.b) > 0 {
		b = d.b[0]
	}
	d.skip(min(1, len(d.b)))
	return b
}
