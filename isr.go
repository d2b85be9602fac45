// Package isr brings Incremental Static Regeneration to any [net/http] handler:
// its pages are generated once, then served from memory, and renewed in the
// background when they are stale.
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
// # Rules for the middleware around a Site
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
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/isr-go/isr/edge"
	"github.com/isr-go/isr/internal/backing"
	"github.com/isr-go/isr/internal/budget"
	"github.com/isr-go/isr/internal/builds"
	"github.com/isr-go/isr/internal/cache"
	"github.com/isr-go/isr/internal/compare"
	"github.com/isr-go/isr/internal/data"
	"github.com/isr-go/isr/internal/encode"
	"github.com/isr-go/isr/internal/expire"
	"github.com/isr-go/isr/internal/flight"
	"github.com/isr-go/isr/internal/front"
	"github.com/isr-go/isr/internal/header"
	"github.com/isr-go/isr/internal/invalidation"
	"github.com/isr-go/isr/internal/page"
	"github.com/isr-go/isr/internal/pagekey"
	"github.com/isr-go/isr/internal/policy"
	"github.com/isr-go/isr/internal/renew"
	"github.com/isr-go/isr/internal/routing"
	"github.com/isr-go/isr/internal/warning"
	"github.com/isr-go/isr/store"
)

// What a zero in Options means.
const (
	defaultMaxBytes     = 64 << 20
	defaultMaxPageBytes = 4 << 20
	generationsPerCPU   = 32 // of MaxGenerations
	renewalsPerCPU      = 4  // of MaxRegenerations
	defaultSharedMaxAge = time.Minute
)

// inherited is what befalls a page of another build.
var inherited = [...]store.Effect{InheritNothing: store.None, InheritOnError: store.Expired, InheritStale: store.Stale}

// Options configure a [Site]. The zero value keeps every page in at most 64 MiB
// of memory until it is revalidated on demand.
type Options struct {
	// Default is the route of the pages that no pattern in Routes matches.
	Default Route

	// Routes maps [net/http.ServeMux] patterns to routes. The best match alone
	// decides; nothing is inherited from Default or from a wider pattern. A
	// pattern may name a host, and no method but GET (which serves HEAD, too). In a
	// ServeMux a route can stand beside its handler instead: see With.
	Routes map[string]Route

	// Origin is the site's one public origin, such as "https://example.com".
	// With it, host and scheme are constant and no part of a page's key, and
	// Prerender and Revalidate take bare paths. If empty, they are the request's:
	// its Host, in lower case and without the scheme's own port or a dot at the end,
	// and https where the request came over TLS or with X-Forwarded-Proto: https.
	// Set it wherever visitors can reach the server under host names that are not
	// yours.
	Origin string

	// MaxBytes is how much memory the pages may take, overhead included.
	// Zero means 64 MiB.
	MaxBytes int64

	// MaxPageBytes is the size of the largest body that is stored. What is
	// larger is streamed on. Zero means 4 MiB, or MaxBytes where that is less.
	MaxPageBytes int64

	// MaxRegenerations is how many generations run at a time that no visitor waits
	// for: renewals of stale pages, and what Revalidate and Prerender ask for, in all
	// calls together. The others queue: what is asked for by name first, then stale pages,
	// those first that were asked for most within the last hour. Sixteen times as many stale
	// pages queue; the rest is renewed at a later visit. Zero means 4 × GOMAXPROCS. Visitors
	// who wait are never queued behind them. Pages behind a Placeholder have as many again,
	// so that they delay no renewal, and so have pages whose visitors have left.
	MaxRegenerations int

	// MaxGenerations is how many generations run at a time that visitors wait for.
	// Sixteen times as many queue, those of stored pages first. Visitors for whom there is
	// no room, or who have waited for Route.Timeout, get the old page where errors would
	// show it, else a 503 with Retry-After, those of unknown pages first. Zero means
	// 32 × GOMAXPROCS. A generation that asks the Site for another page, with its own
	// request's context, needs no second slot. Over HTTP it does, since it cannot be
	// recognized there: a site that fetches its own pages over loopback should bypass them.
	MaxGenerations int

	// SharedMaxAge is the longest s-maxage that is derived from a route's TTL. Shared
	// caches in front other than Edge do not learn of a purge: for so long they may show
	// a page after it was revalidated or purged. What the handler or Route.CacheControl
	// says instead is not bounded by it. Zero means 1 minute; less than zero means that
	// no s-maxage is derived, so that they ask each time.
	SharedMaxAge time.Duration

	// Edge, if not nil, is the cache in front of the Site, which can be told of an edit:
	// Varnish, nginx or a CDN; see package edge for what there is. It then holds pages for
	// as long as they are fresh, whatever SharedMaxAge is; for all others that holds as
	// before. Pages go out with their tags, in a field that the product keeps to itself; one
	// whose tags it does not take, private. What is invalidated is told to it after 0.1
	// seconds, when answers that were on their way have mostly arrived, or with a Store after
	// 1.2, when every instance has heard of it; and once more after the longest Timeout, at
	// least 30 seconds. What it has not taken is owed, and told again;
	// Revalidate, Purge and the like return the error meanwhile. What a request's Bypass lets
	// pass goes out unmarked. With an Edge, call Shutdown at the end of the Site.
	Edge edge.Edge

	// BaseContext, if not nil, returns what the contexts of page requests are made on: its
	// values are for all pages, and when it is done they are. It is called for each
	// generation, concurrently. Nil means context.Background.
	BaseContext func() context.Context

	// Trace, if not nil, is called when a generation begins, of a page or a value, with
	// what BaseContext returns, the context of the visit or call that has caused it, and
	// what is known of it. The page request's context is made on what Trace returns. That
	// must not be made on cause, which holds what is a visitor's: else it is not used. The
	// func, if not nil, is called once, at the end, with the event that Observe gets, or
	// with Passed where the response may not be stored. See metrics/otel.
	Trace func(ctx, cause context.Context, e Event) (context.Context, func(Event))

	// Encoders make encodings of the pages beside gzip, best first: see Encoder. Each is
	// called once a generation, where the body is one that compresses, and its encoding is
	// kept only where that is smaller than gzip's. Nil means gzip alone.
	Encoders []Encoder

	// Mode says whether pages are kept. Zero means On.
	Mode Mode

	// Store, if not nil, is a second level, behind the memory: one that makes pages
	// outlive a restart, or that the instances of a fleet share, so that each page
	// is generated once for all of them and a purge reaches them all. Its failures
	// cost time, but never a visitor's error, and never old data after a purge that
	// was acknowledged. With a Store, call Shutdown at the end of the Site. Nil means
	// memory only.
	Store store.Store

	// Version names this build's pages in the Store, so that one build is never served
	// what another has made, unless Inherit allows it. Tags and paths are the same for
	// all. Empty means the VCS revision that the Go command has recorded in the binary, if
	// any; builds of files that were not committed share that of the last commit. Programs
	// with different main packages share no page, whatever their Version; one that was built
	// of files (go run main.go) is known by its executable's name. Wrap reads it once.
	Version string

	// Inherit says what the pages are good for that other builds have left in the Store.
	// Zero means InheritNothing. Without a Store there are none.
	Inherit Inherit

	// Logger receives one line for each outcome: hits, stale hits, misses and
	// bypasses at Debug, regenerations and revalidations at Info, failures at
	// Error, and at Warn, once for each route and reason, what a developer can
	// fix. Paths are logged without their query. Nil means silence.
	Logger *slog.Logger

	// Observe, if not nil, is called after each outcome, on the goroutine that had
	// it, and concurrently with itself. It must not block: visitors may be waiting
	// for that goroutine.
	Observe func(Event)
}

// A Site is a wrapped handler and its pages. Make one with [Wrap]. Its methods
// are safe for concurrent use.
//
// Locks, outermost first: flight.Group.mu or invalidation.Table.compacting;
// cache.Cache.mu or that of backing's pending writes; invalidation.Table.mu;
// store.Versions.mu. All others are held alone: those of respwriter.Recorder, flight's
// contexts, guard's breakers, changed's limiters and front.Teller. Nothing calls a
// handler, a Store, an Edge, Observe, the Logger or a func of Options with any of them held.
type Site struct {
	handler  http.Handler
	mode     Mode
	origin   pagekey.Origin
	patterns pagekey.Patterns
	routes   *routing.Table

	log     *slog.Logger
	warn    *warning.Log
	observe func(Event)
	counts  [EdgeFailed + 1]atomic.Uint64

	table   *invalidation.Table
	cache   *cache.Cache
	backing *backing.Store // nil without a Store
	builds  *builds.Keeper // likewise
	front   *front.Teller  // nil without an Edge
	runs    *flight.Group
	data    *data.Loader
	watch   *compare.Watch // nil but in Develop
	renew   *renew.Renewer
	expire  *expire.Expirer
}

// Wrap returns a [Site] that serves the pages of h. It panics if h is nil, and
// where opts are invalid for every request: a malformed pattern, or one that is written
// as for another router (/posts/:id), a negative size or Timeout, an Origin, Vary or tag
// that is invalid.
func Wrap(h http.Handler, opts Options) *Site {
	if h == nil {
		panic("isr: Wrap: nil handler")
	}
	if opts.MaxBytes < 0 || opts.MaxPageBytes < 0 || opts.MaxRegenerations < 0 || opts.MaxGenerations < 0 {
		panic(fmt.Sprintf("isr: Options: negative MaxBytes (%d), MaxPageBytes (%d), MaxRegenerations (%d) or MaxGenerations (%d)",
			opts.MaxBytes, opts.MaxPageBytes, opts.MaxRegenerations, opts.MaxGenerations))
	}
	origin, err := pagekey.ParseOrigin(opts.Origin)
	if err != nil {
		panic(fmt.Sprintf("isr: Options.Origin: %v", err))
	}
	maxBytes := cmp.Or(opts.MaxBytes, defaultMaxBytes)
	limit := min(cmp.Or(opts.MaxPageBytes, defaultMaxPageBytes), maxBytes)
	s := &Site{
		handler: h, mode: opts.Mode, origin: origin, routes: newRoutes(h, origin, &opts),
		log: opts.Logger, warn: warning.New(opts.Logger), observe: opts.Observe,
	}
	regenerations := cmp.Or(opts.MaxRegenerations, renewalsPerCPU*runtime.GOMAXPROCS(0))
	s.patterns.Init(h)
	s.table = invalidation.New(max(maxBytes/8, invalidation.MinBytes), func(by *invalidation.Judgements) { s.cache.JudgeAll(by) }, s.warn.Overflow)
	slow := budget.New(max(limit, maxBytes/4))
	s.cache = cache.New(maxBytes, s.table, slow)
	if opts.Edge != nil && opts.Mode == On {
		s.openEdge(opts.Edge, maxBytes, opts.Store != nil)
	}
	if opts.Store != nil && opts.Mode == On {
		s.open(opts.Store, opts.Version)
	}
	s.runs = flight.NewGroup(flight.Config{
		Handler: h, Matches: s.routes.Matches, Origin: origin, Cache: s.cache, Table: s.table, Backing: s.backing, Builds: s.builds, Inherit: inherited[opts.Inherit], Mark: s.front.Marker(),
		Slow: slow, Writing: budget.New(max(limit, maxBytes/4)), MaxPageBytes: limit,
		Encodings:     encode.New(encode.Config{Cache: s.cache, Evicted: s.evicted, Failed: s.warn.EncoderFailed}, opts.Encoders),
		Generations:   cmp.Or(opts.MaxGenerations, generationsPerCPU*runtime.GOMAXPROCS(0)),
		Regenerations: regenerations,
		Ended:         s.ended, Evicted: s.evicted, Damaged: s.damaged, Late: s.warn.Late, Leaks: s.warn.Leaks, Log: s.log,
		Broke:    func(f *flight.Flight, out *flight.Outcome, took time.Duration) { s.broke(f, out, took) },
		TooLarge: func(f *flight.Flight) { s.warn.TooLargeForStore(f.Route, f.Key.Shown()) },
		Site:     s, BaseContext: opts.BaseContext, Trace: s.tracer(opts.Trace), Off: opts.Mode == Off, Anew: opts.Mode == Develop,
	})
	s.renew = &renew.Renewer{
		Runs: s.runs, Cache: s.cache, Table: s.table, Routes: s.routes, Origin: origin, Limit: regenerations, Off: s.mode == Off, Anew: s.mode == Develop, Log: s.log,
	}
	s.expire = expire.New(expire.Config{Runs: s.runs, Cache: s.cache, Table: s.table, Backing: s.backing, Front: s.front})
	tell := s.tellData
	if s.log == nil && s.observe == nil {
		tell = nil
	}
	s.data = data.New(s.runs, s.cache, s.table, opts.Mode == Develop, tell)
	s.watch = compare.New(opts.Mode == Develop && s.log != nil && s.log.Enabled(context.Background(), slog.LevelWarn), s.runs, h, s.warn)
	s.warnIfRemade(h)
	return s
}

// ServeHTTP answers a visitor: from memory where it can, from the wrapped
// handler where it must.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := visit{site: s, w: w, r: r, start: time.Now()}
	switch isGet := r.Method == http.MethodGet || r.Method == http.MethodHead; {
	case s.mode == Off:
		v.pass(header.Off)
		return
	case !isGet && header.IsUnsafe(r.Method):
		v.change()
		return
	case !isGet:
		v.pass(header.Method)
		return
	case !pagekey.HasPath(r):
		v.passPrivate(header.Bypass)
		return
	}
	path := r.URL.EscapedPath()
	byHost := s.routes.ByHost()
	at := s.cache.PathOf(r, path, byHost) // so that a hit need not look up its route
	var unclean error
	if at == nil {
		sent := path
		if path, unclean = pagekey.CleanPath(sent); unclean == nil && path != sent {
			at = s.cache.PathOf(r, path, byHost)
		}
	}
	if at != nil {
		v.route = at.Route
	} else {
		v.route = s.routes.Of(r, path)
	}
	switch {
	case v.route.AsksToPass(r):
		v.pass(header.Bypass)
	case v.route.IsAuthorized(r), !pagekey.HasPage(r):
		v.passKnown(path, unclean)
	case unclean != nil:
		v.passUnkeyed(header.Unclean)
	case !v.route.Rules.Fill(&v.key, r, path, s.origin, &s.patterns):
		v.passUnkeyed(header.TooLong)
	default:
		v.asked = s.table.Clock()
		for !v.answered(path, at) {
			at = nil // another may have taken its place
		}
	}
}

// answered answers with the page: from memory, or from the run that the visitor waits
// for. It reports false where what is stored has changed meanwhile: then the visit is
// decided again.
func (v *visit) answered(path string, at *page.Page) bool {
	p, effect := v.site.cache.Get(&v.key, at)
	view := p.View(effect, v.start)
	unknown := view.State == page.Absent
	switch {
	case v.site.mode == Develop:
		return v.wait(p)
	case view.State == page.Fresh:
		v.hit(p, view)
	case view.State == page.Uncacheable:
		v.passUncacheable()
	case view.State == page.Stale, view.State == page.Expired && view.OnError && v.site.runs.CannotRenew(p):
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

// request returns what to generate for the visitor.
func (v *visit) request() flight.Request {
	return flight.Request{Key: v.key, Route: v.route, Cause: v.r.Context()}
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
	v.done(kind, p.Serve(v.w, v.r, view, v.site.cache), view.Age, nil)
}
