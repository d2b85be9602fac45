package isr

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// passTTL is how long requests for a page that may not be stored go straight to
// the handler before the page is tried again.
const passTTL = 10 * time.Second

// A key names a page. The page request is built from it and from nothing else
// that a visitor sends.
type key struct {
	scheme, host string // empty where Options.Origin makes them constant
	path         string // escaped, as the visitor sent it
	query        string // the kept parameters in canonical order
	varied       string // the declared headers and cookies; see appendHeader
}

// key returns the key of the page that r asks for, whose escaped path is path.
func (s *Site) key(r *http.Request, path string, rt *route) key {
	k := key{path: path, query: rt.keepQuery(r.URL.RawQuery), varied: rt.narrow(r)}
	if s.origin.host == "" {
		k.scheme, k.host = "http", strings.ToLower(r.Host)
		if r.TLS != nil || isHTTPS(r.Header["X-Forwarded-Proto"]) {
			k.scheme = "https"
		}
	}
	return k
}

// isHTTPS reports whether the first of the proxies in front was asked over TLS.
func isHTTPS(forwardedProto []string) bool {
	for proto := range elements(forwardedProto) {
		return strings.EqualFold(proto, "https")
	}
	return false
}

// clone returns a key that shares no memory with a request.
func (k *key) clone() key {
	return key{k.scheme, strings.Clone(k.host), strings.Clone(k.path), strings.Clone(k.query), strings.Clone(k.varied)}
}

// bytes returns how much memory the key takes, and its path in the index if that
// is another.
func (k *key) bytes() int64 {
	n := allocated(k.host) + allocated(k.path) + allocated(k.query) + allocated(k.varied)
	if canonical := canonicalPath(k.path); canonical != k.path {
		n += allocated(canonical)
	}
	return n
}

// tags calls yield with the tags that a page has by its key: each way in which
// Revalidate and Purge can name it. The bytes are valid during the call only.
func (k *key) tags(yield func([]byte) bool) {
	var buf [256]byte
	path := canonicalPath(k.path)
	for _, base := range [2]key{{}, {scheme: k.scheme, host: k.host}} {
		b := appendPathTag(buf[:0], base.scheme, base.host, path)
		if !yield(b) || !yield(append(append(b, '?'), k.query...)) || k.host == "" {
			return
		}
	}
}

// appendPathTag appends the tag of all pages at a path. No tag that checkTag
// accepts looks like it.
func appendPathTag(b []byte, scheme, host, path string) []byte {
	b = append(b, 0)
	if host != "" {
		b = append(append(append(b, scheme...), "://"...), host...)
	}
	return append(b, path...)
}

// canonicalPath returns one spelling for all escaped paths that mean the same
// segments, so that an invalidation finds every one of them.
func canonicalPath(escaped string) string {
	if strings.IndexByte(escaped, '%') < 0 {
		return escaped
	}
	b := make([]byte, 0, len(escaped))
	for i := 0; i < len(escaped); i++ {
		if escaped[i] == '%' && i+2 < len(escaped) {
			switch c, err := url.PathUnescape(escaped[i : i+3]); {
			case err != nil:
			case c == "/" || c == "%" || c == "?":
				b = append(b, strings.ToUpper(escaped[i:i+3])...)
				i += 2
				continue
			default:
				b = append(b, c...)
				i += 2
				continue
			}
		}
		b = append(b, escaped[i])
	}
	return string(b)
}

// keepQuery returns the parameters of a raw query that the page depends on, in
// canonical order: by name, the values of a name as they came.
func (rt *route) keepQuery(raw string) string {
	if raw == "" || rt.Query != nil && len(rt.query) == 0 {
		return ""
	}
	if rt.isKept(raw) {
		return raw
	}
	values, _ := url.ParseQuery(raw) // what it cannot parse, a handler does not see either
	if rt.Query != nil {
		for name := range values {
			if _, kept := slices.BinarySearch(rt.query, name); !kept {
				delete(values, name)
			}
		}
	}
	return values.Encode()
}

// isKept reports whether raw is plainly what keepQuery would make of it.
func (rt *route) isKept(raw string) bool {
	last := ""
	for rest, more := raw, true; more; {
		var pair string
		pair, rest, more = strings.Cut(rest, "&")
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name < last || !isUnreserved(name) || !isUnreserved(value) {
			return false
		}
		if rt.Query != nil {
			if _, kept := slices.BinarySearch(rt.query, name); !kept {
				return false
			}
		}
		last = name
	}
	return true
}

// isUnreserved reports whether url.QueryEscape leaves s as it is.
func isUnreserved(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~':
		default:
			return false
		}
	}
	return true
}

// narrow returns what the key holds of the headers and cookies of r: those that
// the route declares, as its Normalize leaves them.
func (rt *route) narrow(r *http.Request) string {
	if rt.varyOn == "" {
		return ""
	}
	h := make(http.Header)
	for _, name := range rt.vary {
		if values := r.Header[name]; len(values) > 0 {
			h[name] = slices.Clone(values)
		}
	}
	if len(rt.cookies) > 0 {
		rt.keepCookies(h, r.Header["Cookie"])
	}
	if rt.Normalize != nil {
		rt.Normalize(h)
		if len(rt.cookies) > 0 {
			rt.keepCookies(h, h["Cookie"])
		}
	}
	var b []byte
	for _, name := range rt.vary {
		b = appendHeader(b, name, h[name])
	}
	if len(rt.cookies) > 0 {
		b = appendHeader(b, "Cookie", h["Cookie"])
	}
	return string(b)
}

// keepCookies sets the Cookie header in h to the declared cookies of some lines.
func (rt *route) keepCookies(h http.Header, lines []string) {
	all, kept := http.Request{Header: http.Header{"Cookie": lines}}, http.Request{Header: make(http.Header)}
	for _, name := range rt.cookies {
		for _, c := range all.CookiesNamed(name) {
			kept.AddCookie(c)
		}
	}
	delete(h, "Cookie")
	if values := kept.Header["Cookie"]; values != nil {
		h["Cookie"] = values
	}
}

// appendHeader appends a header so that parseHeader finds it again and no two
// headers look the same.
func appendHeader(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = appendString(b, name)
	b = binary.AppendUvarint(b, uint64(len(values)))
	for _, v := range values {
		b = appendString(b, v)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseHeader is the inverse of appendHeader.
func parseHeader(s string) http.Header {
	h := make(http.Header)
	number := func() int {
		n, size := binary.Uvarint([]byte(s[:min(len(s), binary.MaxVarintLen64)]))
		s = s[size:]
		return int(n)
	}
	text := func() (t string) {
		n := number()
		t, s = s[:n], s[n:]
		return t
	}
	for s != "" {
		name := text()
		for range number() {
			h[name] = append(h[name], text())
		}
	}
	return h
}

// State says where in its life a page is.
type State int

const (
	Fresh       State = iota // served from memory
	Stale                    // served at once, and renewed behind it
	Expired                  // visitors wait for a new one; shown only where that fails
	Uncacheable              // not stored: requests go straight to the handler for a while

	absent State = -1
)

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
	Tags                             []string      // of the route and of the handler
	ETag                             string        // of the body without encoding
	Hits                             uint64        // since the page was first stored
	Failures                         int           // in a row, since the last success
	Err                              error         // of the last failure; nil where Failures is zero
}

// A page is a stored response, or a pass mark: the note that there is none.
type page struct {
	// What was generated. Plain data that never changes, ready to be encoded.
	key         key
	pattern     string // of a ServeMux around the Site
	ticket      ticket
	status      int
	pass        refusal // for a pass mark: why the response may not be stored
	generated   time.Time
	took        time.Duration
	lifetime    lifetime
	tags        []string
	validators  validators
	modified    time.Time       // by validators.lastModified
	ownControl  bool            // whether the Cache-Control is the handler's
	plain, gzip *representation // gzip is nil where it would not be smaller
	size        int64

	route *route

	// Guarded by cache.mu.
	next, prev *page // on the same shelf
	often      bool  // in which of the two lists it is

	hits    atomic.Uint64
	touched atomic.Int64            // the second of the last move to the front of the list
	verdict atomic.Uint64           // clock<<2 | effect: the last look at the invalidations
	revoked atomic.Int64            // Unix time in ns of the invalidation that it was first seen to be stale by
	trouble atomic.Pointer[trouble] // the failures since
}

// A ticket orders the generations: by the clock of invalidations when they
// began, and among equals by the order in which they began.
type ticket struct{ version, fence uint64 }

func (t ticket) compare(u ticket) int {
	return cmp.Or(cmp.Compare(t.version, u.version), cmp.Compare(t.fence, u.fence))
}

// trouble is what came of the attempts to renew a page.
type trouble struct {
	failures int
	err      error
	version  uint64 // the clock when the last of them began
}

// A lifetime says how long a page is fresh, and how long after that it may
// still be shown. The bounds are forever where there is none.
type lifetime struct {
	ttl, staleWhileRevalidate, staleIfError time.Duration
}

// A view is what a page is worth at one moment.
type view struct {
	state   State
	age     time.Duration
	left    time.Duration // until it turns stale; below zero since it has
	onError bool          // whether it may be shown where a new one could not be had
	revoked bool          // whether it was invalidated, so that nobody downstream may hold it
}

// view judges the page at a moment, given what the invalidations did to it.
func (p *page) view(effect effect, now time.Time) view {
	if p == nil {
		return view{state: absent}
	}
	v := view{age: max(0, now.Sub(p.generated)), revoked: effect != effectNone}
	if p.pass != (refusal{}) {
		v.state = Uncacheable
		if v.revoked || v.age >= passTTL || p.trouble.Load() != nil {
			v.state = absent
		}
		return v
	}
	v.left = forever
	if p.lifetime.ttl != forever {
		v.left = p.lifetime.ttl - v.age
	}
	if v.revoked {
		v.left = min(v.left, -max(0, now.Sub(time.Unix(0, p.revoked.Load()))))
	}
	v.onError = effect != effectGone && v.left > -p.lifetime.staleIfError
	switch {
	case v.left > 0 && !v.revoked:
		v.state = Fresh
	case effect <= effectStale && v.left > -p.lifetime.staleWhileRevalidate:
		v.state = Stale
	default:
		v.state = Expired
	}
	return v
}

// shows reports whether the page may be shown where a new one could not be had.
func (v view) shows() bool {
	return v.state == Fresh || v.state == Stale || v.state == Expired && v.onError
}

// fail notes a failed attempt to renew the page, begun at a version.
func (p *page) fail(err error, version uint64) {
	for {
		old := p.trouble.Load()
		t := &trouble{1, err, version}
		if old != nil {
			t.failures += old.failures
			t.version = max(t.version, old.version)
		}
		if p.trouble.CompareAndSwap(old, t) {
			return
		}
	}
}

func (p *page) snapshot(effect effect, now time.Time) Page {
	view := p.view(effect, now)
	out := Page{
		Scheme: p.key.scheme, Host: p.key.host, Path: p.key.path, Query: p.key.query, Route: p.route.pattern,
		Varied: parseHeader(p.key.varied), Status: p.status, State: view.state, NotStored: p.pass.String(),
		Generated: p.generated, Duration: p.took, Size: p.size, Tags: p.tags, Hits: p.hits.Load(),
	}
	if p.plain != nil {
		out.Header, out.ETag = p.plain.snapshot()
	}
	if p.pass != (refusal{}) {
		out.TTL = passTTL
	} else if p.lifetime.ttl != forever {
		out.TTL = cmp.Or(p.lifetime.ttl, -1)
	}
	if t := p.trouble.Load(); t != nil {
		out.Failures, out.Err = t.failures, t.err
	}
	return out
}

// A shelf holds the pages that are stored at one path, whatever their host,
// query and headers, and remembers the path's route.
type shelf struct {
	route *route               // of the canonical spelling; others may have another: /%2e%2e is not /..
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
	fence
	maxBytes int64

	mu          sync.RWMutex
	once, often *simplelru.LRU[key, *page] // guarded by mu, as all below
	shelves     map[string]*shelf          // by canonical path
	known       map[string]struct{}        // canonical paths that PrerenderedOnly routes admit
	bytes       int64
	oftenBytes  int64
}

func newCache(maxBytes int64) *cache {
	c := &cache{maxBytes: maxBytes, shelves: make(map[string]*shelf), known: make(map[string]struct{})}
	c.fence.tags, _ = simplelru.NewLRU[string, *changes](1<<31-1, nil)
	c.fence.clock.Store(1) // a page that nobody has judged yet has 0
	// The lists never evict by themselves: memory is counted in bytes.
	c.once, _ = simplelru.NewLRU[key, *page](1<<31-1, nil)
	c.often, _ = simplelru.NewLRU[key, *page](1<<31-1, nil)
	return c
}

// shelf returns what is stored at a path, or nil if its spelling is not plainly
// the canonical one.
func (c *cache) shelf(path string) *shelf {
	if strings.IndexByte(path, '%') >= 0 {
		return nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shelves[path]
}

// get returns the page with a key, which is on shelf sh if that is not nil, and
// what the invalidations since its generation did to it. What is gone is nil.
func (c *cache) get(k *key, sh *shelf) (*page, effect) {
	var p *page
	if sh != nil {
		p = sh.front.Load()
	}
	if p == nil || p.key != *k {
		if p = c.peek(k); p == nil {
			return nil, effectNone
		}
	}
	effect := c.effect(p)
	if effect == effectGone {
		c.remove(p)
		return nil, effectNone
	}
	return p, effect
}

// peek returns the page with a key, however old.
func (c *cache) peek(k *key) *page {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.find(k)
}

// find is peek under c.mu.
func (c *cache) find(k *key) *page {
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
	if _, ok := c.often.Get(p.key); ok {
		return
	}
	if p, ok := c.once.Peek(p.key); ok && p.pass == (refusal{}) {
		c.once.Remove(p.key)
		c.promote(p)
	}
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
	if old != nil && old.ticket.compare(p.ticket) > 0 || c.effect(p) == effectGone {
		return nil, false
	}
	if old != nil {
		byName = byName || old.often
		p.hits.Store(old.hits.Load())
		p.touched.Store(old.touched.Load())
		c.drop(old)
	}
	if p.size > c.maxBytes {
		return nil, false
	}
	path := canonicalPath(p.key.path)
	sh := c.shelves[path]
	if sh == nil {
		sh = &shelf{route: p.route}
		if p.key.path != path {
			sh.route = nil
		}
		c.shelves[path] = sh
	}
	if front := sh.front.Load(); front != nil {
		p.next, front.prev = front, p
	}
	sh.front.Store(p)
	c.bytes += p.size
	if byName && p.pass == (refusal{}) {
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
	path := canonicalPath(p.key.path)
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

// holds reports whether anything is stored at a canonical path.
func (c *cache) holds(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.shelves[path] != nil
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
	if t.route.PrerenderedOnly || s.hosts && t.host == "" {
		s.cache.mu.Lock()
		defer s.cache.mu.Unlock()
		s.cache.known[canonicalPath(t.path)] = struct{}{}
	}
}

func (c *cache) admits(path string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, ok := c.known[canonicalPath(path)]
	return ok
}

// Pages returns a snapshot of the stored pages and pass marks, for people and
// tools, beginning with those that are asked for again and again.
func (s *Site) Pages() iter.Seq[Page] {
	return func(yield func(Page) bool) {
		now := time.Now()
		for _, p := range s.cache.all() {
			effect := s.cache.effect(p)
			if effect == effectGone || p.view(effect, now).state == absent {
				continue
			}
			if !yield(p.snapshot(effect, now)) {
				return
			}
		}
	}
}

// An effect is what an invalidation does to what is older than it.
type effect uint8

const (
	effectNone    effect = iota
	effectStale          // served once more: RevalidateTag
	effectExpired        // shown only where a new one cannot be had: Revalidate, unsafe methods
	effectGone           // never shown again: Purge, PurgeTag
)

// maxTracked is how many tags the fence remembers.
const maxTracked = 1 << 16

// A fence keeps results that are older than an invalidation from passing for
// fresh. Each invalidation moves the clock and leaves its new value on its tags;
// a page carries the clock of the moment when its generation began, and is
// compared with its tags when it is read. So an invalidation costs the same
// however many pages it concerns, and reaches those that are still on their way.
type fence struct {
	clock atomic.Uint64 // the newest version; moved when tags already hold it

	tagsMu sync.RWMutex
	tags   *simplelru.LRU[string, *changes] // guarded by tagsMu, as floor; by their last invalidation
	floor  changes                          // the newest of what was forgotten: what is older counts as invalidated, which is safe
}

// changes are the latest invalidations of a tag, by effect.
type changes [effectGone + 1]change

type change struct {
	version uint64
	at      int64 // Unix time in ns
}

func (f *fence) version() uint64 { return f.clock.Load() }

// invalidate gives the tags a new version.
func (f *fence) invalidate(effect effect, tags ...string) {
	f.tagsMu.Lock()
	defer f.tagsMu.Unlock()
	c := change{f.clock.Load() + 1, time.Now().UnixNano()}
	for _, tag := range tags {
		t, ok := f.tags.Get(tag)
		if !ok {
			t = new(changes)
			f.tags.Add(strings.Clone(tag), t)
		}
		t[effect] = c
	}
	for f.tags.Len() > maxTracked && f.forget(c.version) {
	}
	f.clock.Store(c.version)
}

// forget drops the tag whose last invalidation is the oldest, if it is older
// than a version. It is called under f.tagsMu.
func (f *fence) forget(version uint64) bool {
	_, t, _ := f.tags.GetOldest()
	for _, c := range *t {
		if c.version == version {
			return false // or everything would count as invalidated
		}
	}
	f.tags.RemoveOldest()
	for effect, c := range *t {
		if c.version > f.floor[effect].version {
			f.floor[effect] = c
		}
	}
	return true
}

// effect returns the strongest effect on a page since its generation began.
func (f *fence) effect(p *page) effect {
	if v := p.verdict.Load(); v>>2 == f.clock.Load() {
		return effect(v & 3)
	}
	f.tagsMu.RLock()
	defer f.tagsMu.RUnlock()
	strongest, at := f.since(p.ticket.version, &p.key, p.tags)
	if strongest != effectNone {
		p.revoked.CompareAndSwap(0, at)
	}
	p.verdict.Store(f.clock.Load()<<2 | uint64(strongest))
	return strongest
}

// failing reports whether the last attempt to renew the page has failed. An
// invalidation since then gives hope.
func (f *fence) failing(p *page) bool {
	t := p.trouble.Load()
	return t != nil && !f.invalidated(t.version, &p.key, p.tags)
}

// invalidated reports whether a page, as far as one knows its tags, was
// invalidated after a version.
func (f *fence) invalidated(version uint64, k *key, tags []string) bool {
	if version == f.clock.Load() {
		return false
	}
	f.tagsMu.RLock()
	defer f.tagsMu.RUnlock()
	strongest, _ := f.since(version, k, tags)
	return strongest != effectNone
}

// since returns the strongest effect after a version on what has one of the
// tags, and when that was. It is called under f.tagsMu.
func (f *fence) since(version uint64, k *key, tags []string) (strongest effect, at int64) {
	look := func(t *changes) {
		for e := effectGone; e > strongest; e-- {
			if t[e].version > version {
				strongest, at = e, t[e].at
			}
		}
	}
	look(&f.floor)
	for _, tag := range tags {
		if t, ok := f.tags.Peek(tag); ok {
			look(t)
		}
	}
	for tag := range k.tags {
		if t, ok := f.tags.Peek(string(tag)); ok {
			look(t)
		}
	}
	return strongest, at
}

// Limits of tags.
const (
	maxTags     = 128
	maxTagBytes = 256
)

// checkTag says what is wrong with a tag.
func checkTag(tag string) error {
	switch {
	case tag == "":
		return errors.New("a tag is not empty")
	case len(tag) > maxTagBytes:
		return fmt.Errorf("a tag has at most %d bytes, not %d", maxTagBytes, len(tag))
	case strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == ',' || r == 0x7f }):
		return errors.New("a tag has no comma and no control character")
	case strings.TrimSpace(tag) != tag:
		return errors.New("a tag neither begins nor ends with a space")
	}
	return nil
}
