// Package isr brings Incremental Static Regeneration to any [net/http] handler:
// its pages are generated once, then served from memory, and renewed behind the
// visitors' backs when they have grown old.
//
// # The idea
//
// A page is a function of its URL. The wrapped handler is never shown a
// visitor's request. It is shown a page request, built from the page's key:
// method GET, scheme, host, path and query, plus the headers and cookies that
// the [Route] declares, and nothing else. What is not in the key the handler
// cannot see, so no visitor's data can be baked into the page that everybody
// gets.
//
// # Rules for the neighbours in the chain
//
// Wrap the router, not a handler inside it. Routers that keep their state in
// the request's context (chi, gorilla) cannot be entered with a fresh one.
//
// A handler that looks at a request header (HX-Request, Accept,
// Accept-Language) or at a cookie must have it declared in Route.Vary or
// Route.VaryCookies, or it never sees it.
//
// What differs from visitor to visitor belongs outside of the [Site]: sessions,
// authentication, CORS, request IDs, access logs. The response headers that
// they set on the way in are kept. What such middleware puts into the context
// reaches only the requests that are not for the cache.
//
// What is random in a page (a CSP nonce, a CSRF token) is the same for everyone
// who gets that page. Use [net/http.CrossOriginProtection] instead of tokens.
//
// Compression outside is not needed: pages are compressed once, when they are
// generated.
//
// Middleware that rewrites a request's URL before the Site sees it (StripPrefix)
// changes the page's key with it.
package isr

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/changed"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/respwriter"
	"github.com/isr-go/isr/store"
)

// NoStore is the [Route] TTL for "only what the handler marks cacheable": a
// page is stored only where the handler's own Cache-Control (or Expires) gives
// it a lifetime. Any negative TTL means the same.
const NoStore time.Duration = -1

// What a zero in Options and Route means.
const (
	defaultMaxBytes     = 64 << 20
	defaultMaxPageBytes = 4 << 20
	defaultTimeout      = 30 * time.Second
	defaultNotFoundTTL  = 10 * time.Second
	generationsPerCPU   = 32 // of MaxGenerations
	renewalsPerCPU      = 4  // of MaxRegenerations
	defaultSharedMaxAge = time.Minute
)

// Always is a [Route] Bypass for routes whose requests are never for the cache.
func Always(*http.Request) bool { return true }

// Options configure a [Site]. The zero value keeps every page in at most 64 MiB
// of memory until it is revalidated on demand.
type Options struct {
	// Default is the route of the pages that no pattern in Routes matches.
	Default Route

	// Routes maps [net/http.ServeMux] patterns to routes. The best match alone
	// decides; nothing is inherited from Default or from a wider pattern. A
	// pattern may name a host, and no method but GET (which serves HEAD, too).
	Routes map[string]Route

	// Origin is the site's one public origin, such as "https://example.com".
	// With it, host and scheme are constant and no part of a page's key, and
	// Prerender and Revalidate take bare paths. If empty, they are the request's:
	// its Host, in lower case and without the scheme's own port or a dot at the end,
	// and https where the request came over TLS or with X-Forwarded-Proto: https. Set it wherever visitors can reach the server
	// under host names that are not yours.
	Origin string

	// MaxBytes is how much memory the pages may take, overhead included.
	// Zero means 64 MiB.
	MaxBytes int64

	// MaxPageBytes is the size of the largest body that is stored. What is
	// larger is streamed on. Zero means 4 MiB, or MaxBytes where that is less.
	MaxPageBytes int64

	// MaxRegenerations is how many generations run at a time that no visitor waits
	// for: renewals of stale pages, and what Revalidate and Prerender ask for, of all
	// calls together. The others queue. Zero means 4 × GOMAXPROCS. Visitors who wait
	// are never queued behind them. Pages behind a Placeholder have as many again, so
	// that they delay no renewal, and so have pages whose visitors have left.
	MaxRegenerations int

	// MaxGenerations is how many generations run at a time that visitors wait for.
	// Sixteen times as many queue, those of pages that are stored first; who finds
	// no place, or has waited for Route.Timeout, gets the old page where errors would
	// show it, else a 503 with Retry-After. Zero means 32 × GOMAXPROCS. A generation
	// that asks the Site for another page, with its own request's context, needs no
	// place for that. Over HTTP that cannot be told: a site that fetches its own
	// pages over loopback should bypass what it fetches.
	MaxGenerations int

	// SharedMaxAge is the longest s-maxage that is derived from a route's TTL: for
	// so long shared caches in front, which do not hear of it, may show a page after
	// it was revalidated or purged. What the handler or Route.CacheControl says
	// instead is not bounded by it. Zero means 1 minute; less than zero means that
	// no s-maxage is derived, so that they ask each time.
	SharedMaxAge time.Duration

	// Store, if not nil, is a second level, behind the memory: one that makes pages
	// outlive a restart, or that the instances of a fleet share, so that each page
	// is generated once for all of them and a purge reaches them all. Trouble with
	// it costs time, but never a visitor's error, and never old data after a
	// purge that was acknowledged. Shutdown is then due at the end of the Site. Nil
	// means memory only.
	Store store.Store

	// Version names this build's pages in the Store, so that one build is never
	// served what another has made. Tags and paths are the same for all. Empty
	// means the VCS revision that the Go command has noted in the binary, if any;
	// builds of files that were not committed share that of the last commit. Programs
	// with different main packages share no page, whatever their Version.
	Version string

	// Logger receives one line for each outcome: hits, stale hits, misses and
	// bypasses at Debug, regenerations and revalidations at Info, failures at
	// Error, and at Warn, once for each route and reason, what a developer can
	// mend. Paths are logged without their query. Nil means silence.
	Logger *slog.Logger

	// Observe, if not nil, is called after each outcome, on the goroutine that
	// brought it about and concurrently with itself. It must not block: visitors
	// may be waiting for that goroutine.
	Observe func(Event)
}

// Route says how the pages of one pattern live. The zero value keeps a page
// until it is revalidated on demand.
type Route struct {
	// TTL is how long a page is fresh. Zero means until it is revalidated on
	// demand; NoStore (or less than zero) means that only what the handler marks
	// cacheable is stored. The handler's own Cache-Control (s-maxage, max-age)
	// overrides it for its page.
	TTL time.Duration

	// StaleWhileRevalidate is how long after its TTL a page is still served at
	// once while a new one is generated behind it (RFC 5861, section 3). Zero
	// means without bound; less than zero means that stale pages are not served.
	StaleWhileRevalidate time.Duration

	// StaleIfError is how long after its TTL a page is still served where a new
	// one could not be generated (RFC 5861, section 4). Zero means without
	// bound; less than zero means never.
	StaleIfError time.Duration

	// NotFoundTTL is how long a 404 or 410 is fresh. After it visitors wait for a
	// new one, unless the handler itself says stale-while-revalidate: what was
	// published meanwhile must be seen. Zero means the TTL, at most 10 seconds; less
	// than zero means that they are not stored.
	NotFoundTTL time.Duration

	// Query names the query parameters that the page depends on; the handler
	// sees no others. Nil means all but those of IgnoreQuery, empty means none.
	Query []string

	// IgnoreQuery names query parameters that the page does not depend on, even
	// where Query names them; the handler does not see them. "utm_*" stands for all
	// that begin with utm_. Nil means TrackingParameters where Query is nil, else
	// none; empty means none.
	IgnoreQuery []string

	// Vary names the request headers that the page depends on, beside its URL;
	// the handler sees no others. Authorization must be named here before a
	// request that carries it is one for the cache. Each combination of values
	// is a page of its own: see Normalize.
	Vary []string

	// VaryCookies names the cookies that the page depends on; the handler sees
	// no others.
	VaryCookies []string

	// Normalize, if not nil, narrows the declared headers (the cookies of
	// VaryCookies among them, as Cookie) before the page's key is built from
	// them: "de-AT,de;q=0.9" to "de". Whatever it adds that is not declared is
	// dropped. It is called concurrently, for every request of a route that
	// declares any, with those that the request has.
	Normalize func(http.Header)

	// Tags are names for RevalidateTag and PurgeTag. The handler adds more with
	// a Cache-Tag response header. A tag has at most 256 bytes, and does not begin
	// with "/". Of a page with more than 128 the first 64 count as they are; the
	// others share 64 buckets, so that it is also invalidated with tags that it has
	// not.
	Tags []string

	// Bypass, if not nil, reports whether a visitor's request is not for the
	// cache; such a request reaches the handler untouched. A CDN in front does
	// not know of it. It is called concurrently: for GET and HEAD, and with a page
	// request, as the handler would see it, by Revalidate and Prerender, and where
	// there is a Store, before a request with an unsafe method (POST, and whatever is
	// not GET, HEAD, OPTIONS or TRACE). Requests with a body, Upgrade or an
	// Authorization that is not declared pass anyway; where Bypass is true of them,
	// too, the answer goes out as the handler made it, else marked private.
	Bypass func(*http.Request) bool

	// CacheControl is sent downstream, with successes and redirects, instead of the
	// Cache-Control that is derived from TTL and Options.SharedMaxAge. A 404 or 410
	// goes out with the derived one. A Cache-Control that the handler sends goes
	// before both.
	CacheControl string

	// Placeholder, if not nil, answers people at once, with no-store, while a
	// page that is not stored is generated in the background. Well-known
	// crawlers wait for the page, and so does everyone after a failure.
	Placeholder http.Handler

	// PrerenderedOnly makes every path that neither Prerender nor Revalidate was
	// asked for a 404 that does not reach the handler. What a Store has of the route
	// is known, too; but a path whose page was purged since is known only where this
	// Site was asked for it. So prerender at each start: what is stored costs a look.
	PrerenderedOnly bool

	// Failure, if not nil, reports whether an answer of the handler is a failure,
	// beside those that always are: 5xx, 429, 408 and 425. A failure never replaces a
	// page. It is called with the headers as they were sent, for each generation,
	// concurrently, and must not change them.
	Failure func(status int, h http.Header) bool

	// Patience is how long a visitor waits for a new page where there is an old one
	// that errors would show: after it they get that, and the generation goes on.
	// Zero means that they wait for its end.
	Patience time.Duration

	// Timeout is the deadline of one generation: the handler's context ends
	// there, those who wait get a 504, and what comes later is dropped. It is the
	// longest that anyone waits, too, in whatever queue they are. A handler
	// that ignores its context goes on running; nothing in Go can stop it. Where a
	// response turns out to be too large to be stored, and is streamed on, it may
	// take longer, as long as it never stands still for this time. Zero means 30
	// seconds.
	Timeout time.Duration
}

// A Site is a wrapped handler and its pages. Make one with [Wrap]. Its methods
// are safe for concurrent use.
//
// Locks, outermost first: flight.Group.mu, or the compaction of invalidation.Table; the mutex
// of cache.Cache; that of invalidation.Table; that of store.Versions. Those of a
// recorder, the guard, changed.Limiter and what backing.Store counts are held alone. Nothing calls a handler, a
// Store, Observe or the Logger with any of them held.
type Site struct {
	handler  http.Handler
	patterns pagekey.Patterns
	origin   pagekey.Origin
	mux      *http.ServeMux           // of the patterns in routes; only matched with, never served
	routes   map[string]*policy.Route // by pattern
	hosts    bool                     // whether one of the patterns names a host
	other    *policy.Route            // Options.Default
	limit    int64                    // MaxPageBytes

	log      *slog.Logger
	warned   sync.Map // of warning: those that were given
	warnings atomic.Int32
	observe  func(Event)
	counts   [StoreFailed + 1]atomic.Uint64

	table     *invalidation.Table
	cache     *cache.Cache
	locations *changed.Limiter
	backing   *backing.Store // nil without a Store
	runs      *flight.Group

	regenerations int // Options.MaxRegenerations
}

// Wrap returns a [Site] that serves the pages of h. It panics if h is nil, and
// where opts hold what no request could put right: a malformed pattern, a
// negative size or Timeout, an Origin that is none, a Vary or tag that is none.
func Wrap(h http.Handler, opts Options) *Site {
	if h == nil {
		panic("isr: Wrap: nil handler")
	}
	if opts.MaxBytes < 0 || opts.MaxPageBytes < 0 || opts.MaxRegenerations < 0 || opts.MaxGenerations < 0 {
		panic(fmt.Sprintf("isr: Options: negative MaxBytes (%d), MaxPageBytes (%d), MaxRegenerations (%d) or MaxGenerations (%d)",
			opts.MaxBytes, opts.MaxPageBytes, opts.MaxRegenerations, opts.MaxGenerations))
	}
	maxBytes := cmp.Or(opts.MaxBytes, defaultMaxBytes)
	s := &Site{
		handler: h,
		origin:  mustParseOrigin(opts.Origin),
		mux:     http.NewServeMux(),
		routes:  make(map[string]*policy.Route),
		other:   newRoute("Options.Default", "", opts.Default),
		limit:   min(cmp.Or(opts.MaxPageBytes, defaultMaxPageBytes), maxBytes),
		log:     opts.Logger,
		observe: opts.Observe,
	}
	s.patterns.Init(h, s.origin)
	s.table = invalidation.New(max(maxBytes/8, invalidation.MinBytes), func(by *invalidation.Judgements) { s.cache.JudgeAll(by) }, sync.OnceFunc(s.warnOverflow))
	s.cache = cache.New(maxBytes, s.table)
	s.locations = changed.NewLimiter()
	s.regenerations = cmp.Or(opts.MaxRegenerations, renewalsPerCPU*runtime.GOMAXPROCS(0))
	for _, pattern := range slices.Sorted(maps.Keys(opts.Routes)) {
		s.addRoute(pattern, opts.Routes[pattern])
	}
	s.other.SharedMaxAge = cmp.Or(opts.SharedMaxAge, defaultSharedMaxAge)
	for _, rt := range s.routes {
		rt.SharedMaxAge = s.other.SharedMaxAge
	}
	if opts.Store != nil {
		s.open(opts.Store, opts.Version)
	}
	s.runs = flight.NewGroup(flight.Config{
		Handler: h, Origin: s.origin, Cache: s.cache, Table: s.table, Backing: s.backing,
		Streaming: respwriter.NewBudget(max(s.limit, maxBytes/4)), MaxPageBytes: s.limit,
		Generations:   cmp.Or(opts.MaxGenerations, generationsPerCPU*runtime.GOMAXPROCS(0)),
		Regenerations: s.regenerations,
		Ended:         s.ended, Evicted: s.evicted, Damaged: s.damaged, TooLarge: s.tooLarge, Log: s.log,
	})
	return s
}

// open makes a Store the second level.
func (s *Site) open(st store.Store, version string) {
	build, distinct := backing.BuildName(version)
	if !distinct && s.log != nil {
		s.log.Warn("isr: nothing tells the pages of this build from those of others in the Store",
			"remedy", "set Options.Version, or build where the Go command finds the VCS")
	}
	s.backing = backing.Open(backing.Config{
		Store: st, Build: build, Origin: s.origin, Table: s.table,
		Failed: func(err error) { s.report(Event{Kind: StoreFailed, Err: fmt.Errorf("store: %w", err)}) },
		Restored: func() {
			if s.log != nil {
				s.log.Info("isr: the Store answers again")
			}
		},
	})
}

// ServeHTTP answers a visitor: from memory where it can, from the wrapped
// handler where it must.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := visit{site: s, w: w, r: r, start: time.Now()}
	switch isGet := r.Method == http.MethodGet || r.Method == http.MethodHead; {
	case !isGet && header.IsUnsafe(r.Method):
		v.change()
		return
	case !isGet:
		v.pass(fwdMethod)
		return
	case !asksForPage(r):
		v.passPrivate(fwdBypass)
		return
	}
	path := r.URL.EscapedPath()
	at := s.cache.Path(path) // what is known there, so that a hit need not look for its route
	var unclean error
	if at == nil {
		sent := path
		if path, unclean = pagekey.CleanPath(sent); unclean == nil && path != sent {
			at = s.cache.Path(path)
		}
	}
	if at != nil && !s.hosts {
		v.route = at.Route
	}
	if v.route == nil {
		v.route = s.routeOf(r, path)
	}
	switch {
	case v.route.AsksToPass(r):
		v.pass(fwdBypass)
	case v.route.IsAuthorized(r):
		v.passPrivate(fwdBypass)
	case unclean != nil:
		v.passUnkeyed(fwdUnclean)
	case !v.setKey(path):
		v.passUnkeyed(fwdTooLong)
	default:
		v.asked = s.table.Clock()
		for !v.answered(path, at) {
		}
	}
}

// answered answers with the page: from memory, or from the run that the visitor waits
// for. It reports false where what is stored has changed meanwhile, so that it is to be
// decided anew.
func (v *visit) answered(path string, at *cache.Path) bool {
	p, effect := v.site.cache.Get(&v.key, at)
	view := p.View(effect, v.start)
	unknown := view.State == page.Absent
	switch {
	case view.State == page.Fresh:
		v.hit(p, view)
	case view.State == page.Uncacheable:
		v.passUncacheable()
	case view.State == page.Stale, view.State == page.Expired && view.OnError && v.cannotRenew(p):
		v.site.runs.Join(v.request(), p, nil)
		v.hit(p, view)
	case unknown && v.isForbidden(path):
		v.notFound()
	case unknown && v.getsPlaceholder(p, path):
		if f, _ := v.site.runs.Join(v.request(), p, flight.Peeker); v.finds(f) {
			return false
		}
		v.placeholder()
	default:
		return v.wait(p)
	}
	return true
}

// cannotRenew reports whether nobody is to wait for another attempt to renew a page
// that may be shown on errors: it comes behind this visit, if at all.
func (v *visit) cannotRenew(p *page.Page) bool {
	return p.IsFailing(v.site.table) || v.site.runs.IsClosed()
}

// isForbidden reports whether an unknown page is one that nobody has prerendered. With
// a Store the run asks that.
func (v *visit) isForbidden(path string) bool {
	return v.route.PrerenderedOnly && !v.site.cache.Admits(path) && (v.site.backing == nil || v.site.runs.IsClosed())
}

// getsPlaceholder reports whether the visitor of an unknown page need not wait for it.
// Crawlers do, and everybody when the last attempt has failed, since an error is
// better than a placeholder for ever.
func (v *visit) getsPlaceholder(p *page.Page, path string) bool {
	return v.route.Placeholder != nil && (!v.route.PrerenderedOnly || v.site.cache.Admits(path)) &&
		!header.IsCrawler(v.r.UserAgent()) && !p.HasFailed() && !v.site.runs.IsClosed()
}

// asksForPage reports whether a GET or HEAD could be answered with a page,
// whatever its route says.
func asksForPage(r *http.Request) bool {
	return r.ContentLength == 0 &&
		r.URL.Opaque == "" && strings.HasPrefix(r.URL.Path, "/") &&
		r.Header["Upgrade"] == nil
}

// A visit is one request on its way to an answer.
type visit struct {
	site  *Site
	w     http.ResponseWriter
	r     *http.Request
	start time.Time
	route *policy.Route
	key   pagekey.Key
	asked uint64   // the table's clock when the visitor asked
	tags  []string // of the page that they get

	waited bool // whether they have waited for a run already
}

// setKey says which page the visitor is after. It reports false where its key is too
// long to be remembered.
func (v *visit) setKey(path string) bool {
	v.route.Rules.Fill(&v.key, v.r, path, v.site.origin)
	if v.r.Pattern != "" {
		v.key.Pattern = v.site.patterns.Of(v.r.Pattern, path)
	}
	return v.key.Length() <= pagekey.MaxBytes
}

// request says which page the visitor is after.
func (v *visit) request() flight.Request {
	return flight.Request{Key: v.key, Route: v.route, Pattern: v.r.Pattern}
}

// hit answers with a page from memory.
func (v *visit) hit(p *page.Page, view page.View) {
	kind := Hit
	if view.State != page.Fresh {
		kind = StaleHit
	}
	p.Hits.Add(1)
	v.tags = p.Subject.Tags
	v.site.cache.Touch(p, v.start)
	p.Serve(v.w, v.r, view)
	v.done(kind, p.Status, view.Age, nil)
}

// wait answers with the outcome of a generation, which p, if anything, is too old
// to stand in for. It reports false where the visit has to be decided anew,
// because what is stored has changed meanwhile.
func (v *visit) wait(p *page.Page) bool {
	s, ctx := v.site, v.r.Context()
	w := flight.Waiter{Streams: v.r.Method == http.MethodGet, Inside: flight.IsInside(ctx)}
	f, how := s.runs.Join(v.request(), p, &w)
	switch how {
	case flight.Changed:
		return false
	case flight.Closed:
		v.passPrivate(fwdBypass)
		return true
	case flight.Full:
		v.busy()
		return true
	}
	defer w.Leave()
	var streams <-chan flight.Stream
	if w.Streams {
		streams = f.Streams()
	}
	var patience, timeout <-chan time.Time
	if d := v.route.Patience; d > 0 && (!p.IsUnknown() || s.backing != nil) {
		t := time.NewTimer(d - time.Since(v.start))
		defer t.Stop()
		patience = t.C
	}
	if w.Queued() || v.waited { // else the run has its own deadline
		t := time.NewTimer(v.route.Timeout - time.Since(v.start))
		defer t.Stop()
		timeout = t.C
	}
	v.waited = true
	for found := f.Found(); ; {
		select {
		case <-f.Done():
			return v.answer(f, how == flight.Joined)
		case <-found:
			found = nil
			if v.showStale() {
				return true
			}
		case st := <-streams:
			return v.stream(f, st)
		case <-patience:
			if v.standIn(header.CacheStatus{Fwd: "stale", Detail: "patience"}, nil) {
				return true
			}
		case <-timeout:
			if !f.HasStarted() {
				v.busy()
			} else {
				v.failed(&flight.Outcome{Err: flight.ErrTimeout, Status: http.StatusGatewayTimeout}, v.forwardOf(f, how == flight.Joined))
			}
			return true
		case <-ctx.Done():
			// The visitor may still be there, if it was a middleware's deadline: an
			// empty 200 would pass for a page.
			v.fail(http.StatusServiceUnavailable, nil, "")
			v.done(Miss, http.StatusServiceUnavailable, 0, ctx.Err())
			return true
		}
	}
}

// showStale answers with a page that the run has found in the Store, if it may be
// shown while a new one is made.
func (v *visit) showStale() bool {
	p, effect := v.site.cache.Get(&v.key, nil)
	if view := p.View(effect, time.Now()); view.State == page.Stale {
		v.hit(p, view)
		return true
	}
	return false
}

// stream passes on what is too large to be stored.
func (v *visit) stream(f *flight.Flight, st flight.Stream) bool {
	if f.WasInvalidatedSince(v.asked, f.Route.TagsOf(st.Header)) {
		st.Close()
		return false
	}
	if st.Pattern != "" {
		v.r.Pattern = st.Pattern
	}
	err := st.Serve(v.w, v.r, f.Route.Rules.Vary(), "isr; fwd=uri-miss; detail=too-large")
	v.done(Miss, st.Status, 0, err)
	if err != nil {
		panic(http.ErrAbortHandler) // so that nobody takes the part for the whole
	}
	return true
}

// busy answers where too many wait for a slot.
func (v *visit) busy() {
	if v.standIn(header.CacheStatus{Fwd: "stale", Detail: "busy"}, errBusy) {
		return
	}
	v.w.Header().Set("Retry-After", "1")
	v.fail(http.StatusServiceUnavailable, nil, header.CacheStatus{Fwd: "uri-miss", Detail: "busy"}.String())
	v.done(Miss, http.StatusServiceUnavailable, 0, errBusy)
}

// standIn answers with the stored page, if it may be shown where a new one could
// not be had.
func (v *visit) standIn(fwd header.CacheStatus, err error) bool {
	p, effect := v.site.cache.Get(&v.key, nil)
	switch view := p.View(effect, time.Now()); {
	case view.State == page.Fresh: // by another run, begun later
		v.hit(p, view)
	case view.IsShowable():
		v.tags = p.Subject.Tags
		p.ServeForwarded(v.w, v.r, view, fwd)
		v.done(StaleHit, p.Status, view.Age, err)
	default:
		return false
	}
	return true
}

// forwardOf says why a visitor had to wait for a run.
func (v *visit) forwardOf(f *flight.Flight, joined bool) header.CacheStatus {
	fwd := header.CacheStatus{Fwd: "uri-miss", Collapsed: joined}
	if !f.Old().IsUnknown() {
		fwd.Fwd = "stale"
	}
	return fwd
}

// answer answers with the outcome of a run. It reports false where the visit has to
// be decided anew.
func (v *visit) answer(f *flight.Flight, joined bool) bool {
	s, fwd, out := v.site, v.forwardOf(f, joined), f.Outcome()
	switch out.Kind {
	case flight.Again:
		return false
	case flight.Busy:
		v.busy()
		return true
	case flight.Nothing:
		v.notFound()
		return true
	case flight.Found:
		return v.loaded(out.Page)
	case flight.Failed:
		v.failed(out, fwd)
		return true
	}
	made := out.Page
	effect := made.Effect(s.table)
	switch {
	case made.NotStored != (policy.Refusal{}):
		v.passUncacheable()
	case effect != store.None && made.Subject.Since.Clock < v.asked:
		// Something that the page turned out to depend on was invalidated after
		// the run began and, for all one knows, before the visitor asked. Any run
		// that can be joined from now on has begun since.
		return false
	default:
		fwd.Stored = out.Stored
		view := made.View(effect, time.Now())
		v.tags = made.Subject.Tags
		made.ServeForwarded(v.w, v.r, view, fwd)
		v.done(Miss, made.Status, view.Age, nil)
	}
	return true
}

// loaded answers with a page that the Store had. It reports false where the visit
// has to be decided anew.
func (v *visit) loaded(p *page.Page) bool {
	s := v.site
	switch view := p.View(p.Effect(s.table), v.start); view.State {
	case page.Stale:
		s.runs.Join(v.request(), p, nil)
		fallthrough
	case page.Fresh:
		v.hit(p, view)
		return true
	}
	return false
}

// finds waits until a run has looked into the Store, where there is one, and
// reports whether there is a page now.
func (v *visit) finds(f *flight.Flight) bool {
	if f == nil || !f.WaitForStore(v.r.Context()) {
		return false
	}
	p, _ := v.site.cache.Get(&v.key, nil)
	return !p.IsUnknown()
}

// failed answers where the generation that the visitor has waited for failed:
// with the last good page if that may still be shown, else with the failure.
func (v *visit) failed(out *flight.Outcome, fwd header.CacheStatus) {
	fwd.FwdStatus = out.Status
	old := fwd
	old.Detail = "stale-if-error"
	if v.standIn(old, out.Err) {
		return
	}
	if out.Pattern != "" {
		v.r.Pattern = out.Pattern
	}
	v.done(Miss, out.Status, 0, out.Err)
	out.Repanic()
	v.fail(out.Status, out.Answer, fwd.String())
}

// pass hands the visitor's own request to the wrapped handler.
func (v *visit) pass(status string) { v.forward(respwriter.PassConfig{CacheStatus: status}) }

// passPrivate is pass for a request that the route did not send past the cache: what
// the handler says of its page, such as public, is not said of this answer.
func (v *visit) passPrivate(status string) {
	v.forward(respwriter.PassConfig{CacheStatus: status, Private: v.route != nil || !v.site.asksToPass(v.r)})
}

// passUnkeyed is passPrivate for a path or key that no page has.
func (v *visit) passUnkeyed(status string) {
	if v.route.PrerenderedOnly {
		v.notFound()
		return
	}
	v.passPrivate(status)
}

// asksToPass reports whether the Bypass of the request's route wants it past the
// cache, where it passes anyway.
func (s *Site) asksToPass(r *http.Request) bool {
	return r.URL.Opaque == "" && strings.HasPrefix(r.URL.Path, "/") && s.routeOf(r, "").AsksToPass(r)
}

// forward hands the visitor's own request to the wrapped handler.
func (v *visit) forward(c respwriter.PassConfig) {
	p := respwriter.NewPass(v.w, c)
	panicked := true
	defer func() {
		p.Finish(panicked)
		status := 0
		if c.OnSuccess != nil {
			status = p.Status()
		}
		v.done(Passed, status, 0, nil)
	}()
	v.site.handler.ServeHTTP(p.Writer(), v.r)
	panicked = false
}

// passUncacheable is pass for a page that may not be stored. Where the last good one
// stands by, it is shown where the handler fails.
func (v *visit) passUncacheable() {
	p, effect := v.site.cache.Get(&v.key, nil)
	if p.IsUnknown() || !p.View(effect, v.start).OnError {
		v.pass(fwdUncacheable)
		return
	}
	outer := v.w
	w := respwriter.NewStandby(outer, v.route.IsFailure)
	v.w = w.Writer()
	func() {
		defer func() {
			if e := recover(); e != nil && !w.Fail(fmt.Errorf("the handler panicked: %v", e)) {
				panic(e)
			}
		}()
		v.pass(fwdUncacheable)
	}()
	v.w = outer
	status, err := w.Finish()
	if err != nil && !v.standIn(header.CacheStatus{Fwd: "stale", FwdStatus: status, Detail: "stale-if-error"}, err) { // purged meanwhile
		v.fail(max(status, http.StatusInternalServerError), nil, fwdUncacheable)
	}
}

// notFound answers for a path that was never prerendered.
func (v *visit) notFound() {
	h := v.w.Header()
	header.SetNoStore(h)
	h.Add("Cache-Status", "isr; detail=not-prerendered")
	http.NotFound(v.w, v.r)
	v.done(Miss, http.StatusNotFound, 0, nil)
}

// placeholder answers while the page is being generated.
func (v *visit) placeholder() {
	v.w.Header().Add("Cache-Status", "isr; fwd=uri-miss; detail=placeholder")
	w := respwriter.NewNoStore(v.w)
	v.route.Placeholder.ServeHTTP(w, v.r)
	v.done(Miss, w.Finish(), 0, nil)
}

// fail answers with the handler's own error, or for want of one with a bare
// status. Neither is for keeping, by anyone.
func (v *visit) fail(status int, answer *flight.Answer, cacheStatus string) {
	h := v.w.Header()
	if answer != nil {
		header.Copy(h, answer.Header)
	}
	header.SetNoStore(h)
	if cacheStatus != "" {
		h.Add("Cache-Status", cacheStatus)
	}
	if answer == nil {
		http.Error(v.w, http.StatusText(status), status)
		return
	}
	v.w.WriteHeader(status)
	if v.r.Method != http.MethodHead {
		v.w.Write(answer.Body)
	}
}

// done reports what the visitor got.
func (v *visit) done(kind Kind, status int, age time.Duration, err error) {
	s := v.site
	s.counts[kind].Add(1)
	if s.observe == nil && (s.log == nil || !s.log.Enabled(v.r.Context(), slog.LevelDebug)) {
		return
	}
	pattern := ""
	if v.route != nil {
		pattern = v.route.Pattern
	}
	e := Event{
		Kind: kind, Host: cmp.Or(s.origin.Host, v.key.Host), Path: v.key.Path, Query: v.key.Query, Route: pattern,
		Tags: pagekey.PlainTags(v.tags), Status: status, Duration: time.Since(v.start), Err: err,
	}
	if e.Path == "" {
		e.Path = v.r.URL.EscapedPath()
	}
	if e.Host == "" {
		e.Host = pagekey.CleanHost(pagekey.SchemeOf(v.r), v.r.Host)
	}
	s.tell(e, age)
}

func (s *Site) addRoute(pattern string, r Route) {
	where := fmt.Sprintf("Options.Routes[%q]", pattern)
	defer func() {
		if v := recover(); v != nil {
			if msg, ok := v.(string); ok && strings.HasPrefix(msg, "isr: ") {
				panic(msg)
			}
			panic(fmt.Sprintf("isr: %s: %v", where, v))
		}
	}()
	rest := pattern
	if method, after, ok := strings.Cut(pattern, " "); ok {
		if method != http.MethodGet {
			panic(fmt.Sprintf("isr: %s: method %s: only GET has pages (and HEAD with it); leave the method out", where, method))
		}
		rest = strings.TrimLeft(after, " \t")
	}
	s.mux.Handle(pattern, http.NotFoundHandler())
	s.routes[pattern] = newRoute(where, pattern, r)
	s.hosts = s.hosts || !strings.HasPrefix(rest, "/")
}

func newRoute(where, pattern string, r Route) *policy.Route {
	complain := func(field string, value any, why string) {
		panic(fmt.Sprintf("isr: %s.%s: %v: %s", where, field, value, why))
	}
	if r.Timeout < 0 {
		complain("Timeout", r.Timeout, "negative; zero means 30s")
	}
	if r.Patience < 0 {
		complain("Patience", r.Patience, "negative; zero means that visitors wait")
	}
	for _, tag := range r.Tags {
		if err := pagekey.CheckTag(tag); err != nil {
			complain("Tags", fmt.Sprintf("%q", tag), err.Error())
		}
	}
	if strings.ContainsAny(r.CacheControl, "\r\n") {
		complain("CacheControl", fmt.Sprintf("%q", r.CacheControl), "has a line break")
	}
	ttl := cmp.Or(r.TTL, policy.Forever)
	rt := &policy.Route{
		Pattern:              pattern,
		TTL:                  ttl,
		StaleWhileRevalidate: cmp.Or(r.StaleWhileRevalidate, policy.Forever),
		StaleIfError:         cmp.Or(r.StaleIfError, policy.Forever),
		NotFoundTTL:          cmp.Or(r.NotFoundTTL, min(ttl, defaultNotFoundTTL)),
		Timeout:              cmp.Or(r.Timeout, defaultTimeout),
		Patience:             r.Patience,
		Tags:                 pagekey.FoldTags(slices.Clone(r.Tags)),
		CacheControl:         r.CacheControl,
		Failure:              r.Failure,
		Bypass:               r.Bypass,
		Placeholder:          r.Placeholder,
		PrerenderedOnly:      r.PrerenderedOnly,
	}

	ignore := r.IgnoreQuery
	if r.Query == nil && ignore == nil {
		ignore = TrackingParameters
	}
	var err error
	if rt.Rules, err = pagekey.NewRules(r.Query, ignore, r.Vary, r.VaryCookies, r.Normalize); err != nil {
		panic(fmt.Sprintf("isr: %s.%v", where, err))
	}
	return rt
}

// routeOf finds the route of the page that r asks for, whose path is path, by
// pagekey.CleanPath. One that is not clean, as it is empty, has the route of the path that
// a ServeMux would redirect it to.
func (s *Site) routeOf(r *http.Request, path string) *policy.Route {
	u := r.URL
	if path != "" && path != u.EscapedPath() {
		u = pagekey.URL(path, "")
	}
	return s.lookup(pagekey.CleanHost(pagekey.SchemeOf(r), r.Host), u)
}

// lookup finds the route of the pages at a URL, by the host that their keys have.
func (s *Site) lookup(host string, u *url.URL) *policy.Route {
	if len(s.routes) > 0 {
		r := &http.Request{Method: http.MethodGet, Host: cmp.Or(s.origin.Host, host), URL: u}
		if _, pattern := s.mux.Handler(r); pattern != "" {
			return s.routes[pattern]
		}
	}
	return s.other
}

func mustParseOrigin(s string) pagekey.Origin {
	o, err := pagekey.ParseOrigin(s)
	if err != nil {
		panic(fmt.Sprintf("isr: Options.Origin: %v", err))
	}
	return o
}

// Kind says what an [Event] is about.
type Kind int

const (
	Hit         Kind = iota // a visitor got a fresh page from memory
	StaleHit                // a visitor got a page from memory that is being renewed, or could not be
	Miss                    // a visitor waited for a generation, or got its failure, a placeholder, or the 404 of PrerenderedOnly
	Passed                  // a visitor's own request went to the handler
	Generated               // a page was generated, or renewed by a 304
	Failed                  // a generation failed
	Revalidated             // a path or tag was revalidated
	Purged                  // a path or tag was purged
	Evicted                 // a page had to go for others
	StoreFailed             // a second level did not do what it should
)

// String returns the kind in lower case.
func (k Kind) String() string {
	names := [...]string{"hit", "stale", "miss", "passed", "generated", "failed", "revalidated", "purged", "evicted", "store failed"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", int(k))
	}
	return names[k]
}

// An Event is one outcome, for Options.Observe. What visitors choose (Host, Path,
// Query) must not label metrics: there is no end to it.
type Event struct {
	Kind     Kind
	Host     string        // that of Origin, or of the page's key; empty for a path that was named without one
	Path     string        // escaped, without query, as the page's key has it, if there is one; of Revalidated and Purged the path, unless Tag is set
	Query    string        // of the page's key, or that was named; what is not for the cache has none
	Tag      string        // of Revalidated and Purged: the tag, instead of a path
	Route    string        // the pattern, which metrics may be labelled with; empty for the default route, and where none was looked for
	Tags     []string      // of the page, as in Page: read them only; of Failed those of the page that stays
	Status   int           // of the page, or of the failure; zero where that is not known
	Duration time.Duration // of a visit, or of a generation; else zero
	Changed  bool          // of Generated: whether status or body differ from the page that was replaced, if one was
	Err      error         // why it failed
}

// Stats are counts since [Wrap], and the state of affairs.
type Stats struct {
	Hits, Stale, Misses, Passed uint64 // visits, by what came of them; see Kind
	Generated, Failed           uint64 // generations
	Evicted                     uint64 // pages that had to go for others
	StoreErrors                 uint64 // of a second level
	Pages                       int    // in memory, hits-for-pass and what is gone but not yet forgotten included
	Generating                  int    // generations under way
	Bytes                       int64  // of Options.MaxBytes
}

// Stats returns a snapshot of the counts. It is cheap.
func (s *Site) Stats() Stats {
	count := func(k Kind) uint64 { return s.counts[k].Load() }
	out := Stats{
		Hits: count(Hit), Stale: count(StaleHit), Misses: count(Miss), Passed: count(Passed),
		Generated: count(Generated), Failed: count(Failed), Evicted: count(Evicted), StoreErrors: count(StoreFailed),
	}
	out.Pages, out.Bytes = s.cache.Size()
	out.Generating = s.runs.Running()
	return out
}

// report counts an event and tells it.
func (s *Site) report(e Event, more ...slog.Attr) {
	s.counts[e.Kind].Add(1)
	s.tell(e, 0, more...)
}

// tell passes an event on to Observe and, with more to say, to the Logger.
func (s *Site) tell(e Event, age time.Duration, more ...slog.Attr) {
	if s.observe != nil {
		s.observe(e)
	}
	level := slog.LevelDebug
	switch e.Kind {
	case Generated, Revalidated, Purged:
		level = slog.LevelInfo
	case Failed, StoreFailed:
		level = slog.LevelError
	}
	if s.log == nil || !s.log.Enabled(context.Background(), level) {
		return
	}
	what := slog.String("path", e.Path)
	if e.Tag != "" {
		what = slog.String("tag", e.Tag)
	}
	attrs := []slog.Attr{slog.String("outcome", e.Kind.String()), what, slog.String("route", e.Route)}
	if e.Status != 0 {
		attrs = append(attrs, slog.Int("status", e.Status))
	}
	switch e.Kind {
	case Hit, StaleHit:
		attrs = append(attrs, slog.Duration("age", age), slog.Duration("duration", e.Duration))
	case Miss, Passed, Generated, Failed:
		attrs = append(attrs, slog.Duration("duration", e.Duration))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	s.log.LogAttrs(context.Background(), level, "isr", append(attrs, more...)...)
}

// maxWarnings is how many warnings are given: a site behind a proxy may think of any
// number of reasons.
const maxWarnings = 1000

// A warning is one that is given once.
type warning struct {
	route *policy.Route
	why   string
}

// warn tells the developer why a page is not stored: as a warning, with the
// remedy, unless the route or handler asked for it.
func (s *Site) warn(rt *policy.Route, why policy.Refusal, path string) {
	if s.log == nil {
		return
	}
	level := slog.LevelDebug
	if why.Remedy != "" {
		w := warning{rt, why.Why}
		if _, given := s.warned.Load(w); !given && s.warnings.Add(1) <= maxWarnings {
			if _, given := s.warned.LoadOrStore(w, true); !given {
				level = slog.LevelWarn
			}
		}
	}
	s.log.Log(context.Background(), level, "isr: the page is not stored, because it "+why.Why,
		"path", path, "route", rt.Pattern, "remedy", why.Remedy)
}
